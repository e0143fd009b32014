"""How the camera moves from frame to frame: corners are followed, and one similarity must explain most of them.

Corners (Shi & Tomasi, CVPR 1994) are followed there and back (`media.point_tracking`); RANSAC (Fischler & Bolles,
CACM 24(6), 1981) finds the shift, growth and turn that most of them share. The border decides what is the camera's: a
thing that moves by itself in the middle may have most of the corners.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from curation.types import Frames
from media.point_tracking import track_both_ways

MIN_SIDE_PX = 32
MOST_CORNERS, CORNER_QUALITY, CORNER_DISTANCE_PX = 96, 0.005, 14
WINDOW_PX, HALVINGS = 11, 3
MAX_RETURN_PX = 0.5
"""A corner that comes back to another place than it left was not followed."""
MAX_OFF_PX = 0.6
"""How far from the common motion a corner may be, at a short side of 180 px."""
MIN_CORNERS = 12
MIN_SHARE = 0.5
"""Share of the followed corners, and of those near the border, that must move with the camera."""
CELLS, MIN_BORDER_CELLS = 4, 4
"""Corners that move with the camera must lie in so many of the outer ones of 4x4 cells."""
RMS_RADIUS = 12**-0.5
"""Root mean square distance of a rectangle's points from its middle, share of the diagonal."""


@dataclass(frozen=True)
class Step:
    """What the picture does from one frame to a later one.

    Attributes:
        right: shift of the picture's middle, percent of the diagonal.
        down: likewise.
        growth: natural logarithm of the enlargement.
        turn_rad: clockwise, as seen.
        share: of the followed corners, those that move so.
    """

    right: float
    down: float
    growth: float
    turn_rad: float
    share: float


def followed(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return corners of uint8 (H, W) and where they are in a later picture: float32 (N, 2) each, x then y."""
    corners = cv2.goodFeaturesToTrack(first, MOST_CORNERS, CORNER_QUALITY, CORNER_DISTANCE_PX, blockSize=5)
    if corners is None or len(corners) < MIN_CORNERS:
        return np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32)
    there, off, found = track_both_ways(first, second, corners, WINDOW_PX, HALVINGS)
    good = found & (np.abs(off).max(axis=1) <= MAX_RETURN_PX)
    return corners.reshape(-1, 2)[good], there[good]


def camera_step(first: np.ndarray, second: np.ndarray) -> Step | None:
    """Return how the camera moves the picture from one frame to a later one; None where no camera explains it.

    Args:
        first: uint8 (H, W) luma.
        second: uint8 (H, W), later.
    """
    height, width = first.shape
    if min(height, width) < MIN_SIDE_PX:
        return None
    places, later = followed(first, second)
    if len(places) < MIN_CORNERS:
        return None
    max_off_px = MAX_OFF_PX * min(height, width) / 180
    matrix, inliers = cv2.estimateAffinePartial2D(places, later, ransacReprojThreshold=max_off_px, confidence=0.995)
    if matrix is None:
        return None
    with_camera = inliers.ravel().astype(bool)
    if with_camera.mean() < MIN_SHARE or not _reaches_border(places, with_camera, (width, height)):
        return None
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    shift = (matrix[:, :2] @ middle + matrix[:, 2] - middle) * 100 / np.hypot(width, height)
    scale, turn_rad = np.hypot(matrix[0, 0], matrix[1, 0]), np.arctan2(matrix[1, 0], matrix[0, 0])
    return Step(float(shift[0]), float(shift[1]), float(np.log(scale)), float(turn_rad), float(with_camera.mean()))


def _reaches_border(places: np.ndarray, with_camera: np.ndarray, size: tuple[int, int]) -> bool:
    """Return whether corners near the border move with the camera, and along enough of it."""
    cells = np.minimum((places * CELLS / np.array(size)).astype(int), CELLS - 1)
    outer = ((cells == 0) | (cells == CELLS - 1)).any(axis=1)
    if not outer.any() or with_camera[outer].mean() < MIN_SHARE:
        return False
    return len({(x, y) for x, y in cells[outer & with_camera].tolist()}) >= MIN_BORDER_CELLS


@dataclass(frozen=True, eq=False)
class Path:
    """A clip's camera path.

    Attributes:
        times_s: float64 (T,), of the frames.
        places: float64 (T, 4), summed over the steps: shift to the right and down in percent of the diagonal, then
            growth and clockwise turn in the same unit: 100 times the logarithm, or radian, times `RMS_RADIUS`, which
            is how far they move the picture's points (root mean square).
        explained: share of the steps that a camera explains; the others are filled in between these.
        share: of the followed corners, those that move with the camera, mean of the explained steps.
    """

    times_s: np.ndarray
    places: np.ndarray
    explained: float
    share: float


def camera_path(frames: Frames) -> Path | None:
    """Return the path that the camera takes through luma (T, H, W) frames; None where no step is explained."""
    kept = [0, *(np.flatnonzero(np.diff(frames.times_s) > 0) + 1).tolist()] if len(frames) else []
    steps = [camera_step(frames.pixels[a], frames.pixels[b]) for a, b in zip(kept, kept[1:], strict=False)]
    known = [i for i, step in enumerate(steps) if step is not None]
    found = [step for step in steps if step is not None]
    if not found:
        return None
    times_s = frames.times_s[kept]
    elapsed_s = np.diff(times_s)
    to_percent = 100 * RMS_RADIUS
    moved = np.array([(s.right, s.down, s.growth * to_percent, s.turn_rad * to_percent) for s in found])
    speeds = moved / elapsed_s[known, None]
    filled = np.stack([np.interp(np.arange(len(steps)), known, column) for column in speeds.T], axis=1)
    places = np.concatenate([np.zeros((1, 4)), np.cumsum(filled * elapsed_s[:, None], axis=0)])
    return Path(times_s, places, len(found) / len(steps), float(np.mean([s.share for s in found])))


def steady(times_s: Sequence[float] | np.ndarray, values: np.ndarray, window_s: float) -> np.ndarray:
    """Return the slow part of (T, C) values: at each time a line is fitted to its neighbours, with Hann weights.

    Within a series this is the weighted mean; a line, unlike a mean, follows a steady motion at the ends, too.

    Args:
        times_s: (T,), rising.
        values: float64 (T, C).
        window_s: full width of the window; what changes in half of it or faster is left out.
    """
    times = np.asarray(times_s, np.float64)
    starts, ends = np.searchsorted(times, times - window_s / 2, "right"), np.searchsorted(times, times + window_s / 2)
    slow = np.empty_like(values)
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        start, end = min(start, i), max(end, i + 1)
        away = times[start:end] - times[i]
        weight = np.cos(np.pi * away / window_s) ** 2
        total, first, second = weight.sum(), weight @ away, weight @ (away * away)
        spread = total * second - first * first
        near = values[start:end]
        if spread <= 1e-12 * second * total or second == 0:
            slow[i] = weight @ near / total
        else:
            slow[i] = (second * (weight @ near) - first * ((weight * away) @ near)) / spread
    return slow
