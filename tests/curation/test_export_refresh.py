"""What was exported follows the table, or is said to be out of date with the command that fixes it."""

import csv
import json
import shlex
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from export_rows import row, write_table
from runs import curate, rows_of

import run_pipeline
from core.sanitize import from_safe_cell
from curation import export as exporting
from curation.export import export
from curation.export.how import ExportSettings
from curation.export.memory import read_memory
from curation.export.refresh import refresh_exports
from curation.folders import SHARDS
from demo.drawing import write_video

ROWS = [row(i, type="image" if i == 2 else "video") for i in range(6)]
STRICT = "rules.brightness.min=0.5"
LOOSE = "rules.brightness.min=0.0"


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output of a dark and a light source, both accepted."""
    folder = tmp_path_factory.mktemp("curated")
    for name, shade in (("dark", 40), ("light", 180)):
        pictures = []
        for number in range(80):
            picture = np.full((48, 64, 3), shade, np.uint8)
            picture[:, number % 56 : number % 56 + 6] = 250
            pictures.append(picture)
        (folder / "in").mkdir(exist_ok=True)
        write_video(folder / f"in/{name}.mp4", pictures, 20, options={"preset": "ultrafast"})
    rules = 'rules={"brightness": {"min": 0.0}}'
    curate(folder / "in", "operators.text_area=false", rules, out=folder / "out")
    assert [r["status"] for r in rows_of(folder / "out").values()] == ["accepted"] * 2
    return folder


@pytest.fixture
def out(curated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(curated / "out", tmp_path / "out put"))


def select(out: Path, rule: str) -> None:
    assert run_pipeline.main(["select", str(out), rule]) == 0


def do_export(out: Path, *words: str) -> None:
    assert run_pipeline.main(["export", str(out), *words]) == 0


def accepted(out: Path) -> set[str]:
    return {clip_id for clip_id, r in rows_of(out).items() if r["status"] == "accepted" and r["caption"]}


def in_csv(out: Path) -> set[str]:
    with (out / "webvid.csv").open(newline="", encoding="utf-8") as file:
        return {from_safe_cell(r["videoid"]) for r in csv.DictReader(file)}


def in_jsonl(out: Path) -> set[str]:
    lines = (out / "train/metadata.jsonl").read_text(encoding="utf-8").split("\n")
    return {Path(json.loads(line)["file_name"]).stem for line in lines if line}


def in_shards(out: Path) -> set[str]:
    found = set()
    for path in (out / "webdataset").glob("*.tar"):
        with tarfile.open(path) as shard:
            found |= {Path(name).stem for name in shard.getnames()}
    return found


def test_what_is_cheap_follows_select_and_shards_are_said_to_be_stale(out, capsys):
    for format in ("webvid", "diffusers", "webdataset"):
        do_export(out, "--format", format)
    capsys.readouterr()
    select(out, STRICT)
    shown = capsys.readouterr().out
    assert len(accepted(out)) == 1 and in_csv(out) == in_jsonl(out) == accepted(out) != in_shards(out)
    (line,) = [line for line in shown.split("\n") if "out of date" in line]
    assert line.startswith("webdataset is out of date; write it again: run_pipeline.py export ")
    command = shlex.split(line.partition("again: ")[2])
    assert run_pipeline.main(command[1:]) == 0
    assert in_shards(out) == accepted(out)
    capsys.readouterr()
    select(out, STRICT)
    assert "out of date" not in capsys.readouterr().out
    select(out, LOOSE)
    assert len(accepted(out)) == 2 and in_csv(out) == in_jsonl(out) == accepted(out)
    assert "webdataset is out of date" in capsys.readouterr().out


def test_shards_whose_rows_come_back_are_current_again(out, capsys):
    do_export(out, "--format", "webdataset")
    select(out, STRICT)
    assert "out of date" in capsys.readouterr().out
    select(out, LOOSE)
    assert "out of date" not in capsys.readouterr().out and in_shards(out) == accepted(out)


@pytest.mark.slow
def test_exports_follow_curate(curated, out, capsys):
    more = shutil.copy(curated / "in/light.mp4", out.parent / "more.mp4")
    for format in ("webvid", "webdataset"):
        do_export(out, "--format", format)
    capsys.readouterr()
    curate(curated / "in", more, out=out)
    assert len(accepted(out)) == 3 and in_csv(out) == accepted(out)
    assert "webdataset is out of date" in capsys.readouterr().out
    stale = json.loads((out / "run.json").read_text())["summary"]["stale_exports"]
    assert len(stale) == 1 and "--format webdataset" in stale[0]


def test_absolute_paths_and_kinds_stay_as_they_were_asked_for(out, capsys):
    do_export(out, "--absolute")
    do_export(out, "--format", "webvid", "--absolute")
    do_export(out, "--format", "diffusers", "--type", "image")
    select(out, STRICT)
    (item,) = json.loads((out / "json_of_internal_datasets.json").read_text())
    assert Path(item["file_path"]).is_absolute() and Path(item["file_path"]).is_file()
    with (out / "webvid.csv").open(newline="") as file:
        assert [r["page_dir"] for r in csv.DictReader(file)] == [str(out.resolve() / "train")]
    assert in_jsonl(out) == set()
    do_export(out)
    select(out, LOOSE)
    items = json.loads((out / "json_of_internal_datasets.json").read_text())
    assert [item["file_path"][:6] for item in items] == ["train/"] * 2


def test_what_somebody_deletes_is_not_written_again(out):
    for format in ("webvid", "diffusers", "webdataset"):
        do_export(out, "--format", format)
    (out / "webvid.csv").unlink()
    shutil.rmtree(out / "webdataset")
    select(out, STRICT)
    assert not (out / "webvid.csv").exists() and not (out / "webdataset").exists()
    assert sorted(read_memory(out)) == ["diffusers"]


def test_exports_of_an_earlier_version_are_taken_up_or_said_to_be_stale(out, capsys):
    """It has left no memory: what is as it would be written is ours; anything else may be somebody's work."""
    for format in ("webvid", "diffusers", "webdataset"):
        do_export(out, "--format", format)
    (out / "exports.json").unlink()
    lines = (out / "train/metadata.jsonl").read_text().split("\n")
    (out / "train/metadata.jsonl").write_text("\n".join(lines[:1]) + "\n")
    edited = (out / "train/metadata.jsonl").read_bytes()
    capsys.readouterr()
    select(out, LOOSE)
    shown = capsys.readouterr().out
    assert "train/metadata.jsonl is out of date" in shown and "webdataset is out of date" in shown
    assert "webvid.csv" not in shown and (out / "train/metadata.jsonl").read_bytes() == edited
    select(out, STRICT)
    assert in_csv(out) == accepted(out) and (out / "train/metadata.jsonl").read_bytes() == edited
    assert "train/metadata.jsonl is out of date" in capsys.readouterr().out
    assert not [p.name for p in (out / "train").iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"webvid": 3}', "\x00"])
def test_a_memory_that_cannot_be_read_is_none(tmp_path, content):
    write_table(tmp_path, ROWS, media=True)
    (tmp_path / "exports.json").write_text(content)
    assert read_memory(tmp_path) == {} and refresh_exports(tmp_path) == ()


class Killed(BaseException):
    """Stands for the end of the process; what catches it must not make the new shards look like the old ones."""


def test_a_kill_between_the_shards_and_their_memory_leaves_nothing_that_looks_current(tmp_path, monkeypatch):
    """At A, exported; at B, exported and killed; back at A: the shards hold B."""
    write_table(tmp_path, ROWS, media=True)
    export(tmp_path, "webdataset")
    assert refresh_exports(tmp_path) == ()
    write_table(tmp_path, ROWS[:3])
    assert len(refresh_exports(tmp_path)) == 1
    with monkeypatch.context() as patch:
        written = exporting.write_webdataset

        def then_killed(*arguments):
            written(*arguments)
            raise Killed

        patch.setattr(exporting, "write_webdataset", then_killed)
        with pytest.raises(Killed):
            export(tmp_path, "webdataset")
    assert in_shards(tmp_path) == {"id-0000", "id-0001", "id-0002"}
    write_table(tmp_path, ROWS)
    assert len(refresh_exports(tmp_path)) == 1
    export(tmp_path, "webdataset")
    assert refresh_exports(tmp_path) == ()


def test_an_export_that_fails_leaves_the_memory_of_the_shards_that_are_there(tmp_path):
    write_table(tmp_path, ROWS, media=True)
    export(tmp_path, "webdataset")
    before = read_memory(tmp_path)
    (tmp_path / "train/id-0001.mp4").rename(tmp_path / "away")
    with pytest.raises(exporting.UserError, match="id-0001"):
        export(tmp_path, "webdataset")
    assert read_memory(tmp_path) == before and refresh_exports(tmp_path) == ()


def test_shards_of_one_kind_go_stale_by_that_kind_alone(tmp_path):
    write_table(tmp_path, ROWS, media=True)
    export(tmp_path, "webdataset", ExportSettings(kind="video"))
    write_table(tmp_path, [r for r in ROWS if r["type"] == "video"])
    assert refresh_exports(tmp_path) == ()
    write_table(tmp_path, ROWS[:2])
    (line,) = refresh_exports(tmp_path)
    assert line.endswith("--format webdataset --type video") and (tmp_path / SHARDS).is_dir()
