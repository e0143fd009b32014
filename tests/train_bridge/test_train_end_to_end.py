"""From clips with captions to samples of them, by the command line alone."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
import torch
from clips import CLIPS, OTHER_CLIPS, Painter, nearest, paint, write_clips
from closeness import close, close_pixels
from safetensors.torch import load_file

import run_pipeline

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"


def run(*words: str | Path) -> None:
    assert run_pipeline.main([str(word) for word in words]) == 0


def read_video(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def sample(model: Path, out: Path, clips: dict[str, Painter], *words: str | Path) -> dict[str, np.ndarray]:
    prompts = [word for caption in clips for word in ("--prompt", caption)]
    run("sample", model, *prompts, "--output", out, "--steps", "20", "--guidance", "2", *words)
    videos = {json.loads(p.with_suffix(".json").read_text())["prompt"]: read_video(p) for p in out.glob("*.mp4")}
    assert videos.keys() == clips.keys()
    return videos


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with metadata of four clips, a VAE that knows them and two more, a transformer that knows the four."""
    folder = tmp_path_factory.mktemp("trained")
    data, every = write_clips(folder / "clips", CLIPS), write_clips(folder / "every", CLIPS | OTHER_CLIPS)
    run("train", CONFIGS / "train_vae_tiny.yaml", "--data", every, "--output", folder / "vae", "--runner", "inline")
    run(
        "train", CONFIGS / "train_tiny.yaml", "--data", data, "--output", folder / "video", "--runner", "inline",
        f"model.vae={folder / 'vae'}",
    )  # fmt: skip
    return folder


@pytest.mark.slow
def test_each_caption_samples_its_own_clip(trained: Path, tmp_path: Path) -> None:
    videos = sample(trained / "video", tmp_path / "samples", CLIPS)
    found = {caption: nearest(frames, CLIPS) for caption, frames in videos.items()}
    assert found == {caption: caption for caption in CLIPS}
    for file in (tmp_path / "samples").glob("*.mp4"):
        assert file.with_suffix(".png").stat().st_size > 1000
        settings = json.loads(file.with_suffix(".json").read_text())
        assert settings["seed"] in range(4)
        assert settings["steps"] == 20
    again = sample(trained / "video", tmp_path / "again", CLIPS)
    assert all(close_pixels(again[caption], videos[caption]) for caption in CLIPS)


@pytest.mark.slow
def test_a_lora_leads_to_new_clips_and_leaves_the_base_alone(trained: Path, tmp_path: Path) -> None:
    base = trained / "video" / "model" / "transformer"
    before = {path.name: path.read_bytes() for path in base.iterdir()}
    data = write_clips(tmp_path / "clips", OTHER_CLIPS)
    run(
        "train", CONFIGS / "train_lora_tiny.yaml", "--data", data, "--output", tmp_path / "lora", "--runner", "inline",
        f"model.base={trained / 'video' / 'model'}",
    )  # fmt: skip
    assert {path.name: path.read_bytes() for path in base.iterdir()} == before
    plain = sample(trained / "video", tmp_path / "plain", OTHER_CLIPS)
    adapted = sample(
        trained / "video",
        tmp_path / "adapted",
        OTHER_CLIPS,
        "--lora",
        tmp_path / "lora" / "lora" / "lora_kohya.safetensors",
    )
    own = sample(tmp_path / "lora", tmp_path / "own", OTHER_CLIPS)
    for caption, painter in OTHER_CLIPS.items():
        truth = paint(painter, len(plain[caption]), plain[caption].shape[1]).astype(float)
        error = {name: np.square(v[caption] - truth).mean() for name, v in (("plain", plain), ("adapted", adapted))}
        assert error["adapted"] < 0.6 * error["plain"], (caption, error)
        assert close_pixels(adapted[caption], own[caption])  # the diffusers file does what the other one does


def last_weights(run_folder: Path, network: str) -> dict[str, torch.Tensor]:
    last = sorted((run_folder / "checkpoints").glob("step-*"))[-1]
    return load_file(last / network / "diffusion_pytorch_model.safetensors")


def losses(run_folder: Path, name: str) -> dict[int, float]:
    lines = [json.loads(line) for line in (run_folder / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line[name] for line in lines if line["what"] == "train"}


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_it_had_not_been(trained: Path, tmp_path: Path) -> None:
    words = [
        "train", CONFIGS / "train_tiny.yaml", "--data", trained / "clips" / "metadata.json", "--runner", "inline",
        f"model.vae={trained / 'vae'}", "train.steps=60", "watch.checkpoint_every=10", "watch.log_every=1",
    ]  # fmt: skip
    run(*words, "--output", tmp_path / "whole")
    command = [sys.executable, ROOT / "run_pipeline.py", *words, "--output", tmp_path / "killed"]
    draw = random.Random(5)
    kills = 0
    while kills < 3:
        process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        started, log = time.monotonic(), tmp_path / "killed" / "log.jsonl"
        wanted = draw.randint(5, 15) + (max(losses(tmp_path / "killed", "transformer"), default=0) if kills else 0)
        while process.poll() is None and time.monotonic() - started < 120:
            if log.is_file() and log.read_text().count("\n") >= wanted:
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.05)
        process.wait()
    run(*words, "--output", tmp_path / "killed")
    whole, killed = last_weights(tmp_path / "whole", "transformer"), last_weights(tmp_path / "killed", "transformer")
    assert all(close(whole[name], killed[name], 1e-3) for name in whole)
    assert losses(tmp_path / "whole", "transformer") == pytest.approx(
        losses(tmp_path / "killed", "transformer"), rel=1e-3
    )
    shutil.rmtree(tmp_path / "killed")


@pytest.mark.slow
@pytest.mark.parametrize(("sharding", "steps", "dies"), [("ddp", 30, True), ("fsdp", 8, False)])
def test_two_workers_train_what_one_trains_even_if_one_dies(
    trained: Path, tmp_path: Path, sharding: str, steps: int, dies: bool
) -> None:
    words = [
        "train", CONFIGS / "train_tiny.yaml", "--data", trained / "clips" / "metadata.json", "--runner", "inline",
        f"model.vae={trained / 'vae'}", "buckets.micro_batches_per_step=4", "buckets.tokens_per_micro_batch=12",
        f"train.steps={steps}", "watch.checkpoint_every=10", "watch.log_every=1", f"train.cache={tmp_path / 'cache'}",
    ]  # fmt: skip
    run(*words, "--output", tmp_path / "one")
    two = tmp_path / "two"
    command = [sys.executable, ROOT / "run_pipeline.py", *words, "--output", two, "launch.workers=2"]
    process = subprocess.Popen([*map(str, command), f"launch.sharding={sharding}"], stdout=subprocess.DEVNULL)
    started, killed = time.monotonic(), not dies
    while process.poll() is None and time.monotonic() - started < 300:
        if not killed and (two / "log.jsonl").is_file() and max(losses(two, "transformer"), default=0) >= 13:
            killed = kill_one_worker(process.pid)
        time.sleep(0.1)
    assert process.wait(10) == 0
    assert killed
    one_losses, two_losses = losses(tmp_path / "one", "transformer"), losses(two, "transformer")
    assert list(two_losses) == list(range(1, steps + 1))
    assert all(two_losses[step] == pytest.approx(one_losses[step], rel=1e-3) for step in one_losses)
    if sharding == "fsdp":  # divided workers write checkpoints in parts; the export makes files of them
        file = Path("model", "transformer", "diffusion_pytorch_model.safetensors")
        one, other = load_file(tmp_path / "one" / file), load_file(two / file)
    else:
        one, other = last_weights(tmp_path / "one", "transformer"), last_weights(two, "transformer")
    assert max(float((one[name] - other[name]).abs().max()) for name in one) < 1e-3


def kill_one_worker(driver: int) -> bool:
    """Kill a training worker without warning."""
    workers = [p for p in psutil.Process(driver).children(recursive=True) if "RayTrainWorker" in " ".join(p.cmdline())]
    if workers:
        workers[0].kill()
    return bool(workers)
