"""Commands of training over tiny parts, and what they say."""

from pathlib import Path

import pytest
import torch
from clips import CLIPS, write_clips
from pipelines import write_index

import run_pipeline
from models.text.qwen2_vl import build_tiny
from models.transformers.easyanimate_v5 import EasyAnimate
from models.vae.video_vae import PRESETS, build_vae

CONFIGS = Path(run_pipeline.__file__).parent / "configs"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips, an untrained VAE, and a pipeline of untrained parts."""
    folder = tmp_path_factory.mktemp("parts")
    write_clips(folder / "clips", CLIPS)
    torch.manual_seed(0)
    build_vae(PRESETS["tiny"]).save_pretrained(folder / "vae")
    build_vae(dict(PRESETS["tiny"]) | {"latent_channels": 4}).save_pretrained(folder / "vae4")
    family = EasyAnimate()
    pipeline = folder / "pipeline"
    family.build(family.presets["tiny"]).save_pretrained(pipeline / "transformer")
    build_vae(PRESETS["tiny"]).save_pretrained(pipeline / "vae")
    build_tiny(pipeline)
    write_index(pipeline)
    return folder


def said(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """Run a command that fails as a user's mistake does; return its one line."""
    capsys.readouterr()
    assert run_pipeline.main([str(word) for word in words]) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: ")
    assert "\n" not in line
    return line


def plan(parts: Path, *words: str) -> list[str | Path]:
    data = parts / "clips" / "metadata.json"
    return ["plan", CONFIGS / "train_tiny.yaml", "--data", data, f"model.vae={parts / 'vae'}", *words]
