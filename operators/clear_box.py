"""The largest axis-aligned rectangle of a picture that holds none of its marked pixels."""

import cv2
import numpy as np

from operators.bars import Box

MOST_OBSTACLES = 40
"""Marked parts are merged with their neighbours until there are no more than so many."""


def obstacles(marked: np.ndarray) -> list[Box]:
    """Return rectangles that hold every marked pixel of uint8 (H, W): one for each connected part.

    Parts that lie close together share a rectangle where there are too many.
    """
    reach_px, joined = 1, marked
    while True:
        count, labels, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
        if count - 1 <= MOST_OBSTACLES:
            break
        reach_px *= 2
        joined = cv2.dilate(marked, np.ones((2 * reach_px + 1, 2 * reach_px + 1), np.uint8))
    found: list[Box] = []
    for place in range(1, count):
        left, top, width, height = (int(v) for v in stats[place, :4])
        part = marked[top : top + height, left : left + width].astype(bool)
        rows, columns = np.nonzero(part & (labels[top : top + height, left : left + width] == place))
        found.append((
            left + int(columns.min()),
            top + int(rows.min()),
            left + int(columns.max()) + 1,
            top + int(rows.max()) + 1,
        ))
    return found


def clear_box(inside: Box, obstacles: list[Box]) -> Box | None:
    """Return the largest rectangle within `inside` that overlaps no obstacle; None where there is none.

    Every largest rectangle has its left side at `inside`'s or at an obstacle's right side, and its right side
    likewise; between two such sides the largest gap is looked for among the obstacles there.
    """
    left, top, right, bottom = inside
    best: Box | None = None
    lefts = sorted({left, *(b[2] for b in obstacles if left < b[2] < right)})
    rights = sorted({right, *(b[0] for b in obstacles if left < b[0] < right)}, reverse=True)
    for begin in lefts:
        for end in rights:
            if end <= begin or (best is not None and (end - begin) * (bottom - top) <= _area(best)):
                break
            upper, lower = _largest_gap(top, bottom, [b for b in obstacles if b[0] < end and b[2] > begin])
            box = (begin, upper, end, lower)
            if lower > upper and (best is None or _area(box) > _area(best)):
                best = box
    return best


def _largest_gap(top: int, bottom: int, between: list[Box]) -> tuple[int, int]:
    """Return the longest stretch of rows from `top` to `bottom` that no rectangle touches."""
    best, free = (top, top), top
    for _, first, _, last in sorted(between, key=lambda b: b[1]):
        if min(first, bottom) - free > best[1] - best[0]:
            best = free, min(first, bottom)
        free = max(free, last)
    return (free, bottom) if bottom - free > best[1] - best[0] else best


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])
