"""From shots to clips: spans of bounded length, nothing lost, look-ahead bounded."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from curation.shots.types import Boundary, Mark

EPSILON_S = 1e-6
"""Times are kept to the microsecond."""


@dataclass(frozen=True)
class Piece:
    """A stretch of a shot that becomes one row: frames `[start, end)` of the segment.

    Attributes:
        kind: `clip`; or `transition`, the frames in which one shot turns into the next.
        shot: index of the shot in its segment; a shot begins with the transition into it.
        shot_start_s: where the shot begins.
        shot_end_s: where it ends; null while a long shot is still going on.
        ended_by: the boundary that ends the shot, or, of a transition, its own; null where there is none or it is not
            known yet.
        marks: what the detector saw within and does not end a clip at, in order; the part of it that lies in here.
    """

    start: int
    end: int
    start_s: float
    end_s: float
    shot: int
    shot_start_s: float
    shot_end_s: float | None
    kind: Literal["clip", "transition"] = "clip"
    ended_by: Boundary | None = None
    marks: tuple[Mark, ...] = ()


class Divider:
    """Cuts shots into pieces while frames stream by.

    A long shot is taken in pieces of `max_s`; the last two share the remainder evenly, so that no tail is
    lost. A piece is given as soon as more than twice `max_s` is known to follow within the shot, hence the
    look-ahead is `2 * max_s` plus the detector's lag and the trim. `trim_s` is taken off both ends of a
    shot, rounded down to whole frames, as far as at least `min_s` remains.
    """

    def __init__(self, min_s: float, max_s: float, trim_s: float):
        """Start at the first frame of a segment; lengths in seconds."""
        self._min_s, self._max_s, self._trim_s = min_s, max_s, trim_s
        self._times: list[float] = []  # of frames from self._next on
        self._ends: dict[int, float] = {}  # by the frame after a gap: when the one before it ends
        self._next = 0  # first frame not yet given away
        self._shot = 0
        self._shot_start_s: float | None = None  # null until the shot's first frame is looked at
        self._whole = True  # no clip of the shot was given away yet
        self._begun = False  # nothing of it was, neither a clip nor a transition
        self._ended = False
        self._marks: list[Boundary] = []

    @property
    def open_from_s(self) -> float | None:
        """Time of the first frame not yet given away: nothing before it is needed any more."""
        return self._times[0] if self._times else None

    def push(self, time_s: float, previous_end_s: float | None = None) -> None:
        """Take the time of the next frame; and when the one before it ends, where a gap lies between them.

        A boundary must follow that ends the shot at the gap.
        """
        if previous_end_s is not None:
            self._ends[self._next + len(self._times)] = previous_end_s
        self._times.append(time_s)

    def mark(self, boundary: Boundary) -> None:
        """Note what lies within a shot and does not end it, before the piece that holds it is given."""
        self._marks.append(boundary)

    def settle(self, until_s: float) -> Iterator[Piece]:
        """Yield the pieces that are certain once no boundary before `until_s` can come."""
        while self._times and until_s - self._times[0] > 2 * self._max_s:
            self._begin_shot()
            skip = self._skipped(self._trim_s) if self._whole else 0
            may_trim_less = self._whole and until_s - self._times[0] < self._min_s + 2 * self._trim_s
            if may_trim_less or until_s - self._trim_s - self._times[skip] <= 2 * self._max_s:
                return
            self._drop(skip)
            yield self._give(longest(self._times, 0, self._max_s), None)

    def close(self, boundary: Boundary) -> Iterator[Piece]:
        """End the shot at a boundary; return its last pieces, and the transition if it has frames.

        The next shot begins where the transition does, though no clip holds any of its frames.
        """
        start = max(boundary.start, self._next)
        end = max(boundary.end, start)
        if start > self._next or self._begun:
            start_s = self._times[start - self._next]
            yield from self._finish_shot(start, self._ends.get(start, start_s), boundary)
            self._shot, self._shot_start_s = self._shot + 1, start_s
            self._whole, self._begun = True, False
        if end > start:
            self._begin_shot()
            at_the_end = self._ended and end - self._next == len(self._times) - 1
            yield self._give(end - start, self._times[-1] if at_the_end else None, boundary, "transition")
            self._whole = True  # what follows is trimmed as a shot's beginning

    def end(self, end_s: float) -> None:
        """Say that there are no more frames, and when the last one ends; boundaries may still follow."""
        self._times.append(end_s)
        self._ended = True

    def finish(self, ended_by: Boundary | None = None) -> Iterator[Piece]:
        """Yield the pieces of the last shot, after `end`; `ended_by` is a boundary that begins exactly there."""
        yield from self._finish_shot(self._next + len(self._times) - 1, self._times[-1], ended_by)

    def _begin_shot(self) -> None:
        if self._shot_start_s is None:
            self._shot_start_s = self._times[0]

    def _finish_shot(self, end: int, shot_end_s: float, ended_by: Boundary | None) -> Iterator[Piece]:
        """Yield the rest of the shot, frames `[self._next, end)`."""
        count = end - self._next
        if count <= 0:
            return
        self._begin_shot()
        self._times[count], after_s = shot_end_s, self._times[count]  # where the last frame ends, not the next begins
        length_s = self._times[count] - self._times[0]
        trim_s = min(self._trim_s, max(0.0, length_s - self._min_s) / 2) if self._whole else self._trim_s
        last = self._first_from(self._times[count] - trim_s) if trim_s else count
        skip = self._skipped(trim_s) if self._whole else 0
        left = count - last
        self._drop(skip)
        given = 0
        for cut in cuts(self._times[: last - skip + 1], self._min_s, self._max_s):
            yield self._give(cut - given, shot_end_s, ended_by)
            given = cut
        self._drop(left)
        self._times[0] = after_s

    def _give(
        self,
        count: int,
        shot_end_s: float | None,
        ended_by: Boundary | None = None,
        kind: Literal["clip", "transition"] = "clip",
    ) -> Piece:
        assert self._shot_start_s is not None and count > 0
        start, start_s = self._next, self._times[0]
        marks = self._marks_within(count)
        self._drop(count)
        end_s = self._times[0]
        return Piece(
            start, self._next, start_s, end_s, self._shot, self._shot_start_s, shot_end_s, kind, ended_by, marks
        )

    def _marks_within(self, count: int) -> tuple[Mark, ...]:
        """Return the marks within the next frames; one without frames lies between two of them."""
        found = []
        for each in sorted(self._marks):
            start, end = (min(max(0, frame - self._next), count) for frame in (each.start, each.end))
            if start < end or 0 < each.start - self._next == each.end - self._next < count:
                found.append(Mark(each.kind or "other", self._times[start], self._times[end], each.score))
        return tuple(found)

    def _drop(self, count: int) -> None:
        del self._times[:count]
        self._next += count
        self._marks = [each for each in self._marks if each.end > self._next]
        self._whole = self._whole and count == 0
        self._begun = self._begun or count > 0

    def _skipped(self, trim_s: float) -> int:
        """Return how many frames a trim takes off the beginning: none where it is 0, however close they lie."""
        return max(0, bisect_right(self._times, self._times[0] + trim_s + EPSILON_S) - 1) if trim_s else 0

    def _first_from(self, time_s: float) -> int:
        """Return the first frame, counted from the first one kept, that begins no earlier."""
        return bisect_left(self._times, time_s - EPSILON_S)


def cuts(times: Sequence[float], min_s: float, max_s: float) -> Iterator[int]:
    """Yield where the pieces of a shot end: pieces of `max_s`, the last two of equal length.

    Args:
        times: of the shot's N frames, and when the last one ends: N + 1 rising values, seconds.
        min_s: where halves would be shorter, a piece of `max_s` and a short rest are given.
        max_s: longest piece; only a single frame may last longer.
    """
    start, end = 0, len(times) - 1
    while start < end:
        if times[end] - times[start] <= max_s + EPSILON_S or end - start == 1:
            yield end
            return
        half = middle(times, start)
        halves_s = (times[half] - times[start], times[end] - times[half])
        if max(halves_s) <= max_s + EPSILON_S and min(halves_s) >= min_s - EPSILON_S:
            yield half
            yield end
            return
        start = longest(times, start, max_s)
        yield start


def longest(times: Sequence[float], start: int, max_s: float) -> int:
    """Return the end of the longest piece from `start` that is no longer than `max_s`, or one frame."""
    return max(bisect_right(times, times[start] + max_s + EPSILON_S) - 1, start + 1)


def middle(times: Sequence[float], start: int) -> int:
    """Return the frame that begins nearest to the middle between `start` and the end, inside."""
    middle_s = (times[start] + times[-1]) / 2
    later = bisect_left(times, middle_s, start)
    nearest = later if times[later] - middle_s < middle_s - times[later - 1] else later - 1
    return min(max(nearest, start + 1), len(times) - 2)
