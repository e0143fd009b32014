"""Paths of points that a trajectory model is steered by: files of them, and the maps that they become.

JSON: a path `[[x, y], …]` or `[{"x": …, "y": …}, …]`, a list of such paths, or
`{"paths": […], "width": …, "height": …}`.
CSV: a header with `x`, `y` and, of several paths, `path`; a line for each point. The points of a path are spread evenly
over the video. Places are pixels of the video, or of the width and height that the file names.
"""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.conditions.heat_map import heat_map
from models.errors import ModelError

MOST_POINTS = 1_000_000
FORMS = 'write [[x, y], …], [{"x": …, "y": …}, …], a list of such paths, or CSV with x,y'


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Paths of points.

    Attributes:
        paths: float64 (N, 2) each, N at least 1, x then y.
        size_px: width and height of the picture that they lie in; None: that of the video.
    """

    paths: tuple[np.ndarray, ...]
    size_px: tuple[float, float] | None = None

    def places(self, num_frames: int, width_px: int, height_px: int) -> np.ndarray:
        """Return where the points are, float64 (paths, T, 2), in px of a video of this size."""
        scale = np.array([1.0, 1.0])
        if self.size_px is not None:
            scale = np.array([width_px / self.size_px[0], height_px / self.size_px[1]])
        return np.stack([_spread(path, num_frames) * scale for path in self.paths])

    def maps(self, num_frames: int, height_px: int, width_px: int) -> np.ndarray:
        """Return the published heat maps, uint8 (T, H, W): the largest of the paths' discs."""
        places = self.places(num_frames, width_px, height_px)
        return np.stack([heat_map(places[:, t], (height_px, width_px)) for t in range(num_frames)])


def _spread(path: np.ndarray, num_frames: int) -> np.ndarray:
    """Return so many points of a path, from its first to its last, in straight lines between them."""
    at = np.linspace(0, len(path) - 1, num_frames) if num_frames > 1 else np.zeros(1)
    return np.stack([np.interp(at, np.arange(len(path)), path[:, axis]) for axis in (0, 1)], axis=1)


def read_trajectory(text: str, where: str) -> Trajectory:
    """Read a file of paths.

    Args:
        text: its content.
        where: its name, for messages.

    Raises:
        ModelError: it is of another form; with line and column, or the point.
    """
    begin = text.lstrip("\ufeff \t\r\n")[:1]
    if begin in ("[", "{"):
        return _of_json(text.lstrip("\ufeff"), where)
    return _of_csv(text.lstrip("\ufeff"), where)


def _of_json(text: str, where: str) -> Trajectory:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ModelError(f"{where}:{error.lineno}, column {error.colno}: broken JSON ({error.msg})") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where}: no readable JSON ({error})") from None
    size = None
    if isinstance(values, dict):
        given = [values.get(name) for name in ("width", "height")]
        if given != [None, None]:
            numbers = [_number(value) for value in given]
            if not all(number and number > 0 for number in numbers):
                raise ModelError(f"{where}: width and height must be numbers above 0")
            size = (float(numbers[0] or 0), float(numbers[1] or 0))
        values = values.get("paths")
    if not isinstance(values, list) or not values:
        raise ModelError(f"{where}: no path in it; {FORMS}")
    paths = [values] if _point(values[0]) is not None else values
    return Trajectory(tuple(_path(path, f"{where}: path {n}") for n, path in enumerate(paths, 1)), size)


def _path(values: Any, where: str) -> np.ndarray:
    if not isinstance(values, list) or not values or len(values) > MOST_POINTS:
        raise ModelError(f"{where}: no list of points; {FORMS}")
    points = [_point(value) for value in values]
    for number, point in enumerate(points, 1):
        if point is None:
            raise ModelError(f"{where}, point {number}: no two numbers; {FORMS}")
    return np.array(points, np.float64)


def _point(value: Any) -> tuple[float, float] | None:
    pair: Sequence[Any] = ()
    if isinstance(value, dict):
        pair = (value.get("x"), value.get("y"))
    elif isinstance(value, list) and len(value) == 2:
        pair = value
    numbers = [_number(one) for one in pair]
    if len(numbers) != 2 or numbers[0] is None or numbers[1] is None:
        return None
    return numbers[0], numbers[1]


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _of_csv(text: str, where: str) -> Trajectory:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    names = [name.strip() for name in reader.fieldnames or ()]
    if "x" not in names or "y" not in names:
        raise ModelError(f"{where}: its first line names no x and y; {FORMS}")
    reader.fieldnames = names
    paths: dict[str, list[tuple[float, float]]] = {}
    for count, row in enumerate(reader, 1):
        try:
            point = (float(row["x"]), float(row["y"]))
        except (TypeError, ValueError):
            point = (math.nan, math.nan)
        if not all(map(math.isfinite, point)):
            raise ModelError(f"{where}:{reader.line_num}: x '{row['x']}' and y '{row['y']}' are no two numbers")
        paths.setdefault(row.get("path") or "", []).append(point)
        if count > MOST_POINTS:
            raise ModelError(f"{where}: more than {MOST_POINTS} points; divide it")
    if not paths:
        raise ModelError(f"{where}: no point in it; {FORMS}")
    return Trajectory(tuple(np.array(points, np.float64) for points in paths.values()))
