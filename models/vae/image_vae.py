"""The autoencoder of EasyAnimate V1: Stable Diffusion's, diffusers' `AutoencoderKL`, which sees one frame at a time."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import nn
from torch.utils.checkpoint import checkpoint

from models.errors import ModelError, check_weights, one_line
from models.geometry import LatentGrid
from models.vae.autoencoder import Scaling, signed
from models.vae.tiling import in_tiles
from models.weights.weight_files import DIFFUSERS_STEM, find_weights

CONSTRUCTOR = frozenset(inspect.signature(AutoencoderKL.__init__).parameters) - {"self"}
FRAMES_AT_ONCE = 8
"""that are one batch where no gradients are wanted: more take memory and are hardly faster"""
PIXELS_PER_LATENT = 8
# The motion module of V1, which alone has latents of images, looks at squares of 2x2 tokens.
GRID = LatentGrid(frames_per_latent=1, pixels_per_latent=PIXELS_PER_LATENT, latents_per_patch=2, tokens_per_square=2)
FOUR = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
}


class ImageVae:
    """The kind as everybody outside uses it; see `VideoAutoencoder`. A latent frame stands for one frame."""

    name = "image-vae"
    class_name = "AutoencoderKL"
    presets: Mapping[str, Mapping[str, Any]] = {
        # Learns a few small drawn clips on one CPU core within a minute.
        "tiny-image-vae": {**FOUR, "block_out_channels": (8, 8, 32, 64), "layers_per_block": 2, "norm_num_groups": 4},
        # Stable Diffusion 1.5's, `vae-ft-mse` and those of PixArt-alpha.
        "image-vae": {**FOUR, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 512},
    }
    fields = CONSTRUCTOR

    def reads(self, config: Mapping[str, Any]) -> bool:
        """Return whether its blocks are those of images: some video VAEs are published under this class name."""
        return not any("3D" in str(name) for name in config.get("down_block_types") or ())

    def build(self, config: Mapping[str, Any]) -> AutoencoderKL:
        """Build with torch's random weights."""
        values = {name: value for name, value in config.items() if not name.startswith("_")}
        unknown = values.keys() - CONSTRUCTOR
        if unknown:
            raise ModelError(f"VAE config: AutoencoderKL knows no key '{min(unknown)}'; remove or rename it")
        try:
            vae = AutoencoderKL(**values)
        except (TypeError, ValueError, IndexError) as error:
            raise ModelError(f"VAE config: {one_line(error)}; compare it with the preset image-vae") from error
        return _with_known_stride(vae, "VAE config")

    def load(self, home: Path, config: Mapping[str, Any], dtype: torch.dtype) -> AutoencoderKL:
        """Load weights in diffusers layout, plain or of a variant: safetensors, else a file of torch, read as data."""
        safe = any(home.glob(f"{DIFFUSERS_STEM}*.safetensors*"))
        old = (home / f"{DIFFUSERS_STEM}.bin").is_file()
        try:
            vae, report = AutoencoderKL.from_pretrained(
                home,
                torch_dtype=dtype,
                variant=find_weights(home, DIFFUSERS_STEM).variant if safe or not old else None,
                local_files_only=True,
                use_safetensors=safe or not old,
                output_loading_info=True,
            )
        except (OSError, ValueError, TypeError, IndexError, RuntimeError, ImportError) as error:
            raise ModelError(f"{home}: {one_line(error)}; copy config.json and weights again") from error
        check_weights(report, home)
        return _with_known_stride(vae, str(home))

    def grid(self, config: Mapping[str, Any]) -> LatentGrid:
        """Return 1×8×8, whatever the config; `build` and `load` refuse others."""
        return GRID

    def channels(self, config: Mapping[str, Any]) -> int:
        """Return the channels of a latent, diffusers' default where the config has none."""
        return int(config.get("latent_channels", 4))

    def scaling(self, config: Mapping[str, Any]) -> Scaling:
        """Return factor and shift, diffusers' defaults where the config has none."""
        return Scaling(config.get("scaling_factor", 0.18215), config.get("shift_factor") or 0.0)

    def encode(
        self, network: AutoencoderKL, frames: torch.Tensor, frames_at_once: int | None, *, checkpointing: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode frames as rows of batches of at most 8; see `VideoAutoencoder.encode`."""

        def moments(part: torch.Tensor) -> torch.Tensor:
            both: torch.Tensor = network.encoder(signed(part, network.dtype))
            return network.quant_conv(both) if network.quant_conv is not None else both

        pieces = _batches(network, moments, frames, 1, frames_at_once, checkpointing=checkpointing)
        mean, logvar = torch.cat(list(pieces), dim=2).chunk(2, dim=1)
        return mean, logvar

    def decode(
        self, network: AutoencoderKL, latents: torch.Tensor, latents_at_once: int | None, *, checkpointing: bool
    ) -> Iterator[torch.Tensor]:
        """Yield batches of at most 8 frames; see `VideoAutoencoder.decode`."""

        def pixels(part: torch.Tensor) -> torch.Tensor:
            part = network.post_quant_conv(part) if network.post_quant_conv is not None else part
            frames: torch.Tensor = network.decoder(part)
            return frames

        return _batches(network, pixels, latents, PIXELS_PER_LATENT, latents_at_once, checkpointing=checkpointing)

    def tile_px(self, network: AutoencoderKL) -> tuple[int, int]:
        """Return the size of a tile as diffusers' `enable_tiling` takes it from the config."""
        return network.tile_sample_min_size, network.tile_sample_min_size

    def last_layer(self, network: AutoencoderKL) -> nn.Parameter:
        """Return the weights of the decoder's last convolution."""
        weights: nn.Parameter = network.decoder.conv_out.weight
        return weights


IMAGE = ImageVae()


def _batches(
    network: AutoencoderKL,
    run: Callable[[torch.Tensor], torch.Tensor],
    video: torch.Tensor,
    scale: int,
    at_once: int | None,
    *,
    checkpointing: bool,
) -> Iterator[torch.Tensor]:
    """Yield what a network makes of a video's frames, (B, C, n, h, w) of so many rows of B·n.

    Args:
        network: whose tiles are used.
        run: takes and gives (rows, C, h, w).
        video: (B, C, T, h, w), frames or latents.
        scale: pixels along one side of what `video` is counted in.
        checkpointing: recompute in the backward pass.
        at_once: frames of a batch.
    """

    def rows(part: torch.Tensor) -> torch.Tensor:
        flat = part.transpose(1, 2).flatten(0, 1)
        y = checkpoint(run, flat, use_reentrant=False) if recomputes else run(flat)
        return y.unflatten(0, (part.shape[0], part.shape[2])).transpose(1, 2)

    recomputes = checkpointing and torch.is_grad_enabled()
    count = at_once or (video.shape[2] if torch.is_grad_enabled() else FRAMES_AT_ONCE)
    tile = network.tile_sample_min_size // scale
    stride = int(tile * (1 - network.tile_overlap_factor))
    is_large = max(video.shape[-2:]) > tile
    for part in video.split(count, dim=2):
        if network.use_tiling and is_large:
            yield in_tiles(rows, part, (tile, tile), (stride, stride), PIXELS_PER_LATENT // scale)
        else:
            yield rows(part)


def _with_known_stride(vae: AutoencoderKL, where: str) -> AutoencoderKL:
    space = 2 ** (len(vae.config.block_out_channels) - 1)
    if space != PIXELS_PER_LATENT:
        raise ModelError(f"{where}: compression {space}x{space} is not supported; use 4 blocks, which give 8x8")
    if vae.config.latents_mean or vae.config.latents_std:
        raise ModelError(f"{where}: latents of a mean and deviation for each channel are not supported; take SD's VAE")
    return vae
