"""Strict settings: frozen dataclasses whose fields document themselves, filled from plain YAML values."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from curation.errors import UserError, nearest

T = TypeVar("T")


def key(default: Any, meaning: str) -> Any:
    """Declare a settings field: its default and what it means (shown by `run_pipeline.py recipe`)."""
    if isinstance(default, dict | list):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata={"meaning": meaning})
    return dataclasses.field(default=default, metadata={"meaning": meaning})


def build(cls: type[T], values: Mapping[str, Any] | None, where: str) -> T:
    """Fill a settings dataclass from YAML values.

    Args:
        cls: a dataclass, all of whose fields have defaults or are given.
        values: mapping of field names to plain values; None means all defaults.
        where: dotted place in the recipe, for messages.

    Raises:
        UserError: unknown key (with the nearest name), missing key, or a value of the wrong type or range.
    """
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        raise UserError(f"{where}: expected keys and values, got {values!r}")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    for name in values:
        if name not in fields:
            raise UserError(f"{where}: unknown key '{name}'{nearest(str(name), list(fields))}")
    given = {name: convert(hints[name], value, f"{where}.{name}") for name, value in values.items()}
    missing = [
        f.name
        for f in fields.values()
        if f.name not in given and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"{where}: key '{missing[0]}' is required")
    try:
        return cls(**given)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def convert(hint: Any, value: Any, where: str) -> Any:
    """Check one value against a type hint and give it in that type (lists become tuples).

    Raises:
        UserError: the value does not fit.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        options = [a for a in args if a is not type(None)]
        return convert(options[0], value, where)
    if origin is typing.Literal:
        if value in args:
            return value
        raise UserError(f"{where}: {value!r} is not a choice{nearest(str(value), [str(a) for a in args])}")
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{where}: expected a list, got {value!r}")
        if args[-1:] != (Ellipsis,) and len(value) != len(args):
            raise UserError(f"{where}: expected {len(args)} values, got {len(value)}")
        items = [args[0]] * len(value) if args[-1] is Ellipsis else args
        return tuple(convert(h, v, f"{where}[{i}]") for i, (h, v) in enumerate(zip(items, value, strict=True)))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UserError(f"{where}: expected keys and values, got {value!r}")
        return {str(k): convert(args[1], v, f"{where}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, where)
    if hint is Any:
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if value != value:
            raise UserError(f"{where}: not a number")
        return float(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise UserError(f"{where}: expected {getattr(hint, '__name__', hint)}, got {value!r}")


def plain(value: Any) -> Any:
    """Turn settings back into plain YAML values: dataclasses become mappings, tuples lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def meaning_of(field: "dataclasses.Field[Any]") -> str:
    """Give what a settings field means, or nothing."""
    return str(field.metadata.get("meaning", ""))
