"""First weights of the video VAE, from which it learns time as fast as space."""

import math

import torch
from diffusers import AutoencoderKLMagvit
from torch import nn

FIRST_LOGVAR = -6.0
"""The posterior begins narrow, so that latents carry something before their noise is learnt away."""


@torch.no_grad()
def init_vae(vae: AutoencoderKLMagvit) -> None:
    """Draw weights (from torch's global generator) so that frames pass through almost unmixed at first.

    With torch's own initialisation the decoder's causal convolutions average over time, layer after layer: after
    the last of them frames differ by a millionth of what they should, and training stays at the mean picture.
    Here every convolution begins as one of images, with the taps of the past at 0, as video networks inflated
    from image networks do (Carreira & Zisserman 2017, arXiv 1705.07750); weights keep the variance (He et al.
    2015, without their factor 2: the chain is linear at first), since the second convolution of each residual
    block begins at 0 (Zhang et al. 2019, arXiv 1901.09321).
    """
    for name, module in vae.named_modules():
        if not isinstance(module, nn.Conv3d):
            continue
        now = module.weight[:, :, -1]
        if not name.endswith(".conv2"):
            nn.init.normal_(now, 0.0, 1.0 / math.sqrt(now[0].numel()))
        else:
            nn.init.zeros_(now)
        nn.init.zeros_(module.weight[:, :, :-1])
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    nn.init.constant_(vae.quant_conv.bias[vae.config.latent_channels :], FIRST_LOGVAR)
