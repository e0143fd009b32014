"""The video autoencoder of EasyAnimate V5 and V5.1: causal MagViT of 4×8×8, on diffusers' own `AutoencoderKLMagvit`.

Weights, config and files are diffusers', unchanged; only the forward pass is ours (see `magvit`): it keeps no
state, so that it can be checkpointed and data-parallel, and it gives what diffusers gives.
"""

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLMagvit
from torch import nn

from models.errors import ModelError, check_weights, one_line
from models.geometry import MAGVIT, LatentGrid
from models.vae import magvit
from models.vae.autoencoder import Scaling, signed
from models.vae.first_weights import init_vae
from models.vae.magvit import Stretch
from models.vae.tiling import in_tiles, needs_tiles, tile_sizes
from models.weights.weight_files import DIFFUSERS_STEM, find_weights

CONSTRUCTOR = frozenset(inspect.signature(AutoencoderKLMagvit.__init__).parameters) - {"self"}
PIPELINE_FIELDS = frozenset({"cache_mag_vae"})
"""in a VAE's `config.json`, read by diffusers' inpaint pipeline, and not by the VAE"""


class CausalMagvit:
    """The kind as everybody outside uses it; see `VideoAutoencoder`."""

    name = "magvit16"
    class_name = "AutoencoderKLMagvit"
    presets: Mapping[str, Mapping[str, Any]] = {
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
    fields = CONSTRUCTOR | PIPELINE_FIELDS

    def reads(self, config: Mapping[str, Any]) -> bool:
        """Return true: whatever no other kind of the class name claims is diffusers' own."""
        return True

    def build(self, config: Mapping[str, Any]) -> AutoencoderKLMagvit:
        """Build with first weights that pass frames through almost unmixed."""
        dropped = PIPELINE_FIELDS
        values = {name: value for name, value in config.items() if not name.startswith("_") and name not in dropped}
        unknown = values.keys() - CONSTRUCTOR
        if unknown:
            raise ModelError(f"VAE config: AutoencoderKLMagvit knows no key '{min(unknown)}'; remove or rename it")
        try:
            vae = AutoencoderKLMagvit(**values)
        except (TypeError, ValueError, IndexError) as error:
            raise ModelError(f"VAE config: {one_line(error)}; compare it with the presets tiny and magvit") from error
        init_vae(vae)
        return _with_known_strides(vae, "VAE config")

    def load(self, home: Path, config: Mapping[str, Any], dtype: torch.dtype) -> AutoencoderKLMagvit:
        """Load safetensors in diffusers layout, plain or of a variant."""
        variant = find_weights(home, DIFFUSERS_STEM).variant
        try:
            vae, report = AutoencoderKLMagvit.from_pretrained(
                home,
                torch_dtype=dtype,
                variant=variant,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
        except (OSError, ValueError, TypeError, IndexError, RuntimeError, ImportError) as error:
            raise ModelError(f"{home}: {one_line(error)}; copy config.json and weights again") from error
        check_weights(report, home)
        return _with_known_strides(vae, str(home))

    def grid(self, config: Mapping[str, Any]) -> LatentGrid:
        """Return 4×8×8, whatever the config; `build` and `load` refuse others."""
        return MAGVIT

    def channels(self, config: Mapping[str, Any]) -> int:
        """Return the channels of a latent, diffusers' default where the config has none."""
        return int(config.get("latent_channels", 16))

    def scaling(self, config: Mapping[str, Any]) -> Scaling:
        """Return the factor, diffusers' default where the config has none."""
        return Scaling(config.get("scaling_factor", 0.7125))

    def encode(
        self, network: AutoencoderKLMagvit, frames: torch.Tensor, frames_at_once: int | None, *, checkpointing: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode in stretches of whole chunks of four frames; see `VideoAutoencoder.encode`."""
        at_once = frames_at_once or (frames.shape[2] if torch.is_grad_enabled() else MAGVIT.frames_per_latent)
        if at_once % MAGVIT.frames_per_latent and at_once < frames.shape[2]:
            raise ModelError(f"frames_at_once {at_once}: must be a multiple of {MAGVIT.frames_per_latent}")

        def moments(part: torch.Tensor) -> torch.Tensor:
            stretches = [
                magvit.encode(network.encoder, signed(part[:, :, begin:end], network.dtype), stretch)
                for begin, end, stretch in _stretches(part.shape[2], at_once, checkpointing=checkpointing)
            ]
            both: torch.Tensor = network.quant_conv(torch.cat(stretches, dim=2))
            return both

        if needs_tiles(network, *frames.shape[-2:]):
            mean, logvar = in_tiles(moments, frames, *tile_sizes(network, 1), MAGVIT.pixels_per_latent).chunk(2, dim=1)
        else:
            mean, logvar = moments(frames).chunk(2, dim=1)
        return mean, logvar

    def decode(
        self, network: AutoencoderKLMagvit, latents: torch.Tensor, latents_at_once: int | None, *, checkpointing: bool
    ) -> Iterator[torch.Tensor]:
        """Yield stretches of frames; see `VideoAutoencoder.decode`."""
        at_once = latents_at_once or (latents.shape[2] if torch.is_grad_enabled() else 1)
        latents = network.post_quant_conv(latents)

        def pieces(part: torch.Tensor) -> Iterator[torch.Tensor]:
            for begin, end, stretch in _stretches(part.shape[2], at_once, checkpointing=checkpointing):
                yield magvit.decode(network.decoder, part[:, :, begin:end], stretch)

        def pixels(part: torch.Tensor) -> torch.Tensor:
            return torch.cat(list(pieces(part)), dim=2)

        if needs_tiles(network, *(MAGVIT.pixels_per_latent * side for side in latents.shape[-2:])):
            yield in_tiles(pixels, latents, *tile_sizes(network, MAGVIT.pixels_per_latent), 1)
            return
        yield from pieces(latents)

    def tile_px(self, network: AutoencoderKLMagvit) -> tuple[int, int]:
        """Return the size of a tile as diffusers' `enable_tiling` sets it."""
        return network.tile_sample_min_height, network.tile_sample_min_width

    def last_layer(self, network: AutoencoderKLMagvit) -> nn.Parameter:
        """Return the weights of the decoder's last convolution."""
        weights: nn.Parameter = network.decoder.conv_out.weight
        return weights


def _stretches(frames: int, at_once: int, *, checkpointing: bool) -> Iterator[tuple[int, int, Stretch]]:
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
    if (time, space) != (MAGVIT.frames_per_latent, MAGVIT.pixels_per_latent):
        raise ModelError(f"{where}: compression {time}x{space}x{space} is not supported; use blocks that give 4x8x8")
    return vae
