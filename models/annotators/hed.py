"""Holistically nested edges (Xie and Tu, ICCV 2015, arXiv 1504.06375), as retrained for ControlNet under Apache-2.0.

Five blocks of convolutions of VGG's widths; each has a projection to one map of edges, at half the size of the one
before. Names of the weights as published (`ControlNetHED.pth`): `norm`, `block1.convs.0`, `block1.projection`, ….
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from models.annotators.loading import device_of, load_network

WIDTHS = (64, 128, 256, 512, 512)
DEPTHS = (2, 2, 3, 3, 3)
"""convolutions of each block"""

FindEdges = Callable[[np.ndarray], np.ndarray]


class HedBlock(nn.Module):
    """Convolutions of 3 x 3 with ReLU, and what they say of edges."""

    def __init__(self, channels_in: int, channels: int, depth: int):
        """Take `channels_in`, give `channels`, in so many convolutions."""
        super().__init__()
        sizes = (channels_in, *(channels,) * (depth - 1))
        self.convs = nn.Sequential(*(nn.Conv2d(size, channels, 3, padding=1) for size in sizes))
        self.projection = nn.Conv2d(channels, 1, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features (N, channels, H, W) and the map of edges (N, 1, H, W), before the logistic function."""
        for conv in self.convs:
            x = F.relu(conv(x))
        return x, self.projection(x)


class Hed(nn.Module):
    """RGB (N, 3, H, W) in 0..255 to five maps of edges (N, 1, H / 2^i, W / 2^i), before the logistic function."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS):
        """Build it, with as many channels in its blocks as published or fewer."""
        super().__init__()
        self.norm = nn.Parameter(torch.zeros(1, 3, 1, 1))
        for place, (width, depth) in enumerate(zip(widths, DEPTHS, strict=True)):
            self.add_module(f"block{place + 1}", HedBlock((3, *widths)[place], width, depth))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps of the five blocks, the finest first."""
        features, maps = x - self.norm, []
        for place in range(len(DEPTHS)):
            if place:
                features = F.max_pool2d(features, 2, 2)
            features, edges = self.get_submodule(f"block{place + 1}")(features)
            maps.append(edges)
        return maps


def load_hed(named: str, device: str = "auto") -> FindEdges:
    """Load the network.

    Args:
        named: weights, as `models.weights.named.weights_file` takes them.
        device: as torch names it; `auto`: the GPU if there is one.

    Returns:
        The function from uint8 (H, W, 3) RGB to float32 (H, W): how much a pixel is an edge, 0..1, the logistic
        function of the mean of the five maps.

    Raises:
        ModelError: weights that cannot be had or are not this network's, or a device that is not there.
    """
    network = load_network(lambda state: Hed(_widths_of(state)), named, "ControlNet's HED", device)

    def find(rgb: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(np.ascontiguousarray(rgb)).to(device_of(network)).permute(2, 0, 1)[None].float()
        with torch.inference_mode():
            maps = network(pixels)
            # As OpenCV's INTER_LINEAR enlarges, which the published detector uses.
            full = [F.interpolate(one, rgb.shape[:2], mode="bilinear", align_corners=False) for one in maps]
            edges = torch.cat(full, dim=1).mean(dim=1).sigmoid()[0]
        return np.asarray(edges.cpu().numpy())

    return find


def _widths_of(state: Mapping[str, torch.Tensor]) -> tuple[int, ...]:
    """Return how wide the blocks are whose tensors these are; as published where that cannot be told."""
    firsts = [state.get(f"block{place + 1}.convs.0.weight") for place in range(len(DEPTHS))]
    return tuple(width if one is None else len(one) for one, width in zip(firsts, WIDTHS, strict=True))
