"""Colours: what a file says of them, what is shown and scored, and what is written, against the equations of H.273."""

import warnings
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from drawn_colours import FULL, LIMITED, decoded, frame_of, patches, write_frames
from PIL import Image

from core.errors import MediaError
from media import planes
from media.colour import LUMA_WEIGHTS, YCGCO, settled
from media.decode import read_frames
from media.frame import PlanarFrame, RgbFrame
from media.image import read_image
from media.orientation import display_matrix, upright
from media.probe import probe_video
from media.settings import CutSettings
from media.stretch import Excerpt, Stretch
from media.types import SourceFacts, Span
from media.write import transcode
from operators.sharpness import laplacian_variance

MOST = 1.5
"""levels of 255 by which a channel may be off in the mean"""
LOSSLESS = {"rgb24": ("libx264rgb", {"qp": "0"})}
THREE = Span(0.0, 0.12, 0, 3)


def off(shown: np.ndarray, wanted: np.ndarray) -> float:
    """The mean error of the worst channel, away from edges, where chroma is shared by pixels of two colours."""
    assert shown.shape == wanted.shape
    kernel = np.ones((9, 9), np.uint8)
    wanted = wanted.astype(float)
    inside = (cv2.dilate(wanted, kernel) - cv2.erode(wanted, kernel)).max(axis=-1) < 25
    assert inside.mean() > 0.4
    return float(np.abs(shown - wanted)[inside].mean(axis=0).max())


def source(path: Path, pixel_format: str, matrix: int, color_range: int, **options) -> Path:
    codec, settings = LOSSLESS.get(pixel_format, ("ffv1", {}))
    frames = [frame_of(patches() / 255, pixel_format, matrix, color_range) for _ in range(3)]
    return write_frames(path, frames, codec, options=settings, **options)


def shown_and_written(path: Path, cut: CutSettings | None = None, box=None) -> tuple[np.ndarray, np.ndarray]:
    """The first frame as the analysis sees it, and as the clip file holds it; its tags are checked."""
    facts, _ = probe_video(path)
    cut = cut or CutSettings(crf=1, preset="ultrafast")
    transcode(Excerpt(path, facts, THREE), cut, box, path.parent / "clip.mp4")
    clip, frame = decoded(path.parent / "clip.mp4")
    assert frame.format.name == "yuv420p" and frame.color_range == LIMITED and frame.colorspace in LUMA_WEIGHTS
    return next(iter(read_frames(Stretch(path, facts)))).rgb(None), clip


@pytest.mark.parametrize(
    "pixel_format",
    ["yuv420p", "yuv422p", "yuv444p", "yuv440p", "yuv411p", "yuv420p10le", "yuv422p10le", "yuv444p12le", "rgb24",
     "gbrp10le"],
)  # fmt: skip
def test_every_matrix_range_and_depth_is_shown_and_written_as_drawn(tmp_path: Path, pixel_format: str) -> None:
    for matrix in LUMA_WEIGHTS:
        for color_range in (LIMITED, FULL):
            shown, clip = shown_and_written(source(tmp_path / "a.mkv", pixel_format, matrix, color_range))
            assert off(shown, patches()) <= MOST, (matrix, color_range)
            assert off(clip, patches()) <= MOST, (matrix, color_range)


@pytest.mark.parametrize("color_range", [LIMITED, FULL])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le", "yuv422p10le", "rgb24"])
@pytest.mark.parametrize(
    "turn, box, short_side_px, aspect",
    [
        ((90, False), None, None, None),
        ((270, True), None, None, None),
        ((0, False), (0.1, 0.1, 0.9, 0.9), None, None),  # by odd offsets
        ((0, False), None, 100, None),
        ((0, False), None, None, Fraction(4, 3)),
        ((90, True), (0.1, 0.1, 0.9, 0.9), 80, Fraction(3, 4)),
    ],
)
def test_reshaped_clips_keep_their_colours(
    tmp_path: Path, pixel_format: str, color_range: int, turn, box, short_side_px: int | None, aspect
) -> None:
    for matrix in (1, 5):
        path = source(
            tmp_path / "a.mkv",
            pixel_format,
            matrix,
            color_range,
            turn=display_matrix(turn[0], is_mirrored=turn[1]),
            sample_aspect=aspect,
        )
        cut = CutSettings(crf=1, preset="ultrafast", short_side_px=short_side_px)
        shown, clip = shown_and_written(path, cut, box)
        wanted = upright(patches(), turn[0], is_mirrored=turn[1])
        if aspect is not None:
            wanted = cv2.resize(wanted, shown.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        assert off(shown, wanted) <= MOST
        if box is not None:
            height, width = wanted.shape[:2]
            wanted = wanted[round(0.1 * height) : round(0.9 * height), round(0.1 * width) : round(0.9 * width)]
        if short_side_px is not None:
            wanted = cv2.resize(wanted, clip.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert off(clip, wanted[: clip.shape[0], : clip.shape[1]]) <= MOST


def test_rgb_is_written_as_bt709(tmp_path: Path) -> None:
    path = source(tmp_path / "a.mkv", "rgb24", 1, FULL)
    facts, _ = probe_video(path)
    transcode(Excerpt(path, facts, THREE), CutSettings(preset="ultrafast"), None, tmp_path / "clip.mp4")
    _, frame = decoded(tmp_path / "clip.mp4")
    assert (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range) == (1, 1, 1, LIMITED)


@pytest.mark.parametrize("size, matrix", [((192, 128), 6), ((1280, 160), 1), ((128, 720), 1), ((160, 576), 5)])
def test_untagged_video_is_read_as_players_do_and_tagged_so(tmp_path: Path, size, matrix: int) -> None:
    frames = [frame_of(patches(*size) / 255, "yuv420p", matrix, LIMITED) for _ in range(3)]
    for frame in frames:
        frame.colorspace, frame.color_range = 2, 0
    shown, clip = shown_and_written(write_frames(tmp_path / "a.mkv", frames))
    assert off(shown, patches(*size)) <= MOST and off(clip, patches(*size)) <= MOST
    assert decoded(tmp_path / "clip.mp4")[1].colorspace == matrix


@pytest.mark.parametrize("cut", [CutSettings(preset="ultrafast"), CutSettings(preset="ultrafast", short_side_px=64)])
def test_no_tag_ends_in_an_internal_error(tmp_path: Path, cut: CutSettings) -> None:
    """Also of reserved values; what cannot be converted is read as what is nearest to it."""
    for primaries, transfer, matrix in [
        *((1, 1, matrix) for matrix in range(18)),
        *((1, transfer, 1) for transfer in range(20)),
        *((primaries, 1, 1) for primaries in (0, 3, 13, 20, 22, 23, 200)),
        (9, 16, 14), (9, 18, 10), (9, 14, 10), (9, 1, 12), (9, 16, 2), (0, 0, 0), (200, 200, 200),
    ]:  # fmt: skip
        frames = [frame_of(patches() / 255, "yuv444p", 1, LIMITED) for _ in range(3)]
        options = {"preset": "ultrafast", "qp": "0"}
        path = write_frames(tmp_path / "a.mkv", frames, "libx264", options=options, tags=(primaries, transfer, matrix))
        try:
            shown, clip = shown_and_written(path, cut)
        except MediaError as error:
            assert "\n" not in str(error)
            continue
        assert shown.shape == (128, 192, 3) and clip.std() > 20
        if matrix in (1, 12) and primaries == 1 and transfer not in (16, 18):
            assert off(shown, patches()) <= MOST, (primaries, transfer, matrix)


@pytest.mark.parametrize("color_range", [LIMITED, FULL])
@pytest.mark.parametrize("bits", [8, 10])
def test_ycgco_is_converted_by_its_own_equations(color_range: int, bits: int) -> None:
    rgb, step = patches() / 255, 1 << bits - 8
    codes = rgb * ((1 << bits) - 1) if color_range == FULL else (219 * rgb + 16) * step
    r, g, b = np.moveaxis(codes, -1, 0)
    planes = (g / 2 + (r + b) / 4, g / 2 - (r + b) / 4 + 128 * step, (r - b) / 2 + 128 * step)
    frame = av.VideoFrame(192, 128, "yuv444p" if bits == 8 else "yuv444p10le")
    for plane, values in zip(frame.planes, planes, strict=True):
        line = np.frombuffer(plane, np.uint8 if bits == 8 else np.uint16).reshape(128, -1)
        line[:, :192] = np.clip(np.rint(values), 0, (1 << bits) - 1)
    frame.colorspace, frame.color_range = YCGCO, color_range
    assert off(settled(frame).to_ndarray(), patches()) <= 1.0


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv420p10le", "yuv444p12le", "yuv411p", "gbrp"])
def test_small_pictures_have_the_colours_of_the_frame(pixel_format: str) -> None:
    """Samples and previews are scaled as they are converted."""
    picture = patches(640, 360)
    for matrix in (1, 6, 9):
        for color_range in (LIMITED, FULL):
            frame = settled(frame_of(picture / 255, pixel_format, matrix, color_range))
            for size in ((320, 180), (400, 226), (256, 144), (640, 180)):
                wanted = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
                assert off(planes.rgb(frame, *size, 0), wanted) <= MOST, (matrix, color_range, size)


SIZES = [(640, 360), (852, 480), (1280, 720), (961, 541), (1278, 718), (1920, 1080)]


def test_one_picture_scores_alike_at_every_size_depth_and_range() -> None:
    """Where a size is halved to the one looked at, edges stay a little sharper than where pixels are divided."""
    large = cv2.resize(patches(480, 270), (1920, 1080), interpolation=cv2.INTER_CUBIC)
    levels, edges = [], []
    for size in SIZES:
        picture = cv2.resize(large, size, interpolation=cv2.INTER_AREA) / 255
        for pixel_format, color_range in [
            ("yuv420p", LIMITED), ("yuv420p", FULL), ("yuv422p10le", LIMITED), ("yuv444p12le", FULL), ("gbrp", FULL),
        ]:  # fmt: skip
            if size == (1920, 1080) and pixel_format not in ("yuv420p", "yuv422p10le"):
                continue  # nothing new, and slow to draw
            frame = settled(frame_of(picture, pixel_format, 1, color_range))
            seen = PlanarFrame(frame, SourceFacts("video", *size, "ffv1"), 0, 0.0, 0.0)
            gray = seen.gray(360)
            levels.append(gray.mean())
            edges.append(laplacian_variance(gray))
            assert seen.coarse().luma.mean() == pytest.approx(gray.mean(), rel=0.01)
    assert max(levels) / min(levels) < 1.005
    assert max(edges) / min(edges) < 1.5
    still = RgbFrame(cv2.resize(large, (1280, 720), interpolation=cv2.INTER_AREA), 0, 0.0, 0.0)
    assert still.gray(360).mean() == pytest.approx(np.mean(levels), rel=0.005), "a photo of the same scene, too"


@pytest.mark.parametrize("matrix", [1, 5])
def test_coarse_pictures_have_the_colours_of_the_frame(matrix: int) -> None:
    """They are the previews of clips too short for others."""
    frame = frame_of(patches(960, 540) / 255, "yuv420p", matrix, LIMITED)
    seen = PlanarFrame(frame, SourceFacts("video", 960, 540, "ffv1"), 0, 0.0, 0.0)
    small = seen.coarse().rgb()
    wanted = cv2.resize(patches(960, 540), small.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert off(small, wanted) <= 2.5
    rgb = RgbFrame(patches(960, 540), 0, 0.0, 0.0).coarse().rgb()
    assert off(rgb, wanted) <= 2.5


@pytest.mark.parametrize("color_range", [LIMITED, FULL])
@pytest.mark.parametrize("pixel_format", ["gray", "gray10le", "gray16le"])
def test_grey_video_is_read_by_its_range(pixel_format: str, color_range: int) -> None:
    bits = {"gray": 8, "gray10le": 10, "gray16le": 16}[pixel_format]
    ramp = np.tile(np.linspace(0, 1, 256), (64, 1))
    codes = ramp * ((1 << bits) - 1) if color_range == FULL else (219 * ramp + 16) * (1 << bits - 8)
    frame = av.VideoFrame.from_ndarray(np.rint(codes).astype(np.uint8 if bits == 8 else np.uint16), pixel_format)
    frame.color_range = color_range
    seen = PlanarFrame(settled(frame), SourceFacts("video", 256, 64, "av1"), 0, 0.0, 0.0)
    wanted = np.rint(ramp * 255)
    assert np.abs(seen.gray(None) - wanted).max() <= 1
    assert np.abs(seen.rgb(None) - wanted[..., None]).max() <= 2


@pytest.mark.parametrize("codec, suffix", [("qtrle", "mov"), ("png", "mov"), ("prores_ks", "mov"), ("gif", "gif")])
def test_transparency_of_videos_is_laid_on_black(tmp_path: Path, codec: str, suffix: str) -> None:
    """Half of the picture is a red of some opacity; where it is transparent, the file holds white."""
    alpha = 128 if codec != "gif" else 255
    rgba = np.full((64, 96, 4), (255, 255, 255, 0), np.uint8)
    rgba[:, :48] = (200, 40, 30, alpha)
    frame = av.VideoFrame.from_ndarray(rgba, format="rgba")
    wanted = {"qtrle": "argb", "png": "rgba", "prores_ks": "yuva444p10le", "gif": "bgra"}[codec]
    path = tmp_path / f"a.{suffix}"
    if codec == "gif":
        Image.fromarray(rgba).save(path, save_all=True, append_images=[Image.fromarray(rgba[::-1])], duration=40)
    else:
        write_frames(path, [frame.reformat(format=wanted, dst_colorspace=1) for _ in range(3)], codec)
    facts, _ = probe_video(path)
    seen = next(iter(read_frames(Stretch(path, facts)))).rgb(None)
    assert np.abs(seen[:, 52:].astype(int)).max() <= 3
    assert np.abs(seen[:, :44] - np.array([200, 40, 30]) * alpha / 255).mean() <= 3
    if codec != "gif":
        _, clip = shown_and_written(path)
        assert np.abs(clip[:, 56:]).mean() <= MOST
        assert np.abs(clip[:, :40] - np.array([200, 40, 30]) * alpha / 255).mean() <= 3


RAMP = np.tile(np.linspace(0, 1, 64), (16, 1))


@pytest.mark.parametrize(
    "name, values",
    [
        ("unit.tif", RAMP.astype(np.float32)),
        ("bytes.tif", (RAMP * 255).astype(np.float32)),
        ("words.tif", (RAMP * 65535).astype(np.float32)),
        ("light.tif", (RAMP * 3e5).astype(np.float32)),
        ("whole.tif", (RAMP * 65535).astype(np.int32)),
        ("deep.tif", np.rint(RAMP * 65535).astype(np.uint16)),
        ("deep.png", np.rint(RAMP * 65535).astype(np.uint16)),
    ],
)
def test_deep_grey_images_keep_their_levels(tmp_path: Path, name: str, values: np.ndarray) -> None:
    Image.fromarray(values).save(tmp_path / name)
    assert np.abs(read_image(tmp_path / name, 10**6) - RAMP[..., None] * 255).max() <= 1


def test_values_that_are_no_numbers_do_not_blacken_the_picture(tmp_path: Path) -> None:
    values = RAMP.astype(np.float32)
    values[0, :3] = np.nan, np.inf, -4.0
    Image.fromarray(values).save(tmp_path / "a.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = read_image(tmp_path / "a.tif", 10**6)
    assert pixels[0, :3, 0].tolist() == [0, 255, 0]
    assert np.abs(pixels[1:] - RAMP[1:, :, None] * 255).max() <= 1


def test_a_dark_deep_picture_stays_dark(tmp_path: Path) -> None:
    Image.fromarray((RAMP * 250).astype(np.uint16)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", 10**6).max() <= 1


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif", "la.png", "la.tif", "palette.png"])
def test_transparency_of_images_is_laid_on_black(tmp_path: Path, name: str) -> None:
    picture = Image.fromarray(np.rint(RAMP * 255).astype(np.uint8)).convert("RGB")
    opacity = Image.new("L", picture.size, 128)
    options = {"lossless": True} if name.endswith("webp") else {}
    if name.startswith("la"):
        picture = Image.merge("LA", (picture.convert("L"), opacity))
    elif name.startswith("palette"):
        picture, options = picture.quantize(64), {"transparency": bytes([128] * 64)}
    else:
        picture.putalpha(opacity)
    picture.save(tmp_path / name, **options)
    assert np.abs(read_image(tmp_path / name, 10**6) - RAMP[..., None] * 128).max() <= 4


@pytest.mark.parametrize("name, mode", [("a.png", "1"), ("a.tif", "1"), ("a.jpg", "CMYK"), ("a.tif", "CMYK")])
def test_one_bit_and_print_colours_are_read(tmp_path: Path, name: str, mode: str) -> None:
    picture = Image.fromarray(patches()).convert(mode, **({"dither": Image.Dither.NONE} if mode == "1" else {}))
    picture.save(tmp_path / name, **({"quality": 98} if name.endswith("jpg") else {}))
    wanted = np.asarray(picture.convert("RGB"))
    assert np.abs(read_image(tmp_path / name, 10**6).astype(int) - wanted).mean() <= MOST
