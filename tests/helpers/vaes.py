"""Video autoencoders in which every weight matters."""

from collections.abc import Mapping
from typing import Any

import torch

from models.vae.table import PRESETS, build_vae

NARROW: Mapping[str, Any] = {"block_out_channels": (4, 8, 8, 8), "norm_num_groups": 2}


def stirred(preset: str, dtype: torch.dtype = torch.float64, seed: int = 1, narrow: bool = True) -> Any:
    """Build a preset, narrower, and draw all its weights: the taps of other frames and the norms' scales among them."""
    generator = torch.Generator().manual_seed(seed)
    vae = build_vae({**PRESETS[preset], **(NARROW if narrow else {})})
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.3 * noise + float("norm" in name and name.endswith("weight")))
    return vae.to(dtype).eval()


def signed(*shape: int, seed: int = 2, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Draw frames in −1..1, or latents."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2 - 1
