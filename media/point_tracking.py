"""Points followed from one picture to another (Lucas and Kanade, on a pyramid: Bouguet, 2000)."""

from typing import NamedTuple

import cv2
import numpy as np


def track(
    first: np.ndarray, second: np.ndarray, points: np.ndarray, window_px: int, halvings: int
) -> tuple[np.ndarray, np.ndarray]:
    """Follow points into another picture.

    Args:
        first: uint8 (H, W), the picture that the points are in.
        second: uint8 (H, W), another one.
        points: float32 (N, 2) with N > 0, x then y.
        window_px: side of the window that is compared.
        halvings: of the pyramid, which bound the movement that is followed.

    Returns:
        Where they are, float32 (N, 2), and which of them were found, bool (N,).
    """
    there, found, _ = cv2.calcOpticalFlowPyrLK(  # type: ignore[call-overload]
        first, second, points.reshape(-1, 1, 2), None, winSize=(window_px, window_px), maxLevel=halvings
    )
    return there.reshape(-1, 2), found.ravel() == 1


class TrackedPoints(NamedTuple):
    """Where points are, and how far from where they were they come out, float32 (N, 2); which were found, bool (N,)."""

    points: np.ndarray
    off_px: np.ndarray
    is_found: np.ndarray


def track_both_ways(
    first: np.ndarray, second: np.ndarray, points: np.ndarray, window_px: int, halvings: int
) -> TrackedPoints:
    """Follow points into another picture and back (Kalal et al., ICPR 2010), by the arguments of `track`.

    Returns:
        Where they are, float32 (N, 2); how far from where they were they come out, float32 (N, 2); and which of them
        were found both ways, bool (N,).
    """
    there, found = track(first, second, points, window_px, halvings)
    back, found_back = track(second, first, there, window_px, halvings)
    return TrackedPoints(there, back - points.reshape(-1, 2), found & found_back)
