"""A segment's frames to pieces: what the detector finds, where frames are missing, where the segment ends."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from curation.schema import GOES_ON
from curation.shots.divide import Divider, Piece
from curation.shots.types import Boundary, CoarseFrame, DetectorState

LEAST_GAP_S, LEAST_GAP_FRAMES = 0.5, 5
"""At an even frame rate, a longer step means lost frames: some formats skip damage without a word."""

LEAST_STEP_S = 1e-3

BLOCK_FRAMES = 16
"""Frames are shown to the detector so many at a time: a call costs more than what it does with one small frame."""


@dataclass(frozen=True)
class Lost:
    """A stretch without frames, from the end of the last one to the next, in seconds."""

    start_s: float
    end_s: float
    next_frame: int


class Splitter:
    """Feeds a detector and a divider with the same frames, and gives what became certain."""

    def __init__(self, detector: DetectorState, lag_s: float, divider: Divider, fps: float, even: bool):
        """Begin a segment.

        Args:
            detector: at its first frame.
            lag_s: by how much it may report late.
            divider: at its first frame.
            fps: mean frame rate.
            even: whether frames follow each other at an even rate, so that a gap can be told.
        """
        self._detector, self._lag_s, self._divider = detector, lag_s, divider
        self._step_s, self._even = 1 / fps, even
        self._last_s = self._before_s = 0.0  # of the last frame, and between the last two
        self._waiting: list[CoarseFrame] = []
        self._gaps: deque[Lost] = deque()
        self._ends: dict[int, float] = {}  # by the frame after a gap: when the one before it ends
        self._beyond: list[CoarseFrame] = []
        self._followed = 0
        self.border = 0
        """after `finish`: how the segment's last shot relates to the next segment, as `schema.GOES_ON` explains"""

    @property
    def count(self) -> int:
        """Frames taken."""
        return self._followed + len(self._waiting)

    def push(self, frame: CoarseFrame) -> bool:
        """Take the next frame; tell whether enough of them wait to be looked at."""
        self._waiting.append(frame)
        return len(self._waiting) >= BLOCK_FRAMES

    def look(self) -> Iterator[Piece | Lost]:
        """Show the detector the frames that wait, and give what became certain with them, one after another."""
        frames, self._waiting = self._waiting, []
        for frame, found in zip(frames, self._detector.push(frames), strict=True):
            yield from self._follow(frame, found)

    def _follow(self, frame: CoarseFrame, found: list[Boundary]) -> Iterator[Piece | Lost]:
        """Take a frame's time and the boundaries that became certain with it."""
        if self._even and self._followed and frame.time_s - self._last_s > self._least_gap_s:
            # A long gap raises the mean step; times that were mended stand a microsecond apart.
            shown_s = min(self._step_s, max(self._before_s, LEAST_STEP_S) if self._before_s else self._step_s)
            lost = Lost(round(self._last_s + shown_s, 6), frame.time_s, self._followed)
            self._gaps.append(lost)
            self._ends[self._followed] = lost.start_s
        self._before_s, self._last_s = frame.time_s - self._last_s if self._followed else 0.0, frame.time_s
        self._divider.push(frame.time_s)
        self._followed += 1
        settled_s = frame.time_s - self._lag_s
        while self._gaps and self._gaps[0].end_s <= settled_s:
            gap = self._gaps.popleft()
            found.append(Boundary(gap.next_frame, gap.next_frame))
            yield gap
        yield from self._close(found)
        yield from self._mended(self._divider.settle(settled_s))

    def look_beyond(self, frame: CoarseFrame) -> None:
        """Take a frame after the segment's end: it tells whether a boundary lies exactly there."""
        self._beyond.append(frame)

    def finish(self, end_s: float) -> Iterator[Piece | Lost]:
        """Give the rest, `end_s` being the end of the segment's last frame, or its time when nobody knows the end."""
        yield from self.look()
        late = [boundary for each in self._detector.push(self._beyond) for boundary in each]
        found = [*late, *self._detector.finish()]
        self._divider.end(end_s if end_s > self._last_s or not self.count else round(self._last_s + self._step_s, 6))
        while self._gaps:
            gap = self._gaps.popleft()
            found.append(Boundary(gap.next_frame, gap.next_frame))
            yield gap
        at_the_end = [b for b in found if b.start <= self.count <= b.end]
        reach = max((b.end - self.count for b in at_the_end), default=0)
        begins_there = any(b.start == self.count for b in at_the_end)
        self.border = reach if begins_there else GOES_ON - reach
        yield from self._close([replace(b, end=min(b.end, self.count)) for b in found if b.start < self.count])
        yield from self._mended(self._divider.finish())

    @property
    def _least_gap_s(self) -> float:
        return max(LEAST_GAP_S, LEAST_GAP_FRAMES * self._step_s)

    def _close(self, boundaries: list[Boundary]) -> Iterator[Piece]:
        for boundary in sorted(boundaries):
            yield from self._mended(self._divider.close(boundary))

    def _mended(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        """Let a piece before a gap end with its last frame, not with the next one."""
        for piece in pieces:
            yield replace(piece, end_s=self._ends[piece.end]) if piece.end in self._ends else piece
