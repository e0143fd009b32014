"""All eight orientations: in decoding, small views, clips, copies and still images."""

from pathlib import Path

import av
import numpy as np
import pytest
from drawn_colours import LIMITED, decoded, frame_of, write_frames
from PIL import Image

from media.decode import read_frames
from media.image import read_image
from media.orientation import display_matrix, orientation_of, orientation_of_matrix, upright
from media.probe import probe_video
from media.settings import CutSettings
from media.stream_copy import copy_streams
from media.stretch import Excerpt, Stretch
from media.types import Span
from media.write import transcode, write_image

EIGHT = [(turn, mirrored) for mirrored in (False, True) for turn in (0, 90, 180, 270)]
BY_EXIF = {
    1: (0, False), 2: (0, True), 3: (180, False), 4: (180, True), 5: (270, True), 6: (90, False), 7: (90, True),
    8: (270, False),
}  # fmt: skip
SPAN = Span(0.0, 0.4, 0, 10)


def picture() -> np.ndarray:
    """A picture without symmetry, uint8 (64, 96, 3)."""
    tiles = np.random.default_rng(5).integers(40, 220, (4, 6))
    return np.repeat(np.kron(tiles, np.ones((16, 16)))[..., None], 3, axis=2).astype(np.uint8)


def turned(path: Path, turn: int, mirrored: bool) -> Path:
    frames = [frame_of(picture() / 255, "yuv420p", 1, LIMITED) for _ in range(10)]
    options = {"preset": "ultrafast", "crf": "8"}
    return write_frames(path, frames, "libx264", options=options, turn=display_matrix(turn, is_mirrored=mirrored))


def same(shown: np.ndarray, wanted: np.ndarray) -> bool:
    return shown.shape == wanted.shape and float(np.abs(shown.astype(float) - wanted).mean()) < 4


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("turn, mirrored", EIGHT)
def test_videos_are_shown_written_and_copied_upright(tmp_path: Path, suffix: str, turn: int, mirrored: bool) -> None:
    path = turned(tmp_path / f"a.{suffix}", turn, mirrored)
    facts, _ = probe_video(path)
    wanted = upright(picture(), turn, is_mirrored=mirrored)
    assert (facts.rotation_deg, facts.is_mirrored) == (turn, mirrored)
    assert (facts.height_px, facts.width_px) == wanted.shape[:2]
    frame = next(iter(read_frames(Stretch(path, facts))))
    assert same(frame.rgb(None), wanted) and same(frame.gray(None), wanted[..., 0])
    assert same(frame.coarse().luma, wanted[..., 0])
    assert frame.gray(16).shape == (wanted.shape[0] // 4, wanted.shape[1] // 4)
    assert same(frame.gray(16), wanted[2::4, 2::4, 0]) and same(frame.rgb(16), wanted[2::4, 2::4])
    transcode(Excerpt(path, facts, SPAN), CutSettings(crf=8, preset="ultrafast"), None, tmp_path / "clip.mp4")
    clip, written = decoded(tmp_path / "clip.mp4")
    assert same(clip, wanted) and orientation_of(written) == (0, False)
    copy_streams(Excerpt(path, facts, SPAN), tmp_path / "copy.mp4")
    copied, _ = probe_video(tmp_path / "copy.mp4")
    assert (copied.rotation_deg, copied.is_mirrored) == (turn, mirrored)
    assert same(next(iter(read_frames(Stretch(tmp_path / "copy.mp4", copied)))).rgb(None), wanted)


@pytest.mark.parametrize("turn, mirrored", EIGHT)
def test_decord_shows_them_upright_too(tmp_path: Path, turn: int, mirrored: bool) -> None:
    pytest.importorskip("decord")
    from media.decord_reader import read_frames_decord

    path = turned(tmp_path / "a.mp4", turn, mirrored)
    facts, _ = probe_video(path)
    assert same(
        next(iter(read_frames_decord(Stretch(path, facts)))).gray(None),
        upright(picture(), turn, is_mirrored=mirrored)[..., 0],
    )


@pytest.mark.parametrize("degrees", range(-180, 180, 10))
@pytest.mark.parametrize("mirrored", [False, True])
def test_odd_angles_go_to_the_nearest_right_one(degrees: int, mirrored: bool) -> None:
    """FFmpeg's own matrices, which it gives clockwise, mirrored after the turn."""
    container = av.open("/dev/null", "w", format="mp4")
    stream = container.add_stream("libx264")
    assert hasattr(stream, "set_display_rotation")
    radians = np.deg2rad(degrees)
    cosine, sine = np.cos(radians), np.sin(radians)
    side = -1 if mirrored else 1
    matrix = [side * cosine, side * sine, 0, -sine, cosine, 0, 0, 0, 1]
    found = orientation_of_matrix(tuple(round(v * 65536) for v in matrix))
    assert found == (round(degrees / 90) * 90 % 360, mirrored)


@pytest.mark.parametrize("turn, mirrored", EIGHT)
def test_a_matrix_says_what_it_was_made_of(turn: int, mirrored: bool) -> None:
    assert orientation_of_matrix(tuple(display_matrix(turn, is_mirrored=mirrored))) == (turn, mirrored)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", BY_EXIF)
def test_images_are_turned_as_their_exif_says(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"jpg": {"quality": 95}, "webp": {"lossless": True}}.get(suffix, {})
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(picture()).save(path, exif=exif, **options)
    turn, is_mirrored = BY_EXIF[orientation]
    wanted = upright(picture(), turn, is_mirrored=is_mirrored)
    pixels = read_image(path, 10**6)
    assert same(pixels, wanted)
    from media.image import image_facts

    written = write_image(path, image_facts(path, pixels), CutSettings(), None, 10**6, tmp_path / "clip.jpg")
    with Image.open(tmp_path / "clip.jpg") as image:
        assert image.getexif().get(0x0112, 1) == 1
        assert same(np.asarray(image), wanted)
    assert (written.height_px, written.width_px) == wanted.shape[:2]
