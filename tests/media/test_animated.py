"""Animated WebP, PNG, AVIF and GIF are videos with the times that their files state; single pictures are images."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, features
from runs import curate, internal_json, rows_of

from core.errors import MediaError
from core.limits import Limits
from media.animated import media_type
from media.decode import raw_frames, read_frames
from media.image import read_image
from media.probe import probe_video
from media.stretch import Stretch

needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
MOVING = ["webp", "png", "apng", "gif", pytest.param("avif", marks=needs_avif)]
OF_PILLOW = ["webp", "png", pytest.param("avif", marks=needs_avif)]
SIZE = (64, 48)
LOSSLESS = {"webp": {"lossless": True}, "avif": {"quality": 100, "subsampling": "4:4:4"}}


def pictures(count: int, is_transparent: bool = False) -> list[Image.Image]:
    """Draw a ground whose red tells the number of the frame, and a white square that moves over it."""
    found = []
    for number in range(count):
        pixels = np.zeros((SIZE[1], SIZE[0], 4), np.uint8)
        pixels[:] = (10 * (number % 24), 100, 200, 255)
        pixels[4:12, (3 * number) % 52 : (3 * number) % 52 + 10, :3] = 255
        if is_transparent:
            pixels[24:, :32] = (255, 0, 0, 0)
        image = Image.fromarray(pixels)
        found.append(image if is_transparent else image.convert("RGB"))
    return found


def one_shot(path: Path) -> Path:
    """Write 90 frames in which a square goes to and fro: nothing that could be taken for a cut."""
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]]
    ground = np.stack([columns * 3, rows * 4, 90 + 0 * rows], axis=2).astype(np.uint8)
    frames = []
    for number in range(90):
        pixels = ground.copy()
        left = round(26 + 24 * np.sin(number / 10))
        pixels[16:28, left : left + 12] = 230
        pixels[number // 60, number % 60] = 255  # encoders merge frames that are equal
        frames.append(Image.fromarray(pixels))
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=40, loop=0, **LOSSLESS.get(path.suffix[1:], {})
    )
    return path


def animation(path: Path, count: int = 12, duration_ms: int | list[int] = 40, is_transparent: bool = False) -> Path:
    first, *others = pictures(count, is_transparent)
    kind = {"apng": "png"}.get(path.suffix[1:], path.suffix[1:])
    options = LOSSLESS.get(kind, {}) | ({"disposal": 2} if kind == "gif" else {})
    first.save(path, kind.upper(), save_all=True, append_images=others, duration=duration_ms, loop=0, **options)
    return path


@pytest.mark.parametrize("suffix", MOVING)
def test_facts_and_times_are_those_of_the_file(tmp_path, suffix):
    path = animation(tmp_path / f"a.{suffix}")
    assert media_type(path) == "video"
    facts, scan = probe_video(path)
    assert (facts.type, facts.width_px, facts.height_px, facts.declared_frames) == ("video", *SIZE, 12)
    assert facts.fps == pytest.approx(25) and not facts.is_vfr and not facts.has_audio
    assert facts.declared_duration_s == pytest.approx(0.48)
    frames = list(read_frames(Stretch(path, facts)))
    assert [frame.time_s for frame in frames] == pytest.approx([0.04 * i for i in range(12)])
    assert [frame.duration_s for frame in frames] == pytest.approx([0.04] * 12)
    assert len(scan.pts) == 12 and (scan.end_pts - scan.pts[0]) * facts.time_base == pytest.approx(0.48)
    for number, frame in enumerate(frames):
        assert np.abs(frame.rgb(None)[40, 60].astype(int) - (10 * number, 100, 200)).max() <= 4


@pytest.mark.parametrize("suffix", MOVING)
def test_frames_shown_for_different_times_keep_them(tmp_path, suffix):
    lengths_ms = [40] * 4 + [200] * 3 + [1000, 70]
    path = animation(tmp_path / f"a.{suffix}", 9, lengths_ms)
    facts, _ = probe_video(path)
    assert facts.is_vfr and facts.fps == pytest.approx(8 / 1.76)
    frames = list(read_frames(Stretch(path, facts)))
    assert [frame.time_s for frame in frames] == pytest.approx([sum(lengths_ms[:i]) / 1000 for i in range(9)])
    assert [frame.duration_s for frame in frames] == pytest.approx([ms / 1000 for ms in lengths_ms])


@pytest.mark.parametrize("suffix", ["webp", "png", "gif"])
def test_frames_without_a_length_are_shown_as_browsers_show_them(tmp_path, suffix):
    facts, _ = probe_video(animation(tmp_path / f"a.{suffix}", 6, 0))
    assert facts.fps == pytest.approx(10) and facts.declared_duration_s == pytest.approx(0.6)


@pytest.mark.parametrize("suffix", MOVING)
def test_what_is_transparent_lies_on_black_moving_or_not(tmp_path, suffix):
    path = animation(tmp_path / f"a.{suffix}", 5, is_transparent=True)
    facts, _ = probe_video(path)
    for raw in raw_frames(Stretch(path, facts)):
        pixels = raw.frame.to_ndarray(format="rgb24").astype(int)
        assert pixels[40, 10].max() <= 4 and np.abs(pixels[40, 60, 1:] - (100, 200)).max() <= 4
    still = tmp_path / f"still.{suffix}"
    kind = {"apng": "png"}.get(suffix, suffix)
    pictures(1, is_transparent=True)[0].save(still, kind.upper(), **LOSSLESS.get(kind, {}))
    assert read_image(still, 10**6)[40, 10].max() <= 4


@pytest.mark.parametrize("suffix", MOVING)
def test_a_single_picture_is_an_image(tmp_path, suffix):
    one = pictures(1)[0]
    path = tmp_path / f"a.{suffix}"
    one.save(path, {"apng": "png"}.get(suffix, suffix).upper())
    assert media_type(path) == "image"
    one.save(path, {"apng": "png"}.get(suffix, suffix).upper(), save_all=True)
    assert media_type(path) == "image"


def test_what_a_file_is_goes_before_what_it_is_called(tmp_path):
    """A picture service gives WebP whatever was asked for; files without a suffix are told by their first bytes."""
    animation(tmp_path / "a.webp").rename(tmp_path / "a.gif")
    animation(tmp_path / "a.png").rename(tmp_path / "none")
    pictures(1)[0].save(tmp_path / "b.jpg")
    (tmp_path / "b.jpg").rename(tmp_path / "b")
    (tmp_path / "c.jpg").write_bytes(b"no picture")
    assert [media_type(tmp_path / n) for n in ("a.gif", "none", "b", "c.jpg")] == ["video", "video", "image", "image"]
    assert probe_video(tmp_path / "a.gif")[0].codec == "webp"


@pytest.mark.parametrize("suffix", OF_PILLOW)
def test_a_stretch_is_what_the_whole_gives_there(tmp_path, suffix):
    path = animation(tmp_path / f"a.{suffix}", 20)
    facts, scan = probe_video(path)
    whole = [(raw.pts, raw.frame.to_ndarray(format="rgb24")) for raw in raw_frames(Stretch(path, facts))]
    assert [pts for pts, _ in whole] == scan.pts.tolist()
    beats: list[float] = []
    part = list(raw_frames(Stretch(path, facts, int(scan.pts[7]), int(scan.pts[15]), beats.append)))
    assert [raw.pts for raw in part] == scan.pts[7:15].tolist() and len(beats) == 7
    assert all((raw.frame.to_ndarray(format="rgb24") == whole[7 + i][1]).all() for i, raw in enumerate(part))


def test_the_still_picture_before_an_animation_is_no_frame_of_it(tmp_path):
    first, *others = pictures(6)
    path = tmp_path / "a.png"
    poster = Image.new("RGB", SIZE, (0, 255, 0))
    poster.save(path, "PNG", save_all=True, append_images=[first, *others], default_image=True, duration=50)
    facts, _ = probe_video(path)
    assert facts.declared_frames == 6 and facts.fps == pytest.approx(20)
    reds = [int(raw.frame.to_ndarray(format="rgb24")[40, 60, 0]) for raw in raw_frames(Stretch(path, facts))]
    assert reds == [0, 10, 20, 30, 40, 50]


@pytest.mark.parametrize("suffix", OF_PILLOW)
def test_limits_hold(tmp_path, suffix):
    path = animation(tmp_path / f"a.{suffix}", 12)
    with pytest.raises(MediaError, match="limits.max_pixels"):
        probe_video(path, limits=Limits(max_pixels=63 * 48))
    with pytest.raises(MediaError, match="limits.max_frames"):
        probe_video(path, limits=Limits(max_frames=11))
    with pytest.raises(MediaError, match="limits.max_duration_s"):
        probe_video(path, limits=Limits(max_duration_s=0.4))
    exact = Limits(max_pixels=64 * 48, max_frames=12, max_duration_s=0.5)
    assert probe_video(path, limits=exact)[0].declared_frames == 12


@pytest.mark.parametrize("suffix", OF_PILLOW)
@pytest.mark.parametrize("share", [0.03, 0.3, 0.6, 0.9])
def test_a_file_that_was_cut_short_says_so(tmp_path, suffix, share):
    """What is whole may come; that something is missing is never silent."""
    content = animation(tmp_path / f"a.{suffix}", 12).read_bytes()
    path = tmp_path / f"b.{suffix}"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(MediaError):
        facts, _ = probe_video(path)
        seen = [raw.pts for raw in raw_frames(Stretch(path, facts))]
        assert len(seen) == 12, "frames are missing and nothing was said"


def test_curate_makes_clips_of_animations_and_images_of_pictures(tmp_path):
    footage = tmp_path / "in"
    footage.mkdir()
    names = [f"a.{suffix}" for suffix in ("webp", "png", "gif", *(["avif"] if features.check("avif") else []))]
    for name in names:
        one_shot(footage / name)
        pictures(1)[0].save(footage / f"still.{name[2:]}")
    curate(footage, "rules={}", "operators.text_area=false", out=tmp_path / "out")
    rows = {row["source_path"]: row for row in rows_of(tmp_path / "out").values()}
    exported = {Path(item["file_path"]).name: item for item in internal_json(tmp_path / "out")}
    for name in names:
        row, still = rows[name], rows[f"still.{name[2:]}"]
        assert (row["type"], row["status"], row["source_num_frames"]) == ("video", "accepted", 90), row
        assert row["source_duration_s"] == pytest.approx(3.6) and row["fps"] == pytest.approx(25) and row["motion"] > 0
        assert (still["type"], still["status"]) == ("image", "accepted") and still["clip_path"].endswith(".jpg")
        count, first = row["num_frames"], row["start_frame"]
        assert count > 70
        item = exported[f"{row['clip_id']}.mp4"]
        assert (item["width"], item["height"], item["num_frames"]) == (*SIZE, count)
        assert item["fps"] == pytest.approx(25)
        with av.open(str(tmp_path / "out" / row["clip_path"])) as clip:
            frames = list(clip.decode(video=0))
        assert [frame.time for frame in frames] == pytest.approx([0.04 * i for i in range(count)], abs=1e-3)
        facts, _ = probe_video(footage / name)
        source = [raw.frame.to_ndarray(format="rgb24") for raw in raw_frames(Stretch(footage / name, facts))]
        for number in (0, count // 2, count - 1):
            shown = frames[number].to_ndarray(format="rgb24").astype(int)
            assert np.abs(shown - source[first + number]).mean() < 6
    assert json.loads((tmp_path / "out/run.json").read_text())["summary"]["failed"] == 0


@pytest.mark.parametrize("suffix", ["webp", "png"])
def test_what_no_container_of_clips_can_hold_is_transcoded_where_copies_are_asked_for(tmp_path, suffix):
    (tmp_path / "in").mkdir()
    one_shot(tmp_path / f"in/a.{suffix}")
    curate(tmp_path / "in", "rules={}", "operators.text_area=false", "cut.mode=copy", out=tmp_path / "out")
    (row,) = rows_of(tmp_path / "out").values()
    assert row["status"] == "accepted" and row["clip_path"].endswith(".mp4"), row["error"]
    assert row["clip_cut"] == "transcode" and row["clip_cut_fallback"]
    assert row["clip_num_frames"] == row["num_frames"] > 70
