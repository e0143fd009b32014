"""Interlaced footage: found by its flags or by its looks, deinterlaced for all, and nothing else taken for it."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_colours import LIMITED, frame_of, moving_bars, woven, write_frames, write_rgb

from core.errors import MediaError
from media.combing import combed_share, judged, luma_of, verdicts
from media.decode import read_frames
from media.deinterlace import deinterlaced
from media.probe import probe_video
from media.settings import CutSettings
from media.stream_decoder import Damage, RawFrame
from media.stretch import Excerpt, Stretch
from media.timeline import Clock
from media.types import SourceFacts, Span
from media.write import transcode
from operators.facts import facts_columns

FRAMES = 30
NO_FACTS = SourceFacts("video", 320, 240, "h264")
FIELDS = [moving_bars(i / 2) for i in range(2 * FRAMES)]


def is_field(seen: np.ndarray, number: int) -> bool:
    """Return whether a picture is the one that was drawn for this field, and not one of a neighbouring time."""
    errors = [np.abs(seen.astype(int) - FIELDS[n][..., 0]).mean() for n in range(max(0, number - 3), number + 4)
              if n < len(FIELDS)]  # fmt: skip
    return int(np.argmin(errors)) == number - max(0, number - 3) and min(errors) < 6


@pytest.mark.parametrize("order", ["tff", "bff"])
@pytest.mark.parametrize("flagged", [True, False])
def test_fields_become_pictures_of_the_right_time(tmp_path: Path, order: str, flagged: bool) -> None:
    options = {"preset": "ultrafast", "crf": "12"} | ({"x264-params": f"{order}=1"} if flagged else {})
    path = write_rgb(tmp_path / "a.mp4", woven(FIELDS, order), options=options)
    facts, _ = probe_video(path)
    assert facts.interlaced == facts_columns(facts)["interlaced"] == order
    seen = list(read_frames(Stretch(path, facts)))
    assert [f.time_s for f in seen] == [pytest.approx(i / 25) for i in range(FRAMES)]
    grays = [f.gray(None) for f in seen]
    assert combed_share(luma_of(frame_of(woven(FIELDS, order)[7] / 255, "yuv420p", 1, LIMITED))) > 0.02
    assert max(combed_share(gray) for gray in grays) < 0.001
    assert all(is_field(gray, 2 * i) for i, gray in enumerate(grays))
    assert all(abs(int(f.coarse().luma.mean()) - int(g.mean())) < 3 for f, g in zip(seen, grays, strict=True))


@pytest.mark.parametrize("codec, suffix, options", [
    ("mpeg2video", "mpg", {"flags": "+ildct+ilme", "top": "1", "b": "8M"}),
    ("mpeg2video", "ts", {"flags": "+ildct+ilme", "top": "0", "b": "8M"}),
    ("mpeg4", "avi", {"flags": "+ildct+ilme", "top": "1", "b": "8M"}),
    ("ffv1", "mkv", {}),
    ("mjpeg", "avi", {"q": "2"}),
])  # fmt: skip
def test_other_codecs(tmp_path: Path, codec: str, suffix: str, options: dict[str, str]) -> None:
    order = "bff" if options.get("top") == "0" else "tff"
    frames = [frame_of(p / 255, "yuvj420p" if codec == "mjpeg" else "yuv420p", 6, 2 if codec == "mjpeg" else LIMITED)
              for p in woven(FIELDS, order)]  # fmt: skip
    path = write_frames(tmp_path / f"a.{suffix}", frames, codec, options=options)
    facts, _ = probe_video(path)
    assert facts.interlaced == order
    grays = [f.gray(None) for f in read_frames(Stretch(path, facts))]
    assert len(grays) == FRAMES
    assert max(combed_share(gray) for gray in grays) < 0.002
    assert sum(is_field(gray, 2 * i) for i, gray in enumerate(grays)) >= FRAMES - 1


def test_pieces_of_a_source_hold_the_frames_of_the_whole(tmp_path: Path) -> None:
    options = {"preset": "ultrafast", "crf": "12", "g": "10", "x264-params": "scenecut=0"}
    path = write_rgb(tmp_path / "a.mp4", woven(FIELDS, "tff"), options=options)
    facts, scan = probe_video(path)
    borders = [None, *scan.key_pts[1:].tolist(), None]
    assert len(borders) == 4
    pieces = [list(read_frames(Stretch(path, facts, a, b))) for a, b in zip(borders, borders[1:], strict=False)]
    assert [len(piece) for piece in pieces] == [10, 10, 10]
    joined = [frame for piece in pieces for frame in piece]
    assert [f.time_s for f in joined] == [pytest.approx(i / 25) for i in range(FRAMES)]
    assert all(is_field(f.gray(None), 2 * i) for i, f in enumerate(joined))


@pytest.mark.parametrize("cut, width", [(CutSettings(crf=8), 320), (CutSettings(crf=8, short_side_px=120), 160)])
def test_clips_are_deinterlaced_frame_for_frame(tmp_path: Path, cut: CutSettings, width: int) -> None:
    path = write_rgb(tmp_path / "a.mp4", woven(FIELDS, "bff"))
    facts, _ = probe_video(path)
    written = transcode(Excerpt(path, facts, Span(0.2, 0.8, 5, 15)), cut, None, tmp_path / "clip.mp4")
    assert (written.num_frames, written.width_px) == (15, width)
    clip, _ = probe_video(tmp_path / "clip.mp4")
    assert clip.interlaced == "progressive"
    if width == 320:
        seen = list(read_frames(Stretch(tmp_path / "clip.mp4", clip)))
        assert all(is_field(f.gray(None), 2 * (5 + i)) for i, f in enumerate(seen))


def test_all_frames_before_damage_are_given() -> None:
    pictures = woven(FIELDS, "tff")[:4]

    def damaged():
        for index, picture in enumerate(pictures):
            frame = frame_of(picture / 255, "yuv420p", 1, LIMITED)
            frame.pts = None  # some containers have none
            yield RawFrame(frame, index, 0, NO_FACTS)
        raise MediaError("damaged", 0.16)

    given = []
    with pytest.raises(MediaError, match="damaged"):
        for raw in deinterlaced(damaged(), "tff"):
            given.append(raw.pts)
    assert given == [0, 1, 2, 3]


def test_sizes_may_change_between_frames() -> None:
    pictures = [*woven(FIELDS, "tff")[:3], *(p[:120, :160] for p in woven(FIELDS, "tff")[3:5])]
    frames = [RawFrame(frame_of(p / 255, "yuv420p", 1, LIMITED), i, 1, NO_FACTS) for i, p in enumerate(pictures)]
    given = [(raw.frame.width, raw.pts) for raw in deinterlaced(iter(frames), "tff")]
    assert given == [(320, 0), (320, 1), (320, 2), (160, 3), (160, 4)]
    hole = Damage(2, 3, "damaged")
    assert list(deinterlaced(iter([*frames[:2], hole, *frames[3:]]), "tff"))[2] is hole


Y, X = np.mgrid[0:240, 0:320]


def lines(values: np.ndarray) -> np.ndarray:
    return np.repeat(np.where(values, 220, 30)[..., None], 3, axis=2).astype(np.uint8)


def text(shift: tuple[int, int]) -> np.ndarray:
    page = np.zeros((240, 320, 3), np.uint8)
    for row in range(14):
        cv2.putText(page, "The quick brown fox 0123", (0, 12 + 17 * row), cv2.FONT_HERSHEY_PLAIN, 0.9, (255,) * 3, 1)
    return np.roll(page, shift, (0, 1))


def telecined() -> list[np.ndarray]:
    """Film of 24 pictures in 30 frames, two of five of which hold two pictures (2:3 pulldown)."""
    film, frames = [moving_bars(i * 1.25) for i in range(24)], []
    for a, b, c, d in zip(*(film[i::4] for i in range(4)), strict=True):
        for top, bottom in ((a, a), (b, b), (b, c), (c, d), (d, d)):
            frame = bottom.copy()
            frame[::2] = top[::2]
            frames.append(frame)
    return frames


@pytest.mark.parametrize("draw", [
    lambda i: moving_bars(i),
    lambda i: moving_bars(i, step_px=25),
    lambda i: lines(Y % 2 == 0),
    lambda i: lines((Y + i) % 2 == 0),
    lambda i: lines((Y + i) // 2 % 2 == 0),
    lambda i: lines((Y % 2 == 0) & ((X - 8 * i) // 40 % 2 == 0)),
    lambda i: lines((Y + X // 3 + i) % 2 == 0),
    lambda i: lines((Y + X + i) % 2 == 0),
    lambda i: lines((Y + 2 * i) % 4 == 0),
    lambda i: text((-i, 0)),
    lambda i: text((0, -3 * i)),
    lambda i: np.clip(moving_bars(i) + np.random.default_rng(i).normal(0, 15, (240, 320, 3)), 0, 255),
    lambda i: telecined()[i],
], ids=["bars", "fast", "stripes", "stripes-up", "stripes-2", "stripes-masked", "stripes-slanted", "checker", "grid",
        "text-up", "text-left", "noise", "telecined"])  # fmt: skip
def test_fine_detail_is_not_taken_for_fields(draw) -> None:
    lumas = [luma_of(frame_of(np.asarray(draw(i)) / 255, "yuv420p", 1, LIMITED)) for i in range(12)]
    assert judged(verdicts(lumas)) == "progressive"


def test_the_real_files_are_progressive(shared_videos: Path) -> None:
    """All that are in the folder; none of them was shot interlaced."""
    found = {}
    for path in sorted(shared_videos.iterdir()):
        if path.suffix in (".mp4", ".mkv", ".webm", ".mov", ".avi"):
            try:
                found[path.name] = probe_video(path)[0].interlaced
            except MediaError:
                continue
    assert len(found) > 25
    assert {name for name, kind in found.items() if kind != "progressive"} == set()


def test_reading_on_from_the_middle_is_as_exact(tmp_path: Path) -> None:
    path = write_rgb(tmp_path / "a.mp4", woven(FIELDS, "tff"))
    facts, _ = probe_video(path)
    start = Clock.of(facts).pts(0.4)
    assert is_field(next(iter(read_frames(Stretch(path, facts, start)))).gray(None), 20)
