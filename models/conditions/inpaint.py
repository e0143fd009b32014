"""What a model with condition channels sees beside the noise: which pixels are known, and the known pixels.

EasyAnimate V5's and V5.1's convention is made as diffusers' EasyAnimateInpaintPipeline makes it, so that published
weights work: behind the latents (C) come a mask (1, 1 = known) and latents of the masked video (C) on the channel axis.
V3 and V4 have latents of the mask (C) in its place: a picture of 1 where pixels are to be generated and of 0 elsewhere,
as the VAE encodes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from models.conditions.spec import INPAINT, ConditionSpec
from models.errors import ModelError
from models.vae.video_vae import channels_of, check_frames, encode, grid_of, scaling_factor_of

HIDDEN = -1.0
"""what pixels to be generated are painted over with: black"""
SAMPLING_NOISE = 0.0563
"""deviation of the noise on known pixels in sampling, where a model's `add_noise_in_inpaint_model` asks for it"""
LOG_NOISE = (-3.0, 0.5)
"""mean and deviation of the logarithm of that deviation in training"""


@dataclass(frozen=True)
class Known:
    """Which pixels of a video are given.

    Attributes:
        pixels: (B, 3, T, H, W) in −1..1; what lies where the mask is 1 is never looked at.
        mask: (B, 1, T, H, W), 1 = to be generated, 0 = kept.
    """

    pixels: torch.Tensor
    mask: torch.Tensor

    def __post_init__(self) -> None:
        """Refuse pixels and masks of different shapes."""
        pixels, mask = tuple(self.pixels.shape), tuple(self.mask.shape)
        if len(pixels) != 5 or mask != (pixels[0], 1, *pixels[2:]):
            raise ModelError(
                f"mask {mask} for pixels {pixels}: wanted (batch, 1, frames, height, width) for "
                "(batch, 3, frames, height, width); bring the mask to the video's frames and size"
            )


@torch.no_grad()
def condition_latents(
    vae: Any,
    known: Known,
    generators: Sequence[torch.Generator] | None = None,
    sigma: float | None = None,
    zero_full: Sequence[bool] | None = None,
    spec: ConditionSpec = INPAINT,
) -> torch.Tensor:
    """Make the condition channels.

    Args:
        vae: encodes the video with hidden pixels painted black.
        known: which pixels are given.
        generators: one for each row, on the CPU the same for every device: noise is laid on the known pixels first
            (those at −1 are spared, as V5 spares them); None: none.
        sigma: deviation of that noise; None: exp(N(−3, 0.5)), drawn for each row as in V5's training.
        zero_full: for each row, whether it is all zeros when its mask is all 1, which is how V5 is asked for
            text-to-video; None: all.
        spec: the channels that the model has.

    Returns:
        (B, 1+C, f, h, w), or with an encoded mask (B, C+C, f, h, w), scaled, of the VAE's type and on its device.

    Raises:
        ModelError: frames or sides that the VAE cannot encode.
    """
    device, factor = vae.device, scaling_factor_of(vae)
    hidden = (known.mask >= 0.5).to(device)
    pixels = torch.where(hidden, HIDDEN, known.pixels.to(device, torch.float32))
    check_frames(vae, pixels)
    rows = []
    for row in range(len(pixels)):
        one, mask = pixels[row : row + 1], hidden[row : row + 1]
        if bool(mask.all()) and (zero_full is None or zero_full[row]):
            frames, height, width = one.shape[2:]
            shape = grid_of(vae).latent_shape(frames, height, width)
            rows.append(torch.zeros(1, spec.channels(channels_of(vae)), *shape, device=device, dtype=vae.dtype))
            continue
        if generators is not None:
            one = _with_noise(one, generators[row], sigma)
        if "encoded_mask" in spec:
            both = encode(vae, torch.cat([mask.expand_as(one).to(vae.dtype), one.to(vae.dtype)]))
            rows.append(torch.cat(both.split(1), dim=1))
            continue
        latents = encode(vae, one.to(vae.dtype))
        seen = (resize_mask(~mask, latents.shape[2:]) * factor).to(latents)
        rows.append(torch.cat([seen, latents], dim=1))
    return torch.cat(rows)


def resize_mask(mask: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Bring a mask to the size of latents: the first frame by itself, as the VAE encodes it, then the others.

    Args:
        mask: (B, 1, T, H, W).
        size: latent frames, height and width.

    Returns:
        (B, 1, *size), float.
    """
    mask, (frames, height, width) = mask.float(), size
    first = functional.interpolate(mask[:, :, :1], (1, height, width), mode="trilinear", align_corners=False)
    if frames == 1:
        return first
    rest = functional.interpolate(mask[:, :, 1:], (frames - 1, height, width), mode="trilinear", align_corners=False)
    return torch.cat([first, rest], dim=2)


def _with_noise(pixels: torch.Tensor, generator: torch.Generator, sigma: float | None) -> torch.Tensor:
    deviation: torch.Tensor | float
    if sigma is None:
        deviation = torch.normal(*LOG_NOISE, (1,), generator=generator, device=generator.device).exp().to(pixels)
    else:
        deviation = sigma
    noise = torch.randn(pixels.shape, generator=generator, device=generator.device).to(pixels) * deviation
    return torch.where(pixels == HIDDEN, pixels, pixels + noise)
