"""What a plug-in must be, and what an output remembers of the operators of plug-ins: OUT/plugins.json.

By that file an output can still be judged and shown once a plug-in is gone: its scores stay in the table, and a
stand-in takes the operator's place, which measures nothing.
"""

import dataclasses
import json
import keyword
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import pyarrow as pa

from core.errors import UserError
from core.files import atomic_write, read_bounded
from core.plugins import NAME, OPERATORS, lacking, package_named
from curation.schema import BOTH, BY_NAME, WORK_COLUMNS, Column
from curation.types import DeclaresColumns

FILE = "plugins.json"
MOST_BYTES = 1 << 20
DTYPES: dict[str, pa.DataType] = {
    str(t): t
    for scalar in (pa.float64(), pa.int64(), pa.int32(), pa.bool_(), pa.string())
    for t in (scalar, pa.list_(scalar))
}
"""types that a plug-in's column may have"""
STEP_NAMES = frozenset({"probe", "analyse", "record", "cut", "finish"})
OPERATOR = ("writes", "columns", "media", "pool", "sampling", "load")
CAPTIONER = ("pool", "sampling", "slots", "load")
DETECTOR = ("lag_s", "start")


@runtime_checkable
class StandIn(Protocol):
    """What takes the place of a plug-in that is not installed any more: `package` is what it came from, if known."""

    package: ClassVar[str | None]


def operator_fault(name: str, kind: Any) -> str | None:
    """Return what is wrong with a plug-in's operator, None for nothing.

    It must be a frozen dataclass that fulfils `curation.types.Operator` and has `columns`: the `Column`s that it
    writes, which `curation.schema` does not know, each with the operator's name as its `writer`.
    """
    wrong = _settings_fault(kind, OPERATOR)
    if wrong is not None:
        return wrong
    columns = kind.columns
    if not isinstance(columns, tuple) or not columns or not all(isinstance(c, Column) for c in columns):
        return "its columns must be a tuple of curation.schema.Column, at least one"
    if not isinstance(kind.media, frozenset) or not kind.media or not kind.media <= BOTH:
        return "its media must be a frozenset of 'video', 'image' or both"
    if kind.pool is not None and (not isinstance(kind.pool, str) or kind.pool in STEP_NAMES):
        return f"its pool must be null or a name other than {', '.join(sorted(STEP_NAMES))}"
    rate_hz = getattr(kind, "sound_hz", None)
    if rate_hz is not None and (type(rate_hz) is not int or rate_hz < 1 or kind.pool is not None):
        return "its sound_hz must be a whole number of samples a second, and its pool null, beside the decoder"
    for column in columns:
        if wrong := _column_fault(name, kind.media, column):
            return f"its column '{column.name}' {wrong}"
    names = [column.name for column in columns]
    if sorted(names) != sorted(kind.writes) or len({*names}) < len(names):
        return f"it writes {', '.join(kind.writes)} but declares the columns {', '.join(names)}"
    return None


def captioner_fault(name: str, kind: Any) -> str | None:
    """Return what is wrong with a plug-in's captioner (`curation.types.Captioner`), None for nothing."""
    return _settings_fault(kind, CAPTIONER)


def detector_fault(name: str, kind: Any) -> str | None:
    """Return what is wrong with a plug-in's detector (`curation.shots.types.ShotDetector`), None for nothing."""
    return _settings_fault(kind, DETECTOR)


def _settings_fault(kind: Any, names: tuple[str, ...]) -> str | None:
    if not isinstance(kind, type) or not dataclasses.is_dataclass(kind) or not kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        return "it must be a frozen dataclass, whose fields are its settings"
    return lacking(kind, names)


def _column_fault(operator: str, media: frozenset[str], column: Column) -> str | None:
    if not NAME.fullmatch(column.name) or keyword.iskeyword(column.name):
        return "has no name of small letters, digits and _"
    if column.name in BY_NAME or column.name in dict(WORK_COLUMNS):
        return "has the name of a column of ours"
    if DTYPES.get(str(column.dtype)) != column.dtype:
        return f"has the type {column.dtype}; known: {', '.join(DTYPES)}"
    if column.writer != operator:
        return f"must have the operator's name as its writer, '{operator}'"
    if not column.media <= media:
        return "exists for a type of row that the operator does not look at"
    return None


def packages_of(operators: Mapping[str, Any]) -> dict[str, str | None]:
    """Return distribution and version, where known, of the operators of a recipe that come from plug-ins."""
    return {
        name: (operator.package if isinstance(operator, StandIn) else None) or package_named(OPERATORS, name)
        for name, operator in operators.items()
        if isinstance(operator, DeclaresColumns)
    }


def described(operators: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is to be remembered of the operators of a recipe that come from plug-ins, as plain values."""
    return {
        name: {
            "package": package,
            "media": sorted(operators[name].media),
            "pool": operators[name].pool,
            "columns": [
                {**_texts(column), "dtype": str(column.dtype), "media": sorted(column.media)}
                for column in operators[name].columns
            ],
        }
        for name, package in packages_of(operators).items()
    }


def _texts(column: Column) -> dict[str, str]:
    return {"name": column.name, "unit": column.unit, "meaning": column.meaning}


def remember(out: Path, operators: Mapping[str, Any]) -> None:
    """Write what an output has of plug-ins; an output that has nothing of them gets no file."""
    known = described(operators)
    if known or (out / FILE).exists():
        atomic_write(out / FILE, json.dumps({"operators": known}, indent=1, sort_keys=True) + "\n")


def remembered(out: Path) -> dict[str, Any]:
    """Return what an output has of plug-ins' operators, by name; nothing where the file is missing or not ours."""
    try:
        known = json.loads(read_bounded(out / FILE, MOST_BYTES))["operators"]
        return {str(name): facts for name, facts in known.items() if isinstance(facts, dict)}
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return {}


def stand_in(name: str, settings: Any, facts: Mapping[str, Any] | None) -> type | None:
    """Return a dataclass in place of an operator, captioner or detector whose package is not installed any more.

    It takes the settings that the recipe has and gives them back as they are; it measures nothing.

    Args:
        name: in the recipe.
        settings: what the recipe says of it.
        facts: what the output remembers of it; null: nothing is known of its columns.

    Returns:
        The type, or None where what is remembered is not ours.
    """
    if not isinstance(settings, Mapping) or not all(
        str(k).isidentifier() and not keyword.iskeyword(k) for k in settings
    ):
        return None
    try:
        columns = tuple(
            Column(c["name"], DTYPES[c["dtype"]], c["unit"], c["meaning"], name, frozenset(c["media"]))
            for c in (facts or {}).get("columns", ())
        )
        known = {
            "media": frozenset((facts or {}).get("media", BOTH)),
            "pool": (facts or {}).get("pool"),
            "package": (facts or {}).get("package"),
        }
    except (KeyError, TypeError):
        return None
    if any(_column_fault(name, frozenset(BOTH), column) for column in columns):
        return None

    def load(self: Any) -> Any:
        raise UserError("its package is not installed here", field=f"operators.{name}", fix="install it again")

    members = {"columns": columns, "writes": tuple(c.name for c in columns), "sampling": None, "load": load, **known}
    return dataclasses.make_dataclass(
        f"Missing_{name}" if name.isidentifier() else "Missing",
        [(key, Any) for key in settings],
        namespace=members | {"slots": 1, "lag_s": 0.0},
        frozen=True,
    )
