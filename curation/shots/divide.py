"""From shots to clips: spans of bounded length, nothing lost, look-ahead bounded."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from curation.shots.types import Boundary


@dataclass(frozen=True)
class Piece:
    """A stretch of a shot that becomes one row: frames `[start, end)` of the segment.

    Attributes:
        kind: `clip`; or `transition`, the frames between two shots, which belong to neither.
        shot: index of the shot in its segment; transitions count too.
        shot_start_s: where the shot begins.
        shot_end_s: where it ends; null while a long shot is still going on.
    """

    start: int
    end: int
    start_s: float
    end_s: float
    shot: int
    shot_start_s: float
    shot_end_s: float | None
    kind: Literal["clip", "transition"] = "clip"


class Divider:
    """Cuts shots into pieces while frames stream by.

    A long shot is taken in pieces of `max_s`; the last two share the remainder evenly, so that no tail is
    lost. A piece is given as soon as more than twice `max_s` is known to follow within the shot, hence the
    look-ahead is `2 * max_s` plus the detector's lag. `trim_s` is taken off both ends of a shot as far as at
    least `min_s` remains.
    """

    def __init__(self, min_s: float, max_s: float, trim_s: float):
        """Start at the first frame of a segment; lengths in seconds."""
        self._min_s, self._max_s, self._trim_s = min_s, max_s, trim_s
        self._times: list[float] = []  # of frames from self._base on
        self._base = 0  # index of the first frame whose time is kept
        self._next = 0  # first frame not yet given away
        self._shot, self._shot_start = 0, 0
        self._shot_start_s: float | None = None

    @property
    def open_from_s(self) -> float | None:
        """Time of the first frame not yet given away: nothing before it is needed any more."""
        return self._times[self._next - self._base] if self._next - self._base < len(self._times) else None

    def push(self, time_s: float) -> None:
        """Take the time of the next frame."""
        self._times.append(time_s)

    def settle(self, until_s: float) -> Iterator[Piece]:
        """Give the pieces that are certain once no boundary before `until_s` can come."""
        while self.open_from_s is not None:
            start = self._begin_shot()
            start_s = self._time(start)
            first = start == self._shot_start
            trimmed = self._at_or_after(start_s + self._trim_s) if first and self._trim_s else start
            if until_s - self._time(trimmed) <= 2 * self._max_s:
                return
            yield self._give(trimmed, self._longest(trimmed), None)

    def close(self, boundary: Boundary) -> Iterator[Piece]:
        """End the shot at a boundary; give its last pieces, and the transition if it has frames."""
        start = max(boundary.start, self._next)
        end = max(boundary.end, start)
        yield from self._finish_shot(start)
        if end > start:
            self._begin_shot()
            yield self._give(start, end, self._time(end), "transition")
            self._end_shot(end)

    def end(self, end_s: float) -> None:
        """Say that there are no more frames, and when the last one ends; boundaries may still follow."""
        self._times.append(end_s)

    def finish(self) -> Iterator[Piece]:
        """Give the pieces of the last shot, after `end`."""
        yield from self._finish_shot(self._base + len(self._times) - 1)

    def _begin_shot(self) -> int:
        if self._shot_start_s is None:
            self._shot_start_s = self._time(self._shot_start)
        return self._next

    def _finish_shot(self, end: int) -> Iterator[Piece]:
        """Give the rest of the shot, frames `[self._next, end)`."""
        if end <= self._next:
            return
        start, end_s = self._begin_shot(), self._time(end)
        spare_s = max(0.0, end_s - self._time(start) - self._min_s)
        sides = 2 if start == self._shot_start else 1
        trim_s = min(self._trim_s, spare_s / sides)
        if trim_s > 0:
            if start == self._shot_start:
                start = self._at_or_after(self._time(start) + trim_s - 1e-6)
            last = self._at_or_before(end_s - trim_s + 1e-6, end)
        else:
            last = end
        for cut in self._cuts(start, last):
            yield self._give(start, cut, end_s)
            start = cut
        self._end_shot(end)

    def _cuts(self, start: int, end: int) -> Iterator[int]:
        """Give where the pieces of `[start, end)` end."""
        while True:
            length_s = self._time(end) - self._time(start)
            if length_s <= self._max_s + 1e-6:
                yield end
                return
            if length_s <= 2 * self._max_s and length_s >= 2 * self._min_s:
                middle_s = self._time(start) + length_s / 2
                later = self._at_or_after(middle_s)
                nearer = min((later - 1, later), key=lambda i: abs(self._time(i) - middle_s))
                yield min(max(nearer, start + 1), end)
                yield end
                return
            start = min(self._longest(start), end)
            yield start

    def _give(self, start: int, end: int, shot_end_s: float | None, kind: str = "clip") -> Piece:
        assert self._shot_start_s is not None
        piece = Piece(start, end, self._time(start), self._time(end), self._shot, self._shot_start_s, shot_end_s, kind)  # type: ignore[arg-type]
        self._next = end
        drop = self._next - self._base
        del self._times[:drop]
        self._base = self._next
        return piece

    def _end_shot(self, end: int) -> None:
        drop = end - self._base
        del self._times[:drop]
        self._base = self._next = self._shot_start = end
        self._shot_start_s, self._shot = None, self._shot + 1

    def _time(self, index: int) -> float:
        return self._times[index - self._base]

    def _longest(self, start: int) -> int:
        """Give the end of the longest piece from `start` that is not longer than the maximum."""
        return max(self._at_or_before(self._time(start) + self._max_s + 1e-6, None), start + 1)

    def _at_or_after(self, time_s: float) -> int:
        for i, t in enumerate(self._times):
            if t >= time_s:
                return self._base + i
        return self._base + len(self._times) - 1

    def _at_or_before(self, time_s: float, end: int | None) -> int:
        stop = len(self._times) if end is None else end - self._base + 1
        for i in range(stop - 1, -1, -1):
            if self._times[i] <= time_s:
                return self._base + i
        return self._base
