"""How the camera carries the scene from one frame of a clip to another."""

import cv2
import numpy as np

from media.point_tracking import track
from operators.bars import Box

MOST_POINTS = 150
WINDOW_PX, HALVINGS = 15, 4
WITHIN_PX = 1.5
MIN_POINTS, MIN_SHARE = 12, 0.5
"""So many points, and this share of those that are followed, must agree on one movement."""


def scene_motion(one: np.ndarray, two: np.ndarray, free: np.ndarray) -> np.ndarray | None:
    """Return the turn, scale and shift that carries most of a frame to another one.

    Args:
        one: uint8 (H, W) luma.
        two: uint8 (H, W) luma.
        free: bool (H, W), where points of `one` may be followed: where no text is.

    Returns:
        float32 (2, 3) that maps x, y, 1 of `one` to x, y of `two`; None where no movement fits most of the points.
    """
    points = cv2.goodFeaturesToTrack(one, MOST_POINTS, 0.01, 8, mask=free.astype(np.uint8))
    if points is None or len(points) < MIN_POINTS:
        return None
    moved, kept = track(one, two, points, WINDOW_PX, HALVINGS)
    if kept.sum() < MIN_POINTS:
        return None
    motion, agreeing = cv2.estimateAffinePartial2D(points[kept], moved[kept], ransacReprojThreshold=WITHIN_PX)
    if motion is None or agreeing.sum() < max(MIN_POINTS, MIN_SHARE * kept.sum()):
        return None
    return np.asarray(motion, np.float32)


def carried_patch(two: np.ndarray, motion: np.ndarray, box: Box) -> tuple[np.ndarray, float]:
    """Return what a box of the first frame would hold, were it carried along, and how far its corners are carried.

    Args:
        two: uint8 (H, W) luma of the second frame.
        motion: float32 (2, 3), of `scene_motion`.
        box: pixels of the first frame.

    Returns:
        uint8 (h, w) of the box's size, and the largest shift of a corner, pixels.
    """
    left, top, right, bottom = box
    from_box = motion.copy()
    from_box[:, 2] += motion[:, :2] @ np.array([left, top], np.float32)
    size = (right - left, bottom - top)
    patch = cv2.warpAffine(two, from_box, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    corners = np.array([[x, y] for x in (left, right) for y in (top, bottom)], np.float32)
    shifts = corners @ motion[:, :2].T + motion[:, 2] - corners
    return np.asarray(patch, np.uint8), float(np.hypot(*shifts.T).max())
