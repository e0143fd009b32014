"""PixArt-α's layers (arXiv 2310.00426) for videos: each frame is an image to them, and the text is seen by all frames.

Layers and their names are those of diffusers' `PixArtTransformer2DModel`.
"""

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import get_2d_sincos_pos_embed
from torch import nn

from models.transformers.blocks.motion import Grid, MotionModule, MotionSettings

MASKED = -10000.0
"""added to the scores of what is masked, as in the published models"""


def mask_bias(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return what attention adds to its scores (B, 1, L) for a mask (B, L) of 1 or True where it may look."""
    return (1 - mask.to(dtype))[:, None] * MASKED


class FramePatches(nn.Module):
    """Cuts each frame of a latent video into patches, and adds their place in the frame (2D sinusoids)."""

    def __init__(self, channels: int, width: int, patch: int, sample_size: int, interpolation_scale: float):
        """Make the projection; places are counted in the grid of a sample of `sample_size` latents, whatever the size.

        Args:
            channels: of the latents.
            width: channels of a token.
            patch: latents along a side of a patch.
            sample_size: latents along a side of the images that the model began with.
            interpolation_scale: by which places are divided.
        """
        super().__init__()
        self.proj = nn.Conv2d(channels, width, kernel_size=patch, stride=patch)
        self._base, self._scale = sample_size // patch, interpolation_scale

    def forward(self, latents: torch.Tensor) -> tuple[torch.Tensor, Grid]:
        """Return the tokens (B, F·H·W, C), frame by frame, and their grid for latents (B, c, F, pH, pW)."""
        batch, frames = latents.shape[0], latents.shape[2]
        patches = self.proj(latents.transpose(1, 2).flatten(0, 1))
        height, width = patches.shape[2:]
        places = get_2d_sincos_pos_embed(
            patches.shape[1], (height, width), base_size=self._base, interpolation_scale=self._scale,
            device=patches.device, output_type="pt",
        )  # fmt: skip
        tokens = (patches.flatten(2).transpose(1, 2) + places.float()).to(patches.dtype)
        return tokens.reshape(batch, frames * height * width, -1), (frames, height, width)


def join_patches(patches: torch.Tensor, grid: Grid, patch: int) -> torch.Tensor:
    """Bring patches (B, F·H·W, p·p·c), channels last within a patch, to a video (B, c, F, pH, pW)."""
    frames, height, width = grid
    cut = patches.reshape(patches.shape[0], frames, height, width, patch, patch, -1)
    return cut.permute(0, 6, 1, 2, 4, 3, 5).reshape(patches.shape[0], -1, frames, height * patch, width * patch)


class PixArtVideoBlock(nn.Module):
    """A block of PixArt-α with a motion module between self-attention and cross-attention."""

    def __init__(
        self,
        width: int,
        heads: int,
        cross_width: int,
        motion: MotionSettings,
        activation: str,
        eps: float,
        dropout: float,
        *,
        bias: bool,
        affine: bool,
    ):
        """Make the layers.

        Args:
            width: channels of a token.
            heads: of both attentions.
            cross_width: channels of a token of the text.
            motion: settings of the motion module.
            bias: whether q, k and v have biases.
            activation: of the feed-forward network, as diffusers names it.
            affine: whether the norms have weights.
            eps: of the norms.
            dropout: share of values dropped while training.
        """
        super().__init__()
        head = width // heads
        self.norm1 = nn.LayerNorm(width, eps=eps, elementwise_affine=affine)
        self.attn1 = Attention(query_dim=width, heads=heads, dim_head=head, dropout=dropout, bias=bias)
        self.attn_temporal = MotionModule(width, motion)
        self.attn2 = Attention(
            query_dim=width, cross_attention_dim=cross_width, heads=heads, dim_head=head, dropout=dropout, bias=bias
        )
        self.norm2 = nn.LayerNorm(width, eps=eps, elementwise_affine=affine)
        self.ff = FeedForward(width, dropout=dropout, activation_fn=activation)
        self.scale_shift_table = nn.Parameter(torch.randn(6, width) / width**0.5)

    def forward(
        self,
        hidden_states: torch.Tensor,
        text: torch.Tensor,
        text_bias: torch.Tensor | None,
        modulation: torch.Tensor,
        grid: Grid,
    ) -> torch.Tensor:
        """Compute one block.

        Args:
            hidden_states: tokens (B, F·H·W, C).
            text: what cross-attention looks at (B, L, D).
            text_bias: (B, 1, L) from `mask_bias`; None: all of it.
            modulation: of the timestep (B, 6·C).
            grid: F, H, W.

        Returns:
            Tokens (B, F·H·W, C).
        """
        batch = hidden_states.shape[0]
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = (
            self.scale_shift_table[None] + modulation.reshape(batch, 6, -1)
        ).chunk(6, dim=1)
        frames = (self.norm1(hidden_states) * (1 + scale_1) + shift_1).reshape(
            batch * grid[0], grid[1] * grid[2], hidden_states.shape[-1]
        )
        hidden_states = gate_1 * self.attn1(frames).reshape(hidden_states.shape) + hidden_states
        hidden_states = self.attn_temporal(hidden_states, grid)
        attended = self.attn2(hidden_states, encoder_hidden_states=text, attention_mask=text_bias)
        hidden_states = attended + hidden_states
        fed: torch.Tensor = self.ff(self.norm2(hidden_states) * (1 + scale_2) + shift_2)
        return gate_2 * fed + hidden_states
