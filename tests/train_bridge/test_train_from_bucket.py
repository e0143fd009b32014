"""`train` and `plan` on data in buckets: spans of sources, metadata with files, and configs that name URLs."""

import json
import re
import shutil
from pathlib import Path

import pytest
from buckets import upload
from clips import CLIPS, write_clips
from footage import pan, write
from runs import curate

import run_pipeline
from configs import CONFIGS
from core.storage.opening import open_store
from train_bridge.config import load_config
from train_bridge.named import as_named, placed, places_of

SIZES = ("buckets.sizes_px=[32]", "buckets.frames=[5]")


@pytest.fixture(autouse=True)
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SELECTS_STAGE", str(tmp_path / "stage"))
    return tmp_path / "stage"


def run(*words: object) -> int:
    return run_pipeline.main([str(word) for word in words])


def plan_rows(data: object, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, int]:
    capsys.readouterr()
    assert run("plan", CONFIGS / "train_vae_tiny.yaml", "--data", data, "--json", *SIZES, *words) == 0
    rows: dict[str, int] = json.loads(capsys.readouterr().out)["rows"]
    return rows


@pytest.fixture
def spans(bucket_url: str, tmp_path: Path) -> str:
    """Return the URL of an output without clips, whose sources lie in the bucket; a local copy is `tmp_path/out`."""
    recipe = tmp_path / "uncut.yaml"
    recipe.write_text("shots: {min_s: 1.0, max_s: 3.0}\noperators: {facts: }\nrules: {}\ncut: {mode: none}\n")
    films = tmp_path / "films"
    (films / "deep").mkdir(parents=True)
    for seed, name in enumerate(("a.mp4", "deep/b.mp4")):
        write(films / name, list(pan(48, seed=seed)))
    upload(films, f"{bucket_url}/raw")
    curate(f"{bucket_url}/raw", "--config", recipe, out=tmp_path / "out")
    assert run("push", tmp_path / "out", f"{bucket_url}/set") == 0
    return f"{bucket_url}/set"


def test_spans_of_sources_in_a_bucket_are_trained_on_from_copies(
    spans: str, bucket_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = plan_rows(spans, capsys)
    assert rows["train"] >= 2
    assert plan_rows(tmp_path / "out", capsys) == rows  # the table lies here, the sources there
    assert plan_rows(spans, capsys, f"data.root={tmp_path / 'films'}") == rows
    write(tmp_path / "films" / "a.mp4", list(pan(48, seed=9)))
    open_store(bucket_url).put("raw/a.mp4", tmp_path / "films" / "a.mp4")
    assert run("plan", CONFIGS / "train_vae_tiny.yaml", "--data", spans) == 2
    assert f"error: {bucket_url}/raw/a.mp4: has changed since it was curated" in capsys.readouterr().err


def test_metadata_in_a_bucket_names_files_beside_it(
    bucket_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = write_clips(tmp_path / "clips", dict(list(CLIPS.items())[:2]), num_frames=9)
    upload(clips if clips.is_dir() else clips.parent, f"{bucket_url}/set")
    name = f"{bucket_url}/set" if clips.is_dir() else f"{bucket_url}/set/{clips.name}"
    assert plan_rows(name, capsys) == plan_rows(clips, capsys)
    assert run("plan", CONFIGS / "train_vae_tiny.yaml", "--data", f"{bucket_url}/none") == 2
    assert f"error: {bucket_url}/none: no such object, and none below it" in capsys.readouterr().err
    words = ("--data", name, f"train.cache={bucket_url}/cache")
    assert run("plan", CONFIGS / "train_vae_tiny.yaml", *words) == 2
    assert "name a folder of this machine" in capsys.readouterr().err


def test_a_config_names_urls_in_the_place_of_copies(tmp_path: Path) -> None:
    for name, url in (("set", "s3://b/set"), ("weights", "s3://b/runs/one/model"), ("sources", "s3://b/set")):
        (tmp_path / name / "vae").mkdir(parents=True)
        (tmp_path / name / ".place").write_text(url)
    config = load_config(CONFIGS / "train_vae_tiny.yaml", [], {"data.metadata": str(tmp_path / "set")})
    config = placed(config, {"data.root": str(tmp_path / "sources"), "model.vae": str(tmp_path / "weights" / "vae")})
    named = places_of(as_named(config))
    assert named == {"data.metadata": "s3://b/set", "model.vae": "s3://b/runs/one/model/vae"}
    local = load_config(CONFIGS / "train_vae_tiny.yaml", [], {"data.metadata": str(tmp_path)})
    assert as_named(local) == local


@pytest.mark.slow
def test_a_run_on_data_and_weights_in_a_bucket_goes_on_on_another_machine(
    spans: str, bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, url = CONFIGS / "train_vae_tiny.yaml", f"{bucket_url}/runs/two"
    words = ("--runner", "inline", *SIZES, "watch.checkpoint_every=2")
    assert run("train", config, "--data", spans, "--output", f"{bucket_url}/runs/one", *words, "train.steps=2") == 0
    vae = f"model.vae={bucket_url}/runs/one/model/vae"
    assert run("train", config, "--data", spans, "--output", url, *words, vae, "train.steps=2") == 0
    written = open_store(url).read("config.yaml").decode()
    assert re.search(rf"metadata: {re.escape(spans)}\s", written)
    assert re.search(rf"vae: {re.escape(bucket_url)}/runs/one/model/vae\s", written)
    assert re.search(r"root: null\s", written)
    assert "stage" not in written
    shutil.rmtree(tmp_path / "stage")
    monkeypatch.setenv("SELECTS_STAGE", str(tmp_path / "another"))
    kept = tmp_path / "config.yaml"
    kept.write_text(written)
    assert run("train", kept, "--output", url, "--runner", "inline", "train.steps=4") == 0
    log = [json.loads(line) for line in open_store(url).read("log.jsonl").decode().splitlines()]
    assert max(line["step"] for line in log if line["what"] == "train") >= 2
    assert open_store(url).read("model/vae/config.json")
