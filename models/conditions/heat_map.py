"""Paths of points as pictures: a soft disc where each of them is, as trajectory models were trained with."""

import math
from functools import cache

import numpy as np

DISC_PX, DISC_SIGMA_PX = 200, 40.0
RADIUS_PX, RADIUS_OF_AREA_PX2 = 50, 1280 * 720


def heat_map(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the map of one frame, uint8 (H, W): the published discs, squeezed at the picture's edges, by maximum.

    Args:
        points: (N, 2), x and y in px.
        shape: height and width.
    """
    import cv2  # here: who trains without curation needs no OpenCV

    height, width = shape
    radius = max(1, int(RADIUS_PX * math.sqrt(height * width / RADIUS_OF_AREA_PX2)))
    drawn = np.zeros(shape, np.uint8)
    for x, y in np.round(points).astype(int).tolist():
        left, right = max(0, x - radius), min(width, x + radius)
        top, bottom = max(0, y - radius), min(height, y + radius)
        if right > left and bottom > top:
            part = drawn[top:bottom, left:right]
            np.maximum(part, cv2.resize(_disc(), (right - left, bottom - top)), out=part)
    return drawn


@cache
def _disc() -> np.ndarray:
    """Return the Gaussian of the published maps, cut to a circle: uint8 (200, 200), its middle 255."""
    import cv2

    circle = cv2.circle(np.zeros((DISC_PX, DISC_PX), np.float32), (DISC_PX // 2, DISC_PX // 2), DISC_PX // 2, 1.0, -1)
    from_middle = np.arange(DISC_PX) - DISC_PX / 2
    line = np.exp(-0.5 * (from_middle / DISC_SIGMA_PX) ** 2)
    return (np.outer(line, line) * circle * 255).astype(np.uint8)
