"""The demo's training: tiny models on what the demo curated, and samples of them."""

import json
from pathlib import Path
from typing import Literal

from curation.export import INTERNAL_NAME
from sampling.command import sample
from sampling.request import Request, each_of
from train_bridge.config import load_config
from train_bridge.run import train


def train_demo(
    curated: Path, configs: Path, out: Path, runner: Literal["ray", "inline"], ray_address: str | None
) -> list[Path]:
    """Train a VAE and a transformer, and sample from them.

    Args:
        curated: the demo's curated output.
        configs: folder of the training configs.
        out: where the models and samples go.
        runner: `ray` or `inline`.
        ray_address: a cluster's, or null.

    Returns:
        The sampled videos.
    """
    data = {"data.metadata": str(curated)}
    print("\ntraining a tiny video VAE (3 minutes or so; Ctrl-C is safe: the same command resumes) …", flush=True)
    config = load_config(configs / "train_vae_tiny.yaml", ["train.steps=900"], data)
    train(config, out / "vae", runner, ray_address)
    print("\ntraining a tiny transformer on its latents (a minute or so) …", flush=True)
    config = load_config(configs / "train_tiny.yaml", [f"model.vae={out / 'vae'}", "train.steps=900"], data)
    model = train(config, out / "video", runner, ray_address)
    captions = [row["text"] for row in json.loads((curated / INTERNAL_NAME).read_text(encoding="utf-8"))]
    print("\nsampling …", flush=True)
    requests = each_of(Request("", steps=25, guidance=2.0), sorted(set(captions))[:2])
    return sample(model, requests, out / "samples")
