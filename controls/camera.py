"""The camera's path, from the movement of the whole picture, in the text format of camera-controlled models.

One picture does not say how far away things are: the path is that of a camera before a plane one unit away, which pans
by moving aside, zooms by moving ahead and rolls, as the published presets do.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import cv2
import numpy as np

from controls.tracking import corners, follow, shrunk
from core.settings import key
from curation.schema import VIDEO
from curation.types import MapDrawer, MapFacts
from models.conditions.camera_path import FOCAL_X, FOCAL_Y, POSE_RATIO, CameraPath, path_text

POINTS, FEWEST_POINTS, LEAST_AREA = 300, 20, 0.15
QUALITY = 0.001
"""weak corners, too, so that the points lie all over the picture and not on one thing with much contrast"""
CHUNK_S = 0.25
"""steps are judged together over this time, in which what moves by itself gets away from what does not"""
MOST_OFF_PX = 1.0

Motion = np.ndarray
"""float64 (3, 3), a similarity: from places in one frame to those in another, px from the picture's middle"""


@dataclass(frozen=True)
class Camera:
    """A similarity between frames for each step, by RANSAC over followed points, put together from the first frame."""

    min_inliers: float = key(0.7, "share of the points that must move as one to explain a step", above=0, max=1)
    min_explained: float = key(0.9, "share of the steps to explain for a path to be written", above=0, max=1)

    media: ClassVar[frozenset[str]] = VIDEO
    suffix: ClassVar[Literal["mp4", "txt"]] = "txt"

    @property
    def takes(self) -> Literal["gray", "rgb"]:
        """Luma."""
        return "gray"

    def start(self) -> MapDrawer:
        """Return a drawer for one clip."""
        return _CameraDrawer(self)


class _CameraDrawer:
    def __init__(self, settings: Camera):
        self._settings = settings
        self._before: np.ndarray | None = None
        self._begins = self._places = np.zeros((0, 2), np.float32)
        self._begin_s, self._steps, self._seen = 0.0, 0, 0
        self._begin, self._motion = np.eye(3), np.eye(3)
        self._share = 0.0
        self._explained = self._all = 0
        self._size = (1, 1)
        self._path: list[tuple[float, Motion]] = []

    def draw(self, picture: np.ndarray, time_s: float) -> None:
        small, scale = shrunk(picture)
        if self._before is None:
            self._size = (picture.shape[1], picture.shape[0])
            self._begin_chunk(small, time_s)
        else:
            places, is_seen = follow(self._before, small, self._places)
            self._places, self._begins = places[is_seen], self._begins[is_seen]
            found, self._share = _similarity(self._begins, self._places, self._seen, small.shape)
            self._motion = self._begin if found is None else found @ self._begin
            self._steps += 1
        to_full = np.diag([1 / scale, 1 / scale, 1.0])
        self._path.append((time_s, to_full @ self._motion @ np.linalg.inv(to_full)))
        self._before = small
        if time_s - self._begin_s >= CHUNK_S - 1e-6:
            self._judge()
            self._begin_chunk(small, time_s)

    def _begin_chunk(self, small: np.ndarray, time_s: float) -> None:
        self._begins = self._places = corners(small, POINTS, QUALITY)
        self._seen, self._begin, self._begin_s, self._steps = len(self._places), self._motion, time_s, 0

    def _judge(self) -> None:
        self._all += self._steps
        self._explained += self._steps if self._share >= self._settings.min_inliers else 0

    def finish(self) -> MapFacts:
        self._judge()
        share = self._explained / self._all if self._all else 0.0
        return MapFacts(share, text_of(self._path, *self._size) if share >= self._settings.min_explained else None)


def _similarity(
    begins: np.ndarray, places: np.ndarray, count: int, shape: tuple[int, int]
) -> tuple[Motion | None, float]:
    """Return the movement that most points share, and the share of the `count` points that were looked for it has.

    None, and a share of 0, where there are too few points or they lie in too small a part of the picture.
    """
    if len(places) < FEWEST_POINTS or cv2.contourArea(cv2.convexHull(begins)) < LEAST_AREA * shape[0] * shape[1]:
        return None, 0.0
    middle = (np.array(shape[::-1]) - 1) / 2
    cv2.setRNGSeed(0)  # equal frames give equal paths
    found, is_in = cv2.estimateAffinePartial2D(begins - middle, places - middle, ransacReprojThreshold=MOST_OFF_PX)
    if found is None:
        return None, 0.0
    return np.vstack([found, [0, 0, 1]]), float(is_in.sum()) / max(1, count)


def poses(path: list[Motion], width_px: int, height_px: int) -> np.ndarray:
    """Return the world-to-camera matrices, float64 (T, 3, 4), of movements since the first frame, in px.

    A point at (X, Y, 1) is seen at f (R (X, Y) + (tx, ty)) / (1 + tz): with scale s and shift m of the picture,
    tz = 1 / s - 1 and (tx, ty) = m / (f s).
    """
    focal_px = FOCAL_Y * max(height_px, width_px / POSE_RATIO)
    rows = []
    for motion in path:
        scale = float(np.hypot(motion[0, 0], motion[1, 0]))
        pose = np.zeros((3, 4))
        pose[:2, :2], pose[2, 2] = motion[:2, :2] / scale, 1.0
        pose[:2, 3], pose[2, 3] = motion[:2, 2] / (focal_px * scale), 1 / scale - 1
        rows.append(pose)
    return np.array(rows)


def text_of(path: list[tuple[float, Motion]], width_px: int, height_px: int) -> str:
    """Return the file of a path, of times in seconds and movements in px."""
    intrinsics = np.tile([FOCAL_X, FOCAL_Y, 0.5, 0.5], (len(path), 1))
    found = poses([motion for _, motion in path], width_px, height_px)
    return path_text(CameraPath(np.array([time_s for time_s, _ in path]), intrinsics, found))
