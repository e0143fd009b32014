"""Plain YAML values that remember how they were written, and a reader that makes no more of text than it says.

YAML 1.1 reads `no` as false, `16:9` as 969, `010` as 8, `2024-01-01` as a date and `1e-4` as text. Here a number is
what looks like one, true and false are `true` and `false`, and everything else is text. What a word or a number means
for a key is decided by the key's type (`core.settings.convert`), which is why each keeps its spelling.
"""

import math
import re
from typing import Any

import yaml

INT = r"[-+]?(?:0[bB][01]+|0[oO][0-7]+|0[xX][0-9a-fA-F]+|[0-9]+(?:_[0-9]+)*)"
DIGITS = r"[0-9]+(?:_[0-9]+)*"
FLOAT = rf"[-+]?(?:{DIGITS}\.(?:{DIGITS})?(?:[eE][-+]?[0-9]+)?|\.{DIGITS}(?:[eE][-+]?[0-9]+)?|{DIGITS}[eE][-+]?[0-9]+)"
NOT_FINITE = r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
LONGEST_NUMBER = 40
"""characters of a number in text"""


STR_TAG, MERGE_TAG = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
WORD_TAG = "tag:selects,2026:word"


class WrittenInt(int):
    """A whole number with its spelling."""

    text: str = ""


class WrittenFloat(float):
    """A number with its spelling."""

    text: str = ""


class Word(str):
    """Text written without quotes that older YAML reads as true or false."""


def number_in(value: Any) -> int | float | None:
    """Return the number that a value is or spells, None where it is none; true and false are none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    if not isinstance(value, str) or len(value) > LONGEST_NUMBER:
        return None
    text = value.strip(" \t")
    if re.fullmatch(INT, text):
        return _int(text)
    number = float(text.replace("_", "")) if re.fullmatch(FLOAT, text) else math.inf
    return number if math.isfinite(number) else None


def written_text(value: Any) -> str | None:
    """Return a text, or a number as it was written without quotes; None for anything else."""
    if isinstance(value, str):
        return str(value)
    return (value.text or None) if isinstance(value, WrittenInt | WrittenFloat) else None


class Loader(yaml.SafeLoader):
    """Reads plain values as the module says; no key may stand in a mapping twice."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # none of YAML 1.1's

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's
        """Build a mapping; its keys are texts, as they are written.

        Raises:
            ConstructorError: a key stands in it twice, apart from what `<<` brings in.
        """
        seen: set[str] = set()
        for name, _ in node.value:
            if isinstance(name, yaml.ScalarNode) and name.tag != MERGE_TAG:
                if name.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{name.value!r} twice", name.start_mark)
                seen.add(name.value)
                name.tag = STR_TAG
        return super().construct_mapping(node, deep)  # type: ignore[no-any-return]


class Dumper(yaml.SafeDumper):
    """Writes plain values so that both this reader and readers of YAML 1.1 get them back."""


def _int(text: str) -> int:
    digits = text.replace("_", "")
    return int(digits, 0) if re.match(r"[-+]?0[box]", digits, re.IGNORECASE) else int(digits)


def _construct_int(loader: Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    if not re.fullmatch(INT, text):
        raise ValueError(f"{text!r} is no whole number")
    value = WrittenInt(_int(text))
    value.text = text
    return value


def _construct_float(loader: Loader, node: yaml.ScalarNode) -> float | str:
    text: str = loader.construct_scalar(node)
    number = float(text.replace(".", "")) if re.fullmatch(NOT_FINITE, text) else number_in(text)
    if number is None:
        if re.fullmatch(FLOAT, text):  # 1e999, which no number is
            return text
        raise ValueError(f"{text!r} is no number")
    value = WrittenFloat(number)
    value.text = text
    return value


def _construct_word(loader: Loader, node: yaml.ScalarNode) -> str:
    return Word(loader.construct_scalar(node))


def _represent_text(dumper: Dumper, text: str) -> yaml.ScalarNode:
    # Other styles fold what Unicode calls a line break (U+0085, U+2028), which readers take for a space.
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar(STR_TAG, text, style=style)  # type: ignore[no-any-return]


for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", "true|True|TRUE|false|False|FALSE", list("tTfF")),
    (WORD_TAG, "yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF", list("yYnNoO")),
    ("tag:yaml.org,2002:float", f"{FLOAT}|{NOT_FINITE}", list("-+.0123456789")),
    ("tag:yaml.org,2002:int", INT, list("-+0123456789")),
    (MERGE_TAG, "<<", ["<"]),
):
    Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), _first)
    Dumper.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), _first)
Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)
Loader.add_constructor(WORD_TAG, _construct_word)
Dumper.add_representer(str, _represent_text)
