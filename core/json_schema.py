"""JSON Schema (draft 2020-12) of strict settings, for editors that complete and check recipes as they are typed."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from core.settings import Range, meaning_of, plain, range_of

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_PLAIN: dict[Any, dict[str, Any]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
}
_BOUNDS = {"min": "minimum", "max": "maximum", "above": "exclusiveMinimum", "below": "exclusiveMaximum"}


def schema_of(cls: type, title: str, replaced: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the JSON Schema of a settings dataclass.

    Args:
        cls: a dataclass whose fields are declared with `core.settings.key`.
        title: the schema's title.
        replaced: schemas of top-level keys whose values the type hints alone do not describe, such as operators.
    """
    schema = _object(cls)
    schema["properties"] |= dict(replaced or {})
    return {"$schema": DRAFT, "title": title, **schema}


def settings_schema(cls: type) -> dict[str, Any]:
    """Return the schema of one settings dataclass, without a title, to be put into another schema."""
    return _object(cls)


def _object(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    properties: dict[str, Any] = {}
    required = []
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        inner = _value(hints[field.name], range_of(field))
        if meaning := meaning_of(field):
            inner["description"] = meaning
        if field.default is not dataclasses.MISSING and not dataclasses.is_dataclass(field.default):
            inner["default"] = plain(field.default)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            required.append(field.name)
        properties[field.name] = inner
    found: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    return found | ({"required": required} if required else {})


def _value(hint: Any, allowed: Range | None) -> dict[str, Any]:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [_value(arg, allowed) for arg in args if arg is not type(None)]
        return {"anyOf": [*inner, {"type": "null"}]} if type(None) in args else {"anyOf": inner}
    if origin is typing.Literal:
        return {"enum": list(args)}
    if origin is tuple:
        if args[-1] is Ellipsis:
            return {"type": "array", "items": _value(args[0], allowed)}
        items = [_value(arg, allowed) for arg in args]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _value(args[1], allowed)}
    if dataclasses.is_dataclass(hint):
        return _object(typing.cast(type, hint))
    found = dict(_PLAIN.get(hint, {}))
    if hint in (int, float) and allowed is not None:
        found |= {_BOUNDS[f.name]: getattr(allowed, f.name) for f in dataclasses.fields(allowed) if _is_set(allowed, f)}
    return found


def _is_set(allowed: Range, field: "dataclasses.Field[Any]") -> bool:
    value = getattr(allowed, field.name)
    return value is not None and abs(value) != float("inf")
