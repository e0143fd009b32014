"""A picture in the picture that appears, goes or changes: what changes is a filled rectangle with straight sides."""

from dataclasses import dataclass

import cv2
import numpy as np

from curation.shots.evidence import View

CHANGED_LEVELS = 6
"""A place changed where it lies so far outside what the other picture shows near it, both ways."""
LEAST_CHANGED = 4.0
"""So many places of the half-size picture changed, or there is no rectangle to be found."""
OUTSIDE_WEIGHT, FILLED_FROM = 0.3, 0.2
"""A place within the rectangle that did not change counts against it so much; one that counts as filled changed so."""
MIN_FILLED, MIN_SHARE = 0.88, 0.6
"""Share of the rectangle's places that changed, and of all changes that lie within it; the rest is the shot's own."""
MIN_AREA, MAX_AREA, MAX_SIDE = 0.06, 0.36, 0.6
"""Shares of the picture: an inset's area, and its sides. What is smaller is a title or a logo."""
SIDE_LEVELS, SIDE_SHARE, SIDES = 12, 0.7, 3
"""The picture steps by so many levels along such a share of a side, on so many of the four sides."""
_SIDE_REACH_PX = 5


@dataclass(frozen=True)
class _Box:
    """A rectangle of places, half open."""

    top: int
    bottom: int
    left: int
    right: int


def is_inset(old: View, new: View) -> bool:
    """Return whether what changed from one frame to another is a rectangle whose sides are seen in one of them.

    What moves in the shot around it is left out by the tolerance to movement of `_changed`, as far as it is slow.
    """
    changed = _changed(old, new)
    if changed.sum() < LEAST_CHANGED:
        return False
    box = _densest(changed - OUTSIDE_WEIGHT)
    inside = changed[box.top : box.bottom, box.left : box.right]
    tall, wide = inside.shape[0] / changed.shape[0], inside.shape[1] / changed.shape[1]
    if not MIN_AREA <= tall * wide <= MAX_AREA or max(tall, wide) > MAX_SIDE:
        return False
    if inside.sum() < MIN_SHARE * changed.sum() or (inside > FILLED_FROM).mean() < MIN_FILLED:
        return False
    return any(_straight_sides(view.luma, box, changed.shape) >= SIDES for view in (old, new))


def _changed(old: View, new: View) -> np.ndarray:
    """Return how much of each place, and of those next to it, changed beyond small movement: float32 (h, w), 0 to 1."""
    outside = [cv2.max(cv2.subtract(one.luma, other.high), cv2.subtract(other.low, one.luma))
               for one, other in ((old, new), (new, old))]  # fmt: skip
    marks = (cv2.max(*outside) > CHANGED_LEVELS).astype(np.float32)
    height, width = old.half.shape
    found: np.ndarray = cv2.blur(cv2.resize(marks, (width, height), interpolation=cv2.INTER_AREA), (3, 3))
    return found


def _densest(gains: np.ndarray) -> _Box:
    """Return the rectangle with the largest sum of (h, w) gains: Kadane's scan over all pairs of rows."""
    rows = np.vstack([np.zeros((1, gains.shape[1])), np.cumsum(gains, axis=0)])
    tops, bottoms = np.triu_indices(len(rows), 1)
    sums = np.cumsum(rows[bottoms] - rows[tops], axis=1)
    sums = np.concatenate([np.zeros((len(sums), 1)), sums], axis=1)
    lowest = np.minimum.accumulate(sums, axis=1)
    pair, right = np.unravel_index(int((sums - lowest).argmax()), sums.shape)
    left = int(np.flatnonzero(sums[pair, : right + 1] == lowest[pair, right])[-1])
    return _Box(int(tops[pair]), int(bottoms[pair]), left, int(right))


def _straight_sides(luma: np.ndarray, box: _Box, shape: tuple[int, ...]) -> int:
    """Return along how many sides of a rectangle, in places of a picture of `shape`, uint8 (H, W) luma steps."""
    picture = luma.astype(np.int16)
    down, across = luma.shape[0] / shape[0], luma.shape[1] / shape[1]
    top, bottom = round(box.top * down), round(box.bottom * down)
    left, right = round(box.left * across), round(box.right * across)
    columns, rows = np.abs(np.diff(picture, axis=1)), np.abs(np.diff(picture, axis=0)).T
    sides = [
        (columns[top:bottom], left),
        (columns[top:bottom], right),
        (rows[left:right], top),
        (rows[left:right], bottom),
    ]
    return sum(_steps_along(steps, at) for steps, at in sides)


def _steps_along(steps: np.ndarray, at: int) -> bool:
    """Return whether one line near a side, of steps (length, lines), steps along most of its length."""
    near = steps[:, max(0, at - _SIDE_REACH_PX) : at + _SIDE_REACH_PX - 1]
    return bool(((near > SIDE_LEVELS).mean(axis=0) >= SIDE_SHARE).any())
