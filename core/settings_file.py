"""Settings as YAML files: reading them, changing keys, writing them with every key's meaning."""

import dataclasses
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from core.errors import UserError
from core.sanitize import printable
from core.settings import meaning_of, plain
from core.yaml_text import Dumper, Loader

Spell = Callable[[Any, str, Any], Any]
"""(owner, field, value) → what to write for it"""
NoteOf = Callable[[str, int], str]
"""(key of a mapping, its depth) → its meaning"""

MOST_BYTES = 1 << 18
"""of a file of settings; they have some thousands"""
MOST_VALUES = 50_000
"""of a file of settings, counted where they stand and again wherever an alias repeats them"""
LONGEST_NUMBER = 40
"""digits of a whole number"""


def read_yaml(path: Path, what: str, hint: str = "") -> dict[str, Any]:
    """Read a YAML file of keys and values; an empty one has none.

    Args:
        path: the file.
        what: `recipe` or `training config`, for messages.
        hint: appended when there is no such file.

    Raises:
        UserError: not there, not readable, too large, or something else than plain keys and values.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise UserError(f"{what} {path}: larger than {MOST_BYTES >> 10} KB; is it a {what}?")
        values = load_plain(content.decode())
    except FileNotFoundError:
        raise UserError(f"{what} {path}: no such file{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{what} {path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = printable(" ".join(str(getattr(error, "problem", None) or error).split()), 200)
        raise UserError(f"{what} {path}{line}: not valid YAML ({problem})") from None
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
        raise UserError(f"'{printable(text, 200)}': expected key=value, such as {example}")
    try:
        value = load_plain(value_text)
    except yaml.YAMLError:
        raise UserError(f"'{printable(text, 200)}': the value is not valid YAML") from None
    *path, last = name.strip().split(".")
    place = values
    for step in path:
        if not isinstance(place.get(step), dict):
            place[step] = {}
        place = place[step]
    place[last] = value


def load_plain(text: str) -> Any:
    """Read YAML of plain values: no tag makes an object, no alias more than it says.

    Raises:
        yaml.YAMLError: no such YAML, nested too deeply, or aliases that repeat too much.
    """
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > MOST_VALUES:
            raise yaml.YAMLError(f"more than {MOST_VALUES} values, aliases written out")
        return loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except (ValueError, OverflowError) as error:  # such as !!timestamp 2024-99-99
        raise yaml.YAMLError(f"a value that cannot be: {error}") from None
    finally:
        loader.dispose()


def _size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Count the values below a node as if every alias were written out; one that holds itself counts as too many.

    Raises:
        yaml.YAMLError: a text that no file can hold; a number that no setting can mean, and that Python takes long to
            read or cannot write.
    """
    if isinstance(node, yaml.ScalarNode):
        if node.tag == "tag:yaml.org,2002:int" and len(node.value) > LONGEST_NUMBER:
            raise yaml.YAMLError(f"a whole number of more than {LONGEST_NUMBER} digits")
        try:
            node.value.encode()
        except UnicodeEncodeError:
            raise yaml.YAMLError("a text with half a character, spelt as an escape") from None
        return 1
    if id(node) not in sizes:
        sizes[id(node)] = MOST_VALUES + 1  # what it counts as while it is being counted: it holds itself
        inside = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
        sizes[id(node)] = 1 + sum(_size(part, sizes) for part in inside)
    return sizes[id(node)]


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
        text = yaml.dump(plain(value), Dumper=Dumper, default_flow_style=True, width=10_000, allow_unicode=True)
        out.write(f"{pad}{name}: {text.removesuffix('...' + chr(10)).strip(chr(10))}{beside}\n")
