"""Line segments by M-LSD (Gu et al., AAAI 2022, arXiv 2106.00186): MobileNetV2 with a pyramid, "large" of the two.

Names and layout of the weights as published (`mlsd_large_512_fp32.pth`, converted from the authors' TFLite): for each
pixel at half the input's size, how much it is the middle of a segment, and where that begins and ends.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from models.annotators.loading import device_of, load_network

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))
"""of the backbone: expansion, channels, blocks, stride of the first"""
SELECTED = (1, 3, 6, 10, 13)
"""layers of the backbone that the pyramid takes"""
STEP_PX = 16
"""sides of the input are multiples of this"""
MOST_SEGMENTS, PEAK_PX = 200, 3
"""how many middles are looked at, and over which neighbourhood each must be the largest"""
OUT_OF = 7
"""channels at the front of the output that served training alone"""

FindSegments = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class ConvBnRelu(nn.Sequential):
    """Convolution, batch norm and ReLU6; a stride of 2 pads on the right and below, as TFLite does."""

    def __init__(self, channels_in: int, channels: int, size: int = 3, stride: int = 1, groups: int = 1):
        """Build it."""
        padding = 0 if stride == 2 else (size - 1) // 2
        super().__init__(
            nn.Conv2d(channels_in, channels, size, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU6(),
        )
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, channels, H / stride, W / stride)."""
        result: torch.Tensor = super().forward(F.pad(x, (0, 1, 0, 1)) if self.stride == 2 else x)
        return result


class InvertedResidual(nn.Module):
    """MobileNetV2's block (Sandler et al., 2018)."""

    def __init__(self, channels_in: int, channels: int, stride: int, expansion: int):
        """Build it."""
        super().__init__()
        hidden = channels_in * expansion
        wide = [ConvBnRelu(channels_in, hidden, 1)] if expansion != 1 else []
        self.conv = nn.Sequential(
            *wide,
            ConvBnRelu(hidden, hidden, stride=stride, groups=hidden),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.is_residual = stride == 1 and channels_in == channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, channels, H / stride, W / stride)."""
        made: torch.Tensor = self.conv(x)
        return x + made if self.is_residual else made


class Backbone(nn.Module):
    """The first layers of MobileNetV2, for RGB and a channel of ones."""

    def __init__(self) -> None:
        """Build it."""
        super().__init__()
        width = 32
        layers: list[nn.Module] = [ConvBnRelu(4, width, stride=2)]
        for expansion, channels, blocks, stride in STAGES:
            for place in range(blocks):
                layers.append(InvertedResidual(width, channels, stride if place == 0 else 1, expansion))
                width = channels
        self.features = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the features of the selected layers, the finest first."""
        found = []
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place in SELECTED:
                found.append(x)
        return found


def _convs(channels_in: int, channels: int, size: int, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (size // 2)
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, size, padding=padding, dilation=dilation), nn.BatchNorm2d(channels), nn.ReLU()
    )


class Joined(nn.Module):
    """Finer and coarser features side by side (the published `BlockTypeA`)."""

    def __init__(self, fine: int, coarse: int, *, is_half: bool = True):
        """Take so many channels of each; the coarser ones are of half the size, or of the same."""
        super().__init__()
        self.conv1, self.conv2, self.is_half = _convs(coarse, 64, 1), _convs(fine, 64, 1), is_half

    def forward(self, fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        """Return (N, 128, H, W)."""
        coarse = self.conv1(coarse)
        if self.is_half:
            coarse = F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=True)
        return torch.cat((self.conv2(fine), coarse), dim=1)


class Refined(nn.Module):
    """A residual and a plain convolution (`BlockTypeB`)."""

    def __init__(self) -> None:
        """Build it: 128 channels to 64."""
        super().__init__()
        self.conv1, self.conv2 = _convs(128, 128, 3), _convs(128, 64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, 64, H, W)."""
        result: torch.Tensor = self.conv2(self.conv1(x) + x)
        return result


class Head(nn.Module):
    """What is said of each pixel (`BlockTypeC`)."""

    def __init__(self) -> None:
        """Build it: 64 channels to 16."""
        super().__init__()
        self.conv1, self.conv2, self.conv3 = _convs(64, 64, 3, dilation=5), _convs(64, 64, 3), nn.Conv2d(64, 16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, 16, H, W)."""
        result: torch.Tensor = self.conv3(self.conv2(self.conv1(x)))
        return result


class Mlsd(nn.Module):
    """(N, 4, H, W) of RGB and ones, both less their middle, to (N, 9, H / 2, W / 2).

    Channel 0 is the logit of a segment's middle; 1 to 4 are how far its begin and its end are: x, y, x, y.
    """

    def __init__(self) -> None:
        """Build it."""
        super().__init__()
        self.backbone = Backbone()
        self.block15, self.block16 = Joined(64, 96, is_half=False), Refined()
        self.block17, self.block18 = Joined(32, 64), Refined()
        self.block19, self.block20 = Joined(24, 64), Refined()
        self.block21, self.block22 = Joined(16, 64), Refined()
        self.block23 = Head()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the maps."""
        c1, c2, c3, c4, c5 = self.backbone(x)
        x = self.block16(self.block15(c4, c5))
        x = self.block18(self.block17(c3, x))
        x = self.block20(self.block19(c2, x))
        x = self.block22(self.block21(c1, x))
        result: torch.Tensor = self.block23(x)[:, OUT_OF:]
        return result


def segments_of(maps: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Decode the network's maps (9, h, w) of one picture.

    Returns:
        float32 (N, 4), begin and end (x, y, x, y) in pixels of the input; and float32 (N,), how sure each is, 0..1.
    """
    heat = maps[0].sigmoid()
    highest = F.max_pool2d(heat[None, None], PEAK_PX, stride=1, padding=PEAK_PX // 2)[0, 0]
    scores, places = torch.where(highest == heat, heat, 0).flatten().topk(min(MOST_SEGMENTS, heat.numel()))
    rows, columns = places // heat.shape[1], places % heat.shape[1]
    middles = torch.stack([columns, rows, columns, rows], dim=1).float()
    segments = 2 * (middles + maps[1:5, rows, columns].T)  # the maps have half the input's size
    return segments.cpu().numpy(), scores.cpu().numpy()


def load_mlsd(named: str, device: str = "auto") -> FindSegments:
    """Load the network.

    Args:
        named: weights, as `models.weights.named.weights_file` takes them.
        device: as torch names it; `auto`: the GPU if there is one.

    Returns:
        The function from uint8 (H, W, 3) RGB, sides multiples of 16, to segments and scores (see `segments_of`).

    Raises:
        ModelError: weights that cannot be had or are not this network's, or a device that is not there.
    """
    network = load_network(lambda _: Mlsd(), named, "M-LSD (large)", device)

    def find(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pixels = torch.from_numpy(np.ascontiguousarray(rgb)).to(device_of(network)).permute(2, 0, 1)[None].float()
        with torch.inference_mode():
            given = torch.cat([pixels, torch.ones_like(pixels[:, :1])], dim=1) / 127.5 - 1
            return segments_of(network(given)[0])

    return find
