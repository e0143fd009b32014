"""Latents as small pictures without decoding them: the affine map from latents to colours that fits a VAE best."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from models.vae.video_vae import channels_of, decode_pixels

PROBES_PER_CHANNEL = 8
SIDE = 2
"""latents along a side of a probe"""


@dataclass(frozen=True, eq=False)
class RoughRgb:
    """An affine map from a latent to a colour.

    Attributes:
        weights: (C, 3), for colours 0..255.
        bias: (3,).
    """

    weights: torch.Tensor
    bias: torch.Tensor

    def frames(self, latents: torch.Tensor) -> np.ndarray:
        """Return one small picture per latent frame.

        Args:
            latents: scaled, (C, F, H, W), on any device.

        Returns:
            uint8 (F, H, W, 3).
        """
        colours = torch.einsum("cfhw,cd->fhwd", latents.float().cpu(), self.weights) + self.bias
        return colours.nan_to_num().clamp(0, 255).round().to(torch.uint8).numpy()


@torch.no_grad()
def fit_rough_rgb(vae: Any, device: torch.device) -> RoughRgb:
    """Fit the map by least squares to what a VAE decodes constant latents to.

    Args:
        vae: the autoencoder, on the device.
        device: where it computes.
    """
    channels = channels_of(vae)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn((PROBES_PER_CHANNEL * channels, channels), generator=generator)
    constant = drawn[:, :, None, None, None].expand(-1, -1, 1, SIDE, SIDE).to(device)
    seen = torch.from_numpy(decode_pixels(vae, constant)).float().mean(dim=(1, 2, 3))
    with_one = torch.cat([drawn, torch.ones(len(drawn), 1)], 1)
    found = torch.linalg.lstsq(with_one, seen).solution
    return RoughRgb(found[:-1], found[-1])
