"""A block of HunyuanDiT (arXiv 2405.08748) as EasyAnimate V4 has it: frames, and tokens of a condition image."""

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention, HunyuanAttnProcessor2_0
from diffusers.models.embeddings import SinusoidalPositionalEmbedding
from diffusers.models.normalization import FP32LayerNorm
from torch import nn
from torch.nn import functional

NORM_EPS = 1e-6
LONGEST_FRAMES = 512
Rotary = tuple[torch.Tensor, torch.Tensor]
"""cosines and sines (tokens, channels of a head)"""


class ShiftedNorm(nn.Module):
    """A norm whose shift follows the time."""

    def __init__(self, width: int):
        """Take the channels, of tokens and of the embedding of the time."""
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.norm = FP32LayerNorm(width, NORM_EPS)

    def forward(self, tokens: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Normalise (B, N, width) and add what (B, width) says."""
        shift = self.linear(functional.silu(time.float()).to(time.dtype))
        normalised: torch.Tensor = self.norm(tokens)
        return normalised + shift.unsqueeze(1)


class ClipGate(nn.Module):
    """Gated linear units on what a condition image says (Shazeer, arXiv 2002.05202).

    The ε of its norm is the number of channels, not a small number: the published weights were trained so, and say
    something else with a small one.
    """

    def __init__(self, width: int):
        """Take the channels."""
        super().__init__()
        self.norm = FP32LayerNorm(width, eps=float(width))
        self.proj = nn.Linear(width, 2 * width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Gate (B, N, width)."""
        said, gate = self.proj(self.norm(tokens)).chunk(2, dim=2)
        return said * functional.gelu(gate)


class HunyuanBlock(nn.Module):
    """Attention among all tokens of all frames, to the text, to the condition image; then an MLP."""

    def __init__(
        self,
        width: int,
        heads: int,
        text_dim: int,
        mlp_dim: int,
        activation: str,
        *,
        skip: bool,
        image: bool,
        frames: bool,
    ):
        """Take the sizes, and which parts there are.

        Args:
            width: channels of a token.
            heads: of every attention.
            text_dim: channels of tokens of text and image.
            mlp_dim: hidden channels of the MLP.
            activation: of the MLP, as diffusers names it.
            skip: takes the tokens of an earlier block as well.
            image: attends to a condition image.
            frames: adds sinusoids of the frame.
        """
        super().__init__()
        self.norm1 = ShiftedNorm(width)
        self.attn1 = _attention(width, heads, None)
        self.norm2 = FP32LayerNorm(width, NORM_EPS)
        self.attn2 = _attention(width, heads, text_dim)
        self.norm3 = FP32LayerNorm(width, NORM_EPS)
        self.ff = FeedForward(width, activation_fn=activation, inner_dim=mlp_dim, bias=True)
        self.t_embed = SinusoidalPositionalEmbedding(width, LONGEST_FRAMES) if frames else None
        self.skip_norm = FP32LayerNorm(2 * width, NORM_EPS) if skip else None
        self.skip_linear = nn.Linear(2 * width, width) if skip else None
        self.attn_clip: nn.Module | None = None
        self.norm_clip: nn.Module | None = None
        self.gate_clip: nn.Module | None = None
        self.norm_clip_out: nn.LayerNorm | None = None
        if image:
            self.add_image(width, heads, text_dim)

    def add_image(self, width: int, heads: int, image_dim: int) -> None:
        """Add the part that attends to a condition image."""
        self.norm_clip = FP32LayerNorm(width, NORM_EPS)
        self.attn_clip = _attention(width, heads, image_dim)
        self.gate_clip = ClipGate(width)
        self.norm_clip_out = FP32LayerNorm(width, NORM_EPS)

    def forward(
        self,
        tokens: torch.Tensor,
        text: torch.Tensor,
        time: torch.Tensor,
        rotary: Rotary,
        frames: int,
        image: torch.Tensor | None = None,
        skip: torch.Tensor | None = None,
        *,
        turns_itself: bool = True,
    ) -> torch.Tensor:
        """Compute one block.

        Args:
            tokens: (B, N, width), frame after frame.
            text: (B, L, text_dim), without a mask: padding has been replaced.
            time: (B, width).
            rotary: positions of the N tokens. They turn queries everywhere, keys among the video's tokens only.
            frames: how many there are.
            image: tokens of the condition image (B, K, text_dim), for blocks that attend to one.
            skip: tokens of the earlier block, for blocks that take them.
            turns_itself: whether the attention among the video's tokens has positions.

        Returns:
            (B, N, width).
        """
        if self.skip_linear is not None and self.skip_norm is not None:
            tokens = self.skip_linear(self.skip_norm(torch.cat((tokens, skip), dim=2)))  # type: ignore[arg-type]
        if self.t_embed is not None and frames > 1:
            along = tokens.unflatten(1, (frames, -1)).transpose(1, 2)
            tokens = self.t_embed(along.flatten(0, 1)).view_as(along).transpose(1, 2).flatten(1, 2)
        own = self.norm1(tokens, time)
        tokens = tokens + self.attn1(own, image_rotary_emb=rotary if turns_itself else None)
        tokens = tokens + self.attn2(self.norm2(tokens), encoder_hidden_states=text, image_rotary_emb=rotary)
        if self.attn_clip is not None:
            said = self.attn_clip(
                self.norm_clip(tokens),  # type: ignore[misc]
                encoder_hidden_states=image,
                image_rotary_emb=rotary,
            )
            tokens = tokens + self.norm_clip_out(self.gate_clip(said))  # type: ignore[misc]
        final: torch.Tensor = tokens + self.ff(self.norm3(tokens))
        return final


def _attention(width: int, heads: int, other_dim: int | None) -> nn.Module:
    """Build attention with norms on queries and keys, among tokens or (`other_dim`) to others."""
    attention: nn.Module = Attention(
        query_dim=width,
        cross_attention_dim=other_dim,
        dim_head=width // heads,
        heads=heads,
        qk_norm="layer_norm",
        eps=NORM_EPS,
        bias=True,
        processor=HunyuanAttnProcessor2_0(),
    )
    return attention
