"""Softening the borders between slices, as EasyAnimate V2 and V3 do where they sample.

Slices are decoded apart, so that a border may show where one ends. The decoded video is encoded and decoded once more,
with borders half a slice later, and both are averaged where they overlap.
"""

from typing import Any

import torch

from models.vae.video_vae import decode_frames, encode_moments, grid_of


@torch.no_grad()
def smooth_borders(vae: Any, frames: torch.Tensor) -> torch.Tensor:
    """Average a decoded video with what its VAE makes of it with other borders.

    Args:
        vae: of slices; others have no borders, and videos of one slice neither.
        frames: (B, 3, T, H, W) as `decode_frames` gives them, T a multiple of the slice.

    Returns:
        Frames of the same shape. The first half slice and the last are as they were.
    """
    size = grid_of(vae).frames_per_slice
    if not size or frames.shape[2] < 2 * size:
        return frames
    begin = size // 2
    inner = slice(begin, frames.shape[2] - (size - begin))
    mean, _ = encode_moments(vae, frames[:, :, inner].clamp(-1, 1))
    softened = frames.clone()
    softened[:, :, inner] = (frames[:, :, inner] + decode_frames(vae, mean)) / 2
    return softened
