"""The video autoencoder of EasyAnimate V3: slices of 8 frames that become 2 latents; an image becomes 1.

Each slice is encoded by itself, with zeros around it in time. In the decoder the first convolution and the blocks in
the middle see the latents of the slice before and of the one after, too; what follows sees the slice's own features.
"""

from collections.abc import Iterator
from typing import Any

import torch
from diffusers import AutoencoderKLMagvit

from models.vae import magvit, sliced
from models.vae.first_weights import MIDDLE
from models.vae.magvit import Stretch
from models.vae.magvit4 import ATTENTION
from models.vae.sliced_kind import SlicedKind
from models.vae.tiling import tiled

FLAG = "slice_compression_vae"


def encode_slice(network: AutoencoderKLMagvit, frames: torch.Tensor, *, checkpointing: bool) -> torch.Tensor:
    """Encode one slice (B, 3, 4n, H, W), or an image, to its moments (B, 2·C, n, h, w)."""
    stretch = Stretch(symmetric=True, first="usual", checkpointing=checkpointing)

    def moments(part: torch.Tensor) -> torch.Tensor:
        both: torch.Tensor = network.quant_conv(magvit.encode(network.encoder, part, stretch, None))
        return both

    return tiled(network, moments, frames, 1)


def decode_slices(
    network: AutoencoderKLMagvit, latents: torch.Tensor, size: int, *, checkpointing: bool, shares: bool = True
) -> Iterator[torch.Tensor]:
    """Yield the frames (B, 3, 4n, H, W) of slice after slice of `size` = n latent frames.

    A first latent of its own is one frame, and shares nothing.

    Args:
        network: of `SLICE`.
        latents: (B, C, t, h, w), unscaled.
        checkpointing: recompute activations in the backward pass.
        size: latent frames of a slice.
        shares: the first half of the decoder sees the slices beside each.

    Yields:
        Frames.
    """
    count = latents.shape[2]
    lone = count % size == 1
    for begin, end in sliced.spans(count, size):
        if lone and begin == 0:
            yield decode_slice(network, latents[:, :, :1], 0, 1, is_image=True, checkpointing=checkpointing)
            continue
        first = max(int(lone), begin - size) if shares else begin
        last = min(count, end + size) if shares else end
        yield decode_slice(
            network, latents[:, :, first:last], begin - first, end - first, is_image=False, checkpointing=checkpointing
        )


def decode_slice(
    network: AutoencoderKLMagvit, latents: torch.Tensor, begin: int, end: int, *, is_image: bool, checkpointing: bool
) -> torch.Tensor:
    """Decode one slice.

    Args:
        network: of `SLICE`.
        latents: (B, C, t, h, w) of the slice and of those that it may see.
        begin: of the slice in them.
        end: likewise.
        is_image: one latent is one frame.
        checkpointing: recompute activations in the backward pass.

    Returns:
        (B, 3, 4·(end−begin), H, W), or one frame.
    """
    stretch = Stretch(symmetric=True, first="single" if is_image else "usual", checkpointing=checkpointing)

    def pixels(part: torch.Tensor) -> torch.Tensor:
        features = magvit.mid_features(network.decoder, network.post_quant_conv(part), stretch, None)
        return magvit.decode_features(network.decoder, features[:, :, begin:end], stretch, None)

    return tiled(network, pixels, latents, sliced.PIXELS_PER_LATENT)


def _is_slice(config: Any) -> bool:
    return bool(config.get(FLAG)) and not config.get("cache_compression_vae")


SLICE = SlicedKind(
    name="slice",
    presets={"tiny-slice": {**ATTENTION, FLAG: True, **sliced.TINY}, "slice": {**ATTENTION, FLAG: True}},
    walk={FLAG: True, "mini_batch_encoder": 8, "mini_batch_decoder": 2},
    is_kind=_is_slice,
    encode_slice=encode_slice,
    decode_slices=decode_slices,
    encoder_taps=MIDDLE,
    decoder_taps=MIDDLE,
)
