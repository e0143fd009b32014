"""Control and reference as a control model sees them: latents of a map, and those of an image in the first frame."""

from typing import Any

import torch

from models.vae.video_vae import encode


@torch.no_grad()
def control_latents(vae: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Return the latents of a control video (B, 3, T, H, W) in -1..1: (B, C, f, h, w), scaled."""
    return encode(vae, pixels.to(vae.device, vae.dtype))


@torch.no_grad()
def reference_latents(vae: Any, image: torch.Tensor, latent_frames: int) -> torch.Tensor:
    """Return the latents of a reference image (B, 3, 1, H, W) in -1..1, as `at_first` puts them."""
    return at_first(encode(vae, image.to(vae.device, vae.dtype)), latent_frames)


def at_first(latents: torch.Tensor, latent_frames: int) -> torch.Tensor:
    """Put the latents of an image (B, C, 1, h, w) in the first of so many latent frames, zeros after it.

    For a picture, which has one latent frame, there is no reference: published models saw none.
    """
    whole = latents.new_zeros(*latents.shape[:2], latent_frames, *latents.shape[3:])
    if latent_frames > 1:
        whole[:, :, :1] = latents
    return whole
