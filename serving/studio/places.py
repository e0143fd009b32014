"""Folders that the page may read from, names that it may write to, and words that it may pass to commands."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.sanitize import printable

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}", re.ASCII)
KEY = re.compile(r"[A-Za-z_][\w.]*=", re.ASCII)
MOST_FOLDERS = 200
MOST_KEYS = 100
LONGEST = 10_000


def readable(text: str, roots: Sequence[Path]) -> Path:
    """Return a file or folder that lies within one of some folders, links followed.

    Raises:
        UserError: it is not there, or elsewhere.
    """
    if not text or len(text) > LONGEST or "\0" in text:
        raise UserError("empty", field="folder", fix="choose a folder")
    path = Path(text).expanduser().resolve()
    if not any(path.is_relative_to(root.resolve()) for root in roots):
        within = ", ".join(map(str, roots))
        raise UserError(
            f"'{printable(text, 200)}' is not within {within}", field="folder", fix="start with its folder as `data`"
        )
    if not path.exists():
        raise UserError(f"'{printable(text, 200)}' is not there", field="folder", fix="choose another")
    return path


def folders_within(roots: Sequence[Path]) -> list[str]:
    """Return some folders to choose from: the roots, and what lies directly in them and is not hidden."""
    found = [root.resolve() for root in roots]
    for root in list(found):
        found += sorted(one for one in root.iterdir() if one.is_dir() and not one.name.startswith("."))
    return [str(one) for one in dict.fromkeys(found)][:MOST_FOLDERS]


def named(text: str, folder: Path) -> Path:
    """Return the place of an output of that name.

    Raises:
        UserError: it is no such name.
    """
    if not NAME.fullmatch(text or ""):
        raise UserError(
            f"'{printable(text or '', 80)}' is no name", field="output", fix="use letters, digits, - and _, at most 80"
        )
    return folder / text


def overrides(text: str) -> list[str]:
    """Return the `key=value` lines of a text; nothing that a command could take for an option.

    Raises:
        UserError: a line is something else.
    """
    lines = [line.strip() for line in (text or "")[:LONGEST].splitlines()]
    found = [line for line in lines if line]
    for line in found:
        if not KEY.match(line):
            raise UserError(f"'{printable(line, 80)}' is no key=value", field="keys", fix="write one on each line")
    if len(found) > MOST_KEYS:
        raise UserError(f"more than {MOST_KEYS} lines", field="keys", fix="put them into a file of their own")
    return found


def keys_set(values: Mapping[str, str]) -> list[str]:
    """Return `key=value` of the controls that hold something."""
    return [f"{key}={value.strip()}" for key, value in values.items() if value and value.strip()]


def meaning_in(schema: Mapping[str, Any], key: str) -> str:
    """Return what the JSON Schema says of a key: for a bound, of its column as well."""
    part, found = schema, []
    for name in key.split("."):
        choices = [part, *(part.get("anyOf") or ())]
        part = next((one["properties"][name] for one in choices if name in one.get("properties", {})), {})
        found.append(str(part.get("description", "")))
    return "; ".join(text for text in found[1:] if text)
