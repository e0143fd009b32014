"""Metadata of every format becomes rows; every row is a row, refused with its fix, or left out and counted."""

import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from runs import curate, rows_of

from core.errors import UserError
from curation.export import export
from curation.export.how import ExportSettings
from curation.schema import blank_row, table_schema
from demo.drawing import write_video
from train_bridge.config import DataSettings
from train_bridge.data import facts
from train_bridge.data.facts import probe_rows
from train_bridge.data.metadata import Metadata, read_metadata
from train_bridge.types import Refusal, TrainRow

FPS, SIZE = 12, (96, 64)
SCHEMA = table_schema(["motion"])


def draw(path: Path, count: int = 36, **how) -> Path:
    pictures = [np.full((SIZE[1], SIZE[0], 3), 90, np.uint8) for _ in range(count)]
    for i, picture in enumerate(pictures):
        picture[:, i % 90 : i % 90 + 6] = 220
    write_video(path, pictures, FPS, **how)
    return path


def read(source: Path, **keys) -> Metadata:
    return read_metadata(DataSettings(metadata=str(source), **keys))


def ids(metadata: Metadata) -> list[str]:
    return [row.row_id for row in metadata.rows]


def only(metadata: Metadata) -> Refusal:
    assert len(metadata.refused) == 1, metadata.refused
    return metadata.refused[0]


# -- outputs of `curate` ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sources and two outputs of one drawn video and one image: cut, and not cut."""
    folder = tmp_path_factory.mktemp("curated")
    (folder / "in").mkdir()
    draw(folder / "in" / "a.mp4")
    Image.new("RGB", (40, 30), (9, 90, 200)).save(folder / "in" / "b.png")
    for mode in ("transcode", "none"):
        recipe = folder / f"{mode}.yaml"
        shots = "{detector: stride, settings: {every_s: 2}, min_s: 0.5, max_s: 1.0}"
        recipe.write_text(f"shots: {shots}\noperators: {{motion: }}\ncut: {{mode: {mode}}}\n")
        curate(folder / "in", "--config", recipe, out=folder / mode)
    return folder


def test_clips_of_an_output(curated: Path) -> None:
    out = curated / "transcode"
    table = rows_of(out)
    metadata = read(out)
    assert set(ids(metadata)) == set(table) and len(table) == 4
    assert metadata.refused == () and metadata.left_out == 0 and metadata.source == out
    for row in metadata.rows:
        truth = table[row.row_id]
        assert row.path == out / truth["clip_path"] and row.path.is_file()
        assert (row.caption, row.kind, row.source) == (truth["caption"], truth["type"], truth["source_id"])
        assert (row.width_px, row.height_px) == (truth["clip_width_px"], truth["clip_height_px"])
        assert (row.start_s, row.end_s, row.weight) == (None, None, 1.0)
        assert (row.num_frames, row.duration_s) == ((12, 1.0) if row.kind == "video" else (1, 0.0))
        bare = replace(row, width_px=None, height_px=None, num_frames=None, duration_s=None)
        assert probe_rows([bare]) == ((row,), ()), "the file says what the table says"


def test_uncut_clips_are_spans_of_their_sources(curated: Path) -> None:
    table = rows_of(curated / "none")
    metadata = read(curated / "none")
    assert set(ids(metadata)) == set(table) and metadata.refused == ()
    for row in metadata.rows:
        truth = table[row.row_id]
        assert row.path == curated / "in" / truth["source_path"]
        assert (row.start_s, row.end_s) == (truth["start_s"], truth["end_s"])
        assert (row.width_px, row.height_px) == (truth["width_px"], truth["height_px"])
        assert (row.num_frames, row.duration_s) == ((12, 1.0) if row.kind == "video" else (1, 0.0))
        bare = replace(row, width_px=None, num_frames=None)
        assert probe_rows([bare]) == ((row,), ()), "packets of the span are counted, not of the file"
    assert sorted(row.start_s for row in metadata.rows if row.kind == "video") == [0.0, 1.0, 2.0]


def test_sources_that_moved_are_found_by_their_root(curated: Path, tmp_path: Path) -> None:
    out = shutil.copytree(curated / "none", tmp_path / "out")
    table = pq.read_table(out / "clips" / "part-00000.parquet")
    gone = pa.array([str(tmp_path / "gone")] * len(table))
    moved = table.set_column(table.column_names.index("source_root"), "source_root", gone)
    pq.write_table(moved, out / "clips" / "part-00000.parquet")
    metadata = read(out)
    assert metadata.rows == () and len(metadata.refused) == 4
    assert {(r.key, r.reason) for r in metadata.refused} == {("source_path", "no such file")}
    assert "data.root" in metadata.refused[0].fix
    assert len(read(out, root=str(curated / "in")).rows) == 4


def test_expressions_over_the_table(curated: Path) -> None:
    table = rows_of(curated / "transcode")
    assert all((row["motion"] is None) == (row["type"] == "image") for row in table.values())
    where = "(motion >= 0 and start_s >= 1) or type == 'image'"
    metadata = read(curated / "transcode", where=where, weight="duration_s * 2 + 1")
    expected = {i for i, row in table.items() if row["type"] == "image" or row["start_s"] >= 1}
    assert {*ids(metadata), *(r.row_id for r in metadata.refused)} == expected
    assert metadata.left_out == 4 - len(expected) == 1
    assert {row.weight for row in metadata.rows} == {3.0}
    image = only(metadata)
    assert (image.key, image.reason, table[image.row_id]["type"]) == ("weight", "is missing", "image")
    with pytest.raises(UserError, match=r"data.where: no column 'moton' \(did you mean 'motion'"):
        read(curated / "transcode", where="moton > 1")
    with pytest.raises(UserError, match="the column holds list"):
        read(curated / "transcode", where="reasons == 'a'")


def made(out: Path, *changes: dict) -> Path:
    """Write an output's table and its clips' files."""
    rows = []
    for i, change in enumerate(changes):
        suffix = ".jpg" if change.get("type") == "image" else ".mp4"
        values = {
            "clip_id": f"id-{i}", "type": "video", "status": "accepted", "caption": f"caption {i}",
            "clip_path": f"train/id-{i}{suffix}", "clip_width_px": 640, "clip_height_px": 360, "clip_fps": 24.0,
            "clip_num_frames": 96, "duration_s": 4.0, "source_path": "a.mp4", "motion": float(i),
        }  # fmt: skip
        rows.append({**blank_row(SCHEMA), **values, **change})
    (out / "clips").mkdir(parents=True)
    (out / "train").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), out / "clips" / "part-00000.parquet")
    for row in rows:
        if row["clip_path"]:
            (out / row["clip_path"]).write_bytes(b"x")
    return out


def test_rows_of_an_output_that_cannot_be_used(tmp_path: Path) -> None:
    out = made(
        tmp_path / "out",
        {"caption": None},
        {"status": "rejected"},
        {"status": "failed", "caption": None, "clip_path": None},
        {"clip_path": None, "source_root": str(tmp_path)},
        {"clip_path": None, "start_s": 0.0, "end_s": 1.0},
        {"clip_width_px": None, "clip_num_frames": None},
        {"clip_path": "train/../../secret.mp4"},
        {},
    )
    (tmp_path / "secret.mp4").write_bytes(b"x")
    (out / "train" / "id-7.mp4").unlink()
    metadata = read(out)
    assert ids(metadata) == ["id-5"]
    assert (metadata.rows[0].width_px, metadata.rows[0].num_frames, metadata.rows[0].height_px) == (None, None, 360)
    assert [(r.where, r.key, r.reason) for r in metadata.refused] == [
        ("clip id-0", "caption", "is missing"),
        ("clip id-3", "start_s", "has neither a file nor a span"),
        ("clip id-4", "source_root", "is missing"),
        ("clip id-6", "clip_path", "leads out of the root"),
        ("clip id-7", "clip_path", "no such file"),
    ]
    assert "curate" in metadata.refused[-1].fix
    assert str(metadata.refused[0]).startswith("clip id-0: caption: is missing; write one")
    without = read_metadata(DataSettings(metadata=str(out)), captions=False)
    assert ids(without) == ["id-0", "id-5"] and without.rows[0].caption == ""


# -- what `export` writes reads back ---------------------------------------------------------------------

CAPTIONS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40).filter(str.strip),
    min_size=1, max_size=5,
)  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(captions=CAPTIONS)
@example(captions=['=HYPERLINK("x")', '"', '""', "a,b", "a\rb", "a\nb", "\r\na", "\u2028x", "'", "\\", "\ufeffx"])
@example(
    captions=["'=1", "''+1", "-", "@", "'", "''", "'-'", " =1", "\t=", '"=1"', "'tis", "＝1", "\ufeff=1", "<", "a\x85"]
)
def test_every_export_reads_back(captions: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        changes = [{"caption": c, "type": "image" if i == 2 else "video"} for i, c in enumerate(captions)]
        out = made(Path(name) / "out", *changes, {"status": "rejected"}, {"caption": None})
        table = read(out)
        expected = [(row.path, row.caption, row.kind) for row in table.rows]
        assert [caption for _, caption, _ in expected] == captions
        videos = [row for row in expected if row[2] == "video"]
        for format, absolute, rows in (
            ("internal", False, expected),
            ("internal", True, expected),
            ("diffusers", False, expected),
            ("webvid", False, videos),
            ("webvid", True, videos),
        ):
            path = export(out, format, ExportSettings(absolute=absolute)).paths[0]
            metadata = read(path, absolute=absolute)
            assert [(row.path, row.caption, row.kind) for row in metadata.rows] == rows, format
            assert metadata.refused == ()
            if format == "internal":
                same = ("row_id", "width_px", "height_px", "num_frames", "duration_s")
                assert [[getattr(r, n) for n in same] for r in metadata.rows] == [
                    [getattr(r, n) for n in same] for r in table.rows
                ]
            if absolute:
                refused = read(path).refused
                assert len(refused) == len(rows) and {r.reason for r in refused} == {"is an absolute path"}
                assert "data.absolute=true" in refused[0].fix
        assert read(out / "train").rows == read(out / "train" / "metadata.jsonl").rows


# -- JSON and CSV ----------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    for name in ("a.mp4", "b.mp4", "c.jpg", "deep/d.MOV"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def write_json(folder: Path, *items: object, name: str = "m.json") -> Path:
    (folder / name).write_text(json.dumps(items))
    return folder / name


GOOD = {"file_path": "a.mp4", "text": "a", "type": "video"}


def test_keys_of_the_internal_json(files: Path) -> None:
    source = write_json(
        files,
        {**GOOD, "width": "640", "height": 360.0, "fps": 24, "num_frames": "48", "clip_id": 7},
        {"file_path": "c.jpg", "text": "no type: an image", "fps": 0},
        {"file_path": "deep/d.MOV", "text": "no type: a known video name"},
        {"file_path": "deep/../b.mp4", "text": "stays inside", "type": "video", "width": None, "fps": ""},
    )
    metadata = read(source)
    assert metadata.refused == ()
    assert metadata.rows == (
        TrainRow("7", files / "a.mp4", "a", "video", 640, 360, 48, 2.0),
        TrainRow("c.jpg", files / "c.jpg", "no type: an image", "image", None, None, 1, 0.0),
        TrainRow("deep/d.MOV", files / "deep/d.MOV", "no type: a known video name", "video"),
        TrainRow("deep/../b.mp4", files / "deep/../b.mp4", "stays inside", "video"),
    )


@pytest.mark.parametrize(
    ("item", "key", "reason"),
    [
        ("a.mp4", "row", "is not an object"),
        ({"text": "a", "type": "video"}, "file_path", "is missing"),
        ({**GOOD, "file_path": 5}, "file_path", "is not a text"),
        ({**GOOD, "file_path": " "}, "file_path", "is missing"),
        ({**GOOD, "file_path": "gone.mp4"}, "file_path", "no such file"),
        ({**GOOD, "file_path": "gone/a.mp4"}, "file_path", "no such file"),
        ({**GOOD, "file_path": "a.mp4/b.mp4"}, "file_path", "no such file"),
        ({**GOOD, "file_path": "x" * 5000}, "file_path", "no such file"),
        ({**GOOD, "file_path": "deep"}, "file_path", "is not a file"),
        ({**GOOD, "file_path": "deep/"}, "file_path", "is not a file"),
        ({**GOOD, "file_path": "a\0.mp4"}, "file_path", "holds a zero byte"),
        ({**GOOD, "file_path": "\ud800.mp4"}, "file_path", "holds bytes that are no UTF-8, or half a character"),
        ({**GOOD, "text": None}, "text", "is missing"),
        ({**GOOD, "text": " \n"}, "text", "is missing"),
        ({**GOOD, "text": ["a"]}, "text", "is not a text"),
        ({**GOOD, "text": "a\0"}, "text", "holds a zero byte"),
        ({**GOOD, "text": "half \udcff"}, "text", "holds bytes that are no UTF-8, or half a character"),
        ({**GOOD, "type": "Video"}, "type", "is neither video nor image"),
        ({**GOOD, "type": ["video"]}, "type", "is neither video nor image"),
        ({**GOOD, "width": -1}, "width", "is not a positive whole number"),
        ({**GOOD, "width": True}, "width", "is not a positive whole number"),
        ({**GOOD, "height": "tall"}, "height", "is not a positive whole number"),
        ({**GOOD, "height": 10**400}, "height", "is not a positive whole number"),
        ({**GOOD, "num_frames": 1.5}, "num_frames", "is not a positive whole number"),
        ({**GOOD, "fps": float("nan")}, "fps", "is not a positive number"),
        ({**GOOD, "clip_id": {}}, "clip_id", "is not a text"),
        ({**GOOD, "file_path": "b.mp4"}, "file_path", "is there twice"),
        ({**GOOD, "clip_id": "b.mp4"}, "clip_id", "is there twice"),
    ],
)
def test_odd_rows_are_refused_alone(files: Path, item: object, key: str, reason: str) -> None:
    metadata = read(write_json(files, {**GOOD, "file_path": "b.mp4"}, item))
    assert ids(metadata) == ["b.mp4"]
    refusal = only(metadata)
    assert (refusal.where, refusal.key, refusal.reason) == ("m.json[1]", key, reason)
    assert refusal.fix and "\n" not in str(refusal)


JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=3,
)
ODD_ROWS = st.one_of(
    JSON_VALUES,
    st.fixed_dictionaries(
        {},
        optional={
            "file_path": st.one_of(st.sampled_from(["a.mp4", "c.jpg", "..", "/", "deep/../..", "a.mp4/"]), JSON_VALUES),
            "file_name": JSON_VALUES,
            "text": st.one_of(st.just("a"), JSON_VALUES),
            "type": st.one_of(st.sampled_from(["video", "image"]), JSON_VALUES),
            **dict.fromkeys(["width", "height", "fps", "num_frames", "clip_id", "score"], JSON_VALUES),
        },
    ),
)


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(ODD_ROWS, max_size=5), lines=st.booleans(), expressions=st.booleans())
def test_every_row_is_used_refused_or_left_out(rows: list, lines: bool, expressions: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("a.mp4", "b.mp4", "c.jpg"):
            (folder / file).write_bytes(b"x")
        rows = [{**GOOD, "file_path": "b.mp4", "score": 1}, *rows]
        source = folder / "metadata"
        source.write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows))
        keys = {"where": "score > 0 or type == 'image'", "weight": "score"} if expressions else {}
        try:
            metadata = read(source, **keys)
        except UserError as error:  # most scores are texts, and a text cannot be compared with a number
            assert expressions and "this is a" in str(error)
            return
        assert len(metadata.rows) + len(metadata.refused) + metadata.left_out == len(rows)
        assert len({row.row_id for row in metadata.rows}) == len(metadata.rows)
        for row in metadata.rows:
            assert row.path.is_file() and row.path.resolve().parent == folder.resolve() and row.caption.strip()
            assert row.weight >= 0


def test_paths_stay_below_the_root(files: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("elsewhere")
    (other / "e.mp4").write_bytes(b"x")
    (files / "link.mp4").symlink_to(other / "e.mp4")
    (files / "inner.mp4").symlink_to("a.mp4")
    (files / "broken.mp4").symlink_to(files / "nothing.mp4")
    (files / "linked").symlink_to(other)
    sibling = files.with_name(files.name + "-2")  # begins with the root's name
    sibling.mkdir()
    (sibling / "f.mp4").write_bytes(b"x")
    leaving = {
        f"../{sibling.name}/f.mp4": "leads out of the root",
        str(files / "a.mp4"): "is an absolute path",
        f"../{other.name}/e.mp4": "leads out of the root",
        f"linked/../{other.name}/e.mp4": "leads out of the root",
        "link.mp4": "leads out of the root",
        "linked/e.mp4": "leads out of the root",
    }
    staying = ["inner.mp4", f"../{files.name}/deep/d.MOV"]
    source = write_json(files, *({**GOOD, "file_path": p} for p in [*leaving, *staying, "broken.mp4"]))
    metadata = read(source)
    assert ids(metadata) == staying
    assert {r.row_id: r.reason for r in metadata.refused} == {**leaving, "broken.mp4": "no such file"}
    free = read(source, absolute=True)
    assert ids(free) == [*leaving, *staying] and only(free).row_id == "broken.mp4"
    assert all(row.path.is_file() for row in free.rows)
    (other / "root").symlink_to(files)
    assert ids(read(source, root=str(other / "root"))) == staying, "a root may be a link itself"
    assert ids(read(source, root=str(files / "deep"))) == []


def test_json_lines_refuse_by_line(files: Path) -> None:
    lines = [b'{"file_name": "a.mp4", "text": "a"}', b"", b'{"file_name": "b.mp4", ', b"[1]", b'{"text": "b"}']
    lines += [b'{"file_name": "b.mp4", "text": "caf\xe9"}', b'{"file_name": "c.jpg", "text": "x\xe2\x80\xa8y"}\r']
    (files / "metadata.jsonl").write_bytes(b"\n".join(lines))
    metadata = read(files / "metadata.jsonl")
    assert [(row.row_id, row.caption, row.kind) for row in metadata.rows] == [
        ("a.mp4", "a", "video"),
        ("c.jpg", "x\u2028y", "image"),
    ]
    assert [(r.where, r.key, r.reason) for r in metadata.refused] == [
        ("metadata.jsonl:3", "row", "is broken JSON"),
        ("metadata.jsonl:4", "row", "is not an object"),
        ("metadata.jsonl:5", "file_path", "is missing"),
        ("metadata.jsonl:6", "text", "holds bytes that are no UTF-8, or half a character"),
    ]


def test_csv_with_internal_keys(files: Path) -> None:
    with open(files / "m.csv", "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(["file_path", "text", "type", "width", "aesthetic", "scene"])
        writer.writerow(["a.mp4", "two\nlines, and a comma", "video", "640", "6.5", "1"])
        writer.writerow(["b.mp4", "b", "", "", "n/a", "x"])
        file.write("b.mp4,unquoted, comma,video,1,2,3\n\n")
        writer.writerow(["c.jpg", "", "image", "", "", "x"])
        file.write('b.mp4,"open quote"x,video,,,\n')
    metadata = read(files / "m.csv")
    assert [(r.row_id, r.caption, r.kind, r.width_px) for r in metadata.rows] == [
        ("a.mp4", "two\nlines, and a comma", "video", 640),
        ("b.mp4", "b", "video", None),
    ]
    assert sorted((r.where, r.key, r.reason) for r in metadata.refused) == [
        ("m.csv:5", "row", "has another number of fields"),
        ("m.csv:7", "text", "is missing"),
        ("m.csv:8", "row", "is broken CSV"),
    ]
    filtered = read(files / "m.csv", where="aesthetic > 6", weight="aesthetic")
    assert [(r.row_id, r.weight) for r in filtered.rows] == [("a.mp4", 6.5)] and filtered.left_out == 2
    assert ids(read(files / "m.csv", where="scene == '1'")) == ["a.mp4"]


def test_webvid_csv(files: Path) -> None:
    (files / "w.csv").write_text(
        "videoid,contentUrl,duration,page_dir,name\na,http,PT00H00M10S,,first\nd,http,,deep,second\n,http,,deep,none\n"
    )
    (files / "deep" / "d.mp4").write_bytes(b"x")
    metadata = read(files / "w.csv")
    assert [(r.row_id, r.path, r.caption) for r in metadata.rows] == [
        ("a.mp4", files / "a.mp4", "first"),
        ("deep/d.mp4", files / "deep" / "d.mp4", "second"),
    ]
    assert (only(metadata).where, only(metadata).key) == ("w.csv:4", "videoid")


def test_a_webvid_csv_loses_the_apostrophe_that_export_writes_and_no_other(files: Path) -> None:
    rows = [("'=a", "deep", "'-1 degree"), ("a", "", "'tis a dog"), ("b", "", "''tis = 1"), ("=a", "deep", "''@")]
    with open(files / "w.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("videoid", "page_dir", "name"), *rows])
    (files / "deep" / "=a.mp4").write_bytes(b"x")
    metadata = read(files / "w.csv")
    assert [(r.row_id, r.caption) for r in metadata.rows] == [
        ("deep/=a.mp4", "-1 degree"),
        ("a.mp4", "'tis a dog"),
        ("b.mp4", "''tis = 1"),
    ]
    assert only(metadata).reason == "is there twice"
    assert ids(read(files / "w.csv", where="name == '-1 degree'")) == ["deep/=a.mp4"]
    internal = [("file_path", "text"), ("a.mp4", "'=1")]
    with open(files / "i.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(internal)
    assert read(files / "i.csv").rows[0].caption == "'=1", "no format of ours: the text is the caption"


def test_expressions_over_json(files: Path) -> None:
    source = write_json(
        files,
        {**GOOD, "score": 6, "width": "640", "tags": ["x"]},
        {**GOOD, "file_path": "b.mp4", "score": -1.0, "width": 320},
        {**GOOD, "file_path": "c.jpg", "type": "image", "score": "high", "text": None},
        {**GOOD, "file_path": "deep/d.MOV"},
    )
    metadata = read(source, where="score > 0 and width == 640", weight="score / 2")
    assert [(r.row_id, r.weight) for r in metadata.rows] == [("a.mp4", 3.0)]
    assert metadata.left_out == 3 and metadata.refused == (), "of a row that is left out nothing else is looked at"
    weighed = read(source, weight="score / 2")
    assert ids(weighed) == ["a.mp4"]
    assert [(r.key, r.reason) for r in weighed.refused] == [
        ("weight", "is negative"),
        ("text", "is missing"),
        ("weight", "is missing"),
    ]
    with pytest.raises(UserError, match=r"no column 'aesthetic'.*m\.json has .*score.*output folder of `curate`"):
        read(source, where="aesthetic > 5")


def test_constant_expressions(files: Path) -> None:
    for source in (write_json(files, GOOD, {**GOOD, "file_path": "b.mp4"}), made(files / "out", {}, {})):
        assert [row.weight for row in read(source, where="1 < 2", weight="2").rows] == [2, 2]
        none = read(source, where="1 > 2")
        assert none.rows == () and none.left_out == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty; expected an output folder"),
        (b" \n", "empty"),
        (b"[]", "an empty list"),
        (b"[1, 2]", "no row names a file .first: m.json.0.: row: is not an object"),
        (b'[{"video": "a.mp4"}]', "no row names a file; expected"),
        (b'[{"file_path": "a.mp4", "text": "a"},\n {"file', "broken JSON at line 2"),
        (b"[" * 100_000, "no readable JSON"),
        (b'{\n"file_path": "a.mp4"\n}', "no row names a file .*broken JSON"),
        (b'{"rows": []}', "no row names a file"),
        (b"id,caption\n1,a\n", "whose first line is 'id,caption|first line"),
        (b"file_path,text\n", "no row names a file"),
        (b'"file_path,te\n', "no readable header"),
        (b"PAR1....", "a Parquet file; give the output folder"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "first line|no readable header"),
    ],
)
def test_files_that_are_no_metadata(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "m.json").write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path / "m.json")
    assert "\n" not in str(error.value) and len(str(error.value)) < 700


def test_metadata_that_is_not_there(tmp_path: Path, files: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder; expected"):
        read(tmp_path / "gone.json")
    with pytest.raises(UserError, match="data.metadata: is empty"):
        read_metadata(DataSettings())
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no table .*curate"):
        read(tmp_path / "empty")
    with pytest.raises(UserError, match=r"data.root .*no such folder"):
        read(write_json(files, GOOD), root=str(tmp_path / "gone"))
    with pytest.raises(UserError, match=r"no clip is accepted; .*select"):
        read(made(tmp_path / "none", {"status": "rejected"}))
    broken = made(tmp_path / "broken", {})
    (broken / "clips" / "part-00000.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match="cannot be read"):
        read(broken)


# -- facts -----------------------------------------------------------------------------------------------


def row_of(path: Path, kind: str = "video", **facts) -> TrainRow:
    return TrainRow(path.name, path, "caption", kind, **facts)


def known(row: TrainRow) -> tuple[int | None, int | None, int | None, float | None]:
    return row.width_px, row.height_px, row.num_frames, row.duration_s


@pytest.fixture
def media(tmp_path: Path) -> list[TrainRow]:
    """A plain, a turned and an anamorphic video, an image on its side, and two files that cannot be read."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (50, 20)).save(tmp_path / "side.jpg", exif=exif)
    (tmp_path / "noise.mp4").write_bytes(b"noise" * 99)
    (tmp_path / "noise.jpg").write_bytes(b"noise" * 99)
    return [
        row_of(draw(tmp_path / "plain.mp4", 18)),
        row_of(tmp_path / "noise.mp4"),
        row_of(draw(tmp_path / "turned.mp4", 6, rotation_deg=90)),
        row_of(draw(tmp_path / "wide.mp4", 6, sample_aspect=Fraction(3, 2))),
        row_of(tmp_path / "side.jpg", "image", num_frames=1, duration_s=0.0),
        row_of(tmp_path / "noise.jpg", "image"),
        row_of(tmp_path / "gone.mp4"),
    ]


TRUTH = [(96, 64, 18, 1.5), (64, 96, 6, 0.5), (144, 64, 6, 0.5), (20, 50, 1, 0.0)]


def test_facts_are_read_from_files(media: list[TrainRow]) -> None:
    before = Refusal("elsewhere", "text", "is missing", "write one")
    seen = []
    rows, refused = probe_rows(media, [before], lambda done, total: seen.append((done, total)))
    assert [known(row) for row in rows] == TRUTH
    assert [row.row_id for row in rows] == ["plain.mp4", "turned.mp4", "wide.mp4", "side.jpg"]
    assert refused[0] == before and {(r.key, r.reason) for r in refused[1:]} == {("file_path", "cannot be read")}
    assert [r.row_id for r in refused[1:]] == ["noise.mp4", "noise.jpg", "gone.mp4"]
    assert "not a readable media file" in refused[1].fix and "the file is gone" in refused[3].fix
    assert seen == [(i, 7) for i in range(1, 8)]


def test_known_facts_are_kept_and_their_files_not_opened(tmp_path: Path) -> None:
    whole = row_of(tmp_path / "gone.mp4", width_px=1, height_px=2, num_frames=3, duration_s=4.0)
    assert probe_rows([whole]) == ((whole,), ())
    partly = row_of(draw(tmp_path / "a.mp4", 12), num_frames=5, duration_s=7.0, width_px=1)
    assert known(probe_rows([partly])[0][0]) == (96, 64, 5, 7.0)


def test_a_span_is_counted_by_its_packets(tmp_path: Path) -> None:
    uneven = draw(tmp_path / "vfr.mp4", 6, pts=[0, 0.2, 0.5, 1.0, 1.25, 2.0])
    spans = [(0.0, 1.0, 3), (0.5, 1.25, 2), (1.0, 9.0, 3)]
    rows, _ = probe_rows([replace(row_of(uneven), row_id=str(n), start_s=a, end_s=b) for a, b, n in spans])
    assert [row.num_frames for row in rows] == [n for _, _, n in spans]
    assert [row.duration_s for row in rows] == pytest.approx([b - a for a, b, _ in spans])
    late = draw(tmp_path / "late.mkv", 12, pts=[5 + i / FPS for i in range(12)])  # its first frame is not at time 0
    assert probe_rows([replace(row_of(late), start_s=0.25, end_s=0.75)])[0][0].num_frames == 6
    rows, refused = probe_rows([replace(row_of(uneven), start_s=5.0, end_s=6.0)])
    assert rows == () and "no frame between" in refused[0].fix


def test_a_file_cut_short_counts_as_what_is_left(tmp_path: Path) -> None:
    path = draw(tmp_path / "short.mkv", 36, options={"preset": "ultrafast", "g": "6"})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    (row,), _ = probe_rows([row_of(path)])
    assert 6 <= row.num_frames < 36 and row.duration_s == pytest.approx(row.num_frames / FPS, rel=0.02)


def test_a_second_call_opens_nothing(media: list[TrainRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memo = tmp_path / "cache" / "facts.parquet"
    good = [row for row in media if "noise" not in row.row_id and "gone" not in row.row_id]
    first = probe_rows(media, memo=memo)
    opened = []

    def watched(row: TrainRow, state: tuple[int, int]) -> facts._Facts:
        opened.append(row.row_id)
        return read_file(row, state)

    read_file = facts._read
    monkeypatch.setattr(facts, "_read", watched)
    assert probe_rows(good, memo=memo) == (first[0], ())
    assert opened == []
    assert probe_rows(media, memo=memo) == first
    assert sorted(opened) == ["gone.mp4", "noise.jpg", "noise.mp4"], "what could not be read is tried again"
    opened.clear()
    os.utime(good[0].path, ns=(1, 1))
    assert probe_rows([replace(good[0], start_s=0.0, end_s=0.5), *good], memo=memo)[0][1:] == first[0]
    assert opened == ["plain.mp4", "plain.mp4"], "another time of change, another span"
    opened.clear()
    for damage in (b"", b"no parquet", memo.read_bytes()[:-9]):
        memo.write_bytes(damage)
        assert probe_rows(good, memo=memo)[0] == first[0]
    assert len(opened) == 3 * len(good)
    assert [p.name for p in memo.parent.iterdir()] == ["facts.parquet"]


def test_the_same_path_as_video_and_image(tmp_path: Path) -> None:
    Image.new("RGB", (32, 16)).save(tmp_path / "a.png")
    rows = [row_of(tmp_path / "a.png", "image"), replace(row_of(tmp_path / "a.png", "image"), row_id="again")]
    assert [known(row) for row in probe_rows(rows, memo=tmp_path / "m.parquet")[0]] == [(32, 16, 1, 0.0)] * 2


def test_light_modules_stay_light() -> None:
    heavy = "print({'torch', 'ray', 'diffusers'} & {*sys.modules})"
    code = f"import sys, train_bridge.data.metadata, train_bridge.data.facts; {heavy}"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shown.stdout.strip() == "set()"
