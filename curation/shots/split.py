"""A segment's frames to pieces: at what the detector finds, where pictures are lost, and where their size changes."""

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from curation.shots.border import Border
from curation.shots.divide import Divider, Piece
from curation.shots.types import ENDINGS, Boundary, DetectorState, ShotDetector
from media.coarse import CoarseFrame
from media.types import Lost

BLOCK_FRAMES = 16
"""Frames are shown to the detector so many at a time: a call costs more than what it does with one small frame."""


@dataclass(frozen=True)
class _Gap:
    """A stretch without pictures, before a frame of the segment."""

    lost: Lost
    next_frame: int


class Splitter:
    """Feeds a detector and a divider with the same frames, and gives what became certain."""

    def __init__(self, detector: ShotDetector, divider: Divider, fps: float, ends_at: Collection[str] = ENDINGS):
        """Begin a segment; the divider stands at its first frame, `fps` is its mean frame rate.

        Boundaries of kinds that are not in `ends_at` end no shot; those without a kind always do.
        """
        self._ends_at = ends_at
        self._settings, self._fps = detector, fps
        self._detector: DetectorState = detector.start(fps)
        self._lag_s, self._step_s = detector.lag_s, 1 / fps
        self._divider = divider
        self._last_s = 0.0
        self._waiting: list[CoarseFrame] = []
        self._lost: deque[_Gap] = deque()  # not yet reached by the frames that the detector saw
        self._gaps: deque[_Gap] = deque()
        self._due: list[Boundary] = []  # known since before the frame at which they stand
        self._beyond: list[CoarseFrame] = []
        self._is_cut_at_end = False
        self._followed = 0
        self.border = Border()
        """after `finish`: how the segment's last shot relates to the next segment"""

    @property
    def count(self) -> int:
        """Frames taken."""
        return self._followed + len(self._waiting)

    def push(self, frame: CoarseFrame) -> bool:
        """Take the next frame; tell whether enough of them wait to be looked at."""
        self._waiting.append(frame)
        return len(self._waiting) >= BLOCK_FRAMES

    def lose(self, lost: Lost) -> None:
        """Take a stretch without pictures before the next frame: it ends the shot, and no clip holds any of it."""
        self._lost.append(_Gap(lost, self.count))

    def restart(self) -> Iterator[Piece | Lost]:
        """End the shot before the next frame, whose picture has another size: the detector begins anew with it."""
        yield from self.look()
        self._due += [
            replace(b, end=min(b.end, self.count))
            for b in self._ending(self._detector.finish(), self.count)
            if b.start < self.count
        ]
        self._due.append(Boundary(self.count, self.count))
        self._detector = self._settings.start(self._fps)

    def end_at_border(self) -> None:
        """Say that the shot cannot go on beyond the segment's end."""
        self._is_cut_at_end = True

    def look(self) -> Iterator[Piece | Lost]:
        """Show the detector the frames that wait, and give what became certain with them, one after another."""
        frames, self._waiting = self._waiting, []
        if not frames:
            return
        for frame, found in zip(frames, self._detector.push(frames), strict=True):
            yield from self._follow(frame, self._ending(found))

    def _ending(self, boundaries: Sequence[Boundary], count: int | None = None) -> list[Boundary]:
        """Return those that end a shot; the divider marks the others, of frames before `count`, in its pieces."""
        for each in boundaries:
            if each.kind is not None and each.kind not in self._ends_at and (count is None or each.start < count):
                self._divider.mark(each)
        return [each for each in boundaries if each.kind is None or each.kind in self._ends_at]

    def _follow(self, frame: CoarseFrame, found: list[Boundary]) -> Iterator[Piece | Lost]:
        """Take a frame's time and the boundaries that became certain with it."""
        previous_end_s: float | None = None
        while self._lost and self._lost[0].next_frame == self._followed:
            gap = self._lost.popleft()
            self._gaps.append(gap)
            previous_end_s = gap.lost.start_s if previous_end_s is None else previous_end_s
        self._last_s = frame.time_s
        self._divider.push(frame.time_s, previous_end_s)
        self._followed += 1
        settled_s = frame.time_s - self._lag_s
        found, self._due = [*self._due, *found], []
        while self._gaps and self._gaps[0].lost.end_s <= settled_s:
            gap = self._gaps.popleft()
            found.append(Boundary(gap.next_frame, gap.next_frame))
            yield gap.lost
        yield from self._close(found)
        # The shot ends at the next gap, whatever the detector will still find before it.
        yield from self._divider.settle(min([settled_s, *(gap.lost.start_s for gap in self._gaps)]))

    def look_beyond(self, frame: CoarseFrame) -> None:
        """Take a frame after the segment's end: it tells whether a boundary lies exactly there."""
        if not self._is_cut_at_end:
            self._beyond.append(frame)

    def finish(self, end_s: float) -> Iterator[Piece | Lost]:
        """Yield the rest, `end_s` being the end of the segment's last frame, or its time when nobody knows the end."""
        yield from self.look()
        late = [boundary for each in self._detector.push(self._beyond) for boundary in each] if self._beyond else []
        found = [*self._due, *self._ending([*late, *self._detector.finish()], self.count)]
        self._divider.end(end_s if end_s > self._last_s or not self.count else round(self._last_s + self._step_s, 6))
        for gap in self._gaps:
            found.append(Boundary(gap.next_frame, gap.next_frame))
            yield gap.lost
        for gap in self._lost:
            yield gap.lost
        at_the_end = [b for b in found if b.start <= self.count <= b.end]
        reach = max((b.end - self.count for b in at_the_end), default=0)
        beginning = next((b for b in at_the_end if b.start == self.count), None)
        self.border = Border(beginning is not None or self._is_cut_at_end or bool(self._lost), reach)
        yield from self._close([replace(b, end=min(b.end, self.count)) for b in found if b.start < self.count])
        yield from self._divider.finish(beginning)

    def _close(self, boundaries: list[Boundary]) -> Iterator[Piece]:
        for boundary in sorted(boundaries):
            yield from self._divider.close(boundary)
