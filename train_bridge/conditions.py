"""What an inpaint model sees in training: videos behind drawn masks, the same for a row's seed on every machine."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from diffusers import AutoencoderKLMagvit

from models.conditions import Known, condition_latents
from models.masks import V5_PROBABILITIES, draw_mask
from models.video_vae import SPATIAL_STRIDE, TEMPORAL_STRIDE, from_latents, to_signed
from train_bridge.config import InpaintSettings

GREY = 0.0
"""what a hidden pixel is shown as to people, in −1..1; the network sees black"""


def mask_probabilities(settings: InpaintSettings) -> dict[str, float]:
    """Give the share of each kind of mask: as named, else V5's."""
    return dict(settings.masks or V5_PROBABILITIES)


def draw_known(
    settings: InpaintSettings, frames: torch.Tensor, generators: Sequence[torch.Generator]
) -> tuple[Known, list[bool]]:
    """Draw a mask for each row.

    Args:
        settings: which masks.
        frames: uint8 (B, T, H, W, 3).
        generators: one for each row.

    Returns:
        What is known, and for each row whether its condition is all zeros if it is masked wholly.
    """
    probabilities, size = mask_probabilities(settings), (frames.shape[1], frames.shape[2], frames.shape[3])
    masks = [draw_mask(probabilities, size, generator)[1] for generator in generators]
    zeroed = [float(torch.rand(1, generator=generator)) < settings.zeroed for generator in generators]
    return Known(to_signed(frames), torch.stack(masks)[:, None].float()), zeroed


@torch.no_grad()
def encode_condition(
    vae: AutoencoderKLMagvit, settings: InpaintSettings, frames: torch.Tensor, seeds: tuple[int, ...]
) -> torch.Tensor:
    """Mask and encode, row by row: no row depends on the others of its batch.

    Args:
        vae: frozen.
        settings: which masks, and whether with noise.
        frames: uint8 (B, T, H, W, 3).
        seeds: one for each row.

    Returns:
        (B, 1+C, f, h, w) on the CPU, float32.
    """
    generators = [_generator(seed) for seed in seeds]
    known, zeroed = draw_known(settings, frames, generators)
    noise = generators if settings.reference_noise else None
    return condition_latents(vae, known, noise, zero_full=zeroed).float().cpu()


@torch.no_grad()
def show_condition(vae: AutoencoderKLMagvit, condition: torch.Tensor) -> np.ndarray:
    """Show people what the network sees: the masked video decoded, with grey where the mask latents hide it.

    Args:
        vae: decodes.
        condition: (B, 1+C, f, h, w).

    Returns:
        uint8 (B, T, H, W, 3).
    """
    condition = condition.to(vae.device, torch.float32)
    kept = (condition[:, :1] / vae.config.scaling_factor).clamp(0, 1)
    for axis, stride in ((2, TEMPORAL_STRIDE), (3, SPATIAL_STRIDE), (4, SPATIAL_STRIDE)):
        kept = kept.repeat_interleave(stride, dim=axis)
    kept = kept[:, :, TEMPORAL_STRIDE - 1 :]  # the first latent frame is one frame
    seen = torch.cat([from_latents(vae, one[None, 1:]) for one in condition]).float().clamp(-1, 1)
    pixels = ((kept * seen + (1 - kept) * GREY + 1) * 127.5).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 4, 1).cpu().numpy()


def _generator(seed: int) -> torch.Generator:
    """Give a generator of its own beside the one that noise is drawn from; torch reads 32 bits of a seed."""
    digest = hashlib.blake2b(f"condition {seed}".encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))
