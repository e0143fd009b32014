"""People drawn as OpenPose and DWPose draw them: limbs and points of bodies, hands and faces, on black."""

import colorsys
import math
from functools import cache

import cv2
import numpy as np

from controls.people import People
from models.annotators.skeleton import (
    BODY_POINTS,
    COCO_SHOULDERS,
    COLOURS,
    FACE_COLOUR,
    FACE_FROM,
    FACE_POINTS,
    HAND_COLOUR,
    HAND_EDGES,
    HAND_POINTS,
    LEFT_HAND_FROM,
    LIMB_LIGHT,
    LIMBS,
    OF_COCO,
    RIGHT_HAND_FROM,
)

AT_SHORT_SIDE_PX = 512
"""the published widths are in pixels of pictures of this short side; here they grow with the picture"""
LIMB_PX, POINT_PX, FINGER_PX, FACE_PX = 4, 4, 2, 3


def bodies_of(people: People, min_score: float) -> np.ndarray:
    """Return the points of bodies as OpenPose counts them: float32 (N, 18, 2), NaN where one is not seen.

    Args:
        people: as COCO-WholeBody counts them.
        min_score: how sure a point must be to be seen.
    """
    points = np.where(people.scores[..., None] > min_score, people.points, np.nan).astype(np.float32)
    neck = points[:, list(COCO_SHOULDERS)].mean(axis=1)  # NaN unless both shoulders are seen
    return np.stack([neck if place is None else points[:, place] for place in OF_COCO], axis=1).reshape(
        -1, BODY_POINTS, 2
    )


def draw_people(
    people: People, shape: tuple[int, int], min_score: float, *, with_hands: bool, with_face: bool
) -> np.ndarray:
    """Return the picture of people, uint8 (H, W, 3) RGB.

    Args:
        people: their points, in pixels of the picture.
        shape: its height and width.
        min_score: how sure a point must be to be drawn.
        with_hands: draw hands.
        with_face: draw points of faces.
    """
    drawn = np.zeros((*shape, 3), np.uint8)
    if not len(people.points):
        return drawn
    unit = min(shape) / AT_SHORT_SIDE_PX
    drawn = _draw_bodies(drawn, bodies_of(people, min_score), unit)
    points = np.where(people.scores[..., None] > min_score, people.points, np.nan)
    if with_hands:
        for begin in (LEFT_HAND_FROM, RIGHT_HAND_FROM):
            for hand in points[:, begin : begin + HAND_POINTS]:
                _draw_hand(drawn, hand, unit)
    if with_face:
        for point in points[:, FACE_FROM : FACE_FROM + FACE_POINTS].reshape(-1, 2):
            _draw_point(drawn, point, FACE_PX * unit, FACE_COLOUR)
    return drawn


def _draw_bodies(drawn: np.ndarray, bodies: np.ndarray, unit: float) -> np.ndarray:
    half_width = max(1, round(LIMB_PX * unit))
    for (begin, end), colour in zip(LIMBS, COLOURS, strict=False):
        for body in bodies:
            if np.isnan(body[[begin, end]]).any():
                continue
            (x, y), (to_x, to_y) = body[begin].tolist(), body[end].tolist()
            middle, half = (int((x + to_x) / 2), int((y + to_y) / 2)), int(math.hypot(x - to_x, y - to_y) / 2)
            angle = int(math.degrees(math.atan2(y - to_y, x - to_x)))
            cv2.fillConvexPoly(drawn, cv2.ellipse2Poly(middle, (half, half_width), angle, 0, 360, 1), colour)
    drawn = (drawn * LIMB_LIGHT).astype(np.uint8)
    for place, colour in enumerate(COLOURS):
        for body in bodies:
            _draw_point(drawn, body[place], POINT_PX * unit, colour)
    return drawn


def _draw_hand(drawn: np.ndarray, hand: np.ndarray, unit: float) -> None:
    for (begin, end), colour in zip(HAND_EDGES, _finger_colours(), strict=True):
        if not np.isnan(hand[[begin, end]]).any():
            ends = [(int(x), int(y)) for x, y in hand[[begin, end]].tolist()]
            cv2.line(drawn, ends[0], ends[1], colour, max(1, round(FINGER_PX * unit)))
    for point in hand:
        _draw_point(drawn, point, POINT_PX * unit, HAND_COLOUR)


def _draw_point(drawn: np.ndarray, point: np.ndarray, radius_px: float, colour: tuple[int, int, int]) -> None:
    if not np.isnan(point).any():
        cv2.circle(drawn, (int(point[0]), int(point[1])), max(1, round(radius_px)), colour, -1)


@cache
def _finger_colours() -> list[tuple[float, float, float]]:
    """Return a colour for each edge of a hand, once around the circle."""
    hues = (place / len(HAND_EDGES) for place in range(len(HAND_EDGES)))
    return [tuple(255 * part for part in colorsys.hsv_to_rgb(hue, 1, 1)) for hue in hues]  # type: ignore[misc]
