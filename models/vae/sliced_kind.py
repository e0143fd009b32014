"""What the VAEs of slices share as everybody outside uses them; each kind's file says how it walks time."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from diffusers import AutoencoderKLMagvit
from torch import nn

from models.geometry import LatentGrid
from models.vae import sliced
from models.vae.autoencoder import Scaling, signed
from models.vae.first_weights import Taps, init_vae


class EncodeSlice(Protocol):
    """How a kind encodes one slice."""

    def __call__(self, network: Any, frames: torch.Tensor, /, *, checkpointing: bool) -> torch.Tensor:
        """Encode (B, 3, n, H, W); return mean and log variance, (B, 2·C, m, h, w)."""
        ...


class DecodeSlices(Protocol):
    """How a kind decodes all slices."""

    def __call__(
        self, network: Any, latents: torch.Tensor, size: int, /, *, checkpointing: bool
    ) -> Iterator[torch.Tensor]:
        """Decode (B, C, t, h, w) in slices of `size` latent frames; yield frames (B, 3, n, H, W), slice by slice."""
        ...


@dataclass(frozen=True, eq=False)
class SlicedKind:
    """A kind whose encoder sees each slice by itself; see `VideoAutoencoder`.

    Attributes:
        name: what families call it, and people.
        presets: configurations by name.
        walk: fields of `config.json` that say how slices are walked, as this kind has them.
        is_kind: whether a config's fields are this kind's.
        encode_slice: encodes one slice.
        decode_slices: decodes all.
        encoder_taps: where in time the encoder's first weights lie.
        decoder_taps: where the decoder's do.
    """

    name: str
    presets: Mapping[str, Mapping[str, Any]]
    walk: Mapping[str, Any]
    is_kind: Callable[[Mapping[str, Any]], bool]
    encode_slice: EncodeSlice
    decode_slices: DecodeSlices
    encoder_taps: Taps
    decoder_taps: Taps
    class_name: str = sliced.CLASS_NAME
    fields: ClassVar[frozenset[str]] = sliced.FIELDS

    def reads(self, config: Mapping[str, Any]) -> bool:
        """Return whether a config is of this kind."""
        return self.is_kind(config)

    def build(self, config: Mapping[str, Any]) -> AutoencoderKLMagvit:
        """Build with first weights that pass frames through almost unmixed."""
        vae = sliced.build(config, self.walk)
        init_vae(vae, self.encoder_taps, self.decoder_taps)
        return vae

    def load(self, home: Path, config: Mapping[str, Any], dtype: torch.dtype) -> AutoencoderKLMagvit:
        """Load safetensors or a file of torch; what a training left in it is dropped."""
        return sliced.load(home, config, dtype, self.walk)

    def grid(self, config: Mapping[str, Any]) -> LatentGrid:
        """Return 4×8×8 in slices of as many frames as the config says, else the kind."""
        return sliced.grid({**self.walk, **config})

    def channels(self, config: Mapping[str, Any]) -> int:
        """Return the channels of a latent, 4 where the config has none."""
        return sliced.channels(config)

    def scaling(self, config: Mapping[str, Any]) -> Scaling:
        """Return the factor, 0.18215 where the config has none."""
        return sliced.scaling(config)

    def encode(
        self, network: AutoencoderKLMagvit, frames: torch.Tensor, frames_at_once: int | None, *, checkpointing: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode slice by slice; see `VideoAutoencoder.encode`. One frame over is a slice of its own, the first."""
        size = self.grid(network.config).frames_per_slice
        sliced.check_at_once("frames_at_once", frames_at_once, size)
        moments = [
            self.encode_slice(network, signed(frames[:, :, begin:end], network.dtype), checkpointing=checkpointing)
            for begin, end in sliced.spans(frames.shape[2], size)
        ]
        mean, logvar = torch.cat(moments, dim=2).chunk(2, dim=1)
        return mean, logvar

    def decode(
        self, network: AutoencoderKLMagvit, latents: torch.Tensor, latents_at_once: int | None, *, checkpointing: bool
    ) -> Iterator[torch.Tensor]:
        """Yield the frames of slice after slice; see `VideoAutoencoder.decode`."""
        size = self.grid(network.config).latents_per_slice
        sliced.check_at_once("latents_at_once", latents_at_once, size)
        return self.decode_slices(network, latents, size, checkpointing=checkpointing)

    def tile_px(self, network: AutoencoderKLMagvit) -> tuple[int, int]:
        """Return the size of a tile as diffusers' `enable_tiling` sets it."""
        return network.tile_sample_min_height, network.tile_sample_min_width

    def last_layer(self, network: AutoencoderKLMagvit) -> nn.Parameter:
        """Return the weights of the decoder's last convolution."""
        weights: nn.Parameter = network.decoder.conv_out.weight
        return weights
