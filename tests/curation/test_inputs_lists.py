"""Every way in which people write lists of files, and what is not there or cannot be."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from runs import curate, rows_of

from core.errors import UserError
from curation.inputs.sources import find_sources, look_for_sources, name_problem
from demo.drawing import write_video


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def listing(folder: Path, name: str, content: str | bytes) -> list[str]:
    """Write a list and return the paths that it gives."""
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return [source.path for source in find_sources([str(folder / name)])]


ODD = ["#shorts.mp4", "  two blanks.mp4", "\ttab.mp4", "trailing .mp4 ", '"quoted".mp4', "'single'", "# a comment.mp4"]


def test_what_ls_lists_is_all_there_whatever_a_name_begins_with(tmp_path):
    make(tmp_path / "in", *ODD, "plain.mp4")
    text = subprocess.run(["ls"], cwd=tmp_path / "in", capture_output=True, check=True, env={"LC_ALL": "C"}).stdout
    found = listing(tmp_path / "in", "list.txt", text)
    assert sorted(found) == sorted([*ODD, "plain.mp4"])


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_spelling_of_a_line_leads_to_its_file(tmp_path, ending, mark):
    make(tmp_path, "a.mp4", "b c.mp4", "#d.mp4", 'e"f.mp4', "g's.mp4", "h.mp4")
    lines = [
        "# first comment",
        "",
        "  a.mp4 \t",
        '"b c.mp4"',
        "#d.mp4",
        '"e""f.mp4"',
        "'g''s.mp4'",
        "file 'h.mp4'",
        "#",
    ]
    text = mark + ending.join(lines) + ending
    assert listing(tmp_path, "l.txt", text) == ["a.mp4", "b c.mp4", "#d.mp4", 'e"f.mp4', "g's.mp4", "h.mp4"]


def test_the_most_literal_reading_goes_first(tmp_path):
    make(tmp_path, "a.mp4", " a.mp4", '"a.mp4"', "#a.mp4")
    assert listing(tmp_path, "l.txt", '#a.mp4\n"a.mp4"\n a.mp4\na.mp4\n') == ["#a.mp4", '"a.mp4"', " a.mp4", "a.mp4"]


def test_the_first_line_may_begin_with_the_mark_itself(tmp_path):
    make(tmp_path, "\ufeffa.mp4", "b.mp4")
    assert listing(tmp_path, "l.txt", "\ufeffa.mp4\nb.mp4\n") == ["\ufeffa.mp4", "b.mp4"]
    (tmp_path / "\ufeffa.mp4").rename(tmp_path / "a.mp4")
    assert listing(tmp_path, "l.txt", "\ufeffa.mp4\nb.mp4\n") == ["a.mp4", "b.mp4"]


def test_a_commented_line_is_one_where_no_such_file_is(tmp_path):
    make(tmp_path, "a.mp4", "b.mp4")
    assert listing(tmp_path, "l.txt", "#b.mp4\n # b.mp4\na.mp4\n") == ["a.mp4"]


def test_folders_in_a_list_are_searched_and_dots_are_not(tmp_path):
    """`ls -a` lists the folder itself and the one above it."""
    make(tmp_path, "outside.mp4", "in/a.mp4", "in/deep/b.mp4", "in/deep/er/c.jpg")
    assert listing(tmp_path / "in", "l.txt", ".\n..\na.mp4\ndeep\n") == ["a.mp4", "deep/b.mp4", "deep/er/c.jpg"]


TABLES = {
    "header": "text,path\nx,a.mp4\ny,b c.mp4\n",
    "capitals": "Text,File_Path\nx,a.mp4\ny,b c.mp4\n",
    "semicolons": "text;path\nx;a.mp4\ny;b c.mp4\n",
    "tabs": "text\tpath\nx\ta.mp4\ny\tb c.mp4\n",
    "said by a spreadsheet": 'sep=;\r\ntext;path\r\nx;a.mp4\r\ny;"b c.mp4"\r\n',
    "no header": "a.mp4\nb c.mp4\n",
    "no header, more columns": "a.mp4,a dog,1\nb c.mp4,a cat,2\n",
    "no header, second column": "1,a.mp4\n2,b c.mp4\n",
    "no header, semicolons": "1;a.mp4;x\n2;b c.mp4;y\n",
    "no header, tabs": "x\ta.mp4\ny\tb c.mp4\n",
    "quoted": '"a.mp4","x, y"\n"b c.mp4","z"\n',
    "blanks": "path\n  a.mp4 \n\n b c.mp4\n",
    "mark": "\ufeffpath\na.mp4\nb c.mp4\n",
}


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
@pytest.mark.parametrize("kind", TABLES)
def test_tables_of_every_kind(tmp_path, kind, suffix):
    make(tmp_path, "a.mp4", "b c.mp4")
    assert listing(tmp_path, f"l.{suffix}", TABLES[kind]) == ["a.mp4", "b c.mp4"]


def test_names_with_the_delimiter_in_them(tmp_path):
    make(tmp_path, "a, b.mp4", "c.mp4", "#d.mp4")
    assert listing(tmp_path, "l.csv", "a, b.mp4\nc.mp4\n#d.mp4\n") == ["a, b.mp4", "c.mp4", "#d.mp4"]
    assert listing(tmp_path, "l.csv", "text,path\nx,a, b.mp4\ny,c.mp4\n") == ["a, b.mp4", "c.mp4"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.json", '["a.mp4", "b c.mp4"]'),
        ("l.json", '[{"path": "a.mp4"}, {"file_path": "b c.mp4", "text": "x"}]'),
        ("l.json", '\ufeff\n[{"video": "a.mp4"},\n "b c.mp4"]'),
        ("l.json", '{"path": "a.mp4"}\n{"path": "b c.mp4"}\n'),
        ("l.jsonl", '{"path": "a.mp4"}\n\n"b c.mp4"\n'),
        ("l.jsonl", '[{"path": "a.mp4"},\n{"path": "b c.mp4"}]'),
        ("l.ndjson", '{"video_path": "a.mp4"}\r\n{"video": "b c.mp4"}\r\n'),
    ],
)
def test_json_of_every_kind(tmp_path, name, content):
    make(tmp_path, "a.mp4", "b c.mp4")
    assert listing(tmp_path, name, content) == ["a.mp4", "b c.mp4"]


SPELLINGS = {
    "l.txt": b"a.mp4\ngone.mp4\nb.mp4\n",
    "l.csv": b"path\na.mp4\ngone.mp4\nb.mp4\n",
    "no_header.csv": b"a.mp4\ngone.mp4\nb.mp4\n",
    "l.tsv": b"x\tpath\n1\ta.mp4\n2\tgone.mp4\n3\tb.mp4\n",
    "l.json": b'["a.mp4", "gone.mp4", "b.mp4"]',
    "l.jsonl": b'"a.mp4"\n"gone.mp4"\n"b.mp4"\n',
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_one_missing_file_is_one_source(tmp_path, name):
    make(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / name).write_bytes(SPELLINGS[name])
    sources = find_sources([str(tmp_path / name)])
    assert [s.path for s in sources] == ["a.mp4", "gone.mp4", "b.mp4"]
    assert (sources[1].size_bytes, sources[1].mtime_ns) == (0, 0) and sources[1].file == tmp_path / "gone.mp4"


def test_a_missing_file_is_a_failed_row_and_curated_once_it_is_there(tmp_path):
    write_video(tmp_path / "a.mp4", [np.full((32, 32, 3), 40 + i, np.uint8) for i in range(80)], 20)
    (tmp_path / "l.txt").write_text("a.mp4\ngone.mp4\n/nowhere/else.mp4\n")
    words = ("rules={}", "operators.text_area=false")
    curate(tmp_path / "l.txt", *words, out=tmp_path / "out")
    rows = {row["source_path"]: row for row in rows_of(tmp_path / "out").values()}
    assert {path: row["status"] for path, row in rows.items()} == {
        "a.mp4": "accepted", "gone.mp4": "failed", "else.mp4": "failed",
    }  # fmt: skip
    assert "No such file" in rows["gone.mp4"]["error"]
    os.link(tmp_path / "a.mp4", tmp_path / "gone.mp4")
    curate(tmp_path / "l.txt", *words, out=tmp_path / "out")
    statuses = {row["source_path"]: row["status"] for row in rows_of(tmp_path / "out").values()}
    assert statuses == {"a.mp4": "accepted", "gone.mp4": "accepted", "else.mp4": "failed"}


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_list_of_nothing_that_is_there_is_a_mistake_and_says_where_it_looked(tmp_path, name):
    (tmp_path / name).write_bytes(SPELLINGS[name])
    with pytest.raises(UserError, match=r"entry 1: no such file: .*a\.mp4.*beside their list"):
        find_sources([str(tmp_path / name)])


IMPOSSIBLE = {
    "zero.jsonl": (b'"a\\u0000b.mp4"', "zero byte"),
    "half.jsonl": (b'"\\ud83d.mp4"', "not UTF-8"),
    "half.json": (b'["x/\\udc00/y.mp4"]', "not UTF-8"),
    "zero.csv": (b"path\nin\0side.mp4\n", "zero byte"),
    "bytes.txt": (b"caf\xe9.mp4\n", "not UTF-8"),
    "folder.txt": (b"caf\xe9/x.mp4\n/caf\xe9/x.mp4\n", "not UTF-8"),
    "long.txt": (b"x" * 100_000 + b".mp4\n", "long"),
    "long.jsonl": (b'"' + b"y" * 5_000 + b'.mp4"', "long"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_names_that_no_file_can_have_are_sources_that_fail(tmp_path, name):
    make(tmp_path, "a.mp4")
    content, problem = IMPOSSIBLE[name]
    good = {"txt": b"a.mp4\n", "csv": b"path\na.mp4\n", "jsonl": b'"a.mp4"\n', "json": b'["a.mp4"]'}[name.split(".")[1]]
    (tmp_path / "good").mkdir()
    (tmp_path / f"good.{name.split('.')[1]}").write_bytes(good)
    (tmp_path / name).write_bytes(content)
    sources = find_sources([str(tmp_path / f"good.{name.split('.')[1]}"), str(tmp_path / name)])
    assert sources[0].path == "a.mp4" and len(sources) >= 2
    for source in sources[1:]:
        assert problem in (name_problem(source) or ""), source.path[:80]
        assert source.path.encode() and "\0" not in source.path and len(source.path) < 400
        assert source.root.encode()
    again = find_sources([str(tmp_path / f"good.{name.split('.')[1]}"), str(tmp_path / name)], sources)
    assert [s.path for s in again] == [s.path for s in sources]


@pytest.mark.parametrize(
    "suffix",
    [".xlsx", ".ods", ".m3u", ".m3u8", ".lst", ".list", ".yaml", ".xml", ".md", ".feather", ".csv.gz", "", ".foo"],
)
def test_other_kinds_of_lists_are_refused_by_name_in_one_line(tmp_path, suffix):
    make(tmp_path, "a.mp4")
    path = tmp_path / f"my list{suffix}"
    path.write_text("a.mp4\n")
    with pytest.raises(UserError, match=r"my list.*neither a video or image nor a list.*\.txt, \.csv") as error:
        find_sources([str(path)])
    assert str(error.value).isprintable()


def test_a_list_that_lies_among_footage_is_counted_not_followed(tmp_path):
    make(tmp_path / "in", "a.mp4")
    (tmp_path / "in/l.txt").write_text("../outside.mp4\n")
    make(tmp_path, "outside.mp4")
    found = look_for_sources([str(tmp_path / "in")])
    assert [s.path for s in found.sources] == ["a.mp4"] and found.passed_over.by_suffix == {".txt": 1}
