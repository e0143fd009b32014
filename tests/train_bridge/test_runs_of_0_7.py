"""Training runs as version 0.7 wrote them (`tests/data/write_runs_of_0_7.py` made them) go on with today's code."""

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import run_pipeline
from configs import CONFIGS
from sampling.model import open_model
from sampling.request import Lora, Options, Request
from train_bridge.config import TrainConfig, load_config
from train_bridge.old_runs import load_run_config

torch.set_num_threads(1)
ARCHIVE = Path(__file__).parents[1] / "data" / "runs_of_0_7.tar.xz"
WRITTEN_AT = "/tmp/runs_of_0_7"  # noqa: S108 - the folder whose name the configs hold


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs, where they are now."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    here = folder / "runs_of_0_7"
    for config in here.glob("*/config.yaml"):
        config.write_text(config.read_text().replace(WRITTEN_AT, str(here)))
    return here


@pytest.fixture
def old(unpacked: Path) -> Any:
    """The runs, put back as they were after the test: names are all that 0.7 knew parts by."""
    before = unpacked.parent / "before"
    shutil.copytree(unpacked, before)
    yield unpacked
    shutil.rmtree(unpacked)
    before.rename(unpacked)


def go_on(old: Path, run: str, *words: str) -> None:
    """Train a third step, by the command with which 0.7 trained two."""
    config = CONFIGS / {"video": "train_tiny.yaml", "adapter": "train_lora_tiny.yaml"}[run]
    command = [
        "train", config, "--data", old / "clips" / "metadata.json", "--output", old / run, "--runner", "inline",
        "train.steps=3", "watch.log_every=1", "watch.checkpoint_every=3", "watch.sample_every=0",
        "buckets.sizes_px=[32]", "buckets.frames=[5]", "model.text_tokens=8", *words,
    ]  # fmt: skip
    assert run_pipeline.main([str(word) for word in command]) == 0
    assert [json.loads(line)["step"] for line in (old / run / "log.jsonl").read_text().splitlines()] == [1, 2, 3]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_its_config_means_what_was_done_then(old: Path) -> None:
    config = load_run_config(old / "video" / "config.yaml")
    assert (config.train.steps, config.buckets.frames, config.train.ema) == (2, (5,), 0.99)
    assert (config.buckets.fps, config.buckets.max_fps, config.data.validation_by) == (0.0, 30.0, "row")
    assert load_config(old / "adapter" / "config.yaml").lora.rank == 2
    assert config.reward == TrainConfig().reward, "what was added since is as it is without a word"


def test_its_checkpoint_goes_on_and_its_cache_is_not_encoded_again(
    old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = contents(old / "video" / "cache" / "shards")
    parts = [f"model.{key}={old / folder}" for key, folder in
             (("vae", "vae"), ("transformer", "transformer"), ("text_encoder", "text"))]  # fmt: skip
    go_on(old, "video", *parts)
    assert "cache: 0 encoded, 5 there already" in capsys.readouterr().out
    assert contents(old / "video" / "cache" / "shards") == shards
    first, last = (old / "video" / "checkpoints" / f"step-{step:08}" for step in (2, 3))
    file = "optimizer_transformer.pt"
    moments, before = (torch.load(folder / file, weights_only=True)["state"] for folder in (last, first))
    assert moments.keys() == before.keys() and {float(one["step"]) for one in moments.values()} == {3.0}
    for weights in ("transformer", "ema/transformer"):
        now, then = (load_file(f / weights / "diffusion_pytorch_model.safetensors") for f in (last, first))
        assert now.keys() == then.keys()
        assert 0 < max(float((now[name] - then[name]).abs().max()) for name in now) < 0.01


def test_its_adapter_goes_on(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    go_on(old, "adapter", f"model.base={old / 'video' / 'model'}", "lora.rank=2")
    assert "cache: 0 encoded, 5 there already" in capsys.readouterr().out


def test_its_adapter_leads_the_sampler(old: Path) -> None:
    model = old / "video" / "model"
    asked = Request("a red disc rolls to the right over a blue field", steps=2, seed=3)
    plain = open_model(model).sample(asked).frames
    led = [
        open_model(model, Options(loras=(Lora(old / "adapter" / "lora" / name, 1.0),))).sample(asked).frames
        for name in ("pytorch_lora_weights.safetensors", "lora_kohya.safetensors")
    ]
    assert plain.shape == (5, 32, 32, 3) and (led[0] == led[1]).all()
    assert (led[0] != plain).any()
