"""Time as it passes in files that people have: holds, seams, lost stretches; the same in analysis and clip files."""

from pathlib import Path

import av
import numpy as np
import pytest
from footage import damage, join, noise, pan, write
from runs import curate, rows_of

from media.decode import read_frames, whole_frames
from media.matroska import is_cut_short
from media.probe import probe_video
from media.segments import divide_source
from media.settings import CutSettings
from media.stream_copy import copy_streams
from media.streams import Candidate, best_candidate
from media.stretch import Excerpt, Stretch
from media.types import Lost, Span
from media.write import transcode

EVEN = [i / 24 for i in range(96)]
QUICK = CutSettings(preset="ultrafast")


def read(path: Path, start: int | None = None, end: int | None = None) -> tuple[list, list[Lost]]:
    facts, _ = probe_video(path)
    items = list(read_frames(Stretch(path, facts, start, end)))
    return [f for f in items if not isinstance(f, Lost)], [f for f in items if isinstance(f, Lost)]


def end_of(frames: list) -> float:
    return round(frames[-1].time_s + frames[-1].duration_s, 6)


def length_of(path: Path) -> tuple[float, float]:
    """What the container and its video stream say."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return container.duration / av.time_base, float(stream.duration * stream.time_base)


# -- holds


@pytest.mark.parametrize("hold_s", [0.6, 3.0])
@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("mp4", "libx264"), ("mov", "libx264"), ("mkv", "libx264"), ("flv", "libx264"), ("webm", "libvpx-vp9")],
)
def test_a_frame_that_is_held_is_footage(tmp_path: Path, suffix: str, codec: str, hold_s: float) -> None:
    times_s = [t if i < 40 else t + hold_s for i, t in enumerate(EVEN)]
    options = {"cpu-used": "8", "deadline": "realtime"} if codec != "libx264" else None
    path = write(tmp_path / f"a.{suffix}", list(pan(96)), codec=codec, times_s=times_s, options=options, last_s=1 / 24)
    facts, _ = probe_video(path)
    frames, lost = read(path)
    assert lost == [] and len(frames) == 96 and facts.fps == 24 and not facts.is_vfr
    assert frames[39].duration_s == pytest.approx(hold_s + 1 / 24, abs=0.002)
    assert end_of(frames) == pytest.approx(4 + hold_s, abs=0.002)
    for first, last in ((20, 60), (50, 96)):  # with the hold, and beside it
        end_s = frames[last].time_s if last < 96 else end_of(frames)
        span = Span(frames[first].time_s, end_s, first, last - first)
        written = transcode(Excerpt(path, facts, span), QUICK, None, tmp_path / "t.mp4")
        assert written.fps == 24 and written.num_frames == last - first
        assert length_of(tmp_path / "t.mp4") == pytest.approx((span.duration_s,) * 2, abs=0.002)


def test_time_that_no_packet_of_a_transport_stream_covers_is_lost(tmp_path: Path) -> None:
    times_s = [t if i < 40 else t + 3 for i, t in enumerate(EVEN)]
    frames, lost = read(write(tmp_path / "a.ts", list(pan(96)), times_s=times_s))
    assert len(frames) == 96
    assert [(x.start_s, x.end_s) for x in lost] == [
        (pytest.approx(40 / 24, abs=1e-3), pytest.approx(3 + 40 / 24, abs=1e-3))
    ]


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "libx264"), ("mkv", "libx264"), ("mov", "mpeg4")])
def test_the_last_frame_lasts_as_long_as_its_file_says(tmp_path: Path, suffix: str, codec: str) -> None:
    options = {"preset": "ultrafast", "bf": "0"} if codec == "libx264" else {"b": "1M"}
    path = write(tmp_path / f"a.{suffix}", list(pan(48)), codec=codec, last_s=5.0, options=options)
    facts, _ = probe_video(path)
    frames, lost = read(path)
    assert lost == [] and end_of(frames) == pytest.approx(47 / 24 + 5, abs=0.002)
    span = Span(1.0, end_of(frames), 24, 24)
    written = transcode(Excerpt(path, facts, span), QUICK, None, tmp_path / "t.mp4")
    assert written.fps == 24
    assert length_of(tmp_path / "t.mp4") == pytest.approx((span.duration_s,) * 2, abs=0.002)
    again, lost = read(tmp_path / "t.mp4")
    assert lost == [] and end_of(again) == pytest.approx(span.duration_s, abs=0.002)


def test_a_clip_of_uneven_rate_is_as_long_as_its_span(tmp_path: Path) -> None:
    steps = np.random.default_rng(3).uniform(0.02, 0.4, 60)
    times_s = [0.0, *np.cumsum(steps)[:-1]]
    path = write(tmp_path / "a.mp4", list(pan(60)), times_s=times_s, last_s=1.0)
    facts, _ = probe_video(path)
    frames, _ = read(path)
    span = Span(frames[10].time_s, end_of(frames), 10, 50)
    written = transcode(Excerpt(path, facts, span), QUICK, None, tmp_path / "t.mp4")
    assert facts.is_vfr and written.fps == pytest.approx(50 / span.duration_s)
    assert length_of(tmp_path / "t.mp4") == pytest.approx((span.duration_s,) * 2, abs=0.002)


def test_a_matroska_file_knows_whether_it_was_cut_short(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", list(pan(24)))
    assert not is_cut_short(path)
    path.write_bytes(path.read_bytes()[:-50])
    assert is_cut_short(path)


# -- seams


@pytest.mark.parametrize(
    ("suffix", "codec"), [("ts", "libx264"), ("ts", "mpeg2video"), ("mpg", "mpeg2video"), ("mkv", "libx264")]
)
def test_joined_files_are_seen_whole_and_cut_where_they_were_seen(tmp_path: Path, suffix: str, codec: str) -> None:
    options = {"g": "12", "bf": "2"} | ({"preset": "ultrafast"} if codec == "libx264" else {"b": "2M"})
    drawn = [*pan(60, seed=1), *pan(48, seed=2), *pan(30, seed=3)]
    bounds = (0, 60, 108) if suffix == "mkv" else (0, 60, 108, 138)  # FFmpeg reads no third Matroska segment
    drawn = drawn[: bounds[-1]]
    parts = [
        write(tmp_path / f"{i}.{suffix}", drawn[a:b], codec=codec, options=options)
        for i, (a, b) in enumerate(zip(bounds, bounds[1:], strict=False))
    ]
    path = join(tmp_path / f"joined.{suffix}", *parts)
    facts, scan = probe_video(path)
    frames, lost = read(path)
    assert facts.is_joined and lost == [] and len(frames) == len(drawn)
    assert [f.time_s for f in frames] == pytest.approx([i / 24 for i in range(len(drawn))], abs=0.003)
    for index in (0, 59, 60, 107, len(drawn) - 1):
        assert np.abs(frames[index].rgb(None).astype(int) - drawn[index]).mean() < 12
    assert len(divide_source(facts, scan, 1.0)) == 1  # it cannot be entered midway
    for first, last in ((50, 70), (80, 107)):
        span = Span(frames[first].time_s, frames[last].time_s, first, last - first)
        written = transcode(Excerpt(path, facts, span), QUICK, None, tmp_path / "t.mp4")
        assert written.num_frames == last - first
        clip, _ = read(tmp_path / "t.mp4")
        assert np.abs(clip[0].rgb(None).astype(int) - drawn[first]).mean() < 12
        assert np.abs(clip[-1].rgb(None).astype(int) - drawn[last - 1]).mean() < 12


def test_a_clock_that_jumps_far_ahead_makes_no_hole(tmp_path: Path) -> None:
    first = write(tmp_path / "0.ts", list(pan(48)), times_s=[i / 24 for i in range(48)])
    later = write(tmp_path / "1.ts", list(pan(48, seed=4)), times_s=[500 + i / 24 for i in range(48)])
    frames, lost = read(join(tmp_path / "joined.ts", first, later))
    assert lost == [] and len(frames) == 96
    assert end_of(frames) == pytest.approx(4, abs=0.003)


def test_a_change_of_size_is_seen_in_every_frame(tmp_path: Path) -> None:
    parts = [
        write(tmp_path / f"{i}.ts", list(pan(36, size, seed=i)), options={"preset": "ultrafast", "g": "12"})
        for i, size in enumerate(((160, 96), (96, 160), (320, 192)))
    ]
    path = join(tmp_path / "joined.ts", *parts)
    facts, _ = probe_video(path)
    frames = list(whole_frames(Stretch(path, facts)))
    assert [f.size_px for f in frames] == [(160, 96)] * 36 + [(96, 160)] * 36 + [(320, 192)] * 36
    for first, size in ((0, (160, 96)), (36, (96, 160)), (72, (320, 192))):
        assert frames[first].rgb(None).shape == (size[1], size[0], 3)
        assert frames[first].coarse().luma.shape == (72, 120) if size[0] > size[1] else (120, 72)
        span = Span(frames[first].time_s, round(frames[first].time_s + 1, 6), first, 24)
        written = transcode(Excerpt(path, facts, span), QUICK, None, tmp_path / "t.mp4")
        assert (written.width_px, written.height_px) == size


# -- damage


CODECS = {
    "mp4": ("libx264", {"preset": "fast", "g": "24", "crf": "30"}),
    "mkv": ("libx264", {"preset": "fast", "g": "24", "crf": "30"}),
    "ts": ("mpeg2video", {"g": "24", "b": "2M", "bf": "2"}),
    "mpg": ("mpeg1video", {"g": "24", "b": "2M"}),
    "avi": ("mpeg4", {"g": "24", "b": "2M"}),
}


@pytest.mark.parametrize("suffix", list(CODECS))
def test_after_damage_decoding_goes_on_at_the_next_keyframe(tmp_path: Path, suffix: str) -> None:
    codec, options = CODECS[suffix]
    drawn = list(noise(120))
    path = write(tmp_path / f"a.{suffix}", drawn, codec=codec, options=options)
    clean, _ = read(path)
    damage(path, 34)
    frames, lost = read(path)
    assert len(lost) == 1 and "Invalid data" in lost[0].what
    assert 1.2 < lost[0].start_s < 1.5 and lost[0].start_s < lost[0].end_s <= 2.05
    expected = [f for f in clean if not lost[0].start_s - 1e-6 <= f.time_s < lost[0].end_s - 1e-6]
    assert [f.time_s for f in frames] == pytest.approx([f.time_s for f in expected], abs=1e-5)
    for got, whole in zip(frames, expected, strict=True):
        assert np.array_equal(got.gray(None), whole.gray(None))
    assert end_of(frames) == pytest.approx(5.0, abs=0.05)
    before = [f for f in frames if f.time_s < lost[0].start_s]
    assert end_of(before) == pytest.approx(lost[0].start_s, abs=1e-5)


def test_a_file_damaged_every_second_keeps_what_lies_between(tmp_path: Path) -> None:
    codec, options = CODECS["mkv"]
    path = damage(write(tmp_path / "a.mkv", list(noise(144)), codec=codec, options=options), *range(12, 144, 24))
    frames, lost = read(path)
    assert len(lost) >= 4
    assert len(frames) >= 60
    spans = [(x.start_s, x.end_s) for x in lost]
    assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:], strict=False))
    assert not [f for f in frames if any(a - 1e-6 <= f.time_s < b - 1e-6 for a, b in spans)]


def test_damage_at_the_beginning_and_at_the_end(tmp_path: Path) -> None:
    codec, options = CODECS["mp4"]
    path = damage(write(tmp_path / "a.mp4", list(noise(96)), codec=codec, options=options), 0, 93)
    frames, lost = read(path)
    assert lost[0].start_s == 0.0 and 0.9 < lost[0].end_s < 1.1
    assert frames[0].time_s == lost[0].end_s
    assert lost[-1].end_s == pytest.approx(4.0, abs=0.002) and end_of(frames) == pytest.approx(
        lost[-1].start_s, abs=1e-5
    )


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_segments_lose_what_the_whole_loses(tmp_path: Path, suffix: str) -> None:
    """Damage in the middle of segments, at their borders and across them."""
    codec, options = CODECS[suffix]
    path = write(tmp_path / f"a.{suffix}", list(noise(192)), codec=codec, options=options)
    damage(path, 30, 48, 100, 150)
    facts, scan = probe_video(path)
    whole, lost = read(path)
    parts = [read(path, s.start_pts, s.end_pts) for s in divide_source(facts, scan, 1.9)]
    assert len(parts) > 2
    frames = [f for part, _ in parts for f in part]
    assert [f.time_s for f in frames] == [f.time_s for f in whole]
    pieces = [x for _, stretches in parts for x in stretches]
    assert sum(x.end_s - x.start_s for x in pieces) == pytest.approx(sum(x.end_s - x.start_s for x in lost), abs=1e-4)


# -- the whole way


@pytest.fixture(scope="module")
def odd_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, parts = tmp_path_factory.mktemp("odd"), tmp_path_factory.mktemp("parts")
    options = {"preset": "ultrafast", "g": "12"}
    sizes = [
        write(parts / f"{i}.ts", list(pan(48, size, seed=i)), options=options)
        for i, size in enumerate(((160, 96), (320, 192), (96, 160)))
    ]
    join(folder / "sizes.ts", *sizes)
    damage(write(folder / "damaged.mkv", list(noise(120)), codec="libx264", options=CODECS["mkv"][1]), 34)
    held = [i / 24 if i < 40 else i / 24 + 2 for i in range(96)]
    write(folder / "held.mp4", list(pan(96)), times_s=held, last_s=1 / 24)
    return folder


@pytest.mark.parametrize("mode", ["transcode", "copy"])
def test_spans_tile_the_sources_and_files_hold_them(odd_files: Path, tmp_path: Path, mode: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "shots: {detector: stride, settings: {every_s: 100}, min_s: 0.5, max_s: 3, segment_s: 6}\n"
        f"operators: {{facts: true, frozen: true}}\ncut: {{mode: {mode}, preset: ultrafast}}\n"
    )
    out = tmp_path / "out"
    curate(odd_files, "--config", recipe, out=out)
    rows = sorted(rows_of(out).values(), key=lambda r: (r["source_path"], r["start_s"]))
    ends_s = {"sizes.ts": 6.0, "damaged.mkv": 5.0, "held.mp4": 6.0}
    by_source = {name: [r for r in rows if r["source_path"] == name] for name in ends_s}
    if mode == "transcode":
        for name, end_s in ends_s.items():
            spans = [(r["start_s"], r["end_s"]) for r in by_source[name]]
            assert spans[0][0] == 0 and spans[-1][1] == pytest.approx(end_s, abs=0.05)
            assert all(a[1] == b[0] for a, b in zip(spans, spans[1:], strict=False))
            assert {r["source_duration_s"] for r in by_source[name]} == {spans[-1][1]}
    assert [(r["width_px"], r["height_px"], r["aspect_ratio"] > 1) for r in by_source["sizes.ts"]] == [
        (160, 96, True),
        (320, 192, True),
        (96, 160, False),
    ]
    (failed,) = [r for r in rows if r["status"] == "failed"]
    assert failed["source_path"] == "damaged.mkv" and failed["duration_s"] > 0
    held = [r for r in by_source["held.mp4"] if r["status"] == "accepted"]
    assert {r["clip_fps"] for r in held} == {24} and {r["fps"] for r in held} == {24}
    for row in rows:
        if row["status"] != "accepted":
            continue
        assert (row["clip_width_px"], row["clip_height_px"]) == (row["width_px"], row["height_px"])
        assert row["clip_cut"] in ((mode,) if row["clip_cut_fallback"] is None else ("transcode",))
        frames, lost = read(out / row["clip_path"])
        assert lost == [] and len(frames) == row["clip_num_frames"] == row["num_frames"]
        assert end_of(frames) == pytest.approx(row["duration_s"], abs=0.003)


# -- copies


@pytest.mark.parametrize(
    ("source", "codec", "options"),
    [
        ("a.mkv", "libx264", {"preset": "medium", "g": "20", "bf": "3"}),
        ("a.mkv", "libx265", {"preset": "ultrafast", "x265-params": "keyint=20:bframes=3:log-level=none"}),
        ("a.ts", "libx265", {"preset": "ultrafast", "x265-params": "keyint=20:bframes=3:log-level=none"}),
        ("a.webm", "libvpx", {"g": "20", "deadline": "realtime", "cpu-used": "8", "b": "1M"}),
        ("a.webm", "libvpx-vp9", {"g": "20", "deadline": "realtime", "cpu-used": "8"}),
        ("a.mpg", "mpeg2video", {"g": "20", "bf": "2", "b": "2M"}),
        ("a.mov", "prores_ks", {}),
    ],
)
def test_a_copy_shows_the_same_frames_at_the_same_times(tmp_path: Path, source: str, codec: str, options: dict) -> None:
    drawn = list(pan(100))
    pixels = "yuv422p10le" if codec == "prores_ks" else "yuv420p"
    path = tmp_path / source
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24, options=options)
        stream.width, stream.height, stream.pix_fmt = 160, 96, pixels
        for picture in drawn:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    facts, _ = probe_video(path)
    frames, _ = read(path)
    span = Span(frames[10].time_s, frames[90].time_s, 10, 80)
    suffix = {"libvpx": "webm", "prores_ks": "mkv"}.get(codec, "mp4")
    to = tmp_path / f"copy.{suffix}"
    written = copy_streams(Excerpt(path, facts, span), to)
    kept = written.span
    assert written.num_frames == kept.num_frames >= 55 and kept.start_s >= span.start_s and kept.end_s <= span.end_s
    assert written.fps == 24
    copied, lost = read(to)
    assert lost == [] and len(copied) == kept.num_frames
    for index in (0, len(copied) // 2, len(copied) - 1):
        original = frames[kept.start_frame + index]
        assert copied[index].time_s == pytest.approx(original.time_s - kept.start_s, abs=0.002)
        assert np.array_equal(copied[index].gray(None), original.gray(None))
    if codec == "libx265":
        with av.open(str(to)) as container:
            assert container.streams.video[0].codec_context.codec_tag == "hvc1"


# -- which stream


def stream(index: int, frames: int, duration_s: float, size: tuple[int, int], default: bool = False) -> Candidate:
    return Candidate(index, "h264", *size, default, frames, duration_s)


def test_the_stream_that_a_player_shows_is_chosen() -> None:
    motion_photo = [
        stream(0, 53, 1.77, (1440, 1080), True),
        stream(1, 2, 3.55, (2048, 1536)),
        stream(2, 1, 0, (4000, 3000)),
    ]
    assert best_candidate(motion_photo).index == 0
    cover_first = [stream(0, 1, 0.04, (4000, 3000), True), stream(1, 240, 10, (640, 360))]
    assert best_candidate(cover_first).index == 1
    preview = [stream(0, 240, 10, (320, 180), True), stream(1, 240, 10, (1280, 720), True)]
    assert best_candidate(preview).index == 1
    short = [stream(0, 30, 1, (1920, 1080)), stream(1, 300, 10, (640, 360))]
    assert best_candidate(short).index == 1
    stills = [stream(0, 1, 0.04, (640, 480)), stream(1, 2, 0.08, (640, 480))]
    assert best_candidate(stills).index == 1
