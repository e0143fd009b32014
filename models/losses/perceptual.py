"""The perceptual distance LPIPS (Zhang et al. 2018, arXiv 1801.03924) with VGG16 features, from a local file.

The file holds two published state dicts in one, as safetensors or saved by torch; other keys are passed over:

- torchvision's VGG16 (`vgg16-397923af.pth`): `features.0.weight` … `features.28.bias`;
- LPIPS' heads (`lpips/weights/v0.1/vgg.pth` of the authors): `lin0.model.1.weight` … `lin4.model.1.weight`.
"""

import pickle
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from models.errors import ModelError

TAPS = (3, 8, 15, 22, 29)
"""layers of VGG16 whose outputs are compared: the last ReLU before each pooling"""
WIDTHS = (64, 128, 256, 512, 512)
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
MEND = (
    "save one file with both published state dicts: torchvision's vgg16-397923af.pth and LPIPS' weights/v0.1/vgg.pth, "
    "torch.save({**torch.load(a), **torch.load(b)}, file)"
)


class LPIPS(nn.Module):
    """Distance between frames in VGG16's features; frozen, but gradients pass to the frames."""

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self) -> None:
        """Build with random weights; `load_lpips` gives the published ones."""
        super().__init__()
        self.features = make_layers(cfgs["D"])[: TAPS[-1] + 1]  # VGG16 without its classifier
        self.lin = nn.ParameterList(torch.zeros(1, width, 1, 1) for width in WIDTHS)
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, frames: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """Return the distance of two videos, frame by frame.

        Args:
            frames: (B, 3, T, H, W) in −1..1, at least 16 px a side.
            others: of the same shape.

        Returns:
            (B,), the mean over frames.
        """
        batch, count = frames.shape[0], frames.shape[2]
        x, y = ((v.transpose(1, 2).flatten(0, 1) - self.shift) / self.scale for v in (frames, others))
        distance = torch.zeros(batch * count, device=frames.device)
        taps = iter(self.lin)
        for i, layer in enumerate(self.features):
            x, y = layer(x), layer(y)
            if i in TAPS:
                # normalize() has a gradient, zero, where all features are zero; a plain division has none.
                difference = F.normalize(x, dim=1, eps=1e-10) - F.normalize(y, dim=1, eps=1e-10)
                distance = distance + (difference.square() * next(taps)).sum(dim=1).mean(dim=(1, 2))
        return distance.view(batch, count).mean(dim=1)


def load_lpips(path: Path) -> LPIPS:
    """Load the distance from one local file (see the module's text).

    Raises:
        ModelError: no such file, not readable without running code, or weights missing or of other shapes.
    """
    path = Path(path)
    weights = _read(path)
    model = LPIPS()
    wanted = {f"features.{name}": tensor for name, tensor in model.features.named_parameters()}
    wanted |= {f"lin{i}.model.1.weight": tensor for i, tensor in enumerate(model.lin)}
    for name, tensor in wanted.items():
        if name not in weights:
            raise ModelError(f"{path}: no LPIPS weights '{name}'; {MEND}")
        if weights[name].shape != tensor.shape:
            shapes = f"{tuple(weights[name].shape)}, not {tuple(tensor.shape)}"
            raise ModelError(f"{path}: LPIPS weights '{name}' are {shapes}; {MEND}")
        tensor.data.copy_(weights[name])
    return model


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        text = "no such file" if isinstance(error, FileNotFoundError) else f"unreadable ({type(error).__name__})"
        raise ModelError(f"{path}: {text}; for LPIPS {MEND}") from error
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise ModelError(f"{path}: not a state dict; for LPIPS {MEND}")
    return weights
