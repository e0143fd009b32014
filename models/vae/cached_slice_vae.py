"""The video autoencoder of EasyAnimate V4: encoded as V3's slices, decoded in groups that know what was before them.

A group of 2 latents becomes 8 frames. The decoder's convolutions are causal: before the sequence they see its first
latent again, later the features that the group before left. Normalisation, attention and interpolation in time see one
group. So nothing depends on what comes after a group, and a sequence decoded in one go equals one decoded by groups.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from diffusers import AutoencoderKLMagvit
from torch import nn

from models.vae import magvit, sliced
from models.vae.first_weights import MIDDLE, MIDDLE_AND_LAST
from models.vae.magvit import Stretch
from models.vae.magvit4 import ATTENTION
from models.vae.slice_vae import decode_slice, encode_slice
from models.vae.sliced_kind import SlicedKind
from models.vae.tiling import needs_tiles, tiled

FLAG = "cache_compression_vae"


def decode_slices(
    network: AutoencoderKLMagvit, latents: torch.Tensor, size: int, *, checkpointing: bool
) -> Iterator[torch.Tensor]:
    """Yield the frames (B, 3, 4n, H, W) of group after group of `size` = n latent frames.

    An image is decoded as V3's. An odd number of latents is a first frame and whole slices to the encoder: the last
    group then is one frame, the number that was encoded, of the four that its latent gives.

    Where gradients are wanted the sequence is one piece, which may be recomputed.
    """
    count = latents.shape[2]
    if count == 1:
        yield decode_slice(network, latents, 0, 1, is_image=True, checkpointing=checkpointing)
        return
    over = sliced.FRAMES_PER_LATENT - 1 if count % size == 1 else 0
    done, wanted = 0, sliced.FRAMES_PER_LATENT * count - over
    for frames in _pieces(network, latents, size, checkpointing=checkpointing):
        yield frames[:, :, : wanted - done]
        done += frames.shape[2]


def _pieces(
    network: AutoencoderKLMagvit, latents: torch.Tensor, size: int, *, checkpointing: bool
) -> Iterator[torch.Tensor]:
    """Yield four frames of each latent; in tiles one piece, since what is kept between groups is that of one tile."""

    def whole(part: torch.Tensor) -> torch.Tensor:
        if checkpointing or torch.is_grad_enabled():
            return _decode(network, part, size, Stretch(first="usual", checkpointing=checkpointing))
        return torch.cat(list(groups(part)), dim=2)

    def groups(part: torch.Tensor) -> Iterator[torch.Tensor]:
        ends: dict[nn.Module, torch.Tensor] = {}
        for begin in range(0, part.shape[2], size):
            stretch = Stretch(begins=begin == 0, ends=ends, first="usual")
            yield _decode(network, part[:, :, begin : begin + size], size, stretch)

    scale = sliced.PIXELS_PER_LATENT
    in_one = needs_tiles(network, latents.shape[-2] * scale, latents.shape[-1] * scale)
    if in_one or checkpointing or torch.is_grad_enabled():
        yield tiled(network, whole, latents, scale)
    else:
        yield from groups(latents)


def _decode(network: AutoencoderKLMagvit, latents: torch.Tensor, size: int, stretch: Stretch) -> torch.Tensor:
    return magvit.decode(network.decoder, network.post_quant_conv(latents), stretch, size)


def _is_cached(config: Mapping[str, Any]) -> bool:
    return bool(config.get(FLAG))


CACHED_SLICE = SlicedKind(
    name="cached_slice",
    presets={"tiny-cached-slice": {**ATTENTION, FLAG: True, **sliced.TINY}, "cached-slice": {**ATTENTION, FLAG: True}},
    walk={FLAG: True, "mini_batch_encoder": 8, "mini_batch_decoder": 2},
    is_kind=_is_cached,
    encode_slice=encode_slice,
    decode_slices=decode_slices,
    encoder_taps=MIDDLE,
    decoder_taps=MIDDLE_AND_LAST,
)
