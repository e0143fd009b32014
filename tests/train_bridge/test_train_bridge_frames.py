"""Frames by time: drawn clips whose every frame says by its grey which one it is."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from drawn_frames import draw, shown
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from core.errors import MediaError
from demo.drawing import write_video
from media import fitted as reading
from models.geometry import Bucket
from train_bridge.data import frames as training
from train_bridge.data.frames import FrameReader, cover_size, read_frames
from train_bridge.types import TrainRow


def row(path: Path, start_s: float | None = None, end_s: float | None = None, kind: str = "video") -> TrainRow:
    return TrainRow("r", path, "a caption", kind, start_s=start_s, end_s=end_s)


def on_screen(pts_s: list[float], times_s: list[float]) -> list[int]:
    """Tell by the definition which frame is on screen at each time: the last whose time is not after it."""
    return [max(i for i, p in enumerate(pts_s) if p <= t + 1e-9) for t in times_s]


def middles(start_s: float, end_s: float, count: int) -> list[float]:
    return [start_s + (i + 0.5) * (end_s - start_s) / count for i in range(count)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.ts"])
@pytest.mark.parametrize("fps", [10.0, 24.0])
@pytest.mark.parametrize("count", [1, 9, 17, 41])
def test_a_whole_clip_is_sampled_at_the_middles_of_equal_parts(tmp_path, name, fps, count):
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    path = draw(tmp_path / name, 40, fps, codec=codec)
    frames = read_frames(row(path), Bucket(count, 16, 32))
    assert frames.shape == (count, 16, 32, 3) and frames.dtype == np.uint8
    truth = on_screen([i / fps for i in range(40)], middles(0, 40 / fps, count))
    # A time may fall on the border of two frames; Matroska keeps times to the millisecond.
    assert all(abs(a - b) <= (count == 1) for a, b in zip(shown(frames), truth, strict=True))
    if count == 41:
        assert len(set(shown(frames))) == 40, "more frames than the clip has: one is repeated"


def test_uneven_times_are_honoured(tmp_path):
    fast, slow = [i / 20 for i in range(20)], [1.0 + i / 4 for i in range(12)]  # 1 s at 20, then 3 s at 4 per second
    path = draw(tmp_path / "a.mp4", 32, 20, pts=fast + slow)
    frames = read_frames(row(path), Bucket(9, 16, 16))
    end_s = slow[-1] + 1 / 20  # the encoder gives the last frame the nominal length
    assert shown(frames) == on_screen(fast + slow, middles(0, end_s, 9))
    assert sum(index < 20 for index in shown(frames)) == 2, "by frame number it would be 5 or 6"


@settings(max_examples=25, deadline=None)
@given(
    gaps=st.lists(st.integers(2, 30), min_size=6, max_size=30),
    span=st.tuples(st.floats(0.02, 0.97), st.floats(0.02, 0.97)).filter(lambda s: abs(s[0] - s[1]) > 0.02),
    count=st.sampled_from([1, 5, 13]),
    every=st.integers(1, 8),
)
def test_any_span_of_any_uneven_clip(gaps, span, count, every):
    pts_s = np.cumsum([0, *gaps]).astype(float) / 100
    start_s, end_s = (round(s * float(pts_s[-1]), 3) for s in sorted(span))
    times_s = middles(start_s, end_s, count)
    if min(abs(t - p) for t in times_s for p in pts_s) < 1e-3:
        return  # on a border, where the rounding of the container decides
    with tempfile.TemporaryDirectory() as folder:
        options = {"preset": "ultrafast", "g": str(every), "crf": "16"}
        path = draw(Path(folder) / "a.mp4", len(pts_s), 25, pts=list(pts_s), options=options)
        frames = read_frames(row(path, start_s, end_s), Bucket(count, 16, 16))
    assert shown(frames) == on_screen(list(pts_s), times_s)


def test_a_span_is_entered_at_its_start_and_left_at_its_end(tmp_path, monkeypatch):
    options = {"preset": "ultrafast", "g": "5", "sc_threshold": "0"}
    path = draw(tmp_path / "a.mp4", 40, 10, options=options)
    given_out = []
    plain = reading.decode

    def counted(*arguments):
        for frame in plain(*arguments):
            given_out.append(round(frame.time_s * 10))
            yield frame

    monkeypatch.setattr(reading, "decode", counted)
    assert shown(read_frames(row(path, 2.0, 2.5), Bucket(5, 16, 16))) == [20, 21, 22, 23, 24]
    assert given_out == [20, 21, 22, 23, 24]


def test_time_begins_at_the_first_frame(tmp_path):
    path = draw(tmp_path / "a.ts", 20, 10, pts=[7.3 + i / 10 for i in range(20)])
    assert shown(read_frames(row(path, 0.5, 1.0), Bucket(5, 16, 16))) == [5, 6, 7, 8, 9]


def test_many_spans_of_one_file_probe_it_once(tmp_path, monkeypatch):
    path = draw(tmp_path / "a.mp4", 40)
    probes = []
    plain = reading.probe_video
    monkeypatch.setattr(reading, "probe_video", lambda *a: probes.append(1) or plain(*a))
    for start_s in (0.0, 1.0, 2.0):
        read_frames(row(path, start_s, start_s + 1), Bucket(5, 16, 16))
    assert len(probes) == 1
    draw(path, 30)  # another file under this name
    read_frames(row(path, 0.0, 1.0), Bucket(5, 16, 16))
    assert len(probes) == 2


def quarters(width: int, height: int) -> np.ndarray:
    """Draw red, green, blue and white quarters."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2], picture[: height // 2, width // 2 :] = (200, 30, 30), (30, 200, 30)
    picture[height // 2 :, : width // 2], picture[height // 2 :, width // 2 :] = (30, 30, 200), (230, 230, 230)
    return picture


def corners(frame: np.ndarray) -> str:
    """Name the colours of the corners: upper left, upper right, lower left, lower right."""
    names = {"r": (200, 30, 30), "g": (30, 200, 30), "b": (30, 30, 200), "w": (230, 230, 230)}
    h, w = frame.shape[0] // 6, frame.shape[1] // 6
    places = [frame[:h, :w], frame[:h, -w:], frame[-h:, :w], frame[-h:, -w:]]
    means = [p.reshape(-1, 3).mean(0) for p in places]
    return "".join(min(names, key=lambda n: float(np.abs(m - names[n]).sum())) for m in means)


@pytest.mark.parametrize(("turn", "seen"), [(0, "rgbw"), (90, "brwg"), (180, "wbgr"), (270, "gwrb")])
def test_turned_footage_is_upright(tmp_path, turn, seen):
    write_video(tmp_path / "a.mp4", [quarters(96, 64)] * 3, 10, rotation_deg=turn)
    for bucket in (Bucket(1, 32, 48), Bucket(1, 48, 32), Bucket(1, 128, 128)):
        (frame,) = read_frames(row(tmp_path / "a.mp4"), bucket)
        assert frame.shape == (bucket.height_px, bucket.width_px, 3) and corners(frame) == seen


def test_the_picture_covers_the_bucket_about_its_centre(tmp_path):
    picture = np.zeros((64, 160, 3), np.uint8)
    picture[:, 70:90] = 255  # a bar in the middle, an eighth of the width
    picture[:, :16] = (255, 0, 0)  # cropped away
    write_video(tmp_path / "a.mkv", [picture] * 2, 10, codec="ffv1", pixel_format="yuv444p")
    Image.fromarray(picture).save(tmp_path / "a.png")
    (video,) = read_frames(row(tmp_path / "a.mkv"), Bucket(1, 32, 32))
    (image,) = read_frames(row(tmp_path / "a.png", kind="image"), Bucket(1, 32, 32))
    for frame in (video, image):
        bar = np.flatnonzero(frame[:, :, 1].mean(0) > 128)
        assert (bar[0], bar[-1]) == (11, 20), "10 px wide in the middle of 32"
        assert np.ptp(frame.astype(int), axis=2).max() < 12, "no red is left"
    assert np.abs(video.astype(int) - image.astype(int)).mean() < 3


def test_a_smaller_image_is_enlarged_and_an_exif_turn_applied(tmp_path):
    image = Image.fromarray(quarters(24, 16))
    exif = image.getexif()
    exif[0x0112] = 6  # to be shown turned clockwise
    image.save(tmp_path / "a.png", exif=exif)
    frames = read_frames(row(tmp_path / "a.png", kind="image"), Bucket(1, 96, 64))
    assert frames.shape == (1, 96, 64, 3) and corners(frames[0]) == "brwg"
    with pytest.raises(ValueError, match="bucket 5x96x64"):
        read_frames(row(tmp_path / "a.png", kind="image"), Bucket(5, 96, 64))


def test_shrinking_averages(tmp_path):
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, ::2] = 255  # one pixel wide: anything but averaging gives 0, 255 or waves
    write_video(tmp_path / "a.mkv", [stripes] * 2, 10, codec="ffv1", pixel_format="yuv444p")
    Image.fromarray(stripes).save(tmp_path / "a.png")
    for path, kind in ((tmp_path / "a.mkv", "video"), (tmp_path / "a.png", "image")):
        frames = read_frames(row(path, kind=kind), Bucket(1, 32, 32))
        assert abs(float(frames.mean()) - 127.5) < 6 and float(frames.std()) < 6


@given(
    size=st.tuples(st.integers(2, 9000), st.integers(2, 9000)),
    sides=st.tuples(st.integers(1, 90), st.integers(1, 90)),
)
def test_the_covering_size_is_the_smallest_that_covers(size, sides):
    bucket = Bucket(1, sides[0] * 16, sides[1] * 16)
    width, height = cover_size(*size, bucket)
    assert width >= bucket.width_px and height >= bucket.height_px
    assert width == bucket.width_px or height == bucket.height_px
    by_width = width == bucket.width_px and abs(height - size[1] * bucket.width_px / size[0]) <= 0.5
    by_height = height == bucket.height_px and abs(width - size[0] * bucket.height_px / size[1]) <= 0.5
    assert by_width or by_height


def broken_files(folder: Path) -> dict[str, Path]:
    whole = folder / "whole.mp4"
    write_video(whole, [cv2.resize(np.random.default_rng(i).integers(0, 255, (40, 60, 3), np.uint8), (120, 80))
                        for i in range(60)], 10)  # fmt: skip
    files = {name: folder / f"{name}.mp4" for name in ("cut_short", "flipped", "text", "empty", "missing")}
    content = whole.read_bytes()
    files["cut_short"].write_bytes(content[: len(content) * 6 // 10])
    flipped = bytearray(content)
    for at in range(len(flipped) // 3, len(flipped) // 2, 7):
        flipped[at] ^= 0x5A
    files["flipped"].write_bytes(bytes(flipped))
    files["text"].write_text("no video")
    files["empty"].write_bytes(b"")
    long = folder / "long.mkv"
    write_video(long, [cv2.resize(np.random.default_rng(i).integers(0, 255, (40, 60, 3), np.uint8), (120, 80))
                       for i in range(60)], 10)  # fmt: skip
    content = long.read_bytes()
    files["download"] = folder / "download.mkv"
    files["download"].write_bytes(content[: len(content) * 6 // 10])
    return files


def test_what_cannot_be_read_is_a_media_error(tmp_path):
    for name, path in broken_files(tmp_path).items():
        with pytest.raises(MediaError):
            read_frames(row(path), Bucket(9, 32, 32))
            raise AssertionError(f"{name} was read")
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(MediaError):
        read_frames(row(tmp_path / "a.png", kind="image"), Bucket(1, 16, 16))


def test_spans_that_are_not_there(tmp_path):
    path = draw(tmp_path / "a.mp4", 30, 10)
    assert shown(read_frames(row(path, 2.0, 3.04), Bucket(5, 16, 16))) == [21, 23, 25, 27, 29], "rounded up"
    for start_s, end_s, words in ((2.0, 4.0, "ends before the span"), (3.5, None, "nothing"), (1.0, 1.0, "nothing")):
        with pytest.raises(MediaError, match=words):
            read_frames(row(path, start_s, end_s), Bucket(5, 16, 16))


def test_a_child_reads_the_same(tmp_path):
    path = draw(tmp_path / "a.mp4", 30, 10)
    Image.fromarray(quarters(200, 120)).save(tmp_path / "a.png")
    reader = FrameReader()
    try:
        for one, bucket in (
            (row(path), Bucket(9, 16, 32)),
            (row(path), Bucket(1, 48, 48)),
            (row(tmp_path / "a.png", kind="image"), Bucket(1, 64, 64)),
            (row(path, 1.0, 2.0), Bucket(5, 16, 16)),
        ):
            assert np.array_equal(reader(one, bucket), read_frames(one, bucket))
        with pytest.raises(MediaError, match="ends before the span"):
            reader(row(path, 2.0, 9.0), Bucket(5, 16, 16))
        assert reader.pid is not None
        os.kill(reader.pid, signal.SIGKILL)
        assert shown(reader(row(path, 0.0, 0.5), Bucket(5, 16, 16))) == [0, 1, 2, 3, 4], "a new child goes on"
    finally:
        reader.close()


def test_a_decoder_that_swells_fails_its_row_and_one_without_a_parent_ends(tmp_path, monkeypatch):
    path = draw(tmp_path / "a.mp4", 5)
    monkeypatch.setattr(training, "MEMORY_GB", 2.0)
    reader = FrameReader()
    try:
        with pytest.raises(MediaError, match=r"^needs more than the 2 GB$"):
            reader(row(path), Bucket(1, 32000, 32000))
        assert reader(row(path), Bucket(1, 16, 16)).shape == (1, 16, 16, 3), "the same process reads on"
    finally:
        reader.close()
    code = (
        "import os, sys; from pathlib import Path; from models.geometry import Bucket\n"
        "from train_bridge.data.frames import FrameReader; from train_bridge.types import TrainRow\n"
        "reader = FrameReader(); reader(TrainRow('a', Path(sys.argv[1]), '', 'video'), Bucket(1, 16, 16))\n"
        "print(reader.pid, flush=True); os._exit(9)"  # as one that was killed: nothing is closed
    )
    shown = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert shown.returncode == 9
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int(shown.stdout)).wait(timeout=60)


def test_a_decoder_that_hangs_or_crashes_fails_its_row(tmp_path, monkeypatch):
    path = draw(tmp_path / "a.mp4", 5)
    hangs, crashes = "import time; time.sleep(600)", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    for name, code in (("hangs", hangs), ("crashes", crashes)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sitecustomize.py").write_text(code)  # runs before the decoder does

    def fails(name: str, reader: FrameReader, message: str) -> None:
        with monkeypatch.context() as patch, pytest.raises(MediaError, match=message):
            patch.setattr(sys, "path", [str(tmp_path / name), *sys.path])
            reader(row(path), Bucket(1, 16, 16))

    began = time.monotonic()
    fails("hangs", FrameReader(silence_s=1.0), r"no sign of life for 1 s \(2 tries\)")
    assert time.monotonic() - began < 20
    reader = FrameReader()
    fails("crashes", reader, r"crashed \(SIGSEGV\)")
    assert reader(row(path), Bucket(1, 16, 16)).shape == (1, 16, 16, 3)
    reader.close()
