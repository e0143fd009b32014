"""Inputs to sources: every file once, each with a path of its own that stays."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.errors import UserError
from curation.sources import find_sources, looks_like_image
from curation.types import Source


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
        ("l.txt", b"a.mp4\nmissing.mp4\n", r"l\.txt, entry 2: no such file: .*missing\.mp4"),
        ("l.csv", b"name,text\na.mp4,x\n", "none of the keys file_path"),
        ("l.jsonl", b"{'file_path'", "not a readable list"),
        ("l.jsonl", b"[1, 2]\n", "none of the keys"),
        ("l.parquet", b"PAR1 no", "not a readable list"),
        ("l.txt", b"\xff\xfe\x00", "not a readable list"),
        ("l.txt", b"", "no video or image"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path, name, content, message):
    make(tmp_path, "a.mp4")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        find_sources([str(tmp_path / name)])


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


def test_a_name_that_is_not_utf8_is_escaped_and_the_same_each_time(tmp_path):
    """File names are bytes; the table holds text."""
    make(tmp_path, "in/" + os.fsdecode(b"caf\xe9.mp4"), "in/é.mp4", content="x")
    before = find_sources([str(tmp_path / "in")])
    assert sorted(s.path for s in before) == ["caf\\xe9.mp4", "é.mp4"]
    assert find_sources([str(tmp_path / "in")], before) == before


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
