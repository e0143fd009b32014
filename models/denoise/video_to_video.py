"""Videos made from a video: all of it by a strength, or what a mask leaves free."""

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from models.conditions.inpaint import Known
from models.denoise.generate import Source
from models.geometry import MAGVIT, LatentGrid
from models.vae.video_vae import encode, grid_of


@torch.no_grad()
def source_of_video(vae: Any, known: Known, strength: float, *, blends: bool) -> Source:
    """Begin from a video's latents.

    Args:
        vae: encodes it.
        known: the video, and the mask of what is to be generated.
        strength: share of the denoising steps that are done.
        blends: keep what the mask keeps in every step, for models that see no mask.
    """
    latents = encode(vae, known.pixels.to(vae.device, vae.dtype))
    mask = latent_mask(known.mask, grid_of(vae)).to(latents) if blends and not bool((known.mask > 0).all()) else None
    return Source(latents, strength, mask)


def latent_mask(mask: torch.Tensor, grid: LatentGrid = MAGVIT) -> torch.Tensor:
    """Bring a mask to latents: one is generated if any of the pixels that it stands for is.

    Args:
        mask: (B, 1, T, H, W), 1 = to be generated; T as the grid takes it.
        grid: which frames each latent stands for.

    Returns:
        (B, 1, f, h, w).
    """
    side = grid.pixels_per_latent
    parts = mask.float().split(grid.frames_of_latents(mask.shape[2]), dim=2)
    latents = torch.cat([part.amax(dim=2, keepdim=True) for part in parts], dim=2)
    return functional.max_pool3d(latents, (1, side, side))


def lay_over(generated: np.ndarray, given: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Lay given pixels over generated ones where a mask keeps them: the VAE's own error must not reach these.

    Args:
        generated: uint8 (T, H, W, 3).
        given: uint8 (T, H, W, 3).
        mask: float (T, H, W), 1 = to be generated, 0 = kept; between, both are mixed.

    Returns:
        uint8 (T, H, W, 3).
    """
    share = mask[..., None].astype(np.float32)
    mixed: np.ndarray = (share * generated + (1 - share) * given).round().astype(np.uint8)
    return mixed
