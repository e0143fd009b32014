"""Sound through the whole pipeline: columns, outputs of earlier versions, the trainer's reader and JSON."""

import shutil
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from clicks import heard, write_clicks
from runs import curate, internal_json, rows_of

import run_pipeline
from curation.schema import BY_NAME
from models.geometry import Bucket
from train_bridge.data.frames import read_frames
from train_bridge.types import TrainRow

RECIPE = """
shots: {min_s: 1.0, max_s: 2.0, segment_s: 4.0}
operators: {facts: true}
"""
NEW = tuple(name for name in BY_NAME if name.startswith(("clip_audio_", "audio_")))


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("footage")
    write_clicks(folder / "stereo.mp4", "aac", layout="stereo")
    write_clicks(folder / "half.mkv", "flac", sound_s=[(0.0, 1.9)])
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    file.write_text(RECIPE, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def out(footage: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "out"
    curate(footage, "--config", recipe, out=folder)
    return folder


@pytest.fixture(scope="module")
def silent(footage: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("silent") / "silent"
    curate(footage, "cut.audio=drop", "--config", recipe, out=folder)
    return folder


def test_columns_say_what_is_heard_in_the_files(out: Path) -> None:
    rows = list(rows_of(out).values())
    assert len(rows) == 4 and all(row["status"] == "accepted" for row in rows)
    for row in rows:
        is_stereo = row["source_path"] == "stereo.mp4"
        facts = ("aac", 48000, 2) if is_stereo else ("flac", 48000, 1)
        assert (row["audio_codec"], row["audio_rate_hz"], row["audio_channels"]) == facts
        written = tuple(row[f"clip_audio_{name}"] for name in ("codec", "rate_hz", "channels", "status"))
        if is_stereo or row["start_s"] == 0:
            assert written == ("aac", 48000, facts[2], "ok")
            found = heard(out / row["clip_path"])
            assert found.clicks_s == pytest.approx(
                [t - row["start_s"] for t in (0.5, 1.25, 2.0, 3.123) if row["start_s"] <= t < row["end_s"]], abs=1e-3
            )
        else:
            assert written == (None, None, None, "none in this span")


def test_sound_changes_nothing_in_the_trainers_metadata(out: Path, silent: Path) -> None:
    assert internal_json(silent) == internal_json(out)
    for row in rows_of(silent).values():
        status = row["clip_audio_status"]
        assert row["clip_audio_codec"] is None and status == "dropped: cut.audio is drop"
        with av.open(str(silent / row["clip_path"])) as container:
            assert not container.streams.audio


def test_the_trainers_reader_takes_no_notice_of_sound(out: Path, silent: Path) -> None:
    bucket = Bucket(9, 48, 64)
    for row in rows_of(out).values():
        taken = [
            read_frames(TrainRow("a", folder / row["clip_path"], "", "video", 64, 48, 50, row["duration_s"]), bucket)
            for folder in (out, silent)
        ]
        assert np.array_equal(*taken)


def as_of_an_earlier_version(out: Path, to: Path) -> Path:
    """Copy an output as one that knows nothing of sound: no key in its recipe, no columns, no sound in its clips."""
    shutil.copytree(out, to)
    recipe = yaml.safe_load((to / "recipe.yaml").read_text(encoding="utf-8"))
    del recipe["cut"]["audio"]
    (to / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    for part in (to / "clips").glob("part-*.parquet"):
        table = pq.read_table(part)
        pq.write_table(table.drop_columns(list(NEW)), part)
    return to


def test_an_output_of_an_earlier_version_is_neither_refused_nor_done_again(
    footage: Path, out: Path, tmp_path: Path
) -> None:
    old = as_of_an_earlier_version(out, tmp_path / "old")
    before = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in (old / "train").iterdir()}
    curate(footage, out=old)
    assert {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in (old / "train").iterdir()} == before
    rows = rows_of(old)
    assert len(rows) == 4 and rows.keys() == rows_of(out).keys()
    assert internal_json(old) == internal_json(out)


@pytest.mark.slow
def test_an_output_of_an_earlier_version_takes_new_sources(out: Path, tmp_path: Path) -> None:
    old = as_of_an_earlier_version(out, tmp_path / "old")
    curate(write_clicks(tmp_path / "new.mp4", "libopus"), out=old)
    status = {row["source_path"]: row["clip_audio_status"] for row in rows_of(old).values()}
    assert status == {"stereo.mp4": None, "half.mkv": None, "new.mp4": "ok"}


def test_what_an_earlier_version_set_aside_comes_back(out: Path, tmp_path: Path) -> None:
    old = as_of_an_earlier_version(out, tmp_path / "old")
    names = sorted(p.name for p in (old / "train").iterdir())
    assert run_pipeline.main(["select", str(old), "rules.width_px.min=1000"]) == 0
    assert not list((old / "train").iterdir())
    aside = old / "_retired" / "rows.parquet"
    pq.write_table(pq.read_table(aside).drop_columns([name for name in NEW if name.startswith("clip_")]), aside)
    assert run_pipeline.main(["select", str(old), "rules.width_px.min=1"]) == 0
    assert sorted(p.name for p in (old / "train").iterdir()) == names
