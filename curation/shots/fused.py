"""The default shot detector: several kinds of evidence, weighed together, no trained weights.

A hard cut is a change that (1) covers most of the frame and small movement does not explain, (2) stands
out from the changes around it on both sides, (3) lasts, so that it is no flash, and (4) changes structure,
not only brightness. Dissolves and fades are found separately, over longer windows, as ranges: see
`curation.shots.gradual`; cuts within one view by places (`jumps`). All are looked at once more: see `within`.
"""

import itertools
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from core.settings import key
from curation.shots import composite, evidence, gradual, jumps, kinds, within
from curation.shots.evidence import View
from curation.shots.holds import Holds, even_rate
from curation.shots.looks import BLOCK_FRAMES, FirstLooks, Look, windows
from curation.shots.types import NO_CUTS, Boundary
from media.coarse import CoarseFrame

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
_EPSILON_S = 1e-6
_RAMP_SHARE, _RAMP_RATIO, _RAMP_LEVELS = 0.15, 3.0, 1.0
"""Frames next to a cut belong to it where they change so much: a share of its change, and more than the shot beyond."""
_SLIDE_RATIO, _SLIDE_LEVELS = 1.5, 1.5
"""A picture that slides over another changes by so much more than the calmer one of both shots."""


@dataclass(frozen=True)
class Fused:
    """Settings of the detector.

    Evidence adds up: a change that stands out 10 times on both sides brings 4.6, pictures without correlation
    2, a shift of tone up to 2.2, structure without a match up to 8, a lasting change up to 5.

    A fade-in at the start of a segment is a boundary with `start == 0`; a fade-out at its end has `end` equal
    to the number of frames. Black or white that lasts until a boundary has to be reported becomes a shot.
    """

    threshold: float = key(12.0, "total evidence that makes a cut; 11 to 14 gave nearly the same F1 on real footage")
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
    marks: ClassVar[frozenset[str]] = NO_CUTS

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

    def start(self, fps: float) -> Holds:
        """Begin a segment of nominally `fps` frames per second."""
        return Holds(FusedState(self, even_rate(fps)), fps)


class FusedState:
    """The detector at work; holds the frames of about `lag_s`."""

    def __init__(self, settings: Fused, fps: float, doubtful_from: float = math.inf) -> None:
        """Begin a segment; cuts with evidence from `doubtful_from` up to the threshold are kept in `doubtful`.

        Raises:
            ValueError: `fps` is not a positive number.
        """
        if not (math.isfinite(fps) and fps > 0):
            raise ValueError(f"fps must be positive, got {fps}")
        self._settings = settings
        self._least = min(settings.threshold, doubtful_from)
        self.doubtful: list[Boundary] = []
        """in frames of the source; whoever asks for them takes them out"""
        self._near = max(3, round(_NEIGHBOUR_S * fps))
        self._peak = max(1, round(_PEAK_S * fps))
        self._flash = max(2, round(_FLASH_S * fps))
        self._tick = max(1, round(_TICK_S * fps))
        self._longest = round(settings.max_gradual_s * fps) + 1
        self._turn = 0
        self._windows = windows(settings.max_gradual_s, fps)
        hold = max([3 * self._near, 2 * self._near + self._flash, round(settings.lag_s * fps)])
        self._reach = round(within.LONGEST_BREAK_S * fps)
        hold = max(hold, self._near + max(self._windows, default=0)) + self._reach
        self._views: deque[View] = deque(maxlen=hold + 2)
        self._looks = FirstLooks(self._windows, self._tick, self._near, hold + 2)
        self._spreads: deque[float] = deque(maxlen=2 * self._near + 1)
        self._changes: deque[float] = deque(maxlen=hold + 2)
        self._times_s: deque[float] = deque(maxlen=hold + 2)
        self._places = jumps.Jumps(self._near, self._peak, self._flash, hold + 2)
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
        known = [self._last] if self._last is not None else []
        before: list[CoarseFrame | None] = [self._last, *frames[:-1]]
        # A repeat of a held frame shares its picture, and costs next to nothing.
        is_new = [last is None or frame.luma is not last.luma for frame, last in zip(frames, before, strict=True)]
        new = [frame for frame, one in zip(frames, is_new, strict=True) if one]
        views, changes, cells = evidence.views([*known, *new]) if new else ([], [], evidence.UNCHANGED)
        if not known:
            changes, cells = [0.0, *changes], np.concatenate([evidence.UNCHANGED, cells])
        fresh = zip(views[len(known) :], changes, cells, strict=True)
        self._last = frames[-1]
        seen = self._views[-1] if self._views else None
        shown: list[tuple[View, float, np.ndarray, float]] = []
        for frame, one in zip(frames, is_new, strict=True):
            seen, change, moved = next(fresh) if one or seen is None else (seen, 0.0, evidence.UNCHANGED[0])
            shown.append((seen, change, moved, frame.time_s))
        found = []
        for begin in range(0, len(shown), BLOCK_FRAMES):
            block = shown[begin : begin + BLOCK_FRAMES]
            if self._windows:
                self._looks.take([each[0] for each in block])
            found += [self._push(*each) for each in block]
        return found

    def _push(self, seen: View, change: float, cells: np.ndarray, time_s: float) -> list[Boundary]:
        """Take the next frame, which changed so much from the one before, and where."""
        self._changes.append(change)
        self._places.take(cells)
        self._views.append(seen)
        self._spreads.append(seen.spread)
        self._times_s.append(time_s)
        self._count += 1
        self._look_at(self._count - 1 - self._near)
        if self._windows:
            self._look_for_dip(self._count - 1 - self._near)
            if self._count % self._tick == 0:
                self._look_for_gradual(len(self._views) - self._near, self._looks.due())
        self._follow_flat(seen)
        return self._release(time_s - self._settings.lag_s) if self._open else []

    def finish(self) -> list[Boundary]:
        """Decide about the last frames; see `DetectorState`."""
        for frame in range(max(0, self._count - self._near), self._count):
            self._look_at(frame)
        if self._windows:
            self._look_for_gradual(len(self._views), *self._looks.at([self._count]))
        return self._release(math.inf)

    def _look_at(self, frame: int) -> None:
        """Decide whether a shot begins at `frame`, counted from the start of the segment."""
        at = frame - (self._count - len(self._views))
        if frame < 1 or at < 1 or self._look_for_cut(frame, at):
            return
        if self._places.is_at(at, self._views):
            self._cuts.append(frame)
            self.doubtful = [each for each in self.doubtful if each.start != frame + self._first]
            self._add(Boundary(frame, frame, "jump", jumps.CONFIDENCE))
        elif self._places.breaks(at):
            self._add(Boundary(frame, frame, "flash"))  # may be one: see `within.judged`

    def _look_for_cut(self, frame: int, at: int) -> bool:
        """Look for a hard cut at a frame, which is held at a place; return whether there is one."""
        changes = self._changes
        change = changes[at]
        if change < self._settings.min_change_levels:
            return False
        around = [changes[i] for i in range(max(0, at - self._peak), min(len(changes), at + self._peak + 1))]
        if change < max(around):
            return False
        # The frame at a cut is sometimes a mixture of both shots (frame rate conversion, deinterlacing).
        pairs = ((at - 1, at), (at - 1, at + 1), (at - 2, at))
        found = next((each for each in (self._cut(before, after) for before, after in pairs) if each), None)
        if found:
            kind, score, is_cut = found
            if not is_cut:
                self.doubtful.append(Boundary(frame + self._first, frame + self._first, kind, score))
                return False
            self._cuts.append(frame)
            before, after = self._ramp(at, -1), self._ramp(at, 1)
            if before + after >= kinds.RAMP_FRAMES:
                kind = kinds.of_ramp(self._views, at - before, at + after)
            self._add(Boundary(frame - before, frame + after, kind, score))
        return found is not None

    def _look_for_dip(self, frame: int) -> None:
        """Decide whether `frame`, counted from the start of the segment, is the flattest of a short fade out and in."""
        spreads = self._spreads
        if frame < 1:
            return
        at = len(spreads) - 1 - self._near
        seen = spreads[at]
        # The last question turns down nearly all frames, before any view is looked at.
        if spreads[at - 1] < seen or spreads[at + 1] <= seen or max(spreads) < gradual.MAX_DIP_SPREAD * seen:
            return
        offset = self._count - len(self._views)
        if found := gradual.dip(self._views, frame - offset, self._near):
            flattest = self._views[frame - offset]
            self._add(Boundary(offset + found[0], offset + found[1], *kinds.of_dip(flattest)))

    def _ramp(self, at: int, way: int) -> int:
        """Return how many held frames next to a cut, in one direction, go on changing: a short fade, wipe or slide.

        They change far more than the shot does beyond them.
        """
        changes = self._changes
        steps = [k for k in range(1, 2 * self._near + 1) if 0 < at + way * k < len(changes)]
        seen = [changes[at + way * k] for k in steps]
        # Of two neighbours the larger one counts: every second frame may be a repeat.
        beyond = sorted(max(pair) for pair in itertools.pairwise(seen))[: max(1, len(seen) // 6)]
        least = max(_RAMP_SHARE * changes[at], _RAMP_RATIO * jumps.typical(beyond) + _RAMP_LEVELS)
        return next((k for k, change in enumerate(seen[: self._near + 1]) if change < least), 0)

    def _cut(self, before: int, after: int) -> tuple[str, float, bool] | None:
        """Weigh the evidence between two held frames one or two apart; return kind, score, and whether it is a cut."""
        settings, views, changes = self._settings, self._views, self._changes
        if before < 0 or after >= len(views):
            return None
        old, new = views[before], views[after]
        steps = after - before
        if steps == 2 and not gradual.is_mixture(old, views[before + 1], new):
            return None
        change = changes[after] if steps == 1 else evidence.change(old, new)
        earlier = [changes[i] for i in range(max(1, before + 1 - self._near), before + 1)]
        later = [changes[i] for i in range(after + 1, min(len(changes), after + 1 + self._near))]
        # Movement over two steps changes twice as much as over one. At an end of a segment one side is empty.
        stands_out = [
            change / (steps * jumps.typical(side) + _QUIET_LEVELS) for side in (earlier or later, later or earlier)
        ]
        decorrelation = evidence.decorrelation(old, new)
        if decorrelation < settings.min_decorrelation:
            return None
        score = sum(math.log(ratio + 0.3) for ratio in stands_out)
        score += 2.0 * min(decorrelation, 1.0)
        # Beyond 4 bins (32 levels) a shift of tone says no more than that the brightness changed.
        score += 1.5 * math.log(min(evidence.tone_shift(old, new), 4.0) + 0.3)
        # The dear measures come last, and only where the most they can bring would still decide.
        if score + 13.0 < self._least:
            return None
        persistence = self._persistence(before, after, change)
        score += 5.0 * persistence
        if persistence < settings.min_persistence or score + 8.0 < self._least:
            return None
        is_cut = evidence.is_unexplained(old, new, (settings.threshold - score) / 8.0)
        if not is_cut and not evidence.is_unexplained(old, new, (self._least - score) / 8.0):
            return None
        score += 8.0 * evidence.unexplained(old, new)
        return kinds.of_cut(old, new), kinds.confidence(score), is_cut

    def _persistence(self, before: int, after: int, change: float) -> float:
        """Least change between a frame shortly before and one shortly after, as a share of `change`."""
        reach = (0, max(1, self._flash // 2), self._flash)
        olds = [self._views[before - k] for k in reach if before >= k]
        news = [self._views[after + k] for k in reach if after + k < len(self._views)]
        return min(1.0, min(evidence.change(old, new) for old in olds for new in news) / change)

    def _look_for_gradual(self, last: int, look: Look) -> None:
        """Test the windows that end before held frame `last`, the longest first; cuts there are known."""
        lengths = [length for length in self._windows if length <= last]
        if not lengths:
            return
        offset = self._count - len(self._views)
        dissolves, composites = (each[-len(lengths) :] for each in look)
        tiny = self._looks.tiny(self._count)
        for length in itertools.compress(lengths, dissolves):
            found = gradual.dissolve(self._views, tiny, last - length, last)
            if found:
                start, end = (offset + i for i in found)
                if not any(start < cut < end for cut in self._cuts):
                    told = kinds.of_dissolve(
                        self._views[start - offset - 1], self._views[min(end, self._count - 1) - offset]
                    )
                    self._add(Boundary(self._over_flat(start), self._past_flat(end), *told))
                    return
        # One window at every second look: it costs more, and such transitions are seen in several windows.
        self._turn = (self._turn + 1) % (2 * len(lengths))
        if not (self._turn % 2 and composites[self._turn // 2]):
            return
        first = last - lengths[self._turn // 2]
        if not any(offset + first < cut < offset + last for cut in self._cuts):
            does_jump, since = self._jumps(first, last), self._since(offset + first)
            joined = composite.find(self._views, tiny, first, last, self._tick, since, jumps=does_jump)
            if joined and joined.end - joined.start <= self._longest:
                self._add(replace(joined, start=offset + joined.start, end=offset + joined.end))

    def _since(self, frame: int) -> int:
        """Return the first held frame of the shot at a frame, as far as the boundaries before it are known."""
        ends = [*self._cuts, *(b.end for b in self._open if b.kind not in NO_CUTS), self._reported_end]
        offset = self._count - len(self._views)
        return max([offset, *(end for end in ends if end <= frame)]) - offset

    def _jumps(self, first: int, last: int) -> bool:
        """Return whether the picture changes much more in the middle of a window than at one of its ends."""
        changes = list(itertools.islice(self._changes, first + 1, last))
        part = max(1, len(changes) // 8)
        middle = sum(changes[len(changes) // 2 - part : len(changes) // 2 + part]) / (2 * part)
        calm = min(sum(changes[:part]), sum(changes[-part:])) / part
        return middle >= _SLIDE_RATIO * calm + _SLIDE_LEVELS

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
                self._add(replace(boundary, end=frame + 1))
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
        told = boundary
        for other in self._open:
            apart = other.end < start or end < other.start
            if start == end and other.start == other.end:
                apart = start != other.start
            if apart:
                kept.append(other)
            else:
                start, end = min(start, other.start), max(end, other.end)
                told = max(told, other, key=kinds.weight)
        self._open = sorted([*kept, replace(told, start=start, end=end)])

    def _release(self, before_s: float) -> list[Boundary]:
        """Return the boundaries that start no later than `before_s`, in frame indices of the source."""
        ready: list[Boundary] = []
        oldest = self._count - len(self._times_s)
        while self._open and self._times_s[max(0, self._open[0].start - oldest)] <= before_s + _EPSILON_S:
            boundary = self._open.pop(0)
            if before_s < math.inf and boundary.start < self._flat_from and boundary.end == self._count:
                # The black goes on: it is a shot of its own.
                boundary = replace(boundary, end=self._flat_from)
            if oldest < boundary.start < self._count:
                found = within.judged(list(self._views), within.moved(boundary, -oldest), self._reach)
                if found is None or found.start + oldest < self._reported_end:
                    continue
                boundary = within.moved(found, oldest)
                if boundary.kind in NO_CUTS:
                    self._open = [other for other in self._open if other.start > boundary.end]
            self._reported_end = boundary.end
            ready.append(within.moved(boundary, self._first))
        return ready
