"""Frames for training: sampled by time over a clip, brought to a bucket's size, read where a crash does no harm.

`read_frames` decodes in this process. A `FrameReader` has a child process do it (`python -m
train_bridge.frames SOCKET MEMORY`), which is killed when it hangs and replaced when its decoder crashes.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from curation.errors import MediaError
from curation.types import Beat, SourceFacts, silent
from curation.video import planes
from curation.video.decode import read_frames as decode
from curation.video.frame import DecodedFrame, PlanarFrame
from curation.video.image import read_image
from curation.video.probe import probe_video
from train_bridge.types import Bucket, TrainRow

MAX_IMAGE_PIXELS = 1 << 27
"""width times height of the largest image that is read"""
SILENCE_S = 120.0
"""how long a decoder may say nothing before it is killed"""
TRIES = 2
BEAT_EVERY_S = 1.0
KNOWN_SOURCES = 16


def read_frames(row: TrainRow, bucket: Bucket, beat: Beat = silent) -> np.ndarray:
    """Read a row as a bucket wants it.

    The T frames are those on screen at the middles of T equal parts of the clip, whatever its frame rate: at
    `start + (i + 0.5)·D/T`, the last frame whose time is not after that. A clip with fewer frames repeats
    some. The picture covers the bucket, keeps its aspect, and is cropped about its centre.

    Args:
        row: what to read: a file, or the span of one from `start_s` to `end_s`.
        bucket: frames, height and width.
        beat: called now and then while reading.

    Returns:
        uint8 (T, H, W, 3), RGB, upright, square pixels.

    Raises:
        MediaError: the file cannot be read, or ends before the clip does.
        ValueError: an image for a bucket of several frames.
    """
    if row.kind == "image":
        if bucket.num_frames != 1:
            raise ValueError(f"{row.row_id}: an image for bucket {bucket}")
        return _covered(read_image(row.path, MAX_IMAGE_PIXELS), bucket)[None]
    source = _source(row.path, beat)
    facts = source.facts
    times_s = _wanted_times(row, source, bucket.num_frames)
    start_pts, end_pts = source.stretch(times_s[0], times_s[-1], seek=row.start_s is not None)
    size = cover_size(facts.width_px, facts.height_px, bucket)
    frames = np.empty((bucket.num_frames, bucket.height_px, bucket.width_px, 3), np.uint8)
    done, last = 0, None
    for last in decode(row.path, facts, start_pts, end_pts, beat):
        beat(0.0)
        shown = int(np.searchsorted(times_s, round(last.time_s + last.duration_s, 6)))
        if shown > done:
            _fill(frames[done:shown], last, size)
            done = shown
        if done == len(frames):
            return frames
    if last is None:
        raise MediaError("no frame can be decoded in the span", row.start_s)
    _fill(frames[done:], last, size)  # the last frame stays on screen
    return frames


def cover_size(width_px: int, height_px: int, bucket: Bucket) -> tuple[int, int]:
    """Give the smallest (width, height) of this aspect that covers a bucket."""
    scale = max(bucket.width_px / width_px, bucket.height_px / height_px)
    return max(bucket.width_px, round(width_px * scale)), max(bucket.height_px, round(height_px * scale))


def _covered(pixels: np.ndarray, bucket: Bucket) -> np.ndarray:
    height, width = pixels.shape[:2]
    size = cover_size(width, height, bucket)
    if size != (width, height):
        shrinks = size[0] * size[1] < width * height
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return np.ascontiguousarray(_cropped(pixels, bucket.height_px, bucket.width_px))


def _cropped(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def _fill(places: np.ndarray, frame: DecodedFrame, size: tuple[int, int]) -> None:
    """Put one frame in all of these places (N, H, W, 3), scaled by area straight from the decoder's planes."""
    assert isinstance(frame, PlanarFrame)
    covering = planes.rgb(frame.frame, *size, frame.facts.rotation_deg)
    places[:] = _cropped(covering, *places.shape[1:3])


@dataclass(frozen=True, eq=False)
class _Source:
    """What is known of a video before it is decoded.

    Attributes:
        facts: of its stream.
        pts: int64 (N,), of its frames, rising; empty when packets have no times.
        times_s: float64 (N,), their times from the first frame.
        end_s: when the last frame ends.
    """

    facts: SourceFacts
    pts: np.ndarray
    times_s: np.ndarray
    end_s: float

    def stretch(self, first_s: float, last_s: float, seek: bool) -> tuple[int | None, int | None]:
        """Give the pts from which on, and before which, the frames shown from `first_s` to `last_s` lie."""
        if not len(self.pts):
            return None, None
        first = int(np.searchsorted(self.times_s, first_s, side="right")) - 1
        end = self.facts.zero_pts + int((last_s + 1e-6) / self.facts.time_base) + 1
        return int(self.pts[first]) if seek and first > 0 else None, end


_sources: dict[tuple[str, int, int], _Source] = {}  # of this process, the last few: spans of one file come together


def _source(path: Path, beat: Beat) -> _Source:
    try:
        state = path.stat()
    except OSError as error:
        raise MediaError(f"the file cannot be opened ({error.strerror})") from None
    key = (str(path), state.st_size, state.st_mtime_ns)
    if key not in _sources:
        found = _look_at(path, beat)
        while len(_sources) >= KNOWN_SOURCES:
            del _sources[next(iter(_sources))]
        _sources[key] = found
    return _sources[key]


def _look_at(path: Path, beat: Beat) -> _Source:
    facts, scan = probe_video(path, beat)
    if not len(scan.pts) or not facts.time_base:  # packets without times: the frames must be counted
        end_s = max((frame.time_s + frame.duration_s for frame in decode(path, facts, beat=beat)), default=0.0)
        return _Source(facts, np.empty(0, np.int64), np.empty(0), end_s)
    times_s = np.round((scan.pts - facts.zero_pts) * facts.time_base, 6)
    usual_s = 1 / facts.fps if facts.fps else 0.0
    stated_s = (scan.end_pts - int(scan.pts[-1])) * facts.time_base if scan.end_pts is not None else 0.0
    last_s = stated_s if 0 < stated_s <= max(10 * usual_s, 1.0) else usual_s
    return _Source(facts, scan.pts, times_s, float(times_s[-1]) + last_s)


def _wanted_times(row: TrainRow, source: _Source, num_frames: int) -> np.ndarray:
    """Give float64 (T,), the middles of T equal parts of the row's span.

    Raises:
        MediaError: the span is empty, or the file ends before it.
    """
    start_s, end_s = row.start_s or 0.0, source.end_s
    if row.end_s is not None:
        step_s = 1 / source.facts.fps if source.facts.fps else 0.0
        if row.end_s - source.end_s > max(2 * step_s, 0.02 * (row.end_s - start_s)):
            raise MediaError("the file ends before the span does", source.end_s)
        end_s = min(end_s, row.end_s)
    elif (declared_s := source.facts.declared_duration_s) and declared_s - end_s > max(1.0, 0.02 * declared_s):
        raise MediaError(f"the file ends before the {declared_s:.1f} s that it states", end_s)
    if end_s <= start_s:
        raise MediaError("nothing lies in the span", start_s)
    return np.round(start_s + (np.arange(num_frames) + 0.5) * ((end_s - start_s) / num_frames), 6)


class FrameReader:
    """Reads frames as `read_frames` does, in a child process: a decoder that crashes or hangs fails one row."""

    def __init__(self, silence_s: float = SILENCE_S):
        """Start nothing yet.

        Args:
            silence_s: how long the child may say nothing before it is killed.
        """
        self._silence_s = silence_s
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._memory = -1  # shared with the child, which leaves the frames there

    def __call__(self, row: TrainRow, bucket: Bucket) -> np.ndarray:
        """Read a row as `read_frames` does.

        Raises:
            MediaError: it cannot be read, or its decoder crashed or hung on every try.
            RuntimeError: a bug of ours, with the child's traceback.
        """
        frames = np.empty((bucket.num_frames, bucket.height_px, bucket.width_px, 3), np.uint8)
        for attempt in range(1, TRIES + 1):
            try:
                kind, value = self._ask(row, bucket)
                if kind == "frames":
                    _read_whole(self._memory, frames)
            except (EOFError, OSError):
                cause = self._end()
                if attempt == TRIES:
                    raise MediaError(f"{cause} ({TRIES} tries)") from None
                continue
            if kind == "media":
                raise value
            if kind == "bug":
                raise RuntimeError(f"{row.row_id}: reading frames failed\n{value}")
            break
        return frames

    def close(self) -> None:
        """End the child."""
        self._end()

    def _ask(self, row: TrainRow, bucket: Bucket) -> tuple[str, Any]:
        connection = self._connection or self._start()
        connection.send((row, bucket))
        while connection.poll(self._silence_s):
            kind, value = connection.recv()
            if kind != "beat":
                return kind, value
        raise EOFError

    def _start(self) -> Connection:
        ours, theirs = socket.socketpair()
        self._memory = os.memfd_create("frames")
        home = str(Path(__file__).resolve().parents[1])
        # What this process can import, the child must: on a cluster each package lies in a folder of its own.
        path = os.pathsep.join(dict.fromkeys([home, *filter(None, sys.path)]))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "train_bridge.frames", str(theirs.fileno()), str(self._memory)],
                pass_fds=[theirs.fileno(), self._memory],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C is the run's business, not the decoder's
            )
        self._connection = Connection(ours.detach())
        return self._connection

    def _end(self) -> str:
        """End the child, and say what had become of it."""
        process, connection, cause = self._process, self._connection, "the decoder was not running"
        self._process = self._connection = None
        if connection is not None:
            connection.close()
            os.close(self._memory)
        if process is not None:
            cause = "the decoder ended unasked"
            try:
                code = process.wait(timeout=1.0)  # it ends by itself when its connection is closed
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                return f"the decoder gave no sign of life for {self._silence_s:g} s"
            if code < 0:
                with contextlib.suppress(ValueError):
                    cause = f"the decoder crashed ({signal.Signals(-code).name})"
        return cause


def _read_whole(memory: int, frames: np.ndarray) -> None:
    """Fill an array from a file, and empty the file."""
    view = frames.data.cast("B")
    done = 0
    while done < len(view):
        count = os.preadv(memory, [view[done:]], done)
        if not count:
            raise EOFError
        done += count
    os.ftruncate(memory, 0)


def _write_whole(memory: int, frames: np.ndarray) -> None:
    view = frames.data.cast("B")
    done = 0
    while done < len(view):
        done += os.pwrite(memory, view[done:], done)


def _serve(connection: Connection, memory: int) -> None:
    """Answer `(row, bucket)` with beats and one of `("frames", None)`, `("media", error)`, `("bug", text)`.

    The frames themselves are left in the file `memory`.
    """
    cv2.setNumThreads(1)
    spoke = time.monotonic()

    def beat(seconds: float) -> None:
        nonlocal spoke
        if time.monotonic() - spoke > BEAT_EVERY_S:
            connection.send(("beat", None))
            spoke = time.monotonic()

    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the other side has gone
        while True:
            row, bucket = connection.recv()
            answer: tuple[str, Any]
            try:
                _write_whole(memory, read_frames(row, bucket, beat))
                answer = ("frames", None)
            except MediaError as error:
                answer = ("media", error)
            except Exception:  # a bug of ours: the parent says so, and where
                answer = ("bug", traceback.format_exc())
            connection.send(answer)


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])), int(sys.argv[2]))
    os._exit(0)
