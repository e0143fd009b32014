"""The video autoencoder of EasyAnimate V5/V5.1 (MagViT, 4×8×8), on diffusers' own `AutoencoderKLMagvit`.

Weights, config and files are diffusers', unchanged; only the forward pass is ours (see `models.magvit`): it keeps no
state, so that it can be checkpointed and data-parallel, and it gives what diffusers gives.
"""

import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLMagvit
from torch import nn

from models import magvit
from models.errors import ModelError, check_weights, one_line
from models.magvit import Stretch
from models.vae_init import init_vae
from models.vae_tiling import in_tiles, needs_tiles

TEMPORAL_STRIDE = 4
"""frames per latent frame after the first: 4n+1 frames become n+1 latent frames"""
SPATIAL_STRIDE = 8
"""pixels per latent, in height and width"""
PRESETS: Mapping[str, Mapping[str, Any]] = {
    # Learns a few small drawn clips on one CPU core within a minute.
    "tiny": {
        "latent_channels": 16,
        "block_out_channels": (8, 8, 32, 64),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "spatial_group_norm": True,
    },
    # As published with EasyAnimate V5 and V5.1.
    "magvit": {"latent_channels": 16, "block_out_channels": (128, 256, 512, 512)},
}


def build_vae(config: Mapping[str, Any]) -> AutoencoderKLMagvit:
    """Build an autoencoder with random weights (from torch's global generator).

    Args:
        config: arguments of `AutoencoderKLMagvit`, or the content of its `config.json`.

    Raises:
        ModelError: unknown keys, values that do not fit together, or compression other than 4×8×8.
    """
    values = {name: value for name, value in config.items() if not name.startswith("_")}
    unknown = values.keys() - inspect.signature(AutoencoderKLMagvit.__init__).parameters.keys()
    if unknown:
        raise ModelError(f"VAE config: AutoencoderKLMagvit knows no key '{min(unknown)}'; remove or rename it")
    try:
        vae = AutoencoderKLMagvit(**values)
    except (TypeError, ValueError, IndexError) as error:
        raise ModelError(f"VAE config: {one_line(error)}; compare it with the presets tiny and magvit") from error
    init_vae(vae)
    return _with_known_strides(vae, "VAE config")


def load_vae(folder: Path, dtype: torch.dtype | None = None) -> AutoencoderKLMagvit:
    """Load an autoencoder from a folder in diffusers layout.

    Args:
        folder: holds `config.json` and safetensors, or has a folder `vae` that does.
        dtype: of the weights; None: float32.

    Raises:
        ModelError: no such files, another class, or weights that do not fit the config.
    """
    folder = Path(folder)
    home = folder if (folder / "config.json").is_file() else folder / "vae"
    try:
        class_name = json.loads((home / "config.json").read_bytes()).get("_class_name")
    except FileNotFoundError:
        raise ModelError(f"{folder}: no config.json, nor vae/config.json; give a folder in diffusers layout") from None
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{home / 'config.json'}: {one_line(error)}; copy the file again") from error
    if class_name != AutoencoderKLMagvit.__name__:
        raise ModelError(f"{home}: holds {class_name}, not AutoencoderKLMagvit; give the folder of a V5 or V5.1 VAE")
    if not any(home.glob("*.safetensors")):
        raise ModelError(f"{home}: no .safetensors beside config.json; copy or convert the weights")
    try:
        vae, report = AutoencoderKLMagvit.from_pretrained(
            home,
            torch_dtype=dtype or torch.float32,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise ModelError(f"{home}: {one_line(error)}; copy config.json and weights again") from error
    check_weights(report, home)
    return _with_known_strides(vae, str(home))


def encode_moments(
    vae: AutoencoderKLMagvit, frames: torch.Tensor, checkpointing: bool = False, frames_at_once: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode frames to the posterior's mean and log variance, unscaled.

    Args:
        vae: the autoencoder; it is not changed. With `enable_tiling` called, pictures larger than a tile are walked
            in tiles.
        frames: (B, 3, T, H, W) in −1..1, floating point; T = 4n+1, sides multiples of 8.
        checkpointing: recompute activations in the backward pass: less memory, a third slower.
        frames_at_once: bound on memory, a multiple of 4; the result does not depend on it. None: the whole
            sequence where gradients are wanted, else 4.

    Returns:
        Mean and log variance, each (B, C, (T−1)/4+1, H/8, W/8).

    Raises:
        ModelError: a shape or type that cannot be encoded.
    """
    check_frames(vae, frames)
    at_once = frames_at_once or (frames.shape[2] if torch.is_grad_enabled() else TEMPORAL_STRIDE)
    if at_once % TEMPORAL_STRIDE and at_once < frames.shape[2]:
        raise ModelError(f"frames_at_once {at_once}: must be a multiple of {TEMPORAL_STRIDE}")

    def moments(part: torch.Tensor) -> torch.Tensor:
        stretches = [
            magvit.encode(vae.encoder, part[:, :, begin:end], stretch)
            for begin, end, stretch in _stretches(part.shape[2], at_once, checkpointing)
        ]
        both: torch.Tensor = vae.quant_conv(torch.cat(stretches, dim=2))
        return both

    if needs_tiles(vae, *frames.shape[-2:]):
        mean, logvar = in_tiles(moments, frames, *_tiles(vae, 1), SPATIAL_STRIDE).chunk(2, dim=1)
    else:
        mean, logvar = moments(frames).chunk(2, dim=1)
    return mean, logvar.clamp(-30.0, 20.0)


def decode_frames(
    vae: AutoencoderKLMagvit, latents: torch.Tensor, checkpointing: bool = False, latents_at_once: int | None = None
) -> torch.Tensor:
    """Decode unscaled latents to frames.

    Args:
        vae: the autoencoder; it is not changed. With `enable_tiling` called, pictures larger than a tile are walked
            in tiles.
        latents: (B, C, t, h, w).
        checkpointing: recompute activations in the backward pass: less memory, a third slower.
        latents_at_once: bound on memory; the result does not depend on it. None: the whole sequence where
            gradients are wanted, else 1.

    Returns:
        (B, 3, 4·(t−1)+1, 8·h, 8·w), about −1..1 but not clamped.

    Raises:
        ModelError: not five dimensions, or another number of channels.
    """
    channels = vae.config.latent_channels
    if latents.ndim != 5 or latents.shape[1] != channels:
        raise ModelError(f"latents {tuple(latents.shape)}: the VAE decodes (batch, {channels}, frames, height, width)")
    at_once = latents_at_once or (latents.shape[2] if torch.is_grad_enabled() else 1)
    latents = vae.post_quant_conv(latents)

    def pixels(part: torch.Tensor) -> torch.Tensor:
        stretches = [
            magvit.decode(vae.decoder, part[:, :, begin:end], stretch)
            for begin, end, stretch in _stretches(part.shape[2], at_once, checkpointing)
        ]
        return torch.cat(stretches, dim=2)

    if needs_tiles(vae, *(SPATIAL_STRIDE * side for side in latents.shape[-2:])):
        return in_tiles(pixels, latents, *_tiles(vae, SPATIAL_STRIDE), 1)
    return pixels(latents)


def check_frames(vae: AutoencoderKLMagvit, frames: torch.Tensor) -> None:
    """Refuse what cannot be encoded.

    Raises:
        ModelError: not (B, 3, T, H, W) in floating point, T not 4n+1, or a side that is no multiple of 8.
    """
    channels = vae.config.in_channels
    if frames.ndim != 5 or frames.shape[1] != channels:
        raise ModelError(f"frames {tuple(frames.shape)}: the VAE encodes (batch, {channels}, frames, height, width)")
    if not frames.is_floating_point():
        raise ModelError(f"frames of type {frames.dtype}: scale pixels to -1..1 in floating point first")
    count, height, width = frames.shape[2:]
    if count < 1 or (count - 1) % TEMPORAL_STRIDE:
        low = max(0, count - 1) // TEMPORAL_STRIDE * TEMPORAL_STRIDE + 1
        raise ModelError(f"{count} frames are not 4n+1; take {low} or {low + TEMPORAL_STRIDE}")
    if height < SPATIAL_STRIDE or width < SPATIAL_STRIDE or height % SPATIAL_STRIDE or width % SPATIAL_STRIDE:
        raise ModelError(f"frames of {width}x{height} px: both sides must be multiples of {SPATIAL_STRIDE}")


def to_signed(pixels: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Bring uint8 (B, T, H, W, 3) to what is encoded: (B, 3, T, H, W) in −1..1."""
    return pixels.permute(0, 4, 1, 2, 3).to(dtype) / 127.5 - 1.0


@torch.no_grad()
def decode_pixels(vae: AutoencoderKLMagvit, latents: torch.Tensor) -> np.ndarray:
    """Decode scaled latents (B, C, t, h, w), one video after the other, to uint8 (B, T, H, W, 3)."""
    frames = torch.cat([from_latents(vae, one[None]) for one in latents])
    pixels = ((frames.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 4, 1).cpu().numpy()


def draw_posterior(mean: torch.Tensor, logvar: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
    """Draw unscaled latents.

    Args:
        mean: of the posterior.
        logvar: its log variance; clamped to −30..20.
        noise: standard normal, of the same shape; None: the mean itself.
    """
    return mean if noise is None else mean + torch.exp(0.5 * logvar.clamp(-30.0, 20.0)) * noise


def to_latents(
    vae: AutoencoderKLMagvit, mean: torch.Tensor, logvar: torch.Tensor, noise: torch.Tensor | None
) -> torch.Tensor:
    """Draw from the posterior (see `draw_posterior`) and scale, as the transformer expects latents."""
    return draw_posterior(mean, logvar, noise) * vae.config.scaling_factor


def from_latents(vae: AutoencoderKLMagvit, latents: torch.Tensor, checkpointing: bool = False) -> torch.Tensor:
    """Decode scaled latents of any type, the inverse of `encode` (see `decode_frames`)."""
    return decode_frames(vae, (latents / vae.config.scaling_factor).to(vae.dtype), checkpointing)


def encode(vae: AutoencoderKLMagvit, frames: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Encode frames to scaled latents (see `encode_moments`).

    Args:
        vae: the autoencoder.
        frames: (B, 3, T, H, W) in −1..1.
        generator: on a CPU, the same draw on every device; None: the posterior's mean.
    """
    mean, logvar = encode_moments(vae, frames)
    if generator is None:
        return to_latents(vae, mean, logvar, None)
    noise = torch.randn(mean.shape, generator=generator, device=generator.device, dtype=torch.float32)
    return to_latents(vae, mean, logvar, noise.to(mean))


def kl_divergence(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """Give KL(N(mean, exp(logvar)) ‖ N(0, 1)) (Kingma & Welling 2014, appendix B).

    Returns:
        (B,), the mean over a row's latent elements.
    """
    return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).flatten(1).mean(1)


class TrainableVAE(nn.Module):
    """The autoencoder as one module call, which data parallelism needs.

    Attributes:
        vae: diffusers' model, whose weights these are.
        checkpointing: recompute activations in the backward pass.
    """

    def __init__(self, vae: AutoencoderKLMagvit, checkpointing: bool = False):
        """Wrap the model; nothing is copied."""
        super().__init__()
        self.vae = vae
        self.checkpointing = checkpointing

    @property
    def last_layer(self) -> nn.Parameter:
        """Weights of the decoder's last convolution, for `models.discriminator.adaptive_weight`."""
        return self.vae.decoder.conv_out.weight

    def forward(
        self, frames: torch.Tensor, noise: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Encode, draw and decode.

        Args:
            frames: (B, 3, T, H, W) in −1..1.
            noise: standard normal in the shape of the latents; None: decode the mean.

        Returns:
            Reconstruction (B, 3, T, H, W), mean and log variance (B, C, t, h, w).
        """
        mean, logvar = encode_moments(self.vae, frames, self.checkpointing)
        return decode_frames(self.vae, draw_posterior(mean, logvar, noise), self.checkpointing), mean, logvar


def _tiles(vae: AutoencoderKLMagvit, scale: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Give size and stride of tiles as diffusers' `enable_tiling` sets them, in units of `scale` pixels."""
    size = vae.tile_sample_min_height // scale, vae.tile_sample_min_width // scale
    return size, (vae.tile_sample_stride_height // scale, vae.tile_sample_stride_width // scale)


def _stretches(frames: int, at_once: int, checkpointing: bool) -> Iterator[tuple[int, int, Stretch]]:
    """Divide a sequence: the first frame goes with the first stretch."""
    if checkpointing or at_once >= frames - 1:
        yield 0, frames, Stretch(checkpointing=checkpointing)
        return
    ends: dict[nn.Module, torch.Tensor] = {}
    yield 0, 1 + at_once, Stretch(ends=ends)
    for begin in range(1 + at_once, frames, at_once):
        yield begin, min(frames, begin + at_once), Stretch(begins=False, ends=ends)


def _with_known_strides(vae: AutoencoderKLMagvit, where: str) -> AutoencoderKLMagvit:
    time = space = 1
    for block in vae.encoder.down_blocks:
        time, space = time * block.temporal_downsample_factor, space * block.spatial_downsample_factor
    if (time, space) != (TEMPORAL_STRIDE, SPATIAL_STRIDE):
        raise ModelError(f"{where}: compression {time}x{space}x{space} is not supported; use blocks that give 4x8x8")
    return vae
