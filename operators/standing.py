"""Logos and watermarks without text: what stands while the rest of the picture moves.

The mean of a pixel's gradient over the clip is large where an edge stands and near zero where edges pass by (after
Dekel et al., "On the Effectiveness of Visible Watermarks", CVPR 2017, who take the median over many pictures). An
opaque logo of about the scene's own brightness has no such edge; it is quiet where all around it changes.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from operators.bars import Box

MIN_FRAMES = 5
"""With fewer pictures, edges of a scene that moves slowly pass for standing ones."""
MIN_LEVELS = 3.0
"""Grey levels per pixel that the gradient of an edge has."""
MIN_RATIO, USUAL_FRAMES = 1.5, 16
"""Mean gradient of a standing edge over its standard deviation in time, for so many pictures; for fewer, it is more."""
QUIET_LEVELS, LOUD_LEVELS = 2.5, 8.0
"""Standard deviation in time of an opaque logo's pixels, at most; and of those around it, at least."""
MIN_LOUD_RING, MIN_FILL, MIN_QUIET_SIDE = 0.85, 0.4, 0.05
"""Share of the pixels around a quiet patch that change, of its box that it fills, and its sides over the short side:
smaller ones are quiet by chance."""
MAX_STANDING = 0.35
"""Above this share of standing edges the scene itself stands still, and nothing can be told."""
GRID, MIN_MOVING_CELLS = 4, 0.75
"""Of GRID x GRID parts of the picture, so many must move."""
JOIN = 0.03
"""Edges so near, as a share of the short side, belong to one logo."""
MIN_SIDE, MAX_SIDE, MAX_AREA = 0.02, 0.6, 0.15
"""A logo's sides as shares of the short side and of the picture's sides, and its share of the picture."""
MIN_PIXELS, MIN_DENSITY = 12, 0.4
"""Edge pixels that a logo has at half size, and their share of all edges within it."""
MIN_ROUNDNESS = 0.3
"""Least over most gradient energy by direction: a horizon, which a pan leaves in place, has one direction."""
EDGE_PX = 2
"""Beside bars, and at the picture's own sides, the edge is theirs."""


def standing_graphics(pixels: np.ndarray, inside: Box, known: np.ndarray) -> list[Box]:
    """Return rectangles around groups of edges that stand through a clip whose scene moves.

    Where most edges stand, as with a camera at rest, none are returned: a logo then looks like the scene.

    Args:
        pixels: uint8 (T, H, W) luma at different times of the clip.
        inside: the picture inside the bars, pixels.
        known: uint8 (H, W), not 0 where an overlay has been found already.

    Returns:
        Rectangles in pixels.
    """
    if len(pixels) < MIN_FRAMES or min(pixels.shape[1:]) < 64:
        return []
    left, top, right, bottom = (side // 2 for side in inside)
    looks = _looks(pixels)
    height, width = looks.strength.shape
    usable = np.zeros((height, width), bool)
    usable[top + EDGE_PX : bottom - EDGE_PX, left + EDGE_PX : right - EDGE_PX] = True
    usable &= cv2.resize(known, (width, height), interpolation=cv2.INTER_AREA) == 0
    ratio = MIN_RATIO * max(1.0, (USUAL_FRAMES / len(pixels)) ** 0.5)
    mean = np.hypot(looks.mean_x, looks.mean_y)
    textured = usable & (looks.strength >= MIN_LEVELS)
    standing = textured & (mean >= MIN_LEVELS) & (mean >= ratio * looks.spread)
    if standing.sum() > MAX_STANDING * textured.sum() or not _moves(textured, standing):
        return []
    found = [*_edge_groups(standing, textured, looks), *_quiet_patches(usable, looks.change)]
    return [(2 * b[0], 2 * b[1], 2 * b[2], 2 * b[3]) for b in found]


@dataclass(frozen=True, eq=False)
class _Looks:
    """What a clip's pixels do over time, at half size: float32 (H, W) each.

    Attributes:
        mean_x: mean gradient to the right, grey levels per pixel.
        mean_y: mean gradient downwards.
        spread: standard deviation of the gradient.
        strength: mean length of the gradient.
        change: standard deviation of the luma, grey levels.
    """

    mean_x: np.ndarray
    mean_y: np.ndarray
    spread: np.ndarray
    strength: np.ndarray
    change: np.ndarray


def _looks(pixels: np.ndarray) -> _Looks:
    """Measure uint8 (T, H, W)."""
    count, height, width = pixels.shape
    sums = np.zeros((6, height // 2, width // 2), np.float32)
    for picture in pixels:
        half = cv2.resize(picture, (width // 2, height // 2), interpolation=cv2.INTER_AREA).astype(np.float32)
        x = cv2.Sobel(half, cv2.CV_32F, 1, 0, ksize=1, scale=0.5)
        y = cv2.Sobel(half, cv2.CV_32F, 0, 1, ksize=1, scale=0.5)
        square = x * x + y * y
        for total, value in zip(sums, (x, y, square, np.sqrt(square), half, half * half), strict=True):
            total += value
    x, y, square, strength, luma, luma_square = sums / count
    spread = np.sqrt(np.maximum(square - x * x - y * y, 0))
    return _Looks(x, y, spread, strength, np.sqrt(np.maximum(luma_square - luma * luma, 0)))


def _edge_groups(standing: np.ndarray, textured: np.ndarray, looks: _Looks) -> list[Box]:
    """Return boxes around groups of standing edges that look like a logo's, pixels at half size."""
    reach = max(1, round(JOIN * min(standing.shape)))
    joined = cv2.dilate(standing.astype(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    count, labels = cv2.connectedComponents(joined, connectivity=8)
    found = []
    for place in range(1, count):
        rows, columns = np.nonzero(standing & (labels == place))
        if not len(rows):
            continue
        box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
        gradients = np.stack([looks.mean_x[rows, columns], looks.mean_y[rows, columns]])
        if _is_logo(box, len(rows), textured, gradients):
            found.append(box)
    return found


def _quiet_patches(usable: np.ndarray, change: np.ndarray) -> list[Box]:
    """Return boxes around patches that do not change while all around them does, pixels at half size."""
    quiet = (usable & (change <= QUIET_LEVELS)).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(
        cv2.morphologyEx(quiet, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)), connectivity=4
    )
    found = []
    for left, top, across, down, area in (tuple(int(v) for v in one) for one in stats[1:count]):
        box = (max(0, left - 1), max(0, top - 1), left + across + 1, top + down + 1)  # its edge is half a pixel off
        is_small = min(across, down) < MIN_QUIET_SIDE * min(change.shape)
        if is_small or not _has_size(box, change.shape) or area < MIN_FILL * across * down:
            continue
        ring = np.zeros(change.shape, bool)
        ring[max(0, box[1] - 3) : box[3] + 3, max(0, box[0] - 3) : box[2] + 3] = True
        ring[box[1] : box[3], box[0] : box[2]] = False
        if float((change[ring] >= LOUD_LEVELS).mean()) >= MIN_LOUD_RING:
            found.append(box)
    return found


def _has_size(box: Box, size: tuple[int, ...]) -> bool:
    """Return whether a box is neither too small nor too large for a logo in a picture of (H, W)."""
    height, width = size
    across, down = box[2] - box[0], box[3] - box[1]
    if min(across, down) < max(3.0, MIN_SIDE * min(height, width)):
        return False
    return across <= MAX_SIDE * width and down <= MAX_SIDE * height and across * down <= MAX_AREA * height * width


def _moves(textured: np.ndarray, standing: np.ndarray) -> bool:
    """Return whether edges pass by nearly everywhere in the picture."""
    moving = cv2.resize((textured & ~standing).astype(np.float32), (GRID, GRID), interpolation=cv2.INTER_AREA)
    there = cv2.resize(textured.astype(np.float32), (GRID, GRID), interpolation=cv2.INTER_AREA)
    seen = there >= 0.01
    return bool(seen.any()) and float((moving[seen] >= 0.5 * there[seen]).mean()) >= MIN_MOVING_CELLS


def _is_logo(box: Box, edge_pixels: int, textured: np.ndarray, gradients: np.ndarray) -> bool:
    """Return whether a group of standing edges has the size, the density and the directions of a drawn thing.

    Args:
        box: around the edges, pixels at half size.
        edge_pixels: how many there are.
        textured: bool (H, W), where there are edges at all.
        gradients: float32 (2, N), mean x and y of the edges' gradients.
    """
    left, top, right, bottom = box
    if edge_pixels < MIN_PIXELS or not _has_size(box, textured.shape):
        return False
    if edge_pixels < MIN_DENSITY * textured[top:bottom, left:right].sum():
        return False
    weak, strong = np.linalg.eigvalsh(gradients @ gradients.T)
    return bool(weak >= MIN_ROUNDNESS * strong)
