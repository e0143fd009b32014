"""From noise to latents: the denoising loop with classifier-free guidance."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.utils.torch_utils import randn_tensor
from torch import nn

from models.architecture import Architecture


@torch.no_grad()
def generate_latents(
    family: Architecture,
    transformer: nn.Module,
    scheduler: Any,
    text: torch.Tensor,
    negative: torch.Tensor | None,
    shape: tuple[int, int, int, int],
    steps: int,
    guidance: float,
    generator: torch.Generator,
    progress: Callable[[int, int], None] | None = None,
) -> torch.Tensor:
    """Sample latents for a batch of texts, step for step as diffusers' EasyAnimatePipeline does.

    Args:
        family: how to call the transformer.
        transformer: the network.
        scheduler: fits the weights' objective (`samplers.make_scheduler`).
        text: embeddings (B, L, D).
        negative: embeddings (1 or B, L, D) that guidance leads away from; None or guidance ≤ 1: no guidance,
            and half the work.
        shape: latent channels, frames, height, width.
        steps: denoising steps.
        guidance: scale w of uncond + w·(cond − uncond) (arXiv 2207.12598).
        generator: draws the first noise; on the CPU it gives the same noise for every device.
        progress: called with steps done and steps in all.

    Returns:
        Scaled latents (B, C, F, H, W); divide by the VAE's scaling factor to decode.
    """
    count, device, dtype = len(text), text.device, text.dtype
    guided = negative is not None and guidance > 1
    if guided:
        assert negative is not None
        text = torch.cat([negative.expand(count, -1, -1), text])
    # The pipeline's own call: mu matters to configurations with dynamic shifting only.
    extra = {"mu": 1} if isinstance(scheduler, FlowMatchEulerDiscreteScheduler) else {}
    scheduler.set_timesteps(steps, device=device, **extra)
    latents = randn_tensor((count, *shape), generator=generator, device=device, dtype=dtype)
    latents = latents * getattr(scheduler, "init_noise_sigma", 1.0)
    for done, timestep in enumerate(scheduler.timesteps):
        both = torch.cat([latents] * 2) if guided else latents
        if hasattr(scheduler, "scale_model_input"):
            both = scheduler.scale_model_input(both, timestep)
        levels = torch.full((len(both),), float(timestep), device=device).to(dtype)
        prediction = family.predict(transformer, both, levels, text)
        if prediction.shape[1] != shape[0]:
            prediction = prediction.chunk(2, dim=1)[0]  # learned variance is not used
        if guided:
            without, with_text = prediction.chunk(2)
            prediction = without + guidance * (with_text - without)
        latents = scheduler.step(prediction, timestep, latents, return_dict=False)[0]
        if progress is not None:
            progress(done + 1, len(scheduler.timesteps))
    return latents
