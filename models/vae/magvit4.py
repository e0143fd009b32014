"""The video autoencoder of EasyAnimate V2: slices of 9 frames that become 3 latents, each slice causal in itself.

A slice is normalised and attended over as a whole; its first frame is a latent of its own. No slice sees another.
"""

from collections.abc import Iterator

import torch
from diffusers import AutoencoderKLMagvit

from models.vae import magvit, sliced
from models.vae.first_weights import LAST
from models.vae.magvit import Stretch
from models.vae.sliced_kind import SlicedKind
from models.vae.tiling import tiled

ATTENTION = {"latent_channels": 4, "mid_block_attention_type": "3d"}


def encode_slice(network: AutoencoderKLMagvit, frames: torch.Tensor, *, checkpointing: bool) -> torch.Tensor:
    """Encode one slice (B, 3, 4n+1, H, W) to its moments (B, 2·C, n+1, h, w)."""
    stretch = Stretch(first="single", checkpointing=checkpointing)

    def moments(part: torch.Tensor) -> torch.Tensor:
        both: torch.Tensor = network.quant_conv(magvit.encode(network.encoder, part, stretch, None))
        return both

    return tiled(network, moments, frames, 1)


def decode_slices(
    network: AutoencoderKLMagvit, latents: torch.Tensor, size: int, *, checkpointing: bool
) -> Iterator[torch.Tensor]:
    """Yield the frames (B, 3, 4n−3, H, W) of slice after slice of `size` = n latent frames."""
    stretch = Stretch(first="single", checkpointing=checkpointing)

    def pixels(part: torch.Tensor) -> torch.Tensor:
        return magvit.decode(network.decoder, network.post_quant_conv(part), stretch, None)

    for begin, end in sliced.spans(latents.shape[2], size):
        yield tiled(network, pixels, latents[:, :, begin:end], sliced.PIXELS_PER_LATENT)


MAGVIT4 = SlicedKind(
    name="magvit4",
    presets={"tiny-magvit4": {**ATTENTION, **sliced.TINY}, "magvit4": {**ATTENTION}},
    walk={"mini_batch_encoder": 9, "mini_batch_decoder": 3},
    is_kind=sliced.has_attention,  # the kinds of V3 and V4, which have it too, are asked before
    encode_slice=encode_slice,
    decode_slices=decode_slices,
    encoder_taps=LAST,
    decoder_taps=LAST,
)
