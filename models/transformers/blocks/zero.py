"""Layers that change nothing until they are trained."""

from typing import Any

import torch
from torch import nn


def zero(layer: nn.Linear) -> nn.Linear:
    """Set a layer's weights to zero, and return it."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


@torch.no_grad()
def widened(old: nn.Conv2d, channels: int) -> nn.Conv2d:
    """Return a convolution like another one, on its device, with more channels in, of which it sees nothing yet."""
    size: Any = old.kernel_size
    stride: Any = old.stride
    wide = nn.Conv2d(channels, old.out_channels, size, stride, bias=old.bias is not None)
    wide = wide.to(old.weight.device, old.weight.dtype)
    wide.weight.zero_()
    wide.weight[:, : old.in_channels] = old.weight
    if wide.bias is not None:
        wide.bias.copy_(old.bias)  # type: ignore[arg-type]
    return wide
