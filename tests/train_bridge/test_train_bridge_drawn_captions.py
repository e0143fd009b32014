"""Several captions a clip: written in one pass, kept by every export, drawn as often as asked, encoded once."""

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from export_rows import row as table_row
from training_commands import plan, said

import run_pipeline
from captioners.template import Template, describe
from core.errors import UserError
from curation.export import export
from curation.export.refresh import refresh_exports
from curation.schema import table_schema
from train_bridge.cache.fingerprint import text_key
from train_bridge.config import DataSettings
from train_bridge.data.drawn_captions import all_captions, drawn_caption
from train_bridge.data.metadata import read_metadata
from train_bridge.data.rows_file import read_rows
from train_bridge.types import TrainRow

SHARES = {"caption": 0.5, "caption_en_medium": 0.3, "caption_en_short": 0.2}
WRITERS = ("caption_en_short", "caption_en_medium", "caption_en_long", "caption_zh_short")


def output(out: Path, count: int = 3) -> Path:
    """An output whose clips have captions of three lengths; the last one lacks the medium one."""
    rows = []
    for i in range(count):
        changes = {f"caption_en_{length}": f"{length} {i}" for length in ("short", "medium", "long")}
        found = table_row(i) | changes | {"caption_zh_short": "=短", "duration_s": 4.0, "source_path": f"{i}.mp4"}
        rows.append(found)
    rows[-1]["caption_en_medium"] = None
    (out / "clips").mkdir(parents=True)
    (out / "train").mkdir()
    for found in rows:
        (out / found["clip_path"]).write_bytes(b"x" * 100)
    pq.write_table(pa.Table.from_pylist(rows, schema=table_schema(WRITERS)), out / "clips" / "part-00000.parquet")
    return out


def test_the_draw_of_captions_has_the_asked_frequencies():
    row = TrainRow("a", Path("a"), "x", "video", captions=("x", "y", "z"), caption_shares=(0.5, 0.3, 0.2))
    rows = [replace(row, row_id=f"row {i}") for i in range(2000)]
    for epoch in (0, 5):
        counts = Counter(drawn_caption(one, epoch, 7) for one in rows)
        for text, share in zip(row.captions, row.caption_shares, strict=True):
            assert counts[text] / len(rows) == pytest.approx(share, abs=0.04)
    over_epochs = Counter(drawn_caption(row, epoch, 7) for epoch in range(2000))
    assert over_epochs["y"] / 2000 == pytest.approx(0.3, abs=0.04), "one row changes from epoch to epoch"
    assert [drawn_caption(r, 3, 7) for r in rows] == [drawn_caption(r, 3, 7) for r in rows[::-1]][::-1]
    assert [drawn_caption(r, 3, 7) for r in rows] != [drawn_caption(r, 3, 8) for r in rows]


def test_a_share_of_nothing_is_never_drawn():
    row = TrainRow("a", Path("a"), "x", "video", captions=("x", "y"), caption_shares=(1e-12, 1.0))
    assert {drawn_caption(row, epoch, 0) for epoch in range(300)} == {"y"}


def test_rows_have_the_captions_that_are_there(tmp_path):
    out = output(tmp_path)
    rows = read_metadata(DataSettings(metadata=str(out), captions=SHARES)).rows
    assert rows[0].captions == ("caption 0", "medium 0", "short 0") and rows[0].caption_shares == (0.5, 0.3, 0.2)
    assert rows[2].captions == ("caption 2", "short 2") and rows[2].caption_shares == (0.5, 0.2)
    plain = read_metadata(DataSettings(metadata=str(out))).rows
    assert [row.caption for row in plain] == [row.caption for row in rows] and not any(r.captions for r in plain)
    texts = all_captions(rows)
    assert len({text_key(text, "id") for text in texts}) == len(set(texts)) == 8
    only = read_metadata(DataSettings(metadata=str(out), captions={"caption_en_medium": 1.0}))
    assert [row.caption for row in only.rows] == ["medium 0", "medium 1"]
    assert [(r.key, r.reason) for r in only.refused] == [("captions", "are all missing")]


@pytest.mark.parametrize(
    ("shares", "why"),
    [
        ({"caption": 0.0}, "all shares are 0"),
        ({"caption_en_shrt": 1.0}, r"did you mean 'caption_en_short'\?"),
        ({"duration_s": 1.0}, "captions are texts"),
        ({"caption + 1": 1.0}, "not the name of a column"),
    ],
)
def test_captions_that_cannot_be_drawn_are_refused(tmp_path, shares, why):
    with pytest.raises(UserError, match=why):
        read_metadata(DataSettings(metadata=str(output(tmp_path)), captions=shares))


def test_every_export_keeps_all_captions_and_is_read_back(tmp_path):
    out = output(tmp_path / "out")
    internal = json.loads(export(out, "internal").paths[0].read_text())
    lines = export(out, "diffusers").paths[0].read_text().splitlines()
    with export(out, "webvid").paths[0].open(newline="") as file:
        webvid = list(csv.DictReader(file))
    for records in (internal, [json.loads(line) for line in lines], webvid):
        assert [r["caption_en_short"] for r in records] == ["short 0", "short 1", "short 2"]
        assert [r["caption_en_medium"] or None for r in records] == ["medium 0", "medium 1", None]
    expected = read_metadata(DataSettings(metadata=str(out), captions=SHARES)).rows
    chinese = {"caption": 0.5, "caption_zh_short": 0.5}
    for name in ("json_of_internal_datasets.json", "train/metadata.jsonl", "webvid.csv"):
        found = read_metadata(DataSettings(metadata=str(out / name), captions=SHARES)).rows
        assert [row.captions for row in found] == [row.captions for row in expected]
        found = read_metadata(DataSettings(metadata=str(out / name), captions=chinese)).rows
        assert {row.captions[1] for row in found} == {"=短"}, "what a spreadsheet would run comes back as it was"
    export(out, "webdataset")
    cache = str(tmp_path / "unpacked")
    found = read_metadata(DataSettings(metadata=str(out / "webdataset"), unpacked=cache, captions=SHARES)).rows
    assert [row.captions for row in found] == [row.captions for row in expected]
    assert refresh_exports(out) == (), "shards that hold all captions are not out of date"


def test_the_template_writes_three_lengths_in_one_pass():
    row = {"clip_id": "a", "type": "video", "duration_s": 4.0, "motion": 9.0, "text_area": 0.3, "brightness": 0.1}
    (caption,) = Template(("short", "medium", "long")).load()([(row, None)])
    short, medium, long = (caption.texts[f"caption_en_{length}"] for length in ("short", "medium", "long"))
    assert long == caption.text == describe(row)
    assert medium.startswith(short) and long.startswith(medium) and len(short) < len(medium) < len(long)
    assert not Template().load()([(row, None)])[0].texts
    with pytest.raises(ValueError, match="there is no 'shrt'"):
        Template(("shrt",))


@pytest.mark.slow
def test_a_run_encodes_each_caption_once_and_plans_them(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = json.loads((parts / "clips" / "metadata.json").read_text())
    for item in items:
        (tmp_path / item["file_path"]).write_bytes((parts / "clips" / item["file_path"]).read_bytes())
        item["brief"] = "a clip"
    (tmp_path / "all.json").write_text(json.dumps(items))
    words = [*map(str, plan(parts))]
    words[3] = str(tmp_path / "all.json")
    words += ["data.captions={caption: 0.5, brief: 0.5}"]
    assert run_pipeline.main(words) == 0
    assert "captions: 4 of 4 rows have several, 8 in all" in capsys.readouterr().out
    assert "(did you mean 'brief'?)" in said(capsys, *words[:-1], "data.captions={brif: 1}")
    run = tmp_path / "run"
    train = ["train", *words[1:], "train.steps=3", "--output", str(run), "--runner", "inline"]
    assert run_pipeline.main(train) == 0
    index = pq.read_table(run / "cache" / "index.parquet")
    texts = [key for key, kind in zip(*(index[n].to_pylist() for n in ("key", "kind")), strict=True) if kind == "text"]
    assert len(texts) == len(set(texts)) == 4 + 1 + 1, "four captions, the brief one and the empty one"
    assert {row.captions[1] for row in read_rows(run / "rows.parquet").train} == {"a clip"}
