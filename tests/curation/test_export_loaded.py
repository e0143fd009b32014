"""Every export as the libraries load it that people use, on odd captions, images beside videos, and missing values."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from export_rows import row, write_table
from PIL import Image

from core.sanitize import from_safe_cell
from curation.export import export
from curation.export.how import ExportSettings
from demo.drawing import write_video

CAPTIONS = [
    *(
        'a "quoted" word, and a comma',
        "two\nlines",
        "three\r\nof\rthem",
        "tab\tin it",
        "film \U0001f3a5 \U0001f469\u200d",
    ),
    *("\u05e9\u05dc\u05d5\u05dd", "\u0645\u0631\u062d\u0628\u0627", "\u65e5\u672c\u8a9e", "=1+1", "-no option"),
    *("NA", "null", "", "  edge  ", "\\n and \\", "{'a': 1}", "[1, 2]", "</script><b>", "1.50", "2024-01-01", "a;b|c"),
    *("@name", "'tis", '"', '""', "\u2028", "end"),
]


@pytest.fixture(scope="module", autouse=True)
def _caches(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Keep what the libraries keep out of the home folder, and them off the network."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HOME", "HF_DATASETS_CACHE", "XDG_CACHE_HOME"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name)))
        patch.setenv("HF_DATASETS_OFFLINE", "1")
        yield


def kind_of(number: int) -> str:
    return "image" if number % 3 == 1 else "video"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output with every export: real clips and pictures, and rows that no export may hold."""
    out = tmp_path_factory.mktemp("out")
    (out / "train").mkdir()
    rows = []
    for number, caption in enumerate(CAPTIONS):
        values = row(number, caption=caption, type=kind_of(number), clip_width_px=48, clip_height_px=32)
        values |= {"clip_num_frames": 4 if values["type"] == "video" else 1, "motion": None if number % 2 else 0.5}
        pictures = [np.full((32, 48, 3), 5 * number + 20 * i, np.uint8) for i in range(4)]
        if values["type"] == "video":
            write_video(out / values["clip_path"], pictures, 24)
        else:
            Image.fromarray(pictures[0]).save(out / values["clip_path"], quality=95)
        rows.append({name: values[name] for name in row(0)})
    rows += [row(90, caption=None), row(91, clip_path=None), row(92, status="rejected"), row(93, status="failed")]
    write_table(out, rows, parts=2)
    for format in ("internal", "webvid", "diffusers", "webdataset"):
        export(out, format)
    return out


def captions(kind: str) -> list[str]:
    return [caption for number, caption in enumerate(CAPTIONS) if kind_of(number) == kind]


def loaded(*arguments: Any, **named: Any) -> Any:
    """Load a data set with Hugging Face's library; media stay files."""
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    found = datasets.load_dataset(*arguments, split="train", **named)
    for name, feature in found.features.items():
        if isinstance(feature, datasets.Video):  # which needs another decoder than ours
            found = found.cast_column(name, datasets.Video(decode=False))
    return found


# -- the table itself


def test_the_table_in_every_library(out):
    pandas, polars, duckdb = (pytest.importorskip(name) for name in ("pandas", "polars", "duckdb"))
    parts = f"{out}/clips/part-*.parquet"
    wanted = [*CAPTIONS, None]
    by_pandas = pandas.read_parquet(out / "clips").set_index("clip_id")
    assert [by_pandas.loc[f"id-{i:04d}", "caption"] for i in range(len(CAPTIONS))] == CAPTIONS
    assert pandas.isna(by_pandas.loc["id-0090", "caption"])
    by_polars = polars.read_parquet(parts).sort("clip_id")
    assert by_polars["caption"].to_list()[: len(wanted)] == wanted
    assert by_polars.filter(polars.col("status") == "accepted").height == len(CAPTIONS) + 2
    by_duckdb = duckdb.sql(f"select caption, clip_fps from read_parquet('{parts}') order by clip_id").fetchall()
    assert [caption for caption, _ in by_duckdb][: len(wanted)] == wanted
    assert [fps for _, fps in by_duckdb[:3]] == [24.0, None, 24.0]
    assert pq.read_table(out / "clips").num_rows == len(CAPTIONS) + 4


# -- the trainers' JSON


def test_the_json_in_every_library(out):
    pandas, polars, duckdb = (pytest.importorskip(name) for name in ("pandas", "polars", "duckdb"))
    path = out / "json_of_internal_datasets.json"
    by_pandas = pandas.read_json(path, dtype=False, convert_dates=False)
    assert by_pandas["text"].to_list() == CAPTIONS and pandas.isna(by_pandas["fps"][1]) and by_pandas["fps"][0] == 24
    by_polars = polars.read_json(path)
    assert by_polars["text"].to_list() == CAPTIONS and by_polars["fps"].to_list()[:3] == [24.0, None, 24.0]
    by_duckdb = duckdb.sql(f"select text, type, fps from read_json('{path}')").fetchall()
    assert [text for text, _, _ in by_duckdb] == CAPTIONS
    assert [(kind, fps) for _, kind, fps in by_duckdb[:2]] == [("video", 24.0), ("image", None)]
    found = loaded("json", data_files=str(path))
    assert found["text"][:] == CAPTIONS and found["width"][0] == 48


# -- WebVid's CSV


def test_the_csv_in_every_library(out):
    pandas, polars, duckdb = (pytest.importorskip(name) for name in ("pandas", "polars", "duckdb"))
    path, wanted = out / "webvid.csv", captions("video")
    by_pandas = pandas.read_csv(path, keep_default_na=False, dtype=str)
    by_polars = polars.read_csv(path, infer_schema=False)
    by_duckdb = duckdb.sql(f"select name, videoid from read_csv('{path}', all_varchar=true)").fetchall()
    by_hub = loaded("csv", data_files=str(path), keep_default_na=False)
    for names in (by_pandas["name"], by_polars["name"], [name for name, _ in by_duckdb], by_hub["name"][:]):
        assert [from_safe_cell(name or "") for name in names] == wanted
    places = zip(by_pandas["page_dir"], by_pandas["videoid"], strict=True)
    assert all((out / folder / f"{name}.mp4").is_file() for folder, name in places)


# -- folders, as diffusers' training scripts load them


def test_a_folder_of_both_kinds_names_every_file(out):
    found = loaded("videofolder", data_dir=str(out / "train"))
    assert found["text"][:] == CAPTIONS
    assert [Path(clip["path"]).name for clip in found["video"]] == [
        f"id-{n:04d}." + {"video": "mp4", "image": "jpg"}[kind_of(n)] for n in range(len(CAPTIONS))
    ]


@pytest.mark.parametrize(("kind", "builder"), [("video", "videofolder"), ("image", "imagefolder")])
def test_a_folder_by_kind_loads_and_decodes(out, kind, builder):
    try:
        export(out, "diffusers", ExportSettings(kind=kind))
        for found in (loaded(builder, data_dir=str(out / "train")), loaded(str(out / "train"))):
            assert found["text"][:] == captions(kind)
        found = loaded(builder, data_dir=str(out / "train"))
        if kind == "image":
            assert [picture.size for picture in found["image"]] == [(48, 32)] * len(captions(kind))
    finally:
        export(out, "diffusers")


# -- shards


@pytest.mark.parametrize(("kind", "name", "suffix"), [("video", "shard", "mp4"), ("image", "images", "jpg")])
def test_shards_by_webdataset_and_by_the_hub(out, kind, name, suffix):
    webdataset = pytest.importorskip("webdataset")
    shards = sorted(str(path) for path in (out / "webdataset").glob(f"{name}-*.tar"))
    pairs = list(webdataset.WebDataset(shards, shardshuffle=False).to_tuple(suffix, "txt"))
    assert [text.decode() for _, text in pairs] == captions(kind)
    numbers = [n for n in range(len(CAPTIONS)) if kind_of(n) == kind]
    assert [media for media, _ in pairs] == [(out / f"train/id-{n:04d}.{suffix}").read_bytes() for n in numbers]
    decoded = webdataset.WebDataset(shards, shardshuffle=False).decode(only=["txt", "json"]).to_tuple("json", "txt")
    assert [facts["text"] for facts, _ in decoded] == captions(kind)
    for found in (loaded("webdataset", data_files=shards), loaded(str(out / "webdataset"), kind)):
        assert found["txt"][:] == captions(kind)
        assert [facts["type"] for facts in found["json"]] == [kind] * len(captions(kind))
    if kind == "image":
        assert found[0]["jpg"].size == (48, 32)


def test_a_folder_of_shards_loads_as_videos_where_no_kind_is_named(out):
    assert loaded(str(out / "webdataset"))["txt"][:] == captions("video")


def test_shards_of_one_kind_load_by_their_folder(tmp_path):
    """Without a card: the folder holds nothing but shards."""
    rows = [row(i, caption=f"caption {i}", clip_fps=None if i % 2 else 24.0) for i in range(12)]
    write_table(tmp_path, rows, media=True)
    export(tmp_path, "webdataset", ExportSettings(shard_rows=5))
    assert sorted(os.listdir(tmp_path / "webdataset")) == [f"shard-00000{n}.tar" for n in range(3)]
    found = loaded("webdataset", data_dir=str(tmp_path / "webdataset"))
    assert sorted(found["txt"][:]) == sorted(f"caption {i}" for i in range(12))


def test_the_remembered_exports_are_plain_json(out):
    assert sorted(json.loads((out / "exports.json").read_text())) == ["diffusers", "webdataset", "webvid"]
