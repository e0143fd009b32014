"""Rotary positions of HunyuanDiT (arXiv 2405.08748): two axes, fitted into the square that it was first trained at.

diffusers from 0.32 on spaces the positions otherwise where a picture is not square; these are those that EasyAnimate V4
was trained with.
"""

import torch

THETA = 10000.0


def fit_into(height: int, width: int, base: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return where a grid begins and ends on each axis of a square of `base` tokens, fitted in and centred.

    Returns:
        (top, bottom), (left, right), in tokens of the square.
    """
    if height > width:
        tall, wide = base, round(base / height * width)
    else:
        tall, wide = round(base / width * height), base
    top, left = round((base - tall) / 2), round((base - wide) / 2)
    return (top, top + tall), (left, left + wide)


def rotary_positions(height: int, width: int, base: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each token's place (y, x) in the square, (height·width,) each, row after row, in float32."""
    (top, bottom), (left, right) = fit_into(height, width, base)
    y = top + (bottom - top) * torch.arange(height, dtype=torch.float32) / height
    x = left + (right - left) * torch.arange(width, dtype=torch.float32) / width
    return y.repeat_interleave(width), x.repeat(height)


def rotary_2d(height: int, width: int, head_dim: int, base: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines (height·width, head_dim): the first half of a head turns with x, the second with y.

    Neighbouring channels are a pair that turns together, so each value stands twice.

    Raises:
        ValueError: the channels of a head are not a multiple of 4.
    """
    if head_dim % 4:
        raise ValueError(f"{head_dim} channels in a head; rotary positions on two axes need a multiple of 4")
    half = head_dim // 2
    rates = 1.0 / THETA ** (torch.arange(0, half, 2, dtype=torch.float32) / half)
    y, x = rotary_positions(height, width, base)
    angles = torch.cat((torch.outer(x, rates), torch.outer(y, rates)), dim=1).repeat_interleave(2, dim=1)
    return angles.cos(), angles.sin()
