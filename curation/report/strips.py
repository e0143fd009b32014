"""A few frames of a clip's file, the first and the last among them; read in a media process of their own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from core.cpu_time import StepClock
from core.errors import MediaError
from core.limits import Limits
from media.decode import read_frames
from media.probe import probe_video
from media.sandbox_child import Tasks, run_child
from media.stretch import Stretch
from media.types import Heartbeat, Lost


def strip(path: Path, count: int, height_px: int, beat: Heartbeat, limits: Limits) -> list[np.ndarray]:
    """Return up to `count` frames of a video, evenly spread from the first to the last: uint8 (height_px, W, 3) each.

    Raises:
        MediaError: it cannot be read, or not to its end.
    """
    facts, _ = probe_video(path, beat, limits)
    total = facts.declared_frames or 0
    wanted = {round(place * (total - 1) / max(1, count - 1)) for place in range(count)}
    found: list[np.ndarray] = []
    place = 0
    for frame in read_frames(Stretch(path, facts, beat=beat, limits=limits)):
        beat(0.0)
        if isinstance(frame, Lost):
            raise MediaError(f"{frame.what}, from {frame.start_s:.2f} s on")
        if place in wanted:
            width, height = frame.size_px
            found.append(frame.rgb(round(height_px * min(width, height) / height)))
        place += 1
    if place < total or not found:
        raise MediaError(f"{place} of {total} frames could be decoded")
    return found


def strip_tasks(limits: Limits, beat: Heartbeat, clock: StepClock) -> Tasks:
    """Return the one task of the media process: `strip`."""

    def one(path: Path, count: int, height_px: int) -> Iterator[Any]:
        with clock.step("strip"):
            yield strip(path, count, height_px, beat, limits)

    return {"strip": one}


if __name__ == "__main__":
    run_child(strip_tasks)
