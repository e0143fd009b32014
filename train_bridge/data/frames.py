"""Frames for training: sampled by time over a clip, brought to a bucket's size, read where a crash does no harm.

`read_frames` decodes in this process. A `FrameReader` has a media process do it (`media.sandbox`), which is killed when
it hangs and replaced when its decoder crashes; frames come back through memory that both processes share.
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from core.cpu_time import StepClock
from core.limits import Limits
from media.fitted import FrameRequest, TakenSpan, contain_size, cover_size, read_fitted
from media.sandbox import InternalError, MediaProcess, Sandbox
from media.sandbox_child import Tasks, run_child
from media.types import Heartbeat, no_heartbeat
from models.geometry import Bucket
from train_bridge.data.spans import taken_span
from train_bridge.types import TrainRow

__all__ = ["FrameReader", "contain_size", "cover_size", "read_frames"]
SILENCE_S = 120.0
"""how long a decoder may say nothing before it is killed"""
TRIES = 2
MEMORY_GB = 8.0
"""that a decoder may allocate"""


def frames_of(row: TrainRow, bucket: Bucket) -> FrameRequest:
    """Return what a bucket takes of a row: T frames spread over `spans.taken_span`.

    Raises:
        ValueError: an image for a bucket of several frames.
    """
    if row.kind == "image" and bucket.num_frames != 1:
        raise ValueError(f"{row.row_id}: an image for bucket {bucket}")
    taken = None
    if row.kind == "video" and row.rate_fps is not None:
        start_s, end_s = taken_span(row, bucket) or (0.0, None)
        assert end_s is not None
        taken = TakenSpan(start_s, end_s, row.rate_fps)
    size = (bucket.num_frames, bucket.height_px, bucket.width_px)
    return FrameRequest(row.path, row.kind, *size, row.start_s, row.end_s, taken, row.letterbox)


def read_frames(row: TrainRow, bucket: Bucket, beat: Heartbeat = no_heartbeat) -> np.ndarray:
    """Read a row as a bucket wants it: `media.fitted.read_fitted`.

    Returns:
        uint8 (T, H, W, 3), RGB, upright, square pixels.

    Raises:
        MediaError: the file cannot be read, or ends before the clip does.
        ValueError: an image for a bucket of several frames.
    """
    return read_fitted(frames_of(row, bucket), beat)


class FrameReader:
    """Reads frames as `read_frames` does, in a media process: a decoder that crashes or hangs fails one row."""

    def __init__(self, silence_s: float = SILENCE_S):
        """Start nothing yet.

        Args:
            silence_s: how long the process may say nothing before it is killed.
        """
        self._limits = Limits(tries=TRIES, kills=TRIES, storage_tries=1, silence_s=silence_s, memory_gb=MEMORY_GB)
        self._process: MediaProcess | None = None
        self._memory = -1  # shared with the process, which leaves the frames there

    @property
    def pid(self) -> int | None:
        """Of the media process; None while there is none."""
        return None if self._process is None else self._process.pid

    def __call__(self, row: TrainRow, bucket: Bucket) -> np.ndarray:
        """Read a row as `read_frames` does.

        Raises:
            MediaError: it cannot be read, or its decoder crashed or hung on every try.
            RuntimeError: a bug of ours, with the traceback of the media process.
        """
        if self._process is None:
            self._memory = os.memfd_create("frames")
            sandbox = Sandbox(__name__, self._memory, self._limits, shared=(self._memory,), setting=None)
            self._process = MediaProcess(sandbox)
        frames = np.empty((bucket.num_frames, bucket.height_px, bucket.width_px, 3), np.uint8)
        try:
            for _ in self._process.run(no_heartbeat, "read", row, bucket):
                _read_whole(self._memory, frames)
        except InternalError as bug:
            raise RuntimeError(f"{row.row_id}: reading frames failed\n{bug}") from None
        return frames

    def close(self) -> None:
        """End the media process."""
        if self._process is not None:
            self._process.close()
            os.close(self._memory)
        self._process, self._memory = None, -1


def _read_whole(memory: int, frames: np.ndarray) -> None:
    """Fill an array from a file, and empty the file."""
    view = frames.data.cast("B")
    done = 0
    while done < len(view):
        count = os.preadv(memory, [view[done:]], done)
        if not count:
            raise EOFError(f"{len(view)} bytes of frames were announced, {done} are there")
        done += count
    os.ftruncate(memory, 0)


def _write_whole(memory: int, frames: np.ndarray) -> None:
    view = frames.data.cast("B")
    done = 0
    while done < len(view):
        done += os.pwrite(memory, view[done:], done)


def frame_tasks(memory: int, beat: Heartbeat, clock: StepClock) -> Tasks:
    """Return the one task of a media process that reads for training: `read`, which leaves frames in a file."""

    def read(row: TrainRow, bucket: Bucket) -> Iterator[Any]:
        with clock.step("read"):
            _write_whole(memory, read_frames(row, bucket, beat))
        yield None

    return {"read": read}


if __name__ == "__main__":
    run_child(frame_tasks)
