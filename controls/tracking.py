"""Points followed from frame to frame: by flow there and back again."""

import math

import cv2
import numpy as np

from media.point_tracking import track_both_ways

LOOKED_AT_SHORT_SIDE_PX = 360
"""points are followed in pictures of this short side"""
MOST_BACK_PX = 1.0
"""how far from where it was a point may come out when it is followed back"""
WINDOW_PX, HALVINGS = 21, 3
CORNER_PX = 7


def shrunk(luma: np.ndarray) -> tuple[np.ndarray, float]:
    """Return a picture to look at, uint8 (h, w), and how many of its pixels one of the given one is."""
    scale = min(1.0, LOOKED_AT_SHORT_SIDE_PX / min(luma.shape))
    if scale == 1:
        return luma.copy(), 1.0
    return cv2.resize(luma, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), scale


def corners(luma: np.ndarray, count: int, quality: float, taken: np.ndarray | None = None) -> np.ndarray:
    """Return places that can be followed (Shi and Tomasi, 1994), the best first: float32 (N, 2), x and y.

    Args:
        luma: uint8 (H, W).
        count: most of them.
        quality: least strength of a corner, as a share of the strongest's.
        taken: float32 (N, 2), places to keep away from; null: none.
    """
    apart = 0.5 * math.sqrt(luma.size / max(1, count))
    mask = np.full(luma.shape, 255, np.uint8)
    for x, y in np.zeros((0, 2)) if taken is None else taken:
        cv2.circle(mask, (round(float(x)), round(float(y))), round(apart), 0, -1)
    found = cv2.goodFeaturesToTrack(luma, count, quality, apart, mask=mask, blockSize=CORNER_PX)
    return np.zeros((0, 2), np.float32) if found is None else found.reshape(-1, 2)


def follow(before: np.ndarray, after: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Follow points into the next frame, there and back again.

    Args:
        before: uint8 (H, W), the picture that the points are in.
        after: the next one.
        points: float32 (N, 2).

    Returns:
        Where they are, float32 (N, 2), and which of them are still seen, bool (N,): those that come back to where they
        were when they are followed back, and are inside the picture.
    """
    if not len(points):
        return points, np.zeros(0, bool)
    there, off, is_found = track_both_ways(before, after, points, WINDOW_PX, HALVINGS)
    is_same = np.hypot(*off.T) <= MOST_BACK_PX
    is_inside = (there >= 0).all(axis=1) & (there <= np.array(after.shape[::-1]) - 1).all(axis=1)
    return there, is_found & is_same & is_inside
