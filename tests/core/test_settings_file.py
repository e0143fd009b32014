"""Settings as YAML hold plain values, whoever wrote the file: it runs nothing, and is read or refused at once."""

import dataclasses
import os
import time
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

import run_pipeline
from core.errors import UserError
from core.settings import build, plain
from core.settings_file import load_plain, override, read_yaml, render
from core.yaml_text import Dumper
from curation.recipe import Recipe
from train_bridge.config import TrainConfig, load_config

REPEATED = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
MERGED = [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 10)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n".join(["a0: &a0 [x]", *REPEATED]), "more than 50000 values, aliases written out"),
        ("\n".join(["a0: &a0 {x: 1}", *MERGED]), "more than 50000 values, aliases written out"),
        ("a: &a [*a]", "more than 50000 values"),
        ("a: &a {b: *a}", "more than 50000 values"),
        ("a: [" + "1," * 60_000 + "]", "more than 50000 values"),
        ("a: " + "x" * 1_000_000, "larger than 256 KB; is it a recipe?"),
        ("[" * 100_000, "nested too deeply"),
        ("a: {" * 40_000, "nested too deeply"),
        ("- " * 50_000, "nested too deeply"),
        ("a: !!python/object/apply:os.system [touch HERE]", "line 1: .*python/object/apply:os.system"),
        ("a: !!python/name:os.system", "line 1: .*python/name:os.system"),
        ("!!python/object/new:os.system [touch HERE]", "line 1: .*python/object/new:os.system"),
        ("a: !own x", "line 1: .*!own"),
        ("a: !!binary é", "base64"),
        ("a: !!timestamp 2024-99-99", "month must be in 1..12"),
        ("a: " + "9" * 5_000, "a whole number of more than 40 digits"),
        ("a: 1\nb: 2\na: 3", "line 3: .*'a' twice"),
        ("a: 0x" + "f" * 200_000, "a whole number of more than 40 digits"),
        ("a: \x1b[2J", "unacceptable character #x001b"),
        ("a: 1\n---\nb: 2", "line 2: .*another document"),
        ("{[1]: 2}", "unhashable"),
        ("a: *nowhere", "undefined alias"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_a_file_that_would_do_harm_is_refused_in_a_line_and_at_once(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(text)
    begin = time.process_time()
    with pytest.raises(UserError, match=message) as error:
        read_yaml(Path("r.yaml"), "recipe")
    assert time.process_time() - begin < 10
    assert (
        str(error.value).startswith("recipe r.yaml") and str(error.value).isprintable() and len(str(error.value)) < 400
    )
    assert os.listdir(tmp_path) == ["r.yaml"]


@pytest.mark.parametrize(
    "value", ["[" * 5_000, "!!python/name:os.system", "!!int x", "9" * 5_000, "&a [*a]", "\x1b[2J"]
)
def test_an_override_that_would_do_harm_is_refused_in_a_line(value):
    with pytest.raises(UserError, match="the value is not valid YAML") as error:
        override({}, f"a.b={value}", "a=1")
    assert str(error.value).isprintable() and len(str(error.value)) < 300


def test_aliases_that_repeat_little_are_read(tmp_path):
    (tmp_path / "r.yaml").write_text("a: &a {x: 1, y: [2]}\nb: *a\nc: {<<: *a, x: 3}\n")
    expected = {"a": {"x": 1, "y": [2]}, "b": {"x": 1, "y": [2]}, "c": {"x": 3, "y": [2]}}
    assert read_yaml(tmp_path / "r.yaml", "recipe") == expected


PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.floats(allow_nan=False), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
)


@given(value=PLAIN)
def test_plain_values_come_back(value):
    assert load_plain(yaml.dump(value, Dumper=Dumper, allow_unicode=True)) == value


# -- what a value means is decided by the type of its key ---------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Kinds:
    """One key of each type that settings have."""

    whole: int = 0
    number: float = 0.0
    text: str = ""
    truth: bool = False
    choice: Literal["off", "on", "1"] = "off"
    texts: tuple[str, ...] = ()
    numbers: tuple[float, ...] = ()
    maybe: float | None = None
    name: str | None = None
    shares: dict[str, float] = dataclasses.field(default_factory=dict)


def both_ways(key: str, written: str) -> list[Any]:
    """Return a key's value as a file and as the command line set it."""
    by_override: dict[str, Any] = {}
    override(by_override, f"{key}={written}", "a=1")
    found = [build(Kinds, raw, "k") for raw in (load_plain(f"{key}: {written}\n"), by_override)]
    return [getattr(kinds, key) for kinds in found]


@pytest.mark.parametrize(
    ("key", "written", "meant"),
    [
        ("number", "1e-4", 1e-4), ("number", "1.e-4", 1e-4), ("number", "5E-5", 5e-5), ("number", "1_000", 1000.0),
        ("number", "1_000.5", 1000.5), ("number", ".5", 0.5), ("number", "010", 10.0), ("number", "'1e-4'", 1e-4),
        ("number", "+1e3", 1000.0), ("maybe", "1e-4", 1e-4), ("maybe", "~", None), ("number", "-3", -3.0),
        ("whole", "010", 10), ("whole", "1_000", 1000), ("whole", "1e4", 10_000), ("whole", "0x10", 16),
        ("whole", "0o17", 15), ("whole", "'12'", 12), ("whole", "08", 8), ("whole", "-0", 0),
        ("numbers", "[1e-4, 9e-1]", (1e-4, 0.9)), ("numbers", "[0_9, '2']", (9.0, 2.0)),
        ("text", "16:9", "16:9"), ("text", "1:30", "1:30"), ("text", "12:30:45", "12:30:45"), ("text", "no", "no"),
        ("text", "Off", "Off"), ("text", "y", "y"), ("text", "010", "010"), ("text", "1_000", "1_000"),
        ("text", "1e-4", "1e-4"), ("text", "2024-01-02", "2024-01-02"), ("text", "1.10", "1.10"), ("text", "~x", "~x"),
        ("text", "2024-01-02 03:04:05", "2024-01-02 03:04:05"), ("text", "nil", "nil"), ("text", "None", "None"),
        ("text", "=", "="), ("text", "0x10", "0x10"), ("text", "'null'", "null"), ("text", "'true'", "true"),
        ("text", "none", "none"), ("text", "1e999", "1e999"),
        ("text", "1.", "1."), ("text", ".inf", ".inf"), ("name", "null", None), ("name", "no", "no"),
        ("name", "'~'", "~"), ("texts", "[16:9, no, 1.0, 2024-01-02, on]", ("16:9", "no", "1.0", "2024-01-02", "on")),
        ("truth", "yes", True), ("truth", "off", False), ("truth", "NO", False), ("truth", "true", True),
        ("choice", "off", "off"), ("choice", "on", "on"), ("choice", "1", "1"),
        ("shares", "{no: 1e-1, 010: 1, 1.50: 2}", {"no": 0.1, "010": 1.0, "1.50": 2.0}),
    ],
)  # fmt: skip
def test_a_value_means_what_its_key_takes(key, written, meant):
    for found in both_ways(key, written):
        assert found == meant and type(found) is type(meant)


@pytest.mark.parametrize(
    ("key", "written"),
    [
        ("number", "16:9"), ("number", "yes"), ("number", "true"), ("number", "2024-01-02"), ("number", "1,5"),
        ("number", ".nan"), ("number", "'nan'"), ("number", "inf"), ("number", "1e"), ("number", "null"),
        ("number", "1__0"), ("number", "'" + "9" * 50 + "'"), ("number", "١"), ("whole", "2.5"), ("whole", "2.0"),
        ("whole", "1e-4"), ("whole", "on"), ("whole", "1:30"), ("whole", "1e400"), ("truth", "1"), ("truth", "'yes'"),
        ("truth", "y"), ("text", "null"), ("text", "true"), ("texts", "[null]"), ("texts", "no"), ("choice", "true"),
    ],
)  # fmt: skip
def test_what_a_key_cannot_take_is_refused_in_a_line_that_names_it(key, written):
    with pytest.raises(UserError, match=rf"^k\.{key}") as error:
        both_ways(key, written)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


def leaves(cls: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Walk all keys of settings: dotted name and type."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from leaves(typing.cast(type, hint), f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", hint


def base(hint: Any) -> Any:
    """Return the type behind `| None`, a list or a mapping."""
    args = [a for a in typing.get_args(hint) if a not in (type(None), Ellipsis)]
    if typing.get_origin(hint) in (typing.Union, types.UnionType, tuple):
        return base(args[0])
    return base(args[1]) if typing.get_origin(hint) is dict else hint


def as_written(hint: Any, text: str) -> str:
    """Write a value as a list or mapping where the key is one."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return as_written(next(a for a in typing.get_args(hint) if a is not type(None)), text)
    if typing.get_origin(hint) is tuple:
        args = typing.get_args(hint)
        return f"[{text}]" if args[-1] is Ellipsis else f"[{', '.join([text] * len(args))}]"
    return f"{{x: {text}}}" if typing.get_origin(hint) is dict else text


def flat(value: Any) -> Any:
    """Return the one value that a list or mapping repeats."""
    values = list(value.values()) if isinstance(value, dict) else value if isinstance(value, tuple) else [value]
    assert len(set(values)) == 1
    return values[0]


KEYS = [
    (cls, name, hint) for cls in (Recipe, TrainConfig) for name, hint in leaves(cls) if base(hint) in (int, float, str)
]


@given(key=st.sampled_from(KEYS), number=st.integers(1, 99), form=st.sampled_from(["{}", "0{}", "'{}'", "{}e0", "+{}"]))
@example(key=(TrainConfig, "train.learning_rate", float), number=1, form="{}e-4")
def test_every_key_of_every_config_reads_number_like_text_by_its_type(key, number, form):
    cls, name, hint = key
    written = form.format(number)
    raw: dict[str, Any] = {}
    override(raw, f"{name}={as_written(hint, written)}", "a=1")
    try:
        settings: Any = build(cls, raw, "c")
    except UserError as error:  # a range, or a choice: what is refused is the number, not its spelling
        assert "expected" not in str(error), error
        return
    for part in name.split("."):
        settings = getattr(settings, part)
    found = flat(settings)
    if base(hint) in (int, float):
        assert found == float(written.strip("'")) and type(found) is base(hint)
    elif base(hint) is str:
        assert found == written.strip("'")


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)


@given(st.builds(Kinds, text=TEXTS, texts=st.lists(st.sampled_from(
    ["1e-4", "no", "010", "16:9", "2024-01-02", "null", "", "=", "<<", "true", "1_0", ".5", "0o7", "~"])).map(tuple),
    number=st.floats(allow_nan=False, allow_infinity=False), whole=st.integers(-(2**40), 2**40)))  # fmt: skip
def test_settings_come_back_from_what_is_written_of_them(kinds):
    assert build(Kinds, load_plain(render(kinds)), "k") == kinds
    assert plain(kinds) == yaml.safe_load(render(kinds))  # and readers of YAML 1.1 read the same


def test_the_command_line_reads_what_people_write(tmp_path, capsys):
    file = tmp_path / "c.yaml"
    file.write_text("method: vae\nbuckets: {aspects: [16:9, 1/1]}\ntrain: {learning_rate: 1e-4, steps: 1_000}\n")
    config = load_config(file, ["train.weight_decay=1.e-2", "train.betas=[9e-1, .95]", "model.vae=010"])
    assert (config.train.learning_rate, config.train.steps, config.train.weight_decay) == (1e-4, 1000, 0.01)
    assert config.train.betas == (0.9, 0.95) and config.buckets.aspects == ("16:9", "1/1") and config.model.vae == "010"
    assert run_pipeline.main(["recipe", str(file), "train.learning_rate=5E-5"]) == 0
    assert "learning_rate: 5.0e-05" in capsys.readouterr().out
