"""The attention in the middle of the VAEs of EasyAnimate V2 to V4: every place of a slice sees every other one."""

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_magvit import EasyAnimateMidBlock3d
from torch import nn

NAME = "attentions"
"""of the list in a middle block, and in the names of its weights"""


class MidAttention(nn.Module):
    """Attention with one head over frames, rows and columns at once, after group normalisation and with a residual.

    The arithmetic is that of the middle of Stable Diffusion's VAE (Rombach et al. 2022, arXiv 2112.10752), there
    over one picture. Without the separate list that diffusers has for its dropout, `to_out` is a single layer.
    """

    def __init__(self, channels: int, groups: int):
        """Build with torch's random weights.

        Args:
            channels: of the features.
            groups: of the normalisation.
        """
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape, (B, C, T, H, W)."""
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)
        # One head, as a dimension of its own: torch's fast kernels want four.
        q, k, v = (layer(tokens)[:, None] for layer in (self.to_q, self.to_k, self.to_v))
        mixed = self.to_out(F.scaled_dot_product_attention(q, k, v)[:, 0])
        return x + mixed.transpose(1, 2).reshape(x.shape)


def add_attentions(block: EasyAnimateMidBlock3d, channels: int, groups: int) -> None:
    """Put an attention before each residual block but the first."""
    block.add_module(NAME, nn.ModuleList(MidAttention(channels, groups) for _ in block.convs[1:]))


def attentions_of(block: EasyAnimateMidBlock3d) -> list[MidAttention]:
    """Return the attentions of a middle block; none in V5."""
    return [module for name, module in block.named_modules() if name.startswith(f"{NAME}.") and name.count(".") == 1]
