"""Paths of a camera: the published text format, the published presets, and files of other lengths.

A file has a first line that readers skip, then a line for each frame (RealEstate10K, as CameraCtrl reads it,
arXiv 2404.02101): `timestamp fx fy cx cy 0 0` and the world-to-camera matrix (3x4) row by row. Timestamps are in
microseconds, intrinsics are shares of a source of 1280 x 720.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from models.errors import ModelError

FOCAL_X, FOCAL_Y, POSE_RATIO = 0.474812461, 0.844111024, 1280 / 720
"""intrinsics of the published presets"""
FIRST_LINE = "timestamp_us fx fy cx cy 0 0 world-to-camera (3x4, row by row)"
NUMBERS = 19
MOST_POSES = 100_000
SHIFT, ANGLE_RAD = 1.5, np.pi / 3
"""how far a preset goes over a clip, at a speed of 1"""
NOT_RIGID = 1e-2
"""how far a rotation times its transpose may be from the identity: files are rounded"""


@dataclass(frozen=True, eq=False)
class CameraPath:
    """A camera's poses, one for each frame.

    Attributes:
        times_s: float64 (T,).
        intrinsics: float64 (T, 4), fx, fy, cx, cy as shares of a source of 1280 x 720.
        poses: float64 (T, 3, 4), world-to-camera.
    """

    times_s: np.ndarray
    intrinsics: np.ndarray
    poses: np.ndarray

    def __len__(self) -> int:
        """Count the poses."""
        return len(self.poses)

    def taken(self, places: np.ndarray) -> "CameraPath":
        """Return the poses at these places, int (N,)."""
        return CameraPath(self.times_s[places], self.intrinsics[places], self.poses[places])

    def spread(self, count: int) -> "CameraPath":
        """Return so many poses: those on screen at the middles of equal parts of the path."""
        return self.taken(np.minimum(((np.arange(count) + 0.5) * len(self) / count).astype(int), len(self) - 1))


def read_path(text: str, where: str) -> CameraPath:
    """Read a path.

    Args:
        text: content of the file.
        where: name of the file, for messages.

    Raises:
        ModelError: it does not parse, with line and column; or a pose is no rotation and shift.
    """
    rows: list[list[float]] = []
    for number, line in enumerate(text.splitlines()[1:], 2):
        if line.strip():
            rows.append(_numbers(line, f"{where}:{number}"))
        if len(rows) > MOST_POSES:
            raise ModelError(f"{where}: more than {MOST_POSES} poses; divide it")
    if not rows:
        raise ModelError(f"{where}: no pose; after a first line each frame has a line of {NUMBERS} numbers")
    values = np.array(rows)
    poses = values[:, 7:].reshape(-1, 3, 4)
    turns = poses[:, :, :3]
    off = np.abs(turns @ turns.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    bad = np.flatnonzero((off > NOT_RIGID) | (np.linalg.det(turns) <= 0))
    if len(bad):
        raise ModelError(
            f"{where}: pose {bad[0] + 1} of {len(rows)} is no rotation with a shift; write world-to-camera matrices"
        )
    return CameraPath(values[:, 0] / 1e6, values[:, 1:5], poses)


def _numbers(line: str, where: str) -> list[float]:
    words, column, found = line.split(), 0, []
    for word in words:
        column = line.index(word, column)
        try:
            value = float(word)
        except ValueError:
            value = np.nan
        if not np.isfinite(value):
            raise ModelError(f"{where}, column {column + 1}: '{word[:40]}' is no number; correct it")
        found.append(value)
        column += len(word)
    if len(found) != NUMBERS:
        raise ModelError(
            f"{where}, column {len(line.rstrip()) + 1}: {len(found)} numbers, not {NUMBERS}; write timestamp fx fy cx "
            "cy 0 0 and a 3x4 matrix"
        )
    if found[1] <= 0 or found[2] <= 0:
        raise ModelError(f"{where}: focal lengths {found[1]:g} and {found[2]:g} must be above 0")
    return found


def path_text(path: CameraPath) -> str:
    """Return the content of a path's file."""
    lines = [FIRST_LINE]
    for time_s, intrinsics, pose in zip(path.times_s, path.intrinsics, path.poses, strict=True):
        lens = " ".join(f"{value:.9g}" for value in intrinsics)
        lines.append(
            f"{round(time_s * 1e6)} {lens} 0 0 {' '.join(f'{round(float(v), 9) + 0.0:.9f}' for v in pose.ravel())}"
        )
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Move:
    """What a preset does over a clip, at a speed of 1.

    Attributes:
        shift: of the world before the camera.
        turn: about the axes x, y and z, in `ANGLE_RAD`.
    """

    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)


PRESETS: Mapping[str, Move] = {
    "static": Move(),
    "pan_left": Move((1.0, 0.0, 0.0)),
    "pan_right": Move((-1.0, 0.0, 0.0)),
    "pan_up": Move((0.0, 1.0, 0.0)),
    "pan_down": Move((0.0, -1.0, 0.0)),
    "zoom_in": Move((0.0, 0.0, -2.0)),
    "zoom_out": Move((0.0, 0.0, 2.0)),
    "roll_left": Move(turn=(0.0, 0.0, 1.0)),
    "roll_right": Move(turn=(0.0, 0.0, -1.0)),
}
"""CameraCtrl's basic moves, by the numbers that EasyAnimate's nodes have; roll_left is theirs anticlockwise"""


def preset_path(name: str, num_frames: int, speed: float = 1.0, fps: float = 8.0) -> CameraPath:
    """Return a preset's path: frame i of n has i / n of the move, times the speed.

    Raises:
        ModelError: there is no such preset.
    """
    if name not in PRESETS:
        raise ModelError(f"camera '{name}': neither a file nor one of {', '.join(PRESETS)}")
    move = PRESETS[name]
    poses = np.zeros((num_frames, 3, 4))
    for i in range(num_frames):
        share = i / num_frames * speed
        poses[i, :, :3] = rotation(*(share * ANGLE_RAD * np.array(move.turn)))
        poses[i, :, 3] = share * SHIFT * np.array(move.shift)
    intrinsics = np.tile([FOCAL_X, FOCAL_Y, 0.5, 0.5], (num_frames, 1))
    return CameraPath(np.arange(num_frames) / fps, intrinsics, poses)


def rotation(x_rad: float, y_rad: float, z_rad: float) -> np.ndarray:
    """Return the rotation about x, then y, then z: float64 (3, 3)."""
    (cx, cy, cz), (sx, sy, sz) = np.cos([x_rad, y_rad, z_rad]), np.sin([x_rad, y_rad, z_rad])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)
