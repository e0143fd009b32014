"""The joints of people in pose maps, read by their colours, and how far those of one map are from those of another."""

import math
from functools import cache

import cv2
import numpy as np

from models.annotators.skeleton import COLOURS, HAND_COLOUR

AT_SHORT_SIDE_PX, POINT_PX = 512, 4
"""how large a joint is drawn"""
SATURATED, BRIGHT, SAME_HUE = 150, 180, 7
"""of a joint's pixels, of 256: least saturation and brightness, since limbs are darker, and how far a hue may be off;
joints are 14 apart, and hues outlast the coarse colours of video"""
LEAST_OF_DISC = 0.25
"""share of a joint's disc that must be seen"""
READ = tuple(place for place, colour in enumerate(COLOURS) if colour != HAND_COLOUR)
"""joints that can be told apart: the left knee is drawn as the points of hands are"""

Joints = list[np.ndarray]
"""float (N, 2), x and y in px, of each of `READ`, of however many people"""


def joints_in(picture: np.ndarray) -> Joints:
    """Return the joints that can be told in a pose map, uint8 (H, W, 3) RGB."""
    radius_px = max(1, round(POINT_PX * min(picture.shape[:2]) / AT_SHORT_SIDE_PX))
    hue, saturation, value = np.moveaxis(cv2.cvtColor(picture, cv2.COLOR_RGB2HSV_FULL), 2, 0).astype(np.int16)
    is_lit = (saturation >= SATURATED) & (value >= BRIGHT)
    found = []
    for place in READ:
        off = np.abs((hue - _hues()[place] + 128) % 256 - 128)
        mask = (is_lit & (off < SAME_HUE)).astype(np.uint8)
        if radius_px > 1:  # fingers are thinner lines in such colours, too
            side = 2 * (radius_px // 2) + 1
            disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
            mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, disc)
        _, _, stats, middles = cv2.connectedComponentsWithStats(mask)
        is_disc = stats[1:, cv2.CC_STAT_AREA] >= LEAST_OF_DISC * math.pi * radius_px**2
        found.append(middles[1:][is_disc])
    return found


@cache
def _hues() -> list[int]:
    """Return the hue of each joint's colour, of 256."""
    row = np.array([COLOURS], np.uint8)
    return [int(hue) for hue in cv2.cvtColor(row, cv2.COLOR_RGB2HSV_FULL)[0, :, 0]]


def pose_scores(made: np.ndarray, asked: np.ndarray) -> dict[str, float | None]:
    """Compare two pose maps, uint8 (T, H, W, 3) each, of whatever sizes.

    Returns:
        `control_pose_distance`: mean distance of the asked joints from the nearest made ones of their kind, as a share
        of the picture's diagonal; `control_pose_found`: share of the asked joints of which the frame shows any. Both
        are None where no joint is asked for, the distance also where none is found.
    """
    size, made_size = (np.array(maps.shape[2:0:-1]) for maps in (asked, made))
    diagonal_px = math.hypot(*size.tolist())
    distances, wanted = [], 0
    for one, other in zip(made, asked, strict=True):
        for there, here in zip(joints_in(one), joints_in(other), strict=True):
            wanted += len(here)
            if len(there) and len(here):
                apart = np.linalg.norm(here[:, None] - (there * size / made_size)[None], axis=2).min(axis=1)
                distances += (apart / diagonal_px).tolist()
    return {
        "control_pose_distance": float(np.mean(distances)) if distances else None,
        "control_pose_found": len(distances) / wanted if wanted else None,
    }
