"""Tokens of a picture to a few: learned queries attend to them once (the resampler of Qwen-VL, arXiv 2308.12966)."""

import math

import torch
from torch import nn
from torch.nn import functional

STD = 0.02
NORM_EPS = 1e-5
WAVELENGTH = 10000.0


def grid_sinusoids(side: int, width: int) -> torch.Tensor:
    """Return (side², width) in float32: half of the channels from the column, half from the row; sines, then cosines.

    Raises:
        ValueError: the channels are not a multiple of 4.
    """
    if width % 4:
        raise ValueError(f"{width} channels; sinusoids of two axes need a multiple of 4")
    rates = WAVELENGTH ** -(torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    angles = torch.outer(torch.arange(side, dtype=torch.float64), rates)
    axis = torch.cat((angles.sin(), angles.cos()), dim=1)
    return torch.cat((axis.repeat(side, 1), axis.repeat_interleave(side, dim=0)), dim=1).float()


class PackedAttention(nn.Module):
    """Multi-head attention with the parameters of `torch.nn.MultiheadAttention`, whose layers are called as layers.

    torch's class reads the weight of its output layer without calling it, which whatever moves layers to a device for
    their call does not see.
    """

    def __init__(self, width: int, heads: int):
        """Draw the weights of queries, keys and values in one piece."""
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Attend from (B, L, width) to (B, K, width)."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        heads = [
            functional.linear(part, weight, bias).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part, weight, bias in zip((query, key, value), weights, biases, strict=True)
        ]
        said: torch.Tensor = self.out_proj(functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))
        return said


class Resampler(nn.Module):
    """As many tokens as there are queries, from a square of any number."""

    def __init__(self, queries: int, width: int, heads: int, in_dim: int):
        """Take the number of queries (a square), the channels, the heads, and the channels of the picture's tokens.

        Raises:
            ValueError: the queries are no square, or the channels cannot be divided.
        """
        super().__init__()
        side = math.isqrt(queries)
        if side * side != queries or width % heads:
            raise ValueError(f"{queries} queries must be a square, and {width} channels a multiple of {heads} heads")
        self.pos_embed = nn.Parameter(grid_sinusoids(side, width), requires_grad=False)
        self.query = nn.Parameter(torch.randn(queries, width) * STD)
        self.kv_proj = nn.Linear(in_dim, width, bias=False) if in_dim != width else nn.Identity()
        self.attn = PackedAttention(width, heads)
        self.ln_q = nn.LayerNorm(width, NORM_EPS)
        self.ln_kv = nn.LayerNorm(width, NORM_EPS)
        for layer in (self.kv_proj, self.attn.out_proj):
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=STD)
        nn.init.zeros_(self.attn.out_proj.bias)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Resample (B, K, in_dim), K a square, to (B, queries, width); keys bear positions, values do not.

        Raises:
            ValueError: K is no square.
        """
        values = self.ln_kv(self.kv_proj(tokens))
        queries = self.ln_q(self.query) + self.pos_embed
        keys = values + self._positions(tokens.shape[1])
        said: torch.Tensor = self.attn(queries.expand(len(tokens), -1, -1), keys, values)
        return said

    def _positions(self, count: int) -> torch.Tensor:
        """Return the queries' positions, resized to a square of so many tokens."""
        side, wanted = math.isqrt(len(self.pos_embed)), math.isqrt(count)
        if wanted * wanted != count:
            raise ValueError(f"{count} image tokens are no square; give them without the class token")
        if side == wanted:
            return self.pos_embed
        picture = self.pos_embed.float().unflatten(0, (side, side)).permute(2, 0, 1).unsqueeze(0)
        resized = functional.interpolate(picture, size=(wanted, wanted), mode="bicubic", align_corners=False)
        return resized[0].flatten(1).T.to(self.pos_embed.dtype)
