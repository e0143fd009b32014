"""Pictures of transitions: two frames mixed at a share of the way from one shot to the next.

Each function takes the frame of the first shot, that of the second one (uint8 (H, W, 3)), the way from 0 to 1, and a
direction from 0 to 3 (left, right, up, down) that also picks a variant; it returns uint8 (H, W, 3).
"""

from collections.abc import Callable

import cv2
import numpy as np

Join = Callable[[np.ndarray, np.ndarray, float, int], np.ndarray]


def dissolve(one: np.ndarray, other: np.ndarray, way: float, direction: int) -> np.ndarray:
    """Mix both, evenly or easing in and out."""
    share = way if direction % 2 else way * way * (3 - 2 * way)
    return cv2.addWeighted(one, 1 - share, other, share, 0)


def _fade(level: int) -> Join:
    def join(one: np.ndarray, other: np.ndarray, way: float, direction: int) -> np.ndarray:
        hold = 0.12 if direction % 2 else 0.0  # half of them stay flat for a while
        share = min(1.0, abs(2 * way - 1) / (1 - hold) - hold / (1 - hold)) if abs(2 * way - 1) > hold else 0.0
        shown = one if way < 0.5 else other
        return cv2.addWeighted(shown, share, np.full_like(shown, level), 1 - share, 0)

    return join


def wipe(one: np.ndarray, other: np.ndarray, way: float, direction: int) -> np.ndarray:
    """Uncover the second shot behind an edge, hard or soft; direction 3 opens a circle."""
    height, width = one.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    ramp = (x / width, 1 - x / width, (x / width + y / height) / 2, np.hypot(x / width - 0.5, y / height - 0.5) / 0.72)
    soft = (0.02, 0.12, 0.05, 0.02)[direction]
    share = np.clip((way * (1 + soft) - ramp[direction]) / soft, 0, 1)[..., None]
    return (one + (other.astype(np.float32) - one) * share).round().astype(np.uint8)


def _moved(one: np.ndarray, other: np.ndarray, way: float, direction: int, moves: tuple[bool, bool]) -> np.ndarray:
    """Lay two shots next to each other; say which of them moves."""
    flipped = direction % 2 == 1
    upright = direction >= 2
    a, b = (np.swapaxes(each, 0, 1) if upright else each for each in (one, other))
    a, b = (each[:, ::-1] if flipped else each for each in (a, b))
    width = a.shape[1]
    edge = min(width, max(0, round(way * width)))
    left = a[:, edge:] if moves[0] else a[:, : width - edge]
    right = b[:, :edge] if moves[1] else b[:, width - edge :]
    picture = np.concatenate([left, right], axis=1)
    picture = picture[:, ::-1] if flipped else picture
    return np.ascontiguousarray(np.swapaxes(picture, 0, 1) if upright else picture)


def slide(one: np.ndarray, other: np.ndarray, way: float, direction: int) -> np.ndarray:
    """Let the second shot cover the first one, or the first one move out before it."""
    moves = (False, True) if direction in (0, 3) else (True, False)
    return _moved(one, other, way, direction, moves)


def push(one: np.ndarray, other: np.ndarray, way: float, direction: int) -> np.ndarray:
    """Let the second shot push the first one out."""
    return _moved(one, other, way * way * (3 - 2 * way), direction, (True, True))


def zoom(one: np.ndarray, other: np.ndarray, way: float, direction: int) -> np.ndarray:
    """Fly into the first shot and out of the second one, blurred by speed."""
    part = min(1.0, 2 * way) if way < 0.5 else 2 * (1 - way)
    shown = one if way < 0.5 else other
    strength = 1 + 1.5 * part * part
    pictures = [zoomed(shown, strength * (1 + 0.12 * part * k), 0.5, 0.5) for k in range(3)]
    return np.mean(pictures, axis=0).round().astype(np.uint8)


def whip(one: np.ndarray, other: np.ndarray, way: float, direction: int) -> np.ndarray:
    """Pan away from the first shot and into the second one, blurred by speed."""
    part = 2 * way if way < 0.5 else 2 * (1 - way)
    shown = one if way < 0.5 else other
    sign = (1 if direction % 2 else -1) * (1 if way < 0.5 else -1)
    height, width = shown.shape[:2]
    move = np.array([[1, 0, sign * part * part * width * 0.8], [0, 1, 0]], np.float32)
    moved = cv2.warpAffine(shown, move, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    return cv2.blur(moved, (max(1, round(part * width * 0.35)), 1))


def zoomed(picture: np.ndarray, strength: float, x: float, y: float) -> np.ndarray:
    """Return a picture enlarged about a place given as shares of its width and height."""
    height, width = picture.shape[:2]
    wide, tall = width / strength, height / strength
    centre = (wide / 2 + (width - wide) * x, tall / 2 + (height - tall) * y)
    move = np.array(
        [[strength, 0, width / 2 - strength * centre[0]], [0, strength, height / 2 - strength * centre[1]]], np.float32
    )
    return cv2.warpAffine(picture, move, (width, height), borderMode=cv2.BORDER_REFLECT_101)


JOINS: dict[str, tuple[Join, float, float]] = {
    "dissolve": (dissolve, 0.3, 1.5),
    "fade_black": (_fade(0), 0.4, 1.8),
    "fade_white": (_fade(255), 0.3, 1.2),
    "wipe": (wipe, 0.3, 1.2),
    "slide": (slide, 0.3, 1.0),
    "push": (push, 0.3, 1.0),
    "zoom": (zoom, 0.25, 0.6),
    "whip": (whip, 0.25, 0.5),
}
"""Gradual kinds: what draws them, their shortest and longest duration in seconds."""
