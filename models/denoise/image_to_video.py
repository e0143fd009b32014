"""Videos of which the first frames, the last, or both are given."""

from typing import Any

import torch

from models.conditions.inpaint import Known
from models.denoise.generate import Source
from models.errors import ModelError
from models.vae.video_vae import encode, grid_of


def known_ends(first: torch.Tensor | None, last: torch.Tensor | None, num_frames: int) -> Known:
    """Say that a video's first and last frames are given.

    Args:
        first: (B, 3, n, H, W) in −1..1, or none.
        last: (B, 3, m, H, W), or none; at least one of the two is given.
        num_frames: of the whole video.

    Raises:
        ModelError: more frames are given than there are to be.
    """
    given = [part for part in (first, last) if part is not None]
    count = sum(part.shape[2] for part in given)
    if count > num_frames:
        raise ModelError(f"{count} frames are given for a video of {num_frames}; give fewer, or ask for more")
    batch, channels, _, height, width = given[0].shape
    pixels = torch.zeros(batch, channels, num_frames, height, width, dtype=given[0].dtype)
    mask = torch.ones(batch, 1, num_frames, height, width)
    if first is not None:
        pixels[:, :, : first.shape[2]] = first
        mask[:, :, : first.shape[2]] = 0
    if last is not None:
        pixels[:, :, num_frames - last.shape[2] :] = last
        mask[:, :, num_frames - last.shape[2] :] = 0
    return Known(pixels, mask)


@torch.no_grad()
def source_of_first(vae: Any, first: torch.Tensor, num_frames: int) -> Source:
    """Let a model without condition channels begin with given frames: their latents are kept in every step.

    In what its grid takes, the latents of the first frames do not depend on what follows: the VAE is causal, or they
    are slices of their own.

    Args:
        vae: encodes the frames.
        first: (B, 3, n, H, W) in −1..1, n as the grid takes it.
        num_frames: of the whole video.

    Raises:
        ModelError: a number of frames that the VAE cannot encode.
    """
    kept = encode(vae, first.to(vae.device, vae.dtype))
    count = grid_of(vae).latent_frames(num_frames)
    if kept.shape[2] > count:
        raise ModelError(f"{first.shape[2]} frames are given for a video of {num_frames}; give fewer")
    latents = torch.zeros(*kept.shape[:2], count, *kept.shape[3:], dtype=kept.dtype, device=kept.device)
    latents[:, :, : kept.shape[2]] = kept
    mask = torch.ones_like(latents[:, :1])
    mask[:, :, : kept.shape[2]] = 0
    return Source(latents, mask=mask)
