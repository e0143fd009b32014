"""First weights of the video VAEs, from which they learn time as fast as space."""

import math

import torch
from diffusers import AutoencoderKLMagvit
from torch import nn

FIRST_LOGVAR = -6.0
"""The posterior begins narrow, so that latents carry something before their noise is learnt away."""

Taps = tuple[float, float, float]
"""how much of a convolution's first weights each of its three taps in time has"""
LAST: Taps = (0.0, 0.0, 1.0)
"""a causal convolution's own frame"""
MIDDLE: Taps = (0.0, 1.0, 0.0)
"""that of one which sees as far ahead as back"""
MIDDLE_AND_LAST: Taps = (0.0, math.sqrt(0.5), math.sqrt(0.5))
"""of one that is causal for videos, and for images has zeros around the one frame"""


@torch.no_grad()
def init_vae(vae: AutoencoderKLMagvit, encoder_taps: Taps = LAST, decoder_taps: Taps = LAST) -> None:
    """Draw weights (from torch's global generator) so that frames pass through almost unmixed at first.

    With torch's own initialisation the decoder's causal convolutions average over time, layer after layer: after
    the last of them frames differ by a millionth of what they should, and training stays at the mean picture.
    Here every convolution begins as one of images, with the taps of other frames at 0, as video networks inflated
    from image networks do (Carreira & Zisserman 2017, arXiv 1705.07750); weights keep the variance (He et al.
    2015, without their factor 2: the chain is linear at first), since the second convolution of each residual
    block begins at 0 (Zhang et al. 2019, arXiv 1901.09321), and so does what an attention in the middle adds.

    Args:
        vae: the network; it is changed.
        encoder_taps: where in time the weights of its encoder lie.
        decoder_taps: likewise of its decoder.
    """
    for name, module in vae.named_modules():
        if name.endswith(".to_out"):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
        if not isinstance(module, nn.Conv3d):
            continue
        taps = decoder_taps if name.startswith("decoder.") else encoder_taps
        weight = module.weight
        # As a tap within a whole weight: torch draws other numbers into other memory layouts.
        one = torch.zeros_like(weight)[:, :, -1]
        if not name.endswith(".conv2"):
            nn.init.normal_(one, 0.0, 1.0 / math.sqrt(one[0].numel()))
        # A convolution of one frame has one tap.
        shares = taps if weight.shape[2] == len(taps) else (1.0,)
        for place, share in enumerate(shares):
            weight[:, :, place] = one * share
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    nn.init.constant_(vae.quant_conv.bias[vae.config.latent_channels :], FIRST_LOGVAR)
