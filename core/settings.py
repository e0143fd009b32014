"""Strict settings: frozen dataclasses whose fields document themselves, filled from plain YAML values."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from core.errors import UserError, nearest
from core.sanitize import clean_text, printable
from core.yaml_text import Word, WrittenFloat, WrittenInt, number_in, written_text

T = TypeVar("T")
TRUTHS = {"yes": True, "no": False, "on": True, "off": False}
"""words that older YAML reads as true and false, for keys that are one of them"""
NO_VALUES = frozenset({"none", "nil", "undefined"})
"""words of other languages for null"""


@dataclasses.dataclass(frozen=True)
class Range:
    """Which numbers a key takes; None where there is no bound.

    Attributes:
        min: the lowest.
        max: the highest.
        above: every number must be greater than this.
        below: every number must be less than this.
    """

    min: float | None = None
    max: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        """Return whether a number lies within; one that is not finite never does."""
        return (
            math.isfinite(value)
            and (self.min is None or value >= self.min)
            and (self.max is None or value <= self.max)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """Return it in words, such as `at least 0 and below 1`."""
        bounds = [("at least", self.min), ("above", self.above), ("at most", self.max), ("below", self.below)]
        return " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None) or "any finite number"


def key(
    default: Any,
    meaning: str,
    min: float | None = None,
    max: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """Declare a settings field: default, meaning and bounds (all are shown by `run_pipeline.py recipe`).

    The bounds, where any is given, hold for a number and for every number in a list or mapping; `build` checks them.
    A bound of minus infinity says that every finite number is taken.
    """
    metadata: dict[str, Any] = {"meaning": meaning}
    if any(bound is not None for bound in (min, max, above, below)):
        metadata["range"] = Range(None if min == -math.inf else min, max, above, below)
    if isinstance(default, dict | list):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


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
        raise UserError(f"expected keys and values, got {values!r}", field=where)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    for name in values:
        if name not in fields:
            raise UserError(f"unknown key '{name}'{nearest(str(name), list(fields))}", field=where)
    given = {name: convert(hints[name], value, f"{where}.{name}") for name, value in values.items()}
    for name, value in given.items():
        _check_range(range_of(fields[name]), value, f"{where}.{name}")
    missing = [
        f.name
        for f in fields.values()
        if f.name not in given and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"key '{missing[0]}' is required", field=where)
    try:
        return cls(**given)
    except ValueError as error:
        raise UserError(str(error), field=where) from None


def convert(hint: Any, value: Any, where: str) -> Any:
    """Check one value against a type hint and return it in that type (lists become tuples).

    Text that is a number counts as one where a number is wanted (`1e-4`, `1_000`), and a number that was written
    without quotes counts as its text where a text is wanted (a folder called `010`). `object` takes a value as it
    was written, for a `build` that follows; `Any` takes any value, but none of the words that mean true to some.

    Raises:
        UserError: the value does not fit.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        options = [a for a in args if a is not type(None)]
        if options[0] is not str and isinstance(value, str) and value.lower() in NO_VALUES:
            raise UserError(f"{value!r} is no value", field=where, fix="write null for none")
        return convert(options[0], value, where)
    if origin is typing.Literal:
        for choice in args:
            if (value == choice and isinstance(value, bool) == isinstance(choice, bool)) or (
                isinstance(choice, str) and written_text(value) == choice
            ):
                return choice
        raise UserError(f"{value!r} is not a choice{nearest(str(value), [str(a) for a in args])}", field=where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"expected a list, got {value!r}", field=where)
        if args[-1:] != (Ellipsis,) and len(value) != len(args):
            raise UserError(f"expected {len(args)} values, got {len(value)}", field=where)
        items = [args[0]] * len(value) if args[-1] is Ellipsis else args
        return tuple(convert(h, v, f"{where}[{i}]") for i, (h, v) in enumerate(zip(items, value, strict=True)))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UserError(f"expected keys and values, got {value!r}", field=where)
        return {_text(str(k), where): convert(args[1], v, f"{where}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, where)
    if hint is object:
        return value
    if hint is Any:
        return _free(value, where)
    if hint is bool:
        if (truth := truth_in(value)) is not None:
            return truth
    elif hint is float:
        number = number_in(value)
        if number is not None and number != number:
            raise UserError("not a number", field=where)
        if number is not None:
            return float(number)
    elif hint is int:
        number = number_in(value)
        if isinstance(number, float) and _is_count(value, number):
            number = int(number)
        if isinstance(number, int):
            return int(number)
    elif hint is str:
        text = written_text(value)
        if text is not None:
            return _text(text, where)
        if value is None or isinstance(value, bool):
            shown = "null" if value is None else str(value).lower()
            raise UserError(
                f"expected str, got {value!r}", field=where, fix=f"write '{shown}' in quotes if it is a name"
            )
    raise UserError(f"expected {getattr(hint, '__name__', hint)}, got {value!r}", field=where)


def truth_in(value: Any) -> bool | None:
    """Return true or false where a value is one, or an unquoted yes, no, on or off; None elsewhere."""
    if isinstance(value, Word):
        return TRUTHS.get(value.lower())
    return value if isinstance(value, bool) else None


def _free(value: Any, where: str) -> Any:
    """Return any value without its spelling.

    Raises:
        UserError: an unquoted yes, no, on or off, of which nothing says what is meant.
    """
    if isinstance(value, Word):
        shown = str(TRUTHS[value.lower()]).lower()
        raise UserError(
            f"{where}: {str(value)!r} is true or false to some and a word to others; write {shown}, or quotes"
        )
    if isinstance(value, Mapping):
        return {_text(str(name), where): _free(item, f"{where}.{name}") for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_free(item, f"{where}[{place}]") for place, item in enumerate(value)]
    return _text(plain(value), where) if isinstance(value, str) else plain(value)


SHOWN = 200
"""Characters of a text that messages show."""


def _text(text: str, where: str) -> str:
    """Return a text that files and tables can hold.

    Raises:
        UserError: it holds a zero byte or half a character, as values that Python gives may.
    """
    if clean_text(text) != text:
        bytes_of_names = {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)}  # PEP 383
        shown = printable(text.translate(bytes_of_names), SHOWN)
        raise UserError(
            "a text with a zero byte or half a character", field=where, value=shown, fix="write it again, or rename it"
        )
    return text


def _is_count(value: Any, number: float) -> bool:
    """Return whether a number was written as a count in powers of ten, such as 1e5; 2.0 is no count."""
    text = written_text(value)
    return text is not None and "e" in text.lower() and math.isfinite(number) and number == int(number)


def _check_range(allowed: Range | None, value: Any, where: str) -> None:
    if allowed is None:
        return
    if isinstance(value, tuple | list):
        for place, item in enumerate(value):
            _check_range(allowed, item, f"{where}[{place}]")
    elif isinstance(value, Mapping):
        for name, item in value.items():
            _check_range(allowed, item, f"{where}.{name}")
    elif isinstance(value, int | float) and not isinstance(value, bool) and value not in allowed:
        raise UserError(f"{value!r} is out of range", field=where, fix=f"it must be {allowed}")


def plain(value: Any) -> Any:
    """Turn settings back into plain YAML values: dataclasses become mappings, tuples lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, Mapping):
        return {plain(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    for written, base in ((WrittenInt, int), (WrittenFloat, float), (Word, str)):
        if isinstance(value, written):
            return base(value)
    return value


def range_of(field: "dataclasses.Field[Any]") -> Range | None:
    """Return the bounds of a settings field's numbers, or None."""
    return field.metadata.get("range")


def meaning_of(field: "dataclasses.Field[Any]") -> str:
    """Return what a settings field means with its bounds, or nothing."""
    meaning, allowed = str(field.metadata.get("meaning", "")), range_of(field)
    return meaning if allowed is None else f"{meaning} ({allowed})" if meaning else str(allowed)
