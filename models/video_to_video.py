"""Videos made from a video: all of it by a strength, or what a mask leaves free."""

import numpy as np
import torch
from diffusers import AutoencoderKLMagvit
from torch.nn import functional

from models.conditions import Known
from models.generate import Source
from models.video_vae import SPATIAL_STRIDE, TEMPORAL_STRIDE, encode


@torch.no_grad()
def source_of_video(vae: AutoencoderKLMagvit, known: Known, strength: float, blends: bool) -> Source:
    """Begin from a video's latents.

    Args:
        vae: encodes it.
        known: the video, and the mask of what is to be generated.
        strength: share of the denoising steps that are done.
        blends: keep what the mask keeps in every step, for models that see no mask.
    """
    latents = encode(vae, known.pixels.to(vae.device, vae.dtype))
    mask = latent_mask(known.mask).to(latents) if blends and not bool((known.mask > 0).all()) else None
    return Source(latents, strength, mask)


def latent_mask(mask: torch.Tensor) -> torch.Tensor:
    """Bring a mask to latents: one is generated if any of the pixels that it stands for is.

    Args:
        mask: (B, 1, T, H, W), 1 = to be generated; T = 4n+1.

    Returns:
        (B, 1, f, h, w).
    """
    window = (TEMPORAL_STRIDE, SPATIAL_STRIDE, SPATIAL_STRIDE)
    first = mask[:, :, :1].repeat(1, 1, TEMPORAL_STRIDE, 1, 1)  # the first latent stands for one frame
    return functional.max_pool3d(torch.cat([first, mask[:, :, 1:]], dim=2).float(), window)


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
