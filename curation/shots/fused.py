"""The default shot detector: several kinds of evidence, weighed together, no trained weights.

A hard cut is a change that (1) covers most of the frame and small movement does not explain, (2) stands
out from the changes around it on both sides, (3) lasts, so that it is no flash, and (4) changes structure,
not only brightness. Dissolves and fades are found separately, over longer windows, as ranges: see
`curation.shots.gradual`.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curation.settings import key
from curation.shots import evidence, gradual
from curation.shots.evidence import View
from curation.shots.types import Boundary, CoarseFrame

_NEIGHBOUR_S = 0.25
"""Changes this near a frame are what its own change must stand out from; shorter than most shots."""
_PEAK_S = 0.08
"""Two cuts are at least this far apart: 2 frames at 24 per second."""
_FLASH_S = 0.15
"""A picture that is back within this time was interrupted by a flash, not cut (3 frames at 24 per second)."""
_QUIET_LEVELS = 0.5
"""Change of a still picture by noise and coding, in levels; keeps quiet footage from making cuts of it."""
_TICK_S = 1 / 12
"""Time between two looks for a dissolve."""
_WINDOW_RATIO = 1.6
_SHORTEST_WINDOW_S = 0.5
_EPSILON_S = 1e-6


@dataclass(frozen=True)
class Fused:
    """Settings of the detector.

    Evidence adds up: a change that stands out 10 times on both sides brings 4.6, pictures without correlation
    2, a shift of tone up to 2.2, structure without a match up to 8, a lasting change up to 5.

    A fade-in at the start of a segment is a boundary with `start == 0`; a fade-out at its end has `end` equal
    to the number of frames. Black or white that lasts until a boundary has to be reported becomes a shot.
    """

    threshold: float = key(
        12.0,
        "total evidence that makes a cut; 11 to 14 gave nearly the same F1 on real footage",
    )
    min_change_levels: float = key(
        2.0, "changes below this many levels of 255 (after the tolerance to movement) are noise"
    )
    min_decorrelation: float = key(
        0.1, "1 - correlation of the pictures before and after; below it only exposure changed"
    )
    min_persistence: float = key(
        0.5, "least share (0 to 1) of the change that must remain `_FLASH_S` later and earlier"
    )
    max_gradual_s: float = key(2.0, "longest dissolve or ramp of a fade that is looked for; 0 finds hard cuts only")

    def __post_init__(self) -> None:
        """Refuse settings that cannot work.

        Raises:
            ValueError: a setting is negative, or the persistence exceeds 1.
        """
        values = (self.min_change_levels, self.min_decorrelation, self.min_persistence, self.max_gradual_s)
        if min(values) < 0 or self.min_persistence > 1:
            raise ValueError(f"settings must not be negative, min_persistence at most 1: {self}")

    @property
    def lag_s(self) -> float:
        """Longest boundary plus the time a cut needs to be compared with what follows."""
        return self.max_gradual_s + 1.0

    def start(self, fps: float) -> "FusedState":
        """Begin a segment of nominally `fps` frames per second."""
        return FusedState(self, fps)


class FusedState:
    """The detector at work; holds the frames of about `lag_s`."""

    def __init__(self, settings: Fused, fps: float) -> None:
        """Begin a segment.

        Raises:
            ValueError: `fps` is not a positive number.
        """
        if not (math.isfinite(fps) and fps > 0):
            raise ValueError(f"fps must be positive, got {fps}")
        self._settings = settings
        self._near = max(3, round(_NEIGHBOUR_S * fps))
        self._peak = max(1, round(_PEAK_S * fps))
        self._flash = max(2, round(_FLASH_S * fps))
        self._tick = max(1, round(_TICK_S * fps))
        self._windows = np.array(_windows(settings.max_gradual_s, fps)[::-1], int)
        hold = max([3 * self._near, 2 * self._near + self._flash, round(settings.lag_s * fps)])
        hold = max(hold, self._near + int(self._windows.max(initial=0)))
        self._views: deque[View] = deque(maxlen=hold + 2)
        self._tiny = np.empty((3 * (hold + 2), evidence.TINY_SIZE), np.uint8)  # of the views, up to row _tiny_end
        self._tiny_end = 0
        self._changes: deque[float] = deque(maxlen=hold + 2)
        self._times_s: deque[float] = deque(maxlen=hold + 2)
        self._last: CoarseFrame | None = None
        self._first = 0
        self._count = 0
        self._flat_from = -1
        # Cuts found lately, at most one in every few frames of a window.
        self._cuts: deque[int] = deque(maxlen=hold)
        self._open: list[Boundary] = []
        self._reported_end = 0

    def push(self, frames: Sequence[CoarseFrame]) -> list[list[Boundary]]:
        """Take the next frames; see `DetectorState`."""
        if not frames:
            return []
        if self._last is None:
            self._first = frames[0].index
            views, changes = evidence.views(frames)
            changes = [0.0, *changes]
        else:
            (_, *views), changes = evidence.views([self._last, *frames])
        self._last = frames[-1]
        times_s = [frame.time_s for frame in frames]
        return [self._push(*each) for each in zip(views, changes, times_s, strict=True)]

    def _push(self, seen: View, change: float, time_s: float) -> list[Boundary]:
        """Take the next frame, which changed so much from the one before."""
        self._changes.append(change)
        self._views.append(seen)
        self._keep_tiny(seen)
        self._times_s.append(time_s)
        self._count += 1
        self._look_for_cut(self._count - 1 - self._near)
        if len(self._windows) and self._count % self._tick == 0:
            self._look_for_dissolve(len(self._views) - self._near)
        self._follow_flat(seen)
        return self._release(time_s - self._settings.lag_s)

    def finish(self) -> list[Boundary]:
        """Decide about the last frames; see `DetectorState`."""
        for frame in range(max(0, self._count - self._near), self._count):
            self._look_for_cut(frame)
        self._look_for_dissolve(len(self._views))
        return self._release(math.inf)

    def _look_for_cut(self, frame: int) -> None:
        """Decide whether a shot begins at `frame`, counted from the start of the segment."""
        at = frame - (self._count - len(self._views))
        if frame < 1 or at < 1:
            return
        changes = self._changes
        change = changes[at]
        if change < self._settings.min_change_levels:
            return
        around = [changes[i] for i in range(max(0, at - self._peak), min(len(changes), at + self._peak + 1))]
        if change < max(around):
            return
        # The frame at a cut is sometimes a mixture of both shots (frame rate conversion, deinterlacing).
        pairs = ((at - 1, at), (at - 1, at + 1), (at - 2, at))
        if any(self._is_cut(before, after) for before, after in pairs):
            self._cuts.append(frame)
            self._add(Boundary(frame, frame))

    def _is_cut(self, before: int, after: int) -> bool:
        """Weigh the evidence for a cut between two held frames one or two apart."""
        settings, views, changes = self._settings, self._views, self._changes
        if before < 0 or after >= len(views):
            return False
        old, new = views[before], views[after]
        steps = after - before
        if steps == 2 and not gradual.is_mixture(old, views[before + 1], new):
            return False
        change = changes[after] if steps == 1 else evidence.change(old, new)
        earlier = [changes[i] for i in range(max(1, before + 1 - self._near), before + 1)]
        later = [changes[i] for i in range(after + 1, min(len(changes), after + 1 + self._near))]
        # Movement over two steps changes twice as much as over one. At an end of a segment one side is empty.
        stands_out = [
            change / (steps * _typical(side) + _QUIET_LEVELS) for side in (earlier or later, later or earlier)
        ]
        decorrelation = evidence.decorrelation(old, new)
        if decorrelation < settings.min_decorrelation:
            return False
        score = sum(math.log(ratio + 0.3) for ratio in stands_out)
        score += 2.0 * min(decorrelation, 1.0)
        # Beyond 4 bins (32 levels) a shift of tone says no more than that the brightness changed.
        score += 1.5 * math.log(min(evidence.tone_shift(old, new), 4.0) + 0.3)
        # The dear measures come last, and only where the most they can bring would still decide.
        if score + 13.0 < settings.threshold:
            return False
        persistence = self._persistence(before, after, change)
        score += 5.0 * persistence
        if persistence < settings.min_persistence or score + 8.0 < settings.threshold:
            return False
        return evidence.is_unexplained(old, new, (settings.threshold - score) / 8.0)

    def _persistence(self, before: int, after: int, change: float) -> float:
        """Least change between a frame shortly before and one shortly after, as a share of `change`."""
        reach = (0, max(1, self._flash // 2), self._flash)
        olds = [self._views[before - k] for k in reach if before >= k]
        news = [self._views[after + k] for k in reach if after + k < len(self._views)]
        return min(1.0, min(evidence.change(old, new) for old in olds for new in news) / change)

    def _look_for_dissolve(self, last: int) -> None:
        """Test the windows that end before held frame `last`, the longest first; cuts there are known."""
        offset = self._count - len(self._views)
        lengths = self._windows[self._windows <= last]
        if not len(lengths):
            return
        tiny = self._tiny[self._tiny_end - len(self._views) : self._tiny_end]
        for length in lengths[gradual.may_dissolve(tiny, last - lengths, last - 1)].tolist():
            found = gradual.dissolve(self._views, tiny, last - length, last)
            if found:
                start, end = (offset + i for i in found)
                if not any(start < cut < end for cut in self._cuts):
                    self._add(Boundary(self._over_flat(start), self._past_flat(end)))
                    return

    def _keep_tiny(self, seen: View) -> None:
        """Keep the `tiny` of the views as rows of one array, moved to its front whenever it is full."""
        if self._tiny_end == len(self._tiny):
            kept = len(self._views) - 1
            self._tiny[:kept] = self._tiny[self._tiny_end - kept :]
            self._tiny_end = kept
        self._tiny[self._tiny_end] = seen.tiny
        self._tiny_end += 1

    def _over_flat(self, start: int) -> int:
        """Move the start of a fade-in back over the black before it, unless it is long enough for a shot."""
        offset = self._count - len(self._views)
        first = start
        while first > offset and gradual.is_flat(self._views[first - 1 - offset]):
            first -= 1
        held_all = offset == 0 and first == 0
        return first if held_all or first > max(offset, self._reported_end) else start

    def _past_flat(self, end: int) -> int:
        """Move the end of a fade-out on over the black after it, as far as that is known."""
        offset = self._count - len(self._views)
        while end < self._count and gradual.is_flat(self._views[end - offset]):
            end += 1
        return end

    def _follow_flat(self, newest: View) -> None:
        """Let the fades that reached black grow over the black."""
        frame = self._count - 1
        if not gradual.is_flat(newest):
            self._flat_from = -1
            return
        if self._flat_from < 0:
            self._flat_from = frame
        for boundary in self._open:
            if boundary.start < boundary.end and self._flat_from <= boundary.end <= frame:
                self._add(Boundary(boundary.start, frame + 1))
                return

    def _add(self, boundary: Boundary) -> None:
        """Hold a boundary back until none can begin before it; join those that overlap, ranges over cuts."""
        start, end = boundary.start, boundary.end
        if self._reported_end and (start < self._reported_end or end <= self._reported_end):
            # Most of it was reported already, or it is what follows: a shot must lie between.
            if start == end or end - self._reported_end < (end - start) / 2:
                return
            start = self._reported_end
        start = max(start, self._count - len(self._views))
        kept = []
        for other in self._open:
            apart = other.end < start or end < other.start
            if start == end and other.start == other.end:
                apart = start != other.start
            if apart:
                kept.append(other)
            else:
                start, end = min(start, other.start), max(end, other.end)
        self._open = sorted([*kept, Boundary(start, end)])

    def _release(self, before_s: float) -> list[Boundary]:
        """Give the boundaries that start no later than `before_s`, in frame indices of the source."""
        ready: list[Boundary] = []
        oldest = self._count - len(self._times_s)
        while self._open and self._times_s[max(0, self._open[0].start - oldest)] <= before_s + _EPSILON_S:
            boundary = self._open.pop(0)
            if before_s < math.inf and boundary.start < self._flat_from and boundary.end == self._count:
                # The black goes on: it is a shot of its own.
                boundary = Boundary(boundary.start, self._flat_from)
            self._reported_end = boundary.end
            ready.append(Boundary(boundary.start + self._first, boundary.end + self._first))
        return ready


def _windows(longest_s: float, fps: float) -> list[int]:
    """Lengths in frames of the windows searched for dissolves, each about 1.6 times the one before."""
    if longest_s <= 0:
        return []
    # A window must hold the dissolve and some of what it joins.
    spread = max(1.0, 1.25 * longest_s / _SHORTEST_WINDOW_S)
    count = max(1, math.ceil(math.log(spread, _WINDOW_RATIO)))
    lengths_s = [_SHORTEST_WINDOW_S * _WINDOW_RATIO**k for k in range(count + 1)]
    return sorted({max(gradual.SAMPLES, round(length_s * fps)) for length_s in lengths_s})


def _typical(changes: list[float]) -> float:
    """Contraharmonic mean, which repeated frames leave as it is (animation on twos, 24 in 60 per second)."""
    total = sum(changes)
    return sum(c * c for c in changes) / total if total > 0 else 0.0
