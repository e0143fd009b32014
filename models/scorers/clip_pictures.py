"""Frames as CLIP's towers want them, in torch alone."""

import torch
import torch.nn.functional as F

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""of CLIP (arXiv 2103.00020)"""


def as_pictures(frames: torch.Tensor) -> torch.Tensor:
    """Return frames (B, 3, T, H, W) as a batch of pictures (B·T, 3, H, W), float32."""
    return frames.transpose(1, 2).flatten(0, 1).float()


def prepared(pictures: torch.Tensor, side_px: int, *, whole: bool = False) -> torch.Tensor:
    """Scale pictures (N, 3, H, W) in 0..1 bicubically with antialiasing to a square, and normalise them.

    Args:
        pictures: RGB.
        side_px: of the square.
        whole: fit the longer side and fill the rest, as HPS v2 does; else the shorter one, cut in the middle.
    """
    height, width = pictures.shape[-2:]
    factor = side_px / (max if whole else min)(height, width)
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    scaled = F.interpolate(pictures, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    mean, std = (torch.tensor(values, device=pictures.device).view(1, 3, 1, 1) for values in (MEAN, STD))
    if whole:
        down, right = side_px - size[0], side_px - size[1]
        scaled = F.pad(scaled, (right // 2, right - right // 2, down // 2, down - down // 2))
    else:
        top, left = (size[0] - side_px) // 2, (size[1] - side_px) // 2
        scaled = scaled[..., top : top + side_px, left : left + side_px]
    return (scaled - mean) / std
