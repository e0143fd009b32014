"""Held frames, shown to a detector as often as a file of even rate would hold them.

A slideshow may be stored as one frame for each photo. Detectors compare a change with what lies around it; without
repeats, what lies around one change is the next change, seconds away.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace

from curation.shots.types import Boundary, DetectorState
from media.coarse import CoarseFrame

HELD_S = 1 / 8
"""A frame shown for longer is held; shorter steps are frame rates."""
RATE_FPS = 25.0
"""Repeats come at this rate, or at that of the footage where it is higher."""
MOST_S = 4.0
"""Of a longer hold, so much at its beginning and at its end is shown: no window of a detector reaches further."""


def even_rate(fps: float) -> float:
    """Return the rate at which a detector sees footage of `fps` frames per second on average."""
    return RATE_FPS if 0 < fps < 1 / HELD_S else fps


class Holds:
    """A detector that sees held frames repeated; boundaries are reported in the frames that there are."""

    def __init__(self, detector: DetectorState, fps: float) -> None:
        """Begin a segment of `fps` frames per second on average; the detector is at its first frame."""
        self._detector, self._rate_fps = detector, max(fps, RATE_FPS)
        self._most = round(MOST_S * self._rate_fps)
        self._last: CoarseFrame | None = None
        self._repeated = 0
        # Frames without repeats between them: the first one's number, as the detector counts, and its index.
        self._numbers: list[int] = []
        self._indices: list[int] = []

    def push(self, frames: Sequence[CoarseFrame]) -> list[list[Boundary]]:
        """Take the next frames; see `DetectorState`."""
        shown: list[CoarseFrame] = []
        counts = []
        for frame in frames:
            before = len(shown)
            if self._last is not None and frame.time_s - self._last.time_s > HELD_S:
                shown += self._repeats(self._last, frame.time_s)
                self._begin_run(frame.index)
            elif self._last is None:
                self._begin_run(frame.index)
            shown.append(replace(frame, index=frame.index + self._repeated) if self._repeated else frame)
            counts.append(len(shown) - before)
            self._last = frame
        found = iter(self._detector.push(shown))
        return [[self._told(boundary) for _ in range(count) for boundary in next(found)] for count in counts]

    def finish(self) -> list[Boundary]:
        """Decide about the last frames; see `DetectorState`."""
        found: list[Boundary] = []
        if self._last is not None and self._last.shown_s > HELD_S:
            repeats = self._repeats(self._last, self._last.time_s + self._last.shown_s)
            self._begin_run(self._last.index + 1)
            found = [boundary for each in self._detector.push(repeats) for boundary in each]
        return [self._told(boundary) for boundary in [*found, *self._detector.finish()]]

    def _repeats(self, held: CoarseFrame, until_s: float) -> list[CoarseFrame]:
        """Return what is seen of a frame between its beginning and the next frame."""
        count = round((until_s - held.time_s) * self._rate_fps) - 1
        steps = [*range(1, count + 1)[: self._most], *range(1, count + 1)[max(self._most, count - self._most) :]]
        times_s = [held.time_s + step / self._rate_fps for step in steps]
        first = held.index + self._repeated + 1
        self._repeated += len(times_s)
        return [replace(held, index=first + k, time_s=time_s) for k, time_s in enumerate(times_s)]

    def _begin_run(self, index: int) -> None:
        self._numbers.append(index + self._repeated)
        self._indices.append(index)

    def _told(self, boundary: Boundary) -> Boundary:
        return replace(boundary, start=self._index(boundary.start), end=self._index(boundary.end))

    def _index(self, number: int) -> int:
        """Return the frame of a number; for a repeat, the frame that follows it."""
        run = max(0, bisect_right(self._numbers, number) - 1)
        index = self._indices[run] + number - self._numbers[run]
        return min(index, self._indices[run + 1]) if run + 1 < len(self._indices) else index
