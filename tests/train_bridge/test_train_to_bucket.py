"""`train --output URL`: whole checkpoints in the bucket, from which any machine goes on to the same weights."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from buckets import make_bucket, point_at
from clips import CLIPS, write_clips
from faulty_proxy import Fault, faulty_proxy

import run_pipeline
from configs import CONFIGS
from core.errors import UserError
from core.storage.object_store import open_object_store
from curation.output.bucket import pull
from curation.output.commits import last_commit, leftovers
from curation.output.remote import place_for, remote_output
from train_bridge.loop.checkpoint import load_weights
from train_bridge.remote import TRAINED, files_at_rest, files_at_work

PROGRAM = Path(run_pipeline.__file__)


@pytest.fixture(autouse=True)
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SELECTS_STAGE", str(tmp_path / "stage"))
    return tmp_path / "stage"


def make_run(run: Path, *steps: int) -> Path:
    """Write what a run has once it has saved at some steps."""
    for step in steps:
        folder = run / "checkpoints" / f"step-{step:08d}"
        (folder / "vae").mkdir(parents=True)
        (folder / "vae" / "weights.safetensors").write_text(f"weights {step}")
        (folder / "state.json").write_text("{}")
    (run / "config.yaml").write_text("train:\n")
    (run / "log.jsonl").write_text("1\n")
    (run / "cache").mkdir(exist_ok=True)
    (run / "cache" / "latents").write_text("x")
    return run


def test_whole_checkpoints_and_copies_of_what_grows_are_committed_meanwhile(tmp_path: Path) -> None:
    run, aside = make_run(tmp_path / "run", 1, 2), tmp_path / "aside"
    (run / "checkpoints" / "step-00000003").mkdir()  # without a state: not whole
    (run / "checkpoints" / "step-00000003" / "x").write_text("half")
    (run / "model").mkdir()
    (run / "model" / "weights").write_text("half")
    found = files_at_work(run, aside)
    saved = {
        f"checkpoints/step-0000000{n}/{name}" for n in (1, 2) for name in ("state.json", "vae/weights.safetensors")
    }
    assert set(found) == {"config.yaml", "log.jsonl", *saved}
    with (run / "log.jsonl").open("a") as log:
        log.write("2\n")
    assert found["log.jsonl"].read_text() == "1\n"
    weights = "checkpoints/step-00000001/vae/weights.safetensors"
    (run / weights).unlink()
    assert found[weights].read_text() == "weights 1"
    assert {*files_at_rest(run)} >= {"model/weights", "config.yaml"}
    assert not [path for path in files_at_rest(run) if path.startswith("cache")]


def test_a_checkpoint_that_is_deleted_while_it_is_linked_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", 1, 2)
    first = run / "checkpoints" / "step-00000001"
    link = os.link

    def prune_meanwhile(source: str, target: str) -> None:
        link(source, target)
        if (first / "state.json").exists() and str(source).startswith(str(first)):
            shutil.rmtree(first)

    monkeypatch.setattr("train_bridge.remote.os.link", prune_meanwhile)
    found = files_at_work(run, tmp_path / "aside")
    assert {path.split("/")[1] for path in found if path.startswith("checkpoints/")} == {"step-00000002"}


def test_a_bucket_holds_one_kind_of_output(bucket_url: str) -> None:
    store = open_object_store(f"{bucket_url}/run")
    with remote_output(store, TRAINED) as output:
        output.folder.mkdir(exist_ok=True)
        make_run(output.folder, 1)
        output.finish(is_complete=True)
    assert leftovers(store) == []
    with pytest.raises(UserError, match="output of another command"), remote_output(store):
        pass
    with remote_output(store, TRAINED) as output:
        assert (output.folder / "checkpoints" / "step-00000001" / "state.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("is_lost", [False, True], ids=["same machine", "folder lost"])
def test_training_that_was_killed_goes_on_from_the_last_checkpoint_in_the_bucket(
    s3_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_lost: bool
) -> None:
    clips = write_clips(tmp_path / "clips", dict(list(CLIPS.items())[:2]), num_frames=9)
    settings = ["train.steps=12", "watch.checkpoint_every=1", "watch.keep_checkpoints=2", "watch.log_every=1"]
    sizes = ["buckets.sizes_px=[32]", "buckets.frames=[5]"]
    words = ["train", CONFIGS / "train_vae_tiny.yaml", "--data", clips, "--runner", "inline", *settings, *sizes]
    words = [str(word) for word in words]
    assert run_pipeline.main([*words, "--output", str(tmp_path / "local")]) == 0
    url = f"s3://{make_bucket(s3_address)}/run"
    commits: list[str] = []
    processes: list[subprocess.Popen[bytes]] = []

    def kill_after_a_commit(number: int, method: str, path: str) -> Fault:
        if commits and processes[0].poll() is None:
            os.killpg(processes[0].pid, signal.SIGKILL)
        if method == "PUT" and re.search(r"/_commits/\d+\.json", path):
            commits.append(path)
        return ""

    with faulty_proxy(s3_address, kill_after_a_commit) as (address, _):
        point_at(address, monkeypatch, tmp_path)
        log = tmp_path / "log.txt"
        with log.open("wb") as file:
            command = [sys.executable, str(PROGRAM), *words, "--output", url]
            processes.append(subprocess.Popen(command, start_new_session=True, stdout=file, stderr=file))
        assert processes[0].wait(240) == -signal.SIGKILL, log.read_text()[-2000:]
    point_at(s3_address, monkeypatch, tmp_path)
    store = open_object_store(url)
    kept = [path for path in last_commit(store).files if path.endswith("state.json")]
    assert kept, "a whole checkpoint is in the bucket"
    assert "model" not in {path.partition("/")[0] for path in last_commit(store).files}
    if is_lost:
        (place_for(url) / "out").rename(tmp_path / "lost")
    assert run_pipeline.main([*words, "--output", url]) == 0
    pull(store, tmp_path / "copy")
    for name in ("vae",):
        ours, theirs = (load_weights(run / "model" / name) for run in (tmp_path / "copy", tmp_path / "local"))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    steps = [line.split('"step": ')[1].split(",")[0] for line in (tmp_path / "copy" / "log.jsonl").open()]
    assert steps == [line.split('"step": ')[1].split(",")[0] for line in (tmp_path / "local" / "log.jsonl").open()]
    assert len([p for p in (tmp_path / "copy" / "checkpoints").iterdir()]) == 2
    assert leftovers(store) == []
    assert not (tmp_path / "copy" / "cache").exists()
