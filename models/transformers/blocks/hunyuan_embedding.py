"""What HunyuanDiT 1.1 (arXiv 2405.08748) shifts its norms by: time, pooled text, size and style."""

import torch
from diffusers.models.embeddings import PixArtAlphaTextProjection, TimestepEmbedding, get_timestep_embedding
from torch import nn
from torch.nn import functional

SINUSOIDS = 256
"""channels of a number's sinusoids, cosines first"""
NUMBERS = 6
"""of the size: original height and width, height and width, top and left of the crop"""
ORIGINAL_PX = 1024
"""height and width of the original, which EasyAnimate gives whatever the video's are"""
POOL_HEADS = 8


class AttentionPool(nn.Module):
    """One vector from a text: its mean asks all of its tokens, padding among them."""

    def __init__(self, length: int, width: int, out_dim: int):
        """Take the text's length in tokens, its channels, and those of the vector."""
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.randn(length + 1, width) / width**0.5)
        self.k_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, out_dim)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Pool (B, length, width) to (B, out_dim)."""
        tokens = torch.cat((text.mean(dim=1, keepdim=True), text), dim=1) + self.positional_embedding.to(text.dtype)
        query, key, value = (
            layer(part).unflatten(2, (POOL_HEADS, -1)).transpose(1, 2)
            for layer, part in ((self.q_proj, tokens[:, :1]), (self.k_proj, tokens), (self.v_proj, tokens))
        )
        pooled = functional.scaled_dot_product_attention(query, key, value)
        vector: torch.Tensor = self.c_proj(pooled.transpose(1, 2).flatten(1))
        return vector


class TimeTextSizeEmbedding(nn.Module):
    """The sum of an embedding of the time and one of text, size and style."""

    def __init__(self, width: int, pooled_dim: int, text_length: int, text_width: int):
        """Take the transformer's channels, those of the pooled text, and the length and channels of the text."""
        super().__init__()
        self.timestep_embedder = TimestepEmbedding(in_channels=SINUSOIDS, time_embed_dim=width)
        self.pooler = AttentionPool(text_length, text_width, pooled_dim)
        self.style_embedder = nn.Embedding(1, width)
        self.extra_embedder = PixArtAlphaTextProjection(
            in_features=SINUSOIDS * NUMBERS + width + pooled_dim, hidden_size=4 * width, out_features=width,
            act_fn="silu_fp32",
        )  # fmt: skip

    def forward(self, timesteps: torch.Tensor, text: torch.Tensor, size_px: torch.Tensor) -> torch.Tensor:
        """Embed.

        Args:
            timesteps: (B,).
            text: (B, length, width), which decides the type that is computed in.
            size_px: height and width of the sample (B, 2).

        Returns:
            (B, width).
        """
        time: torch.Tensor = self.timestep_embedder(_sinusoids(timesteps).to(text.dtype))
        original = torch.full_like(size_px, ORIGINAL_PX)
        numbers = torch.cat((original, size_px, torch.zeros_like(size_px)), dim=1)
        size = _sinusoids(numbers.flatten()).to(text.dtype).unflatten(0, (-1, NUMBERS)).flatten(1)
        style = self.style_embedder(torch.zeros(len(timesteps), dtype=torch.long, device=timesteps.device))
        extra: torch.Tensor = self.extra_embedder(torch.cat((self.pooler(text), size, style), dim=1))
        return time + extra


def _sinusoids(numbers: torch.Tensor) -> torch.Tensor:
    embedded: torch.Tensor = get_timestep_embedding(
        numbers, SINUSOIDS, flip_sin_to_cos=True, downscale_freq_shift=0
    )  # fmt: skip
    return embedded
