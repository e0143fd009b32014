"""Settings as YAML hold plain values, whoever wrote the file: it runs nothing, and is read or refused at once."""

import os
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from curation.errors import UserError
from curation.settings_file import load_plain, override, read_yaml

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
        ("a: 2024-99-99", "month must be in 1..12"),
        ("a: " + "9" * 5_000, "a whole number of more than 40 digits"),
        ("a: 1" + ":59" * 80_000, "a whole number of more than 40 digits"),
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
    "value", ["[" * 5_000, "!!python/name:os.system", "2024-99-99", "9" * 5_000, "&a [*a]", "\x1b[2J"]
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
    assert load_plain(yaml.safe_dump(value)) == value
