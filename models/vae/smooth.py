"""Softening the borders between slices, as EasyAnimate V2 and V3 do where they sample.

Slices are decoded apart, so that a border may show where one ends. The decoded video is encoded and decoded once more,
with borders half a slice later, and both are averaged where they overlap.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from models.vae.video_vae import encode_moments, frame_pieces, grid_of, to_pixels, to_unscaled


def has_borders(vae: Any, num_frames: int) -> bool:
    """Return whether a video of so many frames is decoded in two slices or more."""
    size = grid_of(vae).frames_per_slice
    return bool(size) and num_frames >= 2 * size


@torch.no_grad()
def decode_smoothly(vae: Any, latents: torch.Tensor) -> np.ndarray:
    """Decode scaled latents (1, C, t, h, w) to uint8 (T, H, W, 3), with the borders between slices softened.

    The VAE's device holds a slice or a few of them at a time; the video waits in main memory.
    """
    pieces = [piece.clamp(-1, 1).cpu() for piece in frame_pieces(vae, to_unscaled(vae, latents))]
    return to_pixels(smooth_borders(vae, torch.cat(pieces, dim=2))[0]).numpy()


@torch.no_grad()
def smooth_borders(vae: Any, frames: torch.Tensor) -> torch.Tensor:
    """Average a decoded video with what its VAE makes of it with other borders.

    Args:
        vae: of slices; others have no borders, and videos of one slice neither.
        frames: (B, 3, T, H, W) in −1..1, T a multiple of the slice, on any device.

    Returns:
        Frames of the same shape, where the others are. The first half slice and the last are as they were.
    """
    if not has_borders(vae, frames.shape[2]):
        return frames
    softened = frames.clone()
    begin = grid_of(vae).frames_per_slice // 2
    for piece in frame_pieces(vae, torch.cat(list(_shifted(vae, frames)), dim=2)):
        end = begin + piece.shape[2]
        softened[:, :, begin:end] = (frames[:, :, begin:end] + piece.to(frames.device)) / 2
        begin = end
    return softened


def _shifted(vae: Any, frames: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield unscaled latents of slice after slice that begin half a slice later; each is encoded by itself."""
    size = grid_of(vae).frames_per_slice
    for begin in range(size // 2, frames.shape[2] - size, size):
        part = frames[:, :, begin : begin + size]
        yield encode_moments(vae, part.to(vae.device, vae.dtype))[0]
