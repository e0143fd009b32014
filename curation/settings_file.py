"""Settings as YAML files: reading them, changing keys, writing them with every key's meaning."""

import dataclasses
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from curation.errors import UserError
from curation.settings import meaning_of, plain

Spell = Callable[[Any, str, Any], Any]
"""(owner, field, value) → what to write for it"""
NoteOf = Callable[[str, int], str]
"""(key of a mapping, its depth) → its meaning"""


def read_yaml(path: Path, what: str, hint: str = "") -> dict[str, Any]:
    """Read a YAML file of keys and values; an empty one has none.

    Args:
        path: the file.
        what: `recipe` or `training config`, for messages.
        hint: appended when there is no such file.

    Raises:
        UserError: not there, not readable, or something else than keys and values.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{what} {path}: no such file{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{what} {path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{what} {path}{line}: not valid YAML ({getattr(error, 'problem', error)})") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{what} {path}: expected keys and values at the top level")
    return values


def override(values: dict[str, Any], text: str, example: str) -> None:
    """Change one key by `dotted.key=value`; the value is YAML.

    Raises:
        UserError: no such form, or a value that is not YAML.
    """
    name, equals, value_text = text.partition("=")
    if not equals or not name.strip():
        raise UserError(f"'{text}': expected key=value, such as {example}")
    try:
        value = yaml.safe_load(value_text)
    except yaml.YAMLError:
        raise UserError(f"'{text}': the value is not valid YAML") from None
    *path, last = name.strip().split(".")
    place = values
    for step in path:
        if not isinstance(place.get(step), dict):
            place[step] = {}
        place = place[step]
    place[last] = value


def render(settings: Any, spell: Spell = lambda owner, name, value: value, note: NoteOf = lambda key, depth: "") -> str:
    """Write settings as YAML with every key's meaning beside it.

    Args:
        settings: a settings dataclass.
        spell: gives another value to write for a field, such as defaults spelt out.
        note: gives the meaning of a mapping's key.
    """
    out = io.StringIO()
    for field in dataclasses.fields(settings):
        value = spell(settings, field.name, getattr(settings, field.name))
        _render(out, field.name, value, meaning_of(field), 0, spell, note)
    return out.getvalue()


def _render(out: io.StringIO, name: str, value: Any, meaning: str, depth: int, spell: Spell, note: NoteOf) -> None:
    pad = "  " * depth
    beside = f"  # {meaning}" if meaning else ""
    if dataclasses.is_dataclass(value) and dataclasses.fields(value):
        out.write(f"{pad}{name}:{beside}\n")
        for field in dataclasses.fields(value):
            inner = spell(value, field.name, getattr(value, field.name))
            _render(out, field.name, inner, meaning_of(field), depth + 1, spell, note)
    elif isinstance(value, Mapping) and value:
        out.write(f"{pad}{name}:{beside}\n")
        for key, inner in value.items():
            _render(out, str(key), inner, note(str(key), depth), depth + 1, spell, note)
    else:
        text = yaml.safe_dump(plain(value), default_flow_style=True, width=10_000, allow_unicode=True)
        out.write(f"{pad}{name}: {text.removesuffix('...' + chr(10)).strip()}{beside}\n")
