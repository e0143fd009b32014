"""Which control maps a row has, which of them are wanted, and whether they fit its clip."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from core.errors import UserError
from core.files import read_bounded
from curation.empty_maps import is_empty
from curation.schema import CONTROL, CONTROL_AMOUNTS, CONTROL_PATHS, CONTROLS
from media.names import looks_like_image
from models.conditions.camera_path import CameraPath, read_path
from models.errors import ModelError
from train_bridge.data.facts import probe_rows
from train_bridge.types import Refusal, TrainRow

UNNAMED = ""
"""a map of which the metadata does not say what it shows"""
KNOWN = frozenset(name for name, _, _ in CONTROLS)
OF_MOTION = frozenset(name for name, _, media in CONTROLS if "image" not in media)
"""maps that images have none of"""
CAMERA_SUFFIX = ".txt"
MOST_PATH_BYTES = 64 << 20
OFF = 0.02
"""share by which a map's length, frames or aspect may differ from its clip's: containers round"""
AGAIN = "make it from the clip, frame for frame (`curate` with controls), or leave the row out"


def control_shares(text: str | None) -> dict[str, float]:
    """Read `data.control`: names of maps with their shares; nothing where none is named.

    Raises:
        UserError: it is not written as `canny` or `canny:2,lines:1`.
    """
    shares: dict[str, float] = {}
    for part in (text or "").split(","):
        name, _, number = (word.strip() for word in part.partition(":"))
        if not part.strip():
            continue
        try:
            share = float(number) if number else 1.0
        except ValueError:
            share = -1.0
        if not name or name in shares or not 0 < share < float("inf"):
            raise UserError(f"data.control '{text}': write a name, as canny, or several with shares: canny:2,lines:1")
        shares[name] = share
    return shares


def controls_of_table(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the control maps that a row of an output's table names."""
    columns = {column: row[column] for column in CONTROL_PATHS if row.get(column) is not None}
    return {column.removeprefix(CONTROL).removesuffix("_path"): path for column, path in columns.items()}


def empty_of_table(row: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the maps with next to nothing in them, of a row of an output's table."""
    amounts = ((column, row[column]) for column in CONTROL_AMOUNTS if column in row)
    return frozenset(
        column.removeprefix(CONTROL).removesuffix("_amount") for column, amount in amounts if is_empty(amount)
    )


def controls_of_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the control maps that an object of JSON metadata names.

    One map alone (`control_file_path`) is called as its folder, as in an output of `curate`, and without a name where
    it is looked for by any.
    """
    several, one = values.get("control_file_paths"), values.get("control_file_path")
    found = {}
    if isinstance(several, Mapping):
        found = {str(name): path for name, path in several.items() if path is not None}
    if one is not None and not found:
        found = {UNNAMED: one}
    return found


def chosen_controls(controls: Mapping[str, Any] | None, wanted: Sequence[str]) -> list[tuple[str, Any]]:
    """Return names and files of a row's maps that are wanted: of those without a name, the one that is meant.

    Args:
        controls: the row's.
        wanted: names; none: the only one that there is.
    """
    controls = controls or {}
    if not wanted:
        return list(controls.items()) if len(controls) == 1 else []
    named = [(name, controls[name]) for name in wanted if name in controls]
    if not named and UNNAMED in controls:
        folder = PurePosixPath(str(controls[UNNAMED])).parent.name
        if folder in wanted or (len(wanted) == 1 and folder not in KNOWN):
            named = [(folder if folder in wanted else wanted[0], controls[UNNAMED])]
    return named


def is_camera(path: Path) -> bool:
    """Return whether a map is a camera's path."""
    return path.suffix.lower() == CAMERA_SUFFIX


def control_row(row: TrainRow, path: Path) -> TrainRow:
    """Return a row that reads a map where its clip is read."""
    return replace(row, path=path, kind="image" if looks_like_image(path) else "video", controls=())


def read_camera(path: Path) -> CameraPath:
    """Read a camera's path.

    Raises:
        ModelError: it cannot be read, or does not parse.
    """
    try:
        text = read_bounded(path, MOST_PATH_BYTES).decode()
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as text ({' '.join(str(error).split())})") from None
    return read_path(text, str(path))


def check_controls(
    rows: Sequence[TrainRow], memo: Path | None = None, *, sees_camera: bool
) -> tuple[tuple[TrainRow, ...], list[Refusal]]:
    """Look whether each map is as its clip: as long, of as many frames, and of its aspect.

    Args:
        rows: with what is known of the clips.
        sees_camera: the model sees camera paths, else pictures.
        memo: as `probe_rows` takes it.

    Returns:
        The rows whose maps all fit, and why the others do not.
    """
    pictures = [
        replace(control_row(row, path), row_id=f"{place} {name}", width_px=None, num_frames=None)
        for place, row in enumerate(rows)
        for name, path in row.controls
        if not is_camera(path)
    ]
    probed, unreadable = probe_rows(pictures, memo=memo)
    facts = {one.row_id: one for one in probed}
    errors = {refusal.row_id: refusal.fix for refusal in unreadable}
    kept, refused = [], []
    for place, row in enumerate(rows):
        problem = None
        for name, path in row.controls:
            key = f"{place} {name}"
            what = _camera_problem(row, path) if is_camera(path) else _problem(row, facts.get(key), errors.get(key))
            if is_camera(path) != sees_camera:
                what = _wrong_kind(sees_camera=sees_camera)
            if what and problem is None:
                problem = Refusal(str(path), f"control {name}".rstrip(), *what, row.row_id)
        if problem is None:
            kept.append(row)
        else:
            refused.append(problem)
    return tuple(kept), refused


def _wrong_kind(*, sees_camera: bool) -> tuple[str, str]:
    if sees_camera:
        return "is no camera path (.txt)", "this transformer sees camera paths: set data.control=camera"
    return "is a camera path", "this transformer sees pictures: take one that sees camera paths, or another map"


def _problem(row: TrainRow, found: TrainRow | None, error: str | None) -> tuple[str, str] | None:
    if found is None:
        return "cannot be read", error or AGAIN
    if found.kind != row.kind:
        return f"is of type {found.kind}, its clip of type {row.kind}", AGAIN
    if _differ(found.duration_s, row.duration_s, 0.1):
        return "lasts longer or shorter than its clip", AGAIN
    if _differ(found.num_frames, row.num_frames, 1):
        return "has another rate than its clip", AGAIN
    sizes = (found.width_px, found.height_px, row.width_px, row.height_px)
    if all(sizes) and _differ(_aspect(found), _aspect(row), 0.0):
        return "has another aspect than its clip", AGAIN
    return None


def _camera_problem(row: TrainRow, path: Path) -> tuple[str, str] | None:
    try:
        count = len(read_camera(path))
    except ModelError as error:
        return "does not parse", str(error)
    if row.num_frames is not None and abs(count - row.num_frames) > max(1, OFF * row.num_frames):
        return "has another number of poses than its clip has frames", f"{count} for {row.num_frames}; {AGAIN}"
    return None


def _aspect(row: TrainRow) -> float:
    return (row.width_px or 1) / (row.height_px or 1)


def _differ(one: float | None, other: float | None, least: float) -> bool:
    """Return whether two numbers that are known are apart by more than their rounding."""
    return one is not None and other is not None and abs(one - other) > max(least, OFF * other)


def control_names(rows: Iterable[TrainRow]) -> dict[str, int]:
    """Count the rows that have each map."""
    counts: dict[str, int] = {}
    for row in rows:
        for name, _ in row.controls:
            counts[name or "control"] = counts.get(name or "control", 0) + 1
    return counts


def empty_counts(rows: Iterable[TrainRow], empty: Collection[tuple[str, str]]) -> dict[str, tuple[int, int]]:
    """Count, by map, the rows in whose map there is next to nothing, and all that have it, where there are any.

    Args:
        rows: those trained on.
        empty: ids of rows and names of their maps of which that is known.
    """
    found: dict[str, list[int]] = {}
    for row in rows:
        for name, _ in row.controls:
            counts = found.setdefault(name or "control", [0, 0])
            counts[0] += (row.row_id, name) in empty
            counts[1] += 1
    return {name: (bare, there) for name, (bare, there) in found.items() if bare}
