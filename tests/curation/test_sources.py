"""Inputs to sources: every file once, each with a path of its own that stays."""

import csv
import errno
import json
import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.errors import UserError
from curation.inputs.sources import find_sources, name_problem
from curation.types import Source
from media.names import looks_like_image


def make(root: Path, *names: str, content: str = "") -> None:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content or name)


def found(*inputs, known=()) -> list[tuple[str, str]]:
    return [(s.root, s.path) for s in find_sources([str(i) for i in inputs], known)]


def paths(*inputs, known=()) -> list[str]:
    return [path for _, path in found(*inputs, known=known)]


def test_one_file(tmp_path):
    make(tmp_path, "x/a.mp4", content="12345")
    (source,) = find_sources([str(tmp_path / "x" / "a.mp4")])
    stat = (tmp_path / "x" / "a.mp4").stat()
    assert (source.root, source.path) == (str(tmp_path / "x"), "a.mp4")
    assert (source.size_bytes, source.mtime_ns) == (5, stat.st_mtime_ns)
    assert source.file == tmp_path / "x" / "a.mp4"


def test_a_named_file_needs_no_known_extension(tmp_path):
    make(tmp_path, "a.video")
    assert paths(tmp_path / "a.video") == ["a.video"]


def test_a_folder_is_searched_deeply_sorted_without_hidden_or_other_files(tmp_path):
    make(tmp_path, "b.mp4", "a.MKV", "c/z.webm", "c/d/y.JPG", "B/x.mov", "notes.txt", "x.json", "c/no_extension")
    make(tmp_path, ".hidden.mp4", ".git/a.mp4", "c/.b/a.mp4", "c/._a.mp4")
    assert paths(tmp_path) == ["a.MKV", "b.mp4", "B/x.mov", "c/z.webm", "c/d/y.JPG"]


def test_relative_inputs_give_absolute_roots(tmp_path, monkeypatch):
    make(tmp_path, "in/a.mp4")
    monkeypatch.chdir(tmp_path)
    assert found("in") == found("./in/") == found("in/../in/a.mp4") == [(str(tmp_path / "in"), "a.mp4")]


def test_links_are_followed_and_loops_end(tmp_path):
    make(tmp_path, "in/a.mp4", "in/deep/b.mp4", "elsewhere/c.mp4")
    (tmp_path / "in/deep/up").symlink_to(tmp_path / "in")
    (tmp_path / "in/self").symlink_to("self")
    (tmp_path / "in/out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/gone.mp4").symlink_to(tmp_path / "nothing.mp4")
    (tmp_path / "in/link.mp4").symlink_to(tmp_path / "elsewhere/c.mp4")
    assert paths(tmp_path / "in") == ["a.mp4", "gone.mp4", "link.mp4", "deep/b.mp4", "out/c.mp4"]


def test_a_broken_link_is_a_source_if_its_name_is_that_of_a_video_or_image(tmp_path):
    """It becomes a row that failed; a link that vanished without a word would be footage lost unseen."""
    (tmp_path / "in").mkdir()
    for name in ("gone.mp4", "gone.jpg", "gone.txt", "gone", ".gone.mp4"):
        (tmp_path / "in" / name).symlink_to(tmp_path / "nothing")
    (tmp_path / "in/self.mp4").symlink_to("self.mp4")
    sources = find_sources([str(tmp_path / "in")])
    assert [s.path for s in sources] == ["gone.jpg", "gone.mp4", "self.mp4"]
    assert [s.mtime_ns for s in sources] == [s.file.lstat().st_mtime_ns for s in sources]
    assert paths(tmp_path / "in" / "gone.*") == ["gone.jpg", "gone.mp4"]


def test_globs(tmp_path, monkeypatch):
    make(tmp_path, "x/1.mp4", "x/2.mp4", "x/note.txt", "x/deep/3.mp4", "y/1.mp4", "x/.h.mp4")
    assert found(tmp_path / "x" / "*.mp4") == [(str(tmp_path / "x"), "1.mp4"), (str(tmp_path / "x"), "2.mp4")]
    assert paths(tmp_path / "*" / "1.mp4") == ["x/1.mp4", "y/1.mp4"]
    assert sorted(paths(tmp_path / "x" / "**" / "*.mp4")) == ["1.mp4", "2.mp4", "deep/3.mp4"]
    assert sorted(paths(tmp_path / "*")) == ["x/1.mp4", "x/2.mp4", "x/deep/3.mp4", "y/1.mp4"]
    monkeypatch.chdir(tmp_path)
    assert found("x/*.mp4") == found(tmp_path / "x" / "*.mp4")
    with pytest.raises(UserError, match=r"\*\.mkv: matches no file"):
        paths(tmp_path / "*.mkv")


def test_a_file_with_wildcards_in_its_name_is_a_file(tmp_path):
    make(tmp_path, "clip [1080p]?.mp4", "clip 1x.mp4")
    assert paths(tmp_path / "clip [1080p]?.mp4") == ["clip [1080p]?.mp4"]


@pytest.mark.parametrize("key", ["file_path", "video_path", "path", "video"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_tables_that_list_files(tmp_path, kind, key):
    make(tmp_path, "lists/a.mp4", "lists/deep/b, c.mp4", "far/d.mp4")
    entries = ["deep/b, c.mp4", "a.mp4", str(tmp_path / "far/d.mp4")]
    file = tmp_path / "lists" / f"l.{kind}"
    if kind == "csv":
        file.write_text(f"text,{key}\n" + "".join(f'"x, y","{e}"\n' for e in entries))
    elif kind == "jsonl":
        file.write_text("\n".join(json.dumps({"text": "x", key: e}) for e in entries) + "\n\n")
    else:
        pq.write_table(pa.table({"text": ["x"] * 3, key: entries}), file)
    here, far = str(tmp_path / "lists"), str(tmp_path / "far")
    assert found(file) == [(here, "deep/b, c.mp4"), (here, "a.mp4"), (far, "d.mp4")]


def test_plain_lists_skip_blanks_and_comments(tmp_path):
    make(tmp_path, "a.mp4", "b c.mp4")
    (tmp_path / "l.txt").write_text("# two\n\n  a.mp4  \r\nb c.mp4")
    assert paths(tmp_path / "l.txt") == ["a.mp4", "b c.mp4"]


@pytest.mark.parametrize("kind", ["txt", "csv"])
def test_lists_as_windows_programs_save_them(tmp_path, kind):
    make(tmp_path, "a.mp4")
    text = "a.mp4\r\n" if kind == "txt" else "file_path\r\na.mp4\r\n"
    (tmp_path / f"l.{kind}").write_text(text, encoding="utf-8-sig", newline="")
    assert paths(tmp_path / f"l.{kind}") == ["a.mp4"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.txt", b"missing.mp4\nother.mp4\n", r"l\.txt, entry 1: no such file: .*missing\.mp4"),
        ("l.txt", b"../missing.mp4", r"entry 1: no such file: .*missing\.mp4"),
        ("l.txt", b"x" * 1_000_000, "entry 1: no such file: .*xxx…"),
        ("l.txt", b"\x1b[2J\xe9\n", r"no such file: .*\\x1b\[2J\\udce9"),
        ("l.txt", b"a\0.mp4\n", "not a readable list .it holds zero bytes; save it as UTF-8"),
        ("l.txt", b"\xff\xfea\0.\0m\0p\0004\0", "not a readable list .it holds zero bytes"),
        ("l.txt", b"", "no video or image"),
        ("l.csv", b"name,text\na.mp4,x\n", "entry 1 has none of the keys file_path"),
        ("l.csv", b"path\na.mp4\n\xe9.mp4\n", "not a readable list"),
        ("l.csv", b"path\na\0.mp4\n", r"entry 1: no such file: .*a\\x00\.mp4"),
        ("l.csv", b"path\n" + b"x" * 200_000, "not a readable list .field larger than"),
        ("l.csv", b'path\n"a.mp4\n\n', r"no such file: .*a\.mp4\\n"),
        ("l.jsonl", b"{'file_path'", "not a readable list"),
        ("l.jsonl", b'"a.mp4"\n[1, 2]\n', "entry 2 has none of the keys"),
        ("l.jsonl", b'"a.mp4"\n' + b"[" * 100_000, "not a readable list .nested too deeply"),
        ("l.jsonl", b'{"path": ' + b"9" * 10_000 + b"}", "not a readable list .*digits"),
        ("l.jsonl", b'"\\u0000.mp4"', r"no such file: .*\\x00\.mp4"),
        ("l.jsonl", b'"\\ud800.mp4"', r"no such file: .*\\ud800\.mp4"),
        ("l.jsonl", b'{"path": {"path": "a.mp4"}}', "entry 1 has none of the keys"),
        ("l.parquet", b"PAR1 no", "not a readable list"),
        ("l.parquet", b"", "not a readable list"),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_lists_that_cannot_be_used(tmp_path, name, content, message):
    make(tmp_path, "a.mp4")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        find_sources([str(tmp_path / name)])
    assert str(error.value).isprintable() and len(str(error.value)) < 800


@pytest.mark.parametrize(
    ("column", "names"),
    [
        (pa.array(["a.mp4", "b.mp4"]).dictionary_encode(), ["a.mp4", "b.mp4"]),
        (pa.array(["b.mp4"], pa.large_string()), ["b.mp4"]),
        (pa.array([b"a.mp4"], pa.binary()), None),
        (pa.array([1, 2]), None),
        (pa.array([["a.mp4"]]), None),
        (pa.array([{"path": "a.mp4"}]), None),
        (pa.array(["a.mp4", None]), None),
        (pa.nulls(1), None),
    ],
    ids=lambda value: str(getattr(value, "type", value)),
)
def test_parquet_lists_of_any_type_are_read_or_refused_in_a_line(tmp_path, column, names):
    make(tmp_path, "a.mp4", "b.mp4")
    pq.write_table(pa.table({"path": column, "embedding": [[0.5] * 9] * len(column)}), tmp_path / "l.parquet")
    if names:
        assert paths(tmp_path / "l.parquet") == names
        return
    with pytest.raises(UserError, match="has none of the keys"):
        paths(tmp_path / "l.parquet")


def test_a_parquet_list_without_a_column_of_paths_is_refused(tmp_path):
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "l.parquet")
    with pytest.raises(UserError, match="entry 1 has none of the keys"):
        paths(tmp_path / "l.parquet")


def test_a_list_that_names_itself_or_another_list_is_not_followed(tmp_path):
    """It comes in as a source, and fails as one: no list can lead round in a circle."""
    make(tmp_path, "a.mp4")
    for name, other in (("l.txt", "m.txt"), ("m.txt", "l.txt")):
        (tmp_path / name).write_text(f"{name}\n{other}\na.mp4\n")
    assert paths(tmp_path / "l.txt") == ["l.txt", "m.txt", "a.mp4"]


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=30).map(
    lambda stem: f"{stem}.mp4"
)
ODD_NAMES = [
    "a\nb",
    "a\rb",
    "\r",
    " lead",
    "#no comment",
    "q\"u,o;t'e",
    "-rf",
    "..",
    "\u2028",
    "x\x85y",
    "\ufeff",
    "=1+1",
]


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(NAMES, min_size=1, max_size=5, unique=True), kind=st.sampled_from(["txt", "csv", "jsonl", "parquet"])
)
@example(names=[f"{name}.mp4" for name in ODD_NAMES], kind="csv")
@example(names=[f"{name}.mp4" for name in ODD_NAMES], kind="jsonl")
@example(names=[f"{name}.mp4" for name in ODD_NAMES], kind="parquet")
@example(names=[f"{name}.mp4" for name in ODD_NAMES[1:]], kind="txt")
def test_every_name_that_a_file_system_takes_comes_back_from_a_list(names, kind):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "in")
        folder.mkdir()
        if kind == "txt":
            names = [name for name in names if "\n" not in name] or ["a.mp4"]
        for name in names:
            (folder / name).write_bytes(name.encode())
        file = Path(place, f"l.{kind}")
        if kind == "txt":
            file.write_text("\n".join(f"in/{name}" for name in names), encoding="utf-8", newline="")
        elif kind == "csv":
            with file.open("w", newline="", encoding="utf-8") as written:
                csv.writer(written, quoting=csv.QUOTE_ALL).writerows([["path"], *([f"in/{name}"] for name in names)])
        elif kind == "jsonl":
            file.write_text("\n".join(json.dumps({"path": f"in/{n}"}, ensure_ascii=False) for n in names), newline="")
        else:
            pq.write_table(pa.table({"path": [f"in/{name}" for name in names]}), file)
        sources = find_sources([str(file)])
        assert [s.path for s in sources] == [f"in/{name}" for name in names]
        assert [s.file.read_bytes().decode() for s in sources if name_problem(s) is None] == names
        shown = {name for name in names if not name.startswith(".")}
        if shown:
            assert {s.path for s in find_sources([str(folder)])} == shown


def test_a_list_costs_little_for_each_entry(tmp_path):
    """A million entries within half a minute: three times that, on a machine that does other things as well."""
    names = [f"{i % 50}/{i}.mp4" for i in range(5_000)]
    for i in range(50):
        (tmp_path / str(i)).mkdir()
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "l.txt").write_text("\n".join(names * 4))
    begin = time.process_time()
    sources = find_sources([str(tmp_path / "l.txt")])
    assert [s.path for s in sources] == names
    assert (time.process_time() - begin) / (4 * len(names)) < 100e-6


def test_what_is_missing_or_empty_is_said(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        paths(tmp_path / "nowhere")
    make(tmp_path, "in/readme.md")
    with pytest.raises(UserError, match="no video or image in it"):
        paths(tmp_path / "in")
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(UserError, match="neither a file nor a folder"):
        paths(tmp_path / "pipe.mp4")


def test_an_input_of_no_letters_does_not_mean_this_folder(tmp_path, monkeypatch):
    """A shell variable that is not set."""
    make(tmp_path, "a.mp4")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        paths("")


# -- trees that are not as they should be


def closing(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Let folders refuse to be listed; taking their rights away would not stop the superuser."""
    scandir = os.scandir

    def refused(path):
        if str(path) in map(str, folders):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)


def test_a_folder_that_cannot_be_read_is_a_source_that_fails(tmp_path, monkeypatch):
    """Not the end of a run over all others, and not a hole in the table either."""
    make(tmp_path, "in/a.mp4", "in/lost+found/b.mp4", "in/z/c.mp4")
    closing(monkeypatch, tmp_path / "in/lost+found")
    for text in ("in", "in/**/*.mp4"):
        sources = find_sources([str(tmp_path / text)])
        assert sorted(s.path for s in sources) == ["a.mp4", "lost+found/", "z/c.mp4"]
        told = {s.path: name_problem(s) for s in sources if name_problem(s)}
        assert told == {"lost+found/": "the folder cannot be read; grant access, or leave it out"}
    again = find_sources([str(tmp_path / "in")], sources)
    assert sorted(s.path for s in again) == sorted(s.path for s in sources)


def test_a_folder_that_can_be_read_again_gives_its_files(tmp_path, monkeypatch):
    make(tmp_path, "in/a.mp4", "in/locked/b.mp4")
    with monkeypatch.context() as context:
        closing(context, tmp_path / "in/locked")
        known = find_sources([str(tmp_path / "in")])
    assert paths(tmp_path / "in", known=known) == ["a.mp4", "locked/b.mp4"]


def test_a_folder_named_on_the_command_line_must_be_readable(tmp_path, monkeypatch):
    make(tmp_path, "in/a.mp4")
    closing(monkeypatch, tmp_path / "in")
    with pytest.raises(UserError, match=r"in: cannot be read \(Permission denied\); grant access or leave it out"):
        paths(tmp_path / "in")


def test_a_file_that_vanishes_while_sources_are_found_is_a_source(tmp_path, monkeypatch):
    make(tmp_path, "in/a.mp4", "in/b.mp4")
    look = os.stat

    def vanishing(path, *how, **named):
        if str(path).endswith("a.mp4"):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return look(path, *how, **named)

    monkeypatch.setattr(os, "stat", vanishing)
    monkeypatch.setattr(os, "lstat", vanishing)
    assert [(s.path, s.size_bytes) for s in find_sources([str(tmp_path / "in")])] == [("a.mp4", 0), ("b.mp4", 8)]


def test_links_that_lead_up_are_not_followed(tmp_path):
    """A link to `/` in footage from elsewhere must not bring in the whole machine."""
    make(tmp_path, "in/a.mp4", "in/deep/b.mp4", "private.mp4", "other/c.mp4")
    for name, target in (("root", "/"), ("above", ".."), ("deep/here", "."), ("deep/top", "../..")):
        (tmp_path / "in" / name).symlink_to(target)
    assert paths(tmp_path / "in") == ["a.mp4", "deep/b.mp4"]


def test_a_glob_does_not_go_round_in_links(tmp_path):
    """Two links to the folder they are in: the library's `**` would walk 2**40 folders."""
    make(tmp_path, "in/a.mp4", "in/deep/b.mp4", "in/deep/er/c.mp4", "in/[x]/d.mp4")
    for name in ("one", "two", "deep/one", "deep/two"):
        (tmp_path / "in" / name).symlink_to(".")
    everything = ["[x]/d.mp4", "a.mp4", "deep/b.mp4", "deep/er/c.mp4"]
    begin = time.monotonic()
    for pattern in ("**/*.mp4", "**", "**/**/*.mp4", "**/**", "*", "**/*"):
        assert sorted(paths(f"{tmp_path}/in/{pattern}")) == sorted(everything), pattern
    assert paths(f"{tmp_path}/*/**/er/*.mp4") == ["in/deep/er/c.mp4"]
    assert time.monotonic() - begin < 20


def test_globs_begin_in_the_folder_one_is_in_whatever_its_name(tmp_path, monkeypatch):
    make(tmp_path, "raw [1080p]*/a.mp4", "raw [1080p]*/deep/b.mp4", "other/a.mp4")
    monkeypatch.chdir(tmp_path / "raw [1080p]*")
    assert paths("*.mp4") == ["a.mp4"]
    assert paths("**/*.mp4") == ["a.mp4", "deep/b.mp4"]
    assert found("*/../a*.mp4") == [(str(tmp_path / "raw [1080p]*"), "a.mp4")]
    assert found("../r*/a.mp4") == [(str(tmp_path), "raw [1080p]*/a.mp4")]
    assert found("*/../../o*/a.mp4") == [(str(tmp_path / "other"), "a.mp4")]


def test_a_tree_deeper_than_the_stack_is_searched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        for _ in range(1_100):
            os.mkdir("d")
            os.chdir("d")
        Path("a.mp4").touch()
        os.chdir(tmp_path)
        assert paths(tmp_path) == ["d/" * 1_100 + "a.mp4"]
    finally:  # pytest would delete it by recursion
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)


def test_pipes_sockets_and_long_names_stop_nothing(tmp_path, monkeypatch):
    make(tmp_path, "a.mp4", f"{'x' * 251}.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as here:
        here.bind("s.mp4")
        assert paths(tmp_path) == ["a.mp4", f"{'x' * 251}.mp4"]
    for text in ("x" * 300, f"{tmp_path}/{'y/' * 3_000}a.mp4", "~" + "x" * 5_000):
        with pytest.raises(UserError, match="no such file or folder") as error:
            paths(text)
        assert len(str(error.value)) < 400


# -- paths


def test_equal_stems_are_two_sources(tmp_path):
    make(tmp_path, "a.mp4", "a.mkv", "A.mp4", "a.jpg")
    assert sorted(paths(tmp_path)) == ["A.mp4", "a.jpg", "a.mkv", "a.mp4"]


def test_a_file_named_more_than_once_is_one_source(tmp_path):
    make(tmp_path, "in/x/a.mp4", "in/b.mp4")
    (tmp_path / "l.txt").write_text("in/x/a.mp4\nin/x/a.mp4\n")
    named = [tmp_path / "in", tmp_path / "in/x/a.mp4", tmp_path / "in" / "*.mp4", tmp_path / "l.txt", tmp_path / "in/x"]
    assert found(*named) == [(str(tmp_path / "in"), "b.mp4"), (str(tmp_path / "in"), "x/a.mp4")]


def test_equal_names_in_two_folders_are_told_apart_by_the_folders_above(tmp_path):
    make(tmp_path, "one/in/a.mp4", "two/in/a.mp4", "two/in/b.mp4", "three/in/a.mp4")
    named = [tmp_path / n / "in" for n in ("one", "two", "three")]
    assert found(*named) == [
        (str(tmp_path / "one/in"), "a.mp4"),
        (str(tmp_path / "two"), "in/a.mp4"),
        (str(tmp_path / "two/in"), "b.mp4"),
        (str(tmp_path), "three/in/a.mp4"),
    ]


def test_copies_with_the_same_bytes_have_paths_of_their_own(tmp_path):
    make(tmp_path, "one/a.mp4", "two/a.mp4", "two/copy.mp4", content="same")
    given = paths(tmp_path / "one", tmp_path / "two")
    assert len(set(given)) == len(given) == 3


@pytest.mark.parametrize("name", ["a\nb.mp4", 'it\'s "x".mp4', "-rf.mp4", "k=v.mp4", "ünï ☃.mp4", " .mp4", "a\tb#.mp4"])
def test_odd_names(tmp_path, name):
    make(tmp_path, f"in/{name}")
    assert paths(tmp_path / "in") == paths(tmp_path / "in" / name) == [name]


def named(folder: Path, *names: bytes) -> list[Source]:
    """Make files by the bytes of their names, and give the folder's sources."""
    folder.mkdir(exist_ok=True)
    for name in names:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_text("x")
    return find_sources([str(folder)])


def test_a_name_that_is_not_utf8_is_escaped_and_the_same_each_time(tmp_path):
    """File names are bytes; the table holds text."""
    before = named(tmp_path / "in", b"caf\xe9.mp4", "é.mp4".encode())
    assert [s.path.startswith("caf\\xe9~") and s.path.endswith(".mp4") for s in before] == [True, False]
    assert before[1].path == "é.mp4" and before[0].path.isascii()
    assert find_sources([str(tmp_path / "in")], before) == before


def test_a_name_that_is_not_utf8_and_one_spelt_like_its_escape_are_two_sources(tmp_path):
    """Whoever names files may try to let one hide behind another."""
    first = named(tmp_path / "in", b"caf\xe9.mp4", b"caf\xe8.mp4", rb"caf\xe9.mp4", rb"caf\xe9~00000000.mp4")
    spelt = [os.fsencode(s.path) for s in first]
    both = named(tmp_path / "in", *spelt)
    assert len({s.path for s in both}) == len(both) == 7
    assert [s.path for s in both if s.file.is_file() and name_problem(s) is None] == ["caf\\xe9.mp4"]
    assert [s.path for s in find_sources([str(tmp_path / "in")], first)] == [s.path for s in both]


def test_what_cannot_be_opened_by_its_name_says_so(tmp_path):
    sources = named(tmp_path / "in", b"caf\xe9.mp4", rb"a\xe9b.mp4", b"a~12345678.mp4", b"-.mp4")
    problems = {s.path.partition("~")[0]: name_problem(s) for s in sources}
    assert problems.pop(
        "caf\\xe9"
    ) == "the name is not UTF-8 (or spelt as one that is not); rename the file, or the " + ("folder it is in")
    assert set(problems.values()) == {None} and len(problems) == 3


def test_a_folder_whose_name_is_not_utf8_fails_inside_another_and_is_refused_by_itself(tmp_path):
    inner = Path(os.fsdecode(os.fsencode(tmp_path) + b"/in/caf\xe9"))
    inner.mkdir(parents=True)
    (inner / "a.mp4").write_text("x")
    (source,) = find_sources([str(tmp_path / "in")])
    assert source.path.startswith("caf\\xe9/a~") and name_problem(source)
    for text in (inner, inner / "a.mp4", f"{inner}/*.mp4"):
        with pytest.raises(UserError, match=r"caf\\udce9: the name of this folder is not UTF-8; rename it"):
            paths(text)


def test_every_path_leads_to_its_file(tmp_path):
    make(tmp_path, "a/x.mp4", "b/x.mp4", "b/a/x.mp4", "a/a/x.mp4", "c/b/x.mp4")
    inputs = [str(tmp_path / n) for n in ("a", "b", "c/b", "a/a")]
    sources = find_sources(inputs)
    assert sorted(s.file for s in sources) == sorted(tmp_path.rglob("*.mp4"))
    assert len({s.path for s in sources}) == len(sources)


# -- an output that has sources already


def known_of(*inputs) -> list[Source]:
    return find_sources([str(i) for i in inputs])


def test_known_sources_keep_their_paths_in_any_order_of_inputs(tmp_path):
    make(tmp_path, "one/a.mp4", "two/a.mp4")
    one, two = tmp_path / "one", tmp_path / "two"
    known = known_of(one, two)
    before = found(one, two)
    assert sorted(found(two, one, known=known)) == sorted(before)
    assert found(two, known=known) == before[1:]
    assert found(one, known=known) == before[:1]


def test_a_new_folder_does_not_take_the_path_of_a_known_source(tmp_path):
    make(tmp_path, "one/a.mp4", "two/a.mp4")
    known = known_of(tmp_path / "two")
    assert found(tmp_path / "one", tmp_path / "two", known=known) == [
        (str(tmp_path), "one/a.mp4"),
        (str(tmp_path / "two"), "a.mp4"),
    ]


def test_footage_that_was_moved_keeps_its_paths(tmp_path):
    make(tmp_path, "old/a.mp4", "old/x/b.mp4")
    known = known_of(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    assert found(tmp_path / "new", known=known) == [
        (str(tmp_path / "new"), "a.mp4"),
        (str(tmp_path / "new"), "x/b.mp4"),
    ]


def test_only_the_same_file_counts_as_moved(tmp_path):
    """The same name alone says nothing: gone there, and of the same size and time here."""
    make(tmp_path, "old/a.mp4", "old/b.mp4", "old/c.mp4", "old/d.mp4", content="12345")
    known = known_of(tmp_path / "old")
    (tmp_path / "new").mkdir()
    for source in known:
        name, mtime = source.path, source.mtime_ns
        content = "1234567" if name == "a.mp4" else "12345"
        make(tmp_path, f"new/{name}", content=content)
        os.utime(tmp_path / "new" / name, ns=(0, mtime + (name == "b.mp4") * 1_000_000_000))
        if name != "c.mp4":
            source.file.unlink()
    new, above = str(tmp_path / "new"), str(tmp_path)
    assert found(tmp_path / "new", known=known) == [
        (above, "new/a.mp4"),  # of another size
        (above, "new/b.mp4"),  # of another time
        (above, "new/c.mp4"),  # still there as well
        (new, "d.mp4"),
    ]


def test_a_known_source_that_changed_keeps_its_path_with_its_new_size_and_time(tmp_path):
    make(tmp_path, "in/a.mp4", content="12345")
    known = known_of(tmp_path / "in")
    make(tmp_path, "in/a.mp4", content="1234567")
    os.utime(tmp_path / "in/a.mp4", ns=(0, 42))
    assert find_sources([str(tmp_path / "in")], known) == [Source(str(tmp_path / "in"), "a.mp4", 7, 42)]


def test_a_known_source_keeps_its_path_when_its_namesake_is_deleted(tmp_path):
    make(tmp_path, "one/a.mp4", "two/a.mp4")
    known = known_of(tmp_path / "one", tmp_path / "two")
    (tmp_path / "one/a.mp4").unlink()
    assert found(tmp_path / "two", known=known) == [(str(tmp_path), "two/a.mp4")]


def test_a_known_source_keeps_its_path_when_it_is_named_otherwise(tmp_path):
    """Else the same file would be curated twice into one output."""
    make(tmp_path, "in/x/a.mp4")
    known = known_of(tmp_path / "in")
    assert paths(tmp_path / "in/x/a.mp4", known=known) == ["x/a.mp4"]
    assert paths(tmp_path / "in/x", known=known) == ["x/a.mp4"]


def test_images_are_told_by_name():
    assert looks_like_image(Path("a.JPEG"))
    assert not looks_like_image(Path("a.gif"))
    assert not looks_like_image(Path("jpg"))
