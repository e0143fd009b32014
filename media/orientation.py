"""How a stored picture is turned and mirrored to be shown: display matrices and what they mean.

Every orientation is a mirror image or not (left and right exchanged, as stored), then turned clockwise by a multiple
of 90 degrees: the eight orientations of EXIF. Odd angles of a display matrix go to the nearest multiple.
"""

import math
import struct

import numpy as np
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame

from media.light import side_data

_ONE, _W_ONE = 1 << 16, 1 << 30  # 16.16 and 2.30 fixed point, ISO/IEC 14496-12, 6.2.2


def orientation_of(frame: VideoFrame) -> tuple[int, bool]:
    """Return (rotation_deg, is_mirrored) that a frame's display matrix asks for; (0, False) without one."""
    data = side_data(frame, Type.DISPLAYMATRIX)
    if data is None:
        return 0, False
    return orientation_of_matrix(struct.unpack("=9i", data[:36]))


def orientation_of_matrix(matrix: tuple[int, ...]) -> tuple[int, bool]:
    """Return (rotation_deg, is_mirrored) of a display matrix: nine numbers, row by row, as the container has them."""
    a, b, _, c, d = matrix[:5]
    mirrored = a * d - b * c < 0
    if mirrored:
        a, b = -a, -b  # what is left once left and right are exchanged
    return round(math.degrees(math.atan2(b, a)) / 90) * 90 % 360, mirrored


def display_matrix(rotation_deg: int, *, is_mirrored: bool) -> list[int]:
    """Return the display matrix, nine numbers row by row, that shows a picture in an orientation."""
    cosine, sine = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[rotation_deg]
    side = -1 if is_mirrored else 1
    return [side * cosine * _ONE, side * sine * _ONE, 0, -sine * _ONE, cosine * _ONE, 0, 0, 0, _W_ONE]


def upright(picture: np.ndarray, rotation_deg: int, *, is_mirrored: bool = False) -> np.ndarray:
    """Mirror and turn (..., H, W) or (H, W, 3) pixels as they are shown."""
    if rotation_deg == 0 and not is_mirrored:
        return picture
    rows, columns = (0, 1) if picture.shape[-1] == 3 and picture.ndim == 3 else (-2, -1)
    if is_mirrored:
        picture = np.flip(picture, axis=columns)
    return np.ascontiguousarray(np.rot90(picture, -rotation_deg // 90, axes=(rows, columns)))


def filters(rotation_deg: int, *, is_mirrored: bool) -> list[tuple[str, str]]:
    """Return FFmpeg's filters, with arguments, that show a stored picture upright."""
    turns = {0: [], 90: ["clock"], 180: ["clock", "clock"], 270: ["cclock"]}[rotation_deg]
    return [("hflip", "")] * is_mirrored + [("transpose", turn) for turn in turns]
