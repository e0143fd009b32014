"""Masks painted on a picture, and points drawn on one: from what the browser sends to what the sampler takes."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from sampling.media import first_frame

MARK = (255, 64, 64)
Paths = list[list[tuple[float, float]]]


def mask_of(painted: Mapping[str, Any] | None) -> bytes | None:
    """Return the mask that was painted: a PNG that is white where paint lies; None where there is none.

    Args:
        painted: `background` and `layers`, uint8 (H, W, 4) each, of which paint has alpha.
    """
    if not painted or painted.get("background") is None:
        return None
    height, width = painted["background"].shape[:2]
    white = np.zeros((height, width), bool)
    for layer in painted.get("layers") or ():
        alpha = layer[..., 3]
        if alpha.shape != white.shape:
            alpha = cv2.resize(alpha, (width, height), interpolation=cv2.INTER_NEAREST)
        white |= alpha > 0
    if not white.any():
        return None
    file = io.BytesIO()
    Image.fromarray(white.astype(np.uint8) * 255).save(file, "PNG")
    return file.getvalue()


def with_paths(picture: np.ndarray, paths: Paths) -> np.ndarray:
    """Return a picture, uint8 (H, W, 3), with paths drawn on it: a dot for each point, an arrow at the end."""
    drawn = np.ascontiguousarray(picture[..., :3])
    thick = max(1, round(min(drawn.shape[:2]) / 160))
    for path in paths:
        points = [(round(x), round(y)) for x, y in path]
        for begin, end in zip(points, points[1:], strict=False):
            cv2.arrowedLine(drawn, begin, end, MARK, thick, cv2.LINE_AA)
        for point in points:
            cv2.circle(drawn, point, 2 * thick, MARK, -1, cv2.LINE_AA)
    return drawn


def trajectory_of(paths: Paths, width_px: int, height_px: int) -> bytes | None:
    """Return the file of drawn paths; None where no path was drawn."""
    drawn = [[list(point) for point in path] for path in paths if path]
    if not drawn:
        return None
    return json.dumps({"width": width_px, "height": height_px, "paths": drawn}).encode()


def with_point(paths: Paths, point: Sequence[float], *, begins: bool) -> Paths:
    """Return paths with one point more, at the end of the last, or as the first of another."""
    place = (float(point[0]), float(point[1]))
    if begins or not paths:
        return [*paths, [place]]
    return [*paths[:-1], [*paths[-1], place]]


def picture_of(path: str | Path | None) -> np.ndarray | None:
    """Return the first frame of a video, or an image, uint8 (H, W, 3); None where there is no file.

    Raises:
        UserError: it cannot be read.
    """
    return None if path is None else first_frame(Path(path))
