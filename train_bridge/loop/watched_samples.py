"""Samples of the config's prompts while a transformer is trained."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.conditions.spec import ConditionSpec
from models.denoise.generate import Course, Denoiser, Prompted, generate_latents
from models.denoise.objectives import Objective
from models.denoise.samplers import make_scheduler
from models.transformers.architecture import Architecture
from models.transformers.conditioning import Conditioning, row_of
from models.vae.video_vae import channels_of, decode_pixels
from sampling.pictures import contact_sheet, write_image
from train_bridge.config import TrainConfig
from train_bridge.data.rows_file import Prepared
from train_bridge.loop.parallel import Worker
from train_bridge.loop.reward_job import (
    nothing_known,
)
from train_bridge.loop.trainer import Samples


@dataclass(frozen=True, eq=False)
class Sampled:
    """What samples are made with while a transformer is trained.

    Attributes:
        family: how to call the transformer.
        vae: decodes.
        objective: what the transformer predicts.
        texts: the empty one, then the prompts.
        spec: the condition channels that the transformer has.
    """

    family: Architecture
    vae: Any
    objective: Objective
    texts: Conditioning
    spec: ConditionSpec


def samples_of(
    config: TrainConfig,
    run: Path,
    worker: Worker,
    prepared: Prepared,
    sampled: Sampled,
) -> Samples:
    """Sample the config's prompts with fixed seeds, in the shape that most rows have."""
    family, vae, objective, texts = sampled.family, sampled.vae, sampled.objective, sampled.texts
    shape = (channels_of(vae), *prepared.train_buckets.commonest.latent_shape)
    # How a model with condition channels is asked for text-to-video.
    nothing = nothing_known(sampled.spec, shape)

    def sample(step: int, transformer: nn.Module) -> None:
        scheduler = make_scheduler(objective.scheduler_config(), config.watch.sample_steps)
        transformer.eval()
        videos = []
        for seed in range(len(config.watch.prompts)):
            conditioning = dataclasses.replace(row_of(texts, seed + 1), latents=nothing)
            latents = generate_latents(
                Denoiser(family, transformer, scheduler),
                Prompted(conditioning, row_of(texts, 0), 3.0),
                shape,
                Course(config.watch.sample_steps),
                torch.Generator().manual_seed(seed),
            )
            videos.append(decode_pixels(vae, latents)[0])
        transformer.train()
        if worker.rank == 0:
            (run / "samples").mkdir(exist_ok=True)
            write_image(contact_sheet(videos, config.watch.prompts), run / "samples" / f"step-{step:08d}.png")

    return sample
