"""Every number of a training config has a range, which is checked wherever it comes from and shown beside the key."""

import dataclasses
import math
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import run_pipeline
from core.errors import UserError
from core.settings import Range, build, key, range_of
from train_bridge.config import TrainConfig, load_config

TINY = Path(__file__).parents[2] / "configs" / "train_tiny.yaml"


def numbers(cls: type, prefix: str = "") -> Iterator[tuple[str, Any, "dataclasses.Field[Any]"]]:
    """Walk the keys that hold numbers, alone or in lists and mappings: dotted name, type of number, field."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from numbers(typing.cast(type, hints[field.name]), f"{prefix}{field.name}.")
        elif kind := {int, float} & set(inside(hints[field.name])):
            yield f"{prefix}{field.name}", (*kind,)[0], field


def inside(hint: Any) -> list[Any]:
    """Return the types that a type is made of."""
    args = [a for a in typing.get_args(hint) if a is not Ellipsis]
    return [hint] if not args else [part for arg in args for part in inside(arg)]


def shaped(field: "dataclasses.Field[Any]", hint: Any, value: float) -> Any:
    """Return a value as a list or mapping where the key is one."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return shaped(field, next(a for a in typing.get_args(hint) if a is not type(None)), value)
    if typing.get_origin(hint) is tuple:
        return [value] * (1 if typing.get_args(hint)[-1] is Ellipsis else len(typing.get_args(hint)))
    return {"box": value} if typing.get_origin(hint) is dict else value


NUMBERS = list(numbers(TrainConfig))


def test_every_number_of_the_training_config_has_a_range():
    assert len(NUMBERS) > 40
    assert [name for name, _, field in NUMBERS if range_of(field) is None] == []


@pytest.mark.parametrize(("name", "kind", "field"), NUMBERS, ids=[name for name, _, _ in NUMBERS])
def test_what_lies_outside_is_refused_in_a_line_with_the_range(name, kind, field):
    section, last = name.split(".")
    allowed = range_of(field)
    assert allowed is not None
    step = 1 if kind is int else 0.5
    outside = [
        *(b - step for b in (allowed.min,) if b is not None),
        *(b + step for b in (allowed.max,) if b is not None),
    ]
    outside += [b for b in (allowed.above, allowed.below) if b is not None]
    outside += [math.inf, -math.inf] if kind is float else []
    assert outside, "a range without any bound"
    hint = next(h for c in (typing.get_type_hints(TrainConfig)[section],) for h in (typing.get_type_hints(c)[last],))
    for value in outside:
        shape = shaped(field, hint, kind(value) if math.isfinite(value) else value)
        with pytest.raises(UserError, match=rf"^config\.{section}\.{last}.*out of range; it must be") as error:
            build(TrainConfig, {section: {last: shape}}, "config")
        assert str(allowed) in str(error.value) and "\n" not in str(error.value)


def test_defaults_and_the_configs_that_come_with_it_lie_within():
    for name, _, field in NUMBERS:
        default = field.default if field.default is not dataclasses.MISSING else ()
        for value in default if isinstance(default, tuple) else (default,):
            assert value is None or value in range_of(field), name
    for file in TINY.parent.glob("train_*.yaml"):
        assert isinstance(load_config(file), TrainConfig)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("watch.log_every=0", "at least 1"), ("objective.text_dropout=5", "at least 0 and at most 1"),
        ("train.ema=1.5", "at least 0 and below 1"), ("launch.workers=-1", "at least 0"),
        ("train.betas=[0.9, 1]", "at least 0 and below 1"), ("train.learning_rate=0", "above 0 and at most 1"),
        ("inpaint.masks={box: -1}", "at least 0"), ("data.validation=1", "at least 0 and below 1"),
    ],
)  # fmt: skip
def test_the_command_line_says_so_and_exits_with_2(text, message, capsys):
    assert run_pipeline.main(["recipe", str(TINY), text]) == 2
    shown = capsys.readouterr().err
    assert message in shown and text.split("=")[0] in shown and len(shown.strip().split("\n")) == 1


def test_recipe_shows_the_ranges(capsys):
    assert run_pipeline.main(["recipe", str(TINY)]) == 0
    lines = capsys.readouterr().out.split("\n")
    for name, _, field in NUMBERS:
        shown = str(range_of(field))
        assert any(line.strip().startswith(f"{name.split('.')[1]}:") and f"({shown})" in line for line in lines), name


def test_a_range_takes_what_lies_on_its_closed_ends_only():
    assert all(x in Range(min=0, max=1) for x in (0, 0.5, 1)) and -1e-9 not in Range(min=0)
    assert 0 not in Range(above=0) and 1 not in Range(below=1) and math.nan not in Range(max=3)

    @dataclasses.dataclass(frozen=True)
    class Two:
        pair: tuple[float, float] = key((0.0, 0.0), "", min=0)

    with pytest.raises(UserError, match=r"k\.pair\[1\]: -1.0 is out of range; it must be at least 0"):
        build(Two, {"pair": [0, -1]}, "k")
