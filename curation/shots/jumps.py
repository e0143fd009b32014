"""Jumps within one view: a part of the picture that moved steadily is elsewhere from one frame to the next.

Hard cuts change the whole picture, and are weighed over most of it (`evidence.residual`). A jump in time leaves what
stands; a closer framing leaves the colours. What tells them is that many places change far more than the same places
do before and after, at one and the same frame, and for good.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from curation.shots import evidence
from curation.shots.evidence import View
from curation.shots.movement import shift

TOP_CELLS = 16
"""The change of a picture is that of so many cells of 64 that change most; so a quarter of it may jump alone."""
MIN_LEVELS, MIN_RATIO, MIN_PERSISTENCE = 5.5, 2.9, 0.5
"""Change of these cells, over that of the frames around, and the share of it that stays."""
CELL_RATIO, CELL_LEVELS = 2.0, 1.0
"""A cell stands out where it changes so many times as much as ever within the neighbourhood, and by so many levels."""
MIN_CELLS = 27
"""So many cells stand out. What appears in a picture (insets, titles, lines of text) changes fewer; what changes fewer
has to look like a thing that moved: `SMALL_*`."""
MIN_UNEXPLAINED = 0.05
"""Grain that begins or ends leaves the structure where it was."""
KNOCK_UNEXPLAINED, KNOCK_PX = 0.15, 2
"""Moved blocks leave so much at most where the whole picture moved, and it did by so many pixels of the half size."""

SMALL_CELLS, SMALL_LEVELS, SMALL_RATIO = 6, 2.3, 3.8
MOST_FILLED, LEAST_HEIGHT, MOST_ELSEWHERE = 0.61, 0.38, 2.3
"""Of the largest patch of pixels that changed: its share of the rectangle around it, this one's height as a share of
the picture, and the pixels that changed everywhere, over those of the patch. Insets and titles fill rectangles."""
CHANGED_LEVELS = 10

BREAK_LEVELS = 12.0
"""An interruption of a shot begins with such a change of these cells."""

CONFIDENCE = 0.9
"""Share of what is found that is right, on films edited by `benchmarks.edits`."""
_QUIET_LEVELS = 0.5


class Jumps:
    """What the places of the frames held did, and where they jump."""

    def __init__(self, near: int, peak: int, flash: int, held: int) -> None:
        """Begin a segment.

        Args:
            near: frames on each side that a jump stands out from.
            peak: two jumps are so many frames apart.
            flash: a picture that is back within so many frames did not jump.
            held: frames that are held.
        """
        self._near, self._peak, self._flash = near, peak, flash
        self._cells: deque[np.ndarray] = deque(maxlen=held)
        self._levels: deque[float] = deque(maxlen=held)

    def take(self, cells: np.ndarray) -> None:
        """Take how much each cell changed from the frame before to this one: uint8 (64,), levels."""
        self._cells.append(cells)
        self._levels.append(top_mean(cells))

    def is_at(self, at: int, views: Sequence[View]) -> bool:
        """Return whether the picture jumps at a held frame; `views` are those of the frames held."""
        levels = self._levels
        level = levels[at]
        if at < 1 or level < SMALL_LEVELS:
            return False
        begin, end = max(1, at - self._near), min(len(levels), at + 1 + self._near)
        if level < max(levels[k] for k in range(max(0, at - self._peak), min(len(levels), at + self._peak + 1))):
            return False
        sides = [[levels[k] for k in range(*ends)] for ends in ((begin, at), (at + 1, end))]
        ratio = min(level / (typical(side) + _QUIET_LEVELS) for side in sides)
        if ratio < MIN_RATIO or not all(sides):
            return False
        around = np.stack([self._cells[k] for k in range(begin, end) if k != at])
        standing = int((self._cells[at] > CELL_RATIO * around.max(axis=0).astype(np.float32) + CELL_LEVELS).sum())
        old, new = views[at - 1], views[at]
        is_large = level >= MIN_LEVELS and standing >= MIN_CELLS
        is_small = standing >= SMALL_CELLS and ratio >= SMALL_RATIO
        if not (is_large or (is_small and _is_moved_thing(old, new))):
            return False
        if not evidence.is_unexplained(old, new, MIN_UNEXPLAINED) or _is_knock(old, new):
            return False
        return self._persists(at, views, level)

    def breaks(self, at: int) -> bool:
        """Return whether the picture at a held frame changes suddenly, whatever comes after."""
        level = self._levels[at]
        if level < BREAK_LEVELS:
            return False
        before = [self._levels[k] for k in range(max(1, at - self._near), at)]
        return bool(before) and level >= MIN_RATIO * (max(before) + _QUIET_LEVELS)

    def _persists(self, at: int, views: Sequence[View], level: float) -> bool:
        """Return whether pictures shortly before and after differ as much."""
        reach = (0, max(1, self._flash // 2), self._flash)
        olds = [views[at - 1 - k] for k in reach if at - 1 >= k]
        news = [views[at + k] for k in reach if at + k < len(views)]
        least = MIN_PERSISTENCE * level
        return all(top_mean(evidence.cells(old, new)) >= least for old in olds for new in news)


def top_mean(cells: np.ndarray) -> float:
    """Return the mean of those of (64,) cells that changed most."""
    return float(np.partition(cells, -TOP_CELLS)[-TOP_CELLS:].mean())


def typical(changes: Sequence[float]) -> float:
    """Contraharmonic mean, which repeated frames leave as it is (animation on twos, 24 in 60 per second)."""
    total = sum(changes)
    return sum(c * c for c in changes) / total if total > 0 else 0.0


def _is_knock(old: View, new: View) -> bool:
    """Return whether the whole picture moved at once: a shaken camera, or one that moved while frames were lost."""
    if evidence.is_unexplained(old, new, KNOCK_UNEXPLAINED):
        return False
    return abs(shift(old.half, new.half).right) >= KNOCK_PX


def _is_moved_thing(old: View, new: View) -> bool:
    """Return whether what changed is one thing of irregular shape that is tall enough not to be a line of text."""
    patch = _patch(old, new)
    return (
        patch is not None
        and patch.filled <= MOST_FILLED
        and patch.tall >= LEAST_HEIGHT
        and patch.elsewhere <= MOST_ELSEWHERE
    )


@dataclass(frozen=True)
class _Patch:
    """The largest patch of pixels that changed.

    Attributes:
        filled: share of the rectangle around it.
        wide: that one's width, as a share of the picture's.
        tall: its height, likewise.
        elsewhere: all pixels that changed, over those of the patch.
    """

    filled: float
    wide: float
    tall: float
    elsewhere: float


def _patch(old: View, new: View) -> _Patch | None:
    """Find the patch; None where nothing changed."""
    changed = (cv2.absdiff(old.luma, new.luma) > CHANGED_LEVELS).astype(np.uint8)
    changed = cv2.morphologyEx(changed, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    closed = cv2.morphologyEx(changed, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    count, _, stats, _ = cv2.connectedComponentsWithStats(closed)
    if count < 2:
        return None
    _, _, wide, tall, area = stats[1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())].tolist()
    height, width = changed.shape
    return _Patch(area / (wide * tall), wide / width, tall / height, float(changed.sum()) / area)
