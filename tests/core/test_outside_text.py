"""Text from outside does no harm where it is shown: terminals obey none of it, secrets are not in it."""

import csv
import io
import json
import os
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import run_pipeline
from core.errors import UserError
from core.files import read_bounded
from core.sanitize import (
    LONGEST_CAPTION,
    clean_text,
    from_safe_cell,
    printable,
    printable_lines,
    safe_cell,
    without_secrets,
)
from core.settings_file import read_yaml
from curation.captions import valid_caption
from curation.report.run_facts import RunFacts, read_run
from curation.types import Caption
from models.weights.json_file import read_json

ROOT = Path(__file__).resolve().parents[2]
ANYTHING = st.text(st.characters(), max_size=60)  # halves of characters, too
OBEYED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""kinds of characters: controls, directions and zero widths, halves, separators of lines and paragraphs"""


@settings(max_examples=300)
@given(text=ANYTHING, most=st.one_of(st.none(), st.integers(1, 30)))
@example(
    text="\x1b]0;title\x07\x1b[2J\r\n\t\x00\x7f\x9b31m\u202e\u2066\u200b\u200d\ufeff\u2028\udce9\U000e0001", most=None
)
def test_nothing_that_a_terminal_obeys_is_left(text, most):
    shown = printable(text, most)
    assert not OBEYED & set(map(unicodedata.category, shown))
    shown.encode()
    assert shown.splitlines() in ([shown], [])
    assert most is None or len(shown) <= most
    assert printable(shown, most) == shown


@given(text=st.text(st.characters(categories=["L", "N", "P", "S", "Zs", "M"])))
def test_ordinary_text_is_shown_as_it_is(text):
    assert printable(text) == text


def test_what_was_there_can_be_seen():
    assert printable("a\nb\x1b[2J\u202e\udce9.mp4") == r"a\nb\x1b[2J\u202e\udce9.mp4"
    assert printable("x" * 10, 4) == "xxx…"
    assert printable_lines("Traceback:\n  File\x1b[2J\nError\r") == "Traceback:\n  File\\x1b[2J\nError\\r"


# -- secrets

TOKEN = "hf_AbCdEfGhIjKl"
ENVIRONMENT = {
    "HF_TOKEN": TOKEN,
    "aws_secret_access_key": "wJalr/K7MD'ENG+bPx",
    "SSH_PRIVATE_KEY": "-----BEGIN-----\nMIIBvTBXBgkqhkiG\n-----END-----\n",
    "SHORT_PASSWORD": "sesame",
    "KEYBOARD": "de-latin1-nodeadkeys",
    "HOME": "/home/somebody",
}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"401 for {TOKEN}: denied", "401 for ***: denied"),
        (f"a{TOKEN}b {TOKEN}", "a***b ***"),
        ("got \"wJalr/K7MD'ENG+bPx\"", 'got "***"'),
        ("?k=wJalr%2FK7MD%27ENG%2BbPx", "?k=***"),
        ("cannot read MIIBvTBXBgkqhkiG", "cannot read ***"),
        ("sesame street", "sesame street"),
        ("/home/somebody/de-latin1-nodeadkeys", "/home/somebody/de-latin1-nodeadkeys"),
        ("https://me:pass@host/a.mp4 gone", "https://***@host/a.mp4 gone"),
        ("https://token@host:8080/", "https://***@host:8080/"),
        ("s3://AKIA:a/b+c@bucket/x", "s3://***@bucket/x"),
        ("https://me:p@ss@host/", "https://***@host/"),
        ("https://host:8080/a.mp4", "https://host:8080/a.mp4"),
        ("file:///footage/a@2x.mp4", "file:///footage/a@2x.mp4"),
        ("Authorization: Basic bWU6cGFzcw==", "Authorization: ***"),
        ("{'Authorization': 'Bearer abc.def', 'x': 1}", "{'Authorization': '***', 'x': 1}"),
        ("sent Bearer abc.def-ghi", "sent Bearer ***"),
        ("api_key=12345&n=2", "api_key=***&n=2"),
        ("client_secret = 'a b' and more", "client_secret = *** and more"),
        ('{"token": "a b", "n": 2}', '{"token": ***, "n": 2}'),
        ("password: hunter2", "password: ***"),
        (
            "https://b.s3.amazonaws.com/a.mp4?X-Amz-Date=1&X-Amz-Credential=AKIA%2F1&X-Amz-Signature=0a1b&n=2",
            "https://b.s3.amazonaws.com/a.mp4?X-Amz-Date=1&X-Amz-Credential=***&X-Amz-Signature=***&n=2",
        ),
        ("?AWSAccessKeyId=AKIA1&Signature=a%2Bb&Expires=3", "?AWSAccessKeyId=***&Signature=***&Expires=3"),
        ("?sv=2024&sig=a%2Bb%3D", "?sv=2024&sig=***"),
        ("/data/a.mp4: no such file; design=3", "/data/a.mp4: no such file; design=3"),
        ("buckets.tokens_per_step: expected int, got 'x'", "buckets.tokens_per_step: expected int, got 'x'"),
        ("unexpected token: 'x'", "unexpected token: 'x'"),
    ],
)  # fmt: skip
def test_secrets_are_hidden_and_nothing_else_is(text, shown):
    assert without_secrets(text, ENVIRONMENT) == shown


@given(
    secret=st.text(st.characters(exclude_characters="*"), min_size=8, max_size=30).filter(
        lambda s: len(s.strip()) >= 8
    ),
    text=ANYTHING,
)
def test_the_value_of_a_secret_variable_is_in_no_text(secret, text):
    secret = secret.strip()
    shown = without_secrets(f"{text}{secret}{text} {secret!r}", {"MY_API_TOKEN": secret})
    assert secret not in shown and repr(secret)[1:-1] not in shown


def test_the_environment_is_looked_at_when_a_text_is_shown(monkeypatch):
    monkeypatch.setenv("LATER_TOKEN", "abcdefgh-later")
    assert without_secrets("x abcdefgh-later") == "x ***"


@pytest.mark.parametrize(
    "text",
    [
        "://",
        "a://b:",
        "token ",
        'token="',
        "authorization: ",
        "bearer ",
        "token" + " " * 500,
        "api_key='\"",
        "a",
        "://x:a",
    ],
    ids=repr,
)
def test_no_text_takes_long(text):
    """Errors may hold what they are about; an expression that runs wild would be an attack of its own."""
    begin = time.process_time()
    without_secrets(text * (200_000 // len(text)), ENVIRONMENT)
    assert time.process_time() - begin < 3


# -- cells of spreadsheets

RUN = set("=+-@\t\r＝＋－＠")
STARTS = st.text(st.sampled_from("='\"+-@\t\r\n a＝"), max_size=6)


@settings(max_examples=500)
@given(start=STARTS, rest=ANYTHING)
def test_a_cell_runs_nothing_and_comes_back(start, rest):
    text = start + rest
    cell = safe_cell(text)
    assert from_safe_cell(cell) == text
    assert cell in (text, f"'{text}")
    assert not cell or cell[0] not in RUN
    assert cell.strip().lstrip("\"'\ufeff").strip()[:1] not in RUN or cell.startswith("'")


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("'=1+1", "''=1+1"),
        ("''@a", "'''@a"),
        ('"=1', "'\"=1"),
        (" =1", "' =1"),
        ("\t=1", "'\t=1"),
        ("\rx", "'\rx"),
        ("-", "'-"),
        ("'tis a dog", "'tis a dog"),
        ("a = b", "a = b"),
        ("", ""),
    ],
)
def test_cells_by_hand(text, cell):
    assert (safe_cell(text), from_safe_cell(cell)) == (cell, text)


def test_what_no_export_wrote_is_left_alone():
    """Other people's captions begin with apostrophes and formulas, too."""
    assert [from_safe_cell(text) for text in ("'tis", "''", "=1", "+1", "'a=1")] == ["'tis", "''", "=1", "+1", "'a=1"]


# -- the command line


def told(capsys, *words: str | Path) -> str:
    """Return what a refused command says."""
    try:
        assert run_pipeline.main([str(word) for word in words]) == 2
    except SystemExit as end:  # of the argument parser
        assert end.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.endswith("\n")
    assert error[:-1].isprintable() and len(error) < 2_500
    return error


@pytest.mark.parametrize(
    "words",
    [
        ["curate", "\x1b[2J\n.mp4", "--output", "OUT"],
        ["curate", "x" * 300_000, "--output", "OUT"],
        ["curate", "a=" + "x" * 5_000, "--output", "OUT"],
        ["curate", "shots.min_s=\x1b[2J", "--output", "OUT"],
        ["curate", "--output", "OUT", "--\x1b[2Jodd", "a.mp4"],
        ["curate", "\ud800", "--output", "OUT"],
        ["select", "\x1b[2J"],
        ["export", "\x1b[2J"],
        ["recipe", "\x1b[2J\n"],
        ["plan", "\x1b[2J\n"],
        ["\x1b[2J"],
    ],
    ids=lambda words: repr(words)[:40],
)
def test_a_mistake_with_odd_names_is_one_line(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    told(capsys, *words)


def test_an_error_holds_no_secret(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for text in (TOKEN, f"https://me:{TOKEN}@host/a.mp4"):
        assert TOKEN not in told(capsys, "curate", text, "--output", tmp_path / "out")
    assert TOKEN not in told(capsys, "export", tmp_path, f"--{TOKEN}")


def test_a_name_with_a_leading_dash_is_no_option(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-rf.txt").write_text("nothing.mp4")
    assert "-rf.txt, entry 1: no such file" in told(capsys, "curate", "--output", "out", "--", "-rf.txt")
    assert "-rf.txt, entry 1: no such file" in told(capsys, "curate", "./-rf.txt", "--output", "out")
    assert "unknown argument" in told(capsys, "curate", "a.mp4", "-rf.txt", "--output", "out")


def test_a_bug_is_told_by_its_traceback_without_secrets_or_controls():
    code = (
        "import dataclasses, sys\n"
        "from cli import main as r\n"
        "def broken(parsed): raise RuntimeError('at \\x1b[2J https://me:hunter22@h and hf_AbCdEfGhIjKl\\nline two')\n"
        "r.COMMANDS['export'] = dataclasses.replace(r.COMMANDS['export'], run=broken)\n"
        "sys.argv = ['selects', 'export', 'x']\n"
        "r.run_and_exit()"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | {"HF_TOKEN": TOKEN}, check=False,
    )  # fmt: skip
    assert shown.returncode == 1
    assert shown.stderr.startswith("Traceback (most recent call last):\n  File ")
    assert shown.stderr.endswith("RuntimeError: at \\x1b[2J https://***@h and ***\nline two\n")


def test_a_csv_of_safe_cells_holds_them_whatever_they_are():
    texts = ["=1", "\r", "\n", '"', "a,b;=c", "'", "\t"]
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(map(safe_cell, texts))
    (row,) = csv.reader(io.StringIO(file.getvalue(), newline=""))
    assert [from_safe_cell(cell) for cell in row] == texts


# -- at the door


@settings(max_examples=300)
@given(text=ANYTHING, most=st.one_of(st.none(), st.integers(1, 30)))
@example(text="\ud83d\ude00 \ud83d \udce9\0", most=None)
@example(text="\ud83d\ude00" * 20, most=5)
def test_cleaned_text_fits_every_table_and_encoder_and_stays_as_it_is(text: str, most: int | None) -> None:
    kept = clean_text(text, most)
    assert pa.array([kept], pa.string()).to_pylist() == [kept]
    assert json.loads(json.dumps(kept, ensure_ascii=False).encode()) == kept
    assert "\0" not in kept
    assert most is None or len(kept) <= most
    assert clean_text(kept, most) == kept


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60))
def test_text_that_is_valid_is_not_changed(text: str) -> None:
    assert clean_text(text) == clean_text(text, 60) == text


def test_halves_that_belong_together_become_the_character() -> None:
    assert clean_text("\ud83d\ude00 \ud83d") == "\U0001f600 \ufffd"
    assert clean_text("abcdef", 3) == "ab…"


@given(text=ANYTHING, model=ANYTHING, error=st.one_of(st.none(), ANYTHING))
def test_a_caption_from_any_captioner_fits_the_table(text: str, model: str, error: str | None) -> None:
    caption = valid_caption(Caption(text, model, "ok", "clip", {"caption_en": text}, error))
    for value in (caption.text, caption.model, caption.texts["caption_en"], caption.error or ""):
        assert pa.array([value], pa.string()).to_pylist() == [value]
    assert caption.status == "ok"


def test_a_caption_beyond_every_limit_is_no_good_whoever_wrote_it() -> None:
    caption = valid_caption(Caption("word " * 300_000, "own", texts={"caption_en": "word " * 300_000}))
    assert caption.status == "too_long"
    assert max(len(caption.text or ""), len(caption.texts["caption_en"])) <= LONGEST_CAPTION


@pytest.mark.parametrize("escape", [r"\ud83d", r"\udce9"])
def test_a_recipe_with_half_a_character_is_refused_in_one_line(tmp_path: Path, escape: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(f'caption: {{settings: {{asking: {{own_prompts: {{en: "say {escape}"}}}}}}}}\n')
    with pytest.raises(UserError, match="half a character"):
        read_yaml(file, "recipe")


def test_the_sampler_takes_any_prompt_and_writes_it_well_formed() -> None:
    from sampling.request import Request

    asked = Request("a cat \ud83d" + "x" * 1_000_000, negative="\udce9\0")
    assert asked.negative == "\ufffd\ufffd"
    assert len(asked.prompt.encode()) < 4 * LONGEST_CAPTION


@pytest.mark.parametrize("content", [b"[" * 200_000, b"{" + b" " * 1000, b'{"command": {"\xff": 1}}', b"9" * 50_000])
def test_a_run_json_of_any_kind_costs_its_facts_only(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    assert read_run(tmp_path) == RunFacts()


def test_files_from_outside_are_not_read_beyond_their_bounds(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 11)
    with pytest.raises(ValueError, match="larger than"):
        read_bounded(tmp_path / "a", 10)
    with pytest.raises(ValueError, match="larger than"):
        read_bounded(Path("/dev/zero"), 1 << 20)
    with pytest.raises(ValueError, match="larger than 1 MB"):
        read_json(Path("/dev/zero"), 1 << 20)
    (tmp_path / "deep.json").write_bytes(b"[" * 200_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json(tmp_path / "deep.json")
