"""Cuts at fixed steps of time, for footage without shots or for datasets of equal clips."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from core.settings import key
from curation.shots.types import Boundary
from media.coarse import CoarseFrame


@dataclass(frozen=True)
class Stride:
    """Settings."""

    every_s: float = key(10.0, "length of a piece in seconds; each begins at the first frame at or after its time")

    def __post_init__(self) -> None:
        """Refuse a step that is not a positive number.

        Raises:
            ValueError: `every_s` is not a positive number.
        """
        if not (math.isfinite(self.every_s) and self.every_s > 0):
            raise ValueError(f"every_s must be positive, got {self.every_s}")

    @property
    def lag_s(self) -> float:
        """Nothing is reported late."""
        return 0.0

    def start(self, fps: float) -> "StrideState":
        """Begin a segment; its rate does not matter, the frames carry their times."""
        return StrideState(self.every_s)


class StrideState:
    """The step at work."""

    def __init__(self, every_s: float) -> None:
        """Begin a segment."""
        self._every_s = every_s
        self._first_s: float | None = None
        self._piece = 0

    def push(self, frames: Sequence[CoarseFrame]) -> list[list[Boundary]]:
        """Take the next frames; see `DetectorState`."""
        return [self._push(frame) for frame in frames]

    def _push(self, frame: CoarseFrame) -> list[Boundary]:
        if self._first_s is None:
            self._first_s = frame.time_s
        # Times are rounded to the ticks of the container; a microsecond early is on time.
        piece = math.floor((frame.time_s - self._first_s + 1e-6) / self._every_s)
        if piece <= self._piece:
            return []
        self._piece = piece
        return [Boundary(frame.index, frame.index)]

    def finish(self) -> list[Boundary]:
        """Nothing stays open."""
        return []
