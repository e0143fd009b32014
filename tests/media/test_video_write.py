"""Clips as they were asked for: copies that decode, constant rates, cropped bars, small sizes."""

from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest

from core.errors import MediaError, OutputError
from demo.drawing import pan, write_video
from demo.landscapes import scene
from media import stream_copy, write
from media.decode import Clock, read_frames
from media.probe import probe_video
from media.settings import CutSettings
from media.stream_copy import copy_streams
from media.stream_decoder import RawFrame
from media.stretch import Excerpt, Stretch
from media.types import Span
from media.write import transcode


def decoded(path: Path) -> list[tuple[float, np.ndarray]]:
    with av.open(str(path)) as container:
        return [(f.time, f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]


def draw(path: Path, **options) -> Path:
    frames = pan(scene(4, 900, 360)[:180], 10.0, 100, 25)
    write_video(path, (f[:180, :320] for f in frames), 25, **options)
    return path


def near(a: np.ndarray, b: np.ndarray) -> bool:
    return float(np.abs(a.astype(float) - b).mean()) < 4


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_copy_begins_at_a_keyframe_and_holds_just_its_span(tmp_path: Path, suffix: str) -> None:
    options = {"preset": "medium", "g": "20", "bf": "2", "x264-params": "scenecut=0"}
    source = draw(tmp_path / f"a.{suffix}", options=options)
    facts, _ = probe_video(source)
    written = copy_streams(Excerpt(source, facts, Span(0.48, 3.48, 12, 75)), tmp_path / "copy.mp4")
    frames = decoded(tmp_path / "copy.mp4")
    kept = written.span
    assert kept.start_s == pytest.approx(0.8) and kept.end_s <= 3.48 + 1e-6
    assert len(frames) == written.num_frames == kept.num_frames
    assert kept.duration_s == pytest.approx(len(frames) / 25, abs=1e-3)
    clock = Clock.of(facts)
    read = [f.rgb(None) for f in read_frames(Stretch(source, facts, clock.pts(kept.start_s), clock.pts(kept.end_s)))]
    assert len(read) == len(frames)
    assert all(near(a, b) for a, (_, b) in zip(read, frames, strict=True))


def test_a_span_without_keyframe_cannot_be_copied(tmp_path: Path) -> None:
    source = draw(tmp_path / "a.mp4", options={"g": "250", "x264-params": "scenecut=0"})
    facts, _ = probe_video(source)
    with pytest.raises(MediaError, match="no keyframe"):
        copy_streams(Excerpt(source, facts, Span(1.0, 3.0, 25, 50)), tmp_path / "copy.mp4")
    assert not list(tmp_path.glob("*copy*"))


def test_a_copy_counts_the_frames_that_are_shown(shared_videos: Path, tmp_path: Path) -> None:
    """VP9 hides reference frames, which this file holds as packets of their own."""
    source = shared_videos / "androidx-media__roadtrip-vp92-10bit.webm"
    facts, scan = probe_video(source)
    frames = list(read_frames(Stretch(source, facts)))
    with av.open(str(source)) as container:
        assert sum(p.size > 0 for p in container.demux(video=0)) > len(frames) == len(scan.pts)
    span = Span(0.0, frames[-1].time_s + frames[-1].duration_s, 0, len(frames))
    written = copy_streams(Excerpt(source, facts, span), tmp_path / "copy.mp4")
    assert written.num_frames == written.span.num_frames == len(decoded(tmp_path / "copy.mp4")) == len(frames)


@pytest.mark.parametrize("write_clip", ["copy", "transcode"])
def test_a_full_disk_is_not_the_clips_fault(tmp_path: Path, write_clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = draw(tmp_path / "a.mp4")
    facts, _ = probe_video(source)
    for module in (write, stream_copy):
        monkeypatch.setattr(module, "writing", lambda *_: av.open("/dev/full", "w", format="mp4"))
    span = Span(0.0, 4.0, 0, 100)
    with pytest.raises(OutputError, match="space"):
        if write_clip == "copy":
            copy_streams(Excerpt(source, facts, span), tmp_path / "t.mp4")
        else:
            transcode(Excerpt(source, facts, span), CutSettings(), None, tmp_path / "t.mp4")
    assert not list(tmp_path.glob("*t.mp4"))


def test_damage_that_shows_in_the_copy_alone_fails_it(tmp_path: Path) -> None:
    """The packets are there, in number; that they decode, nobody has looked at yet."""
    source = draw(tmp_path / "a.mp4", options={"preset": "ultrafast", "g": "20", "x264-params": "scenecut=0"})
    facts, _ = probe_video(source)
    with av.open(str(source)) as container:
        packet = [p for p in container.demux(video=0) if p.pts is not None][50]
        at, size = packet.pos, packet.size
    data = bytearray(source.read_bytes())
    data[at + size // 4 : at + size * 3 // 4] = bytes(size * 3 // 4 - size // 4)
    source.write_bytes(data)
    with pytest.raises(MediaError, match="does not decode"):
        copy_streams(Excerpt(source, facts, Span(0.0, 4.0, 0, 100)), tmp_path / "copy.mp4")
    assert not list(tmp_path.glob("*copy*"))


def test_a_copy_states_the_pixels_that_it_has(tmp_path: Path) -> None:
    source = draw(tmp_path / "a.mp4", sample_aspect=Fraction(4, 3))
    facts, _ = probe_video(source)
    written = copy_streams(Excerpt(source, facts, Span(0.0, 4.0, 0, 100)), tmp_path / "copy.mp4")
    assert (facts.width_px, written.width_px) == (427, 320)
    assert decoded(tmp_path / "copy.mp4")[0][1].shape[:2] == (written.height_px, written.width_px)


@pytest.mark.parametrize("ticks_per_s", [10_000_000, 90_000, 1_000])
def test_every_span_is_written_whole_however_fine_the_ticks(tmp_path: Path, ticks_per_s: int) -> None:
    """Spans are kept to the microsecond, a tick of which some files have ten."""
    frames = pan(scene(4, 900, 360)[:180], 60.0, 30, 30000 / 1001)
    source = tmp_path / "a.mp4"
    write_in_ticks(source, [f[:96, :160] for f in frames], ticks_per_s)
    facts, _ = probe_video(source)
    read = list(read_frames(Stretch(source, facts)))
    assert facts.time_base == 1 / ticks_per_s and len(read) == 30
    for first in range(0, 27, 4):
        span = Span(read[first].time_s, read[first + 3].time_s, first, 3)
        transcode(Excerpt(source, facts, span), CutSettings(preset="ultrafast"), None, tmp_path / "t.mp4")
        written = [pixels.astype(float) for _, pixels in decoded(tmp_path / "t.mp4")]
        apart = [[float(np.abs(f.rgb(None) - w).mean()) for f in read] for w in written]
        assert [int(np.argmin(row)) for row in apart] == [first, first + 1, first + 2]


def test_a_clip_across_the_seam_of_joined_files_holds_every_frame(tmp_path: Path) -> None:
    """A Matroska file behind another one: the clock starts anew, the timeline does not."""
    source = draw(tmp_path / "a.mkv")
    source.write_bytes(source.read_bytes() * 2)
    facts, _ = probe_video(source)
    read = list(read_frames(Stretch(source, facts)))
    assert [f.time_s for f in read] == [round(i / 25, 6) for i in range(200)]
    span, cut = Span(3.6, 4.4, 90, 20), CutSettings(preset="ultrafast")
    written = transcode(Excerpt(source, facts, span), cut, None, tmp_path / "t.mp4")
    times, frames = zip(*decoded(tmp_path / "t.mp4"), strict=True)
    assert written.num_frames == len(frames) == 20
    assert np.abs(frames[12].astype(int) - read[102].rgb(None)).mean() < 3


def test_frames_a_tick_apart_stay_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken muxing gives bursts of one time, spread over ticks from any fraction of a tick on."""
    source = draw(tmp_path / "a.mp4")
    facts, _ = probe_video(source)
    with av.open(str(source)) as container:
        frames = [RawFrame(frame, frame.pts, 0, facts) for frame in islice(container.decode(video=0), 8)]
    times_s = [0.0, *((67567.5 + k) / 90_000 for k in range(7))]
    monkeypatch.setattr(write, "_with_times", lambda *_: zip(frames, times_s, strict=True))
    written = transcode(Excerpt(source, facts, Span(0.0, 1.0, 0, 8)), CutSettings(), None, tmp_path / "t.mp4")
    assert len(decoded(tmp_path / "t.mp4")) == written.num_frames == 8


def write_in_ticks(path: Path, frames: list[np.ndarray], ticks_per_s: int) -> None:
    """Encode at 29.97 frames per second with a time base of the file's own."""
    with av.open(str(path), "w", options={"video_track_timescale": str(ticks_per_s)}) as container:
        stream = container.add_stream("libx264", rate=Fraction(30000, 1001), options={"preset": "ultrafast", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], "yuv420p"
        stream.codec_context.time_base = Fraction(1, ticks_per_s)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = round(index * ticks_per_s * 1001 / 30000), Fraction(1, ticks_per_s)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_a_constant_rate_shows_what_was_on_screen(tmp_path: Path) -> None:
    source = draw(tmp_path / "a.mp4")
    facts, _ = probe_video(source)
    written = transcode(Excerpt(source, facts, Span(1.0, 3.0, 25, 50)), CutSettings(fps=10.0), None, tmp_path / "t.mp4")
    frames = decoded(tmp_path / "t.mp4")
    assert len(frames) == written.num_frames == 20 and written.fps == 10
    assert [t for t, _ in frames] == pytest.approx([i / 10 for i in range(20)], abs=1e-3)
    originals = [f.rgb(None) for f in read_frames(Stretch(source, facts))]
    assert all(near(picture, originals[25 + int(i * 2.5 + 1e-6)]) for i, (_, picture) in enumerate(frames))


def test_bars_are_cut_off_and_sizes_are_even(tmp_path: Path) -> None:
    source = draw(tmp_path / "a.mp4")
    facts, _ = probe_video(source)
    box = (0.1, 0.1, 0.9, 0.9)
    cut = CutSettings(short_side_px=101)
    written = transcode(Excerpt(source, facts, Span(0.0, 1.0, 0, 25)), cut, box, tmp_path / "t.mp4")
    picture = decoded(tmp_path / "t.mp4")[0][1]
    assert picture.shape[:2] == (written.height_px, written.width_px) == (100, 180)
