"""Motion modules of EasyAnimate V1–V3: attention along time, added to the blocks of an image transformer.

EasyAnimate (arXiv 2405.18991), after AnimateDiff (arXiv 2307.04725). The output layer begins at zero, so that a new
module changes nothing.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import SinusoidalPositionalEmbedding
from diffusers.models.normalization import FP32LayerNorm
from torch import nn

from models.errors import ModelError
from models.transformers.blocks.zero import zero
from models.weights.published_config import known_fields

Grid = tuple[int, int, int]
"""tokens along time, height and width"""
GROUPS = 32
"""of the group norm in front; channels must be a multiple"""
GROUP_NORM_EPS = 1e-6
TEMPORAL, GLOBAL = "Temporal_Self", "Global_Self"
GRID_MODULE, PLAIN_MODULE = "VanillaGrid", "Vanilla"
SETTLED: Mapping[str, Any] = {"qk_norm": False, "global_attention": False, "cross_frame_attention_mode": None}
"""Settings that change the arithmetic, with the one value that is supported: that of all published weights."""
WITHOUT_EFFECT = ("zero_initialize", "global_num_attention_heads")


@dataclass(frozen=True)
class MotionSettings:
    """One motion module as `motion_module_kwargs` of a published `config.json` describes it; defaults as published.

    Attributes:
        num_attention_heads: of its attentions.
        num_transformer_block: how many groups of attentions and a feed-forward network there are.
        attention_block_types: attentions of a group: `Temporal_Self` looks along time at one place, `Global_Self` at
            all tokens of the video.
        temporal_position_encoding: whether each attention is told the frame's number.
        temporal_position_encoding_max_len: frames that have a number.
        temporal_attention_dim_div: the model's width over the attention's; only 1.
        block_size: tokens along either side of the place that `Temporal_Self` looks at, in a module of type
            `VanillaGrid`.
        remove_time_embedding_in_photo: whether a single frame is not told its number.
    """

    num_attention_heads: int = 8
    num_transformer_block: int = 2
    attention_block_types: tuple[str, ...] = (TEMPORAL, TEMPORAL)
    temporal_position_encoding: bool = False
    temporal_position_encoding_max_len: int = 4096
    temporal_attention_dim_div: int = 1
    block_size: int = 1
    remove_time_embedding_in_photo: bool = False


def motion_settings(module_type: str, values: Mapping[str, Any] | None) -> MotionSettings:
    """Read the settings of a motion module; unknown ones are named in a line and passed over.

    Args:
        module_type: `VanillaGrid`, or `Vanilla`, whose attention along time looks at single tokens.
        values: `motion_module_kwargs`; those that are missing have the defaults of `MotionSettings`.

    Raises:
        ModelError: a type or value that is not there.
    """
    if module_type not in (GRID_MODULE, PLAIN_MODULE):
        raise ModelError(f"motion_module_type {module_type!r}: must be {GRID_MODULE} or {PLAIN_MODULE}")
    names = [field.name for field in dataclasses.fields(MotionSettings)]
    known = known_fields(values or {}, (*names, *SETTLED, *WITHOUT_EFFECT), "motion_module_kwargs")
    for name, value in SETTLED.items():
        if known.get(name, value) != value:
            raise ModelError(f"motion module: {name} {known[name]!r}: only {value!r} is supported")
    known = {name: value for name, value in known.items() if name in names}
    if "attention_block_types" in known:
        known["attention_block_types"] = tuple(known["attention_block_types"])
    settings = MotionSettings(**known)
    if strangers := [kind for kind in settings.attention_block_types if kind not in (TEMPORAL, GLOBAL)]:
        raise ModelError(f"attention_block_types: {strangers[0]!r} must be {TEMPORAL} or {GLOBAL}")
    if settings.temporal_attention_dim_div != 1:
        raise ModelError(f"temporal_attention_dim_div {settings.temporal_attention_dim_div}: only 1 is supported")
    return settings if module_type == GRID_MODULE else dataclasses.replace(settings, block_size=1)


def to_sequences(tokens: torch.Tensor, grid: Grid, block: tuple[int, int]) -> torch.Tensor:
    """Gather the tokens of each block of neighbours over all frames into one sequence.

    Args:
        tokens: (B, F·H·W, C), frame by frame, row by row.
        grid: F, H, W.
        block: tokens along the height and width of a block, which divide H and W. (1, 1) gives one sequence for each
            place; (H, W) one for the whole video.

    Returns:
        (B·(H/h)·(W/w), F·h·w, C), frame by frame, row by row within the block.
    """
    (frames, height, width), (high, wide) = grid, block
    cut = tokens.reshape(-1, frames, height // high, high, width // wide, wide, tokens.shape[-1])
    return cut.permute(0, 2, 4, 1, 3, 5, 6).reshape(-1, frames * high * wide, tokens.shape[-1])


def from_sequences(sequences: torch.Tensor, grid: Grid, block: tuple[int, int]) -> torch.Tensor:
    """Bring the sequences of `to_sequences` back to tokens (B, F·H·W, C)."""
    (frames, height, width), (high, wide) = grid, block
    cut = sequences.reshape(-1, height // high, width // wide, frames, high, wide, sequences.shape[-1])
    return cut.permute(0, 3, 1, 4, 2, 5, 6).reshape(-1, frames * height * width, sequences.shape[-1])


class MotionAttention(Attention):
    """Self-attention over the blocks of a grid, which is told the frames' numbers.

    diffusers' attention without biases of q, k and v. The sinusoid of the frame's number is added to the input, so
    that it enters q, k and v.
    """

    def __init__(self, width: int, settings: MotionSettings, kind: str):
        """Make one attention of a kind in `attention_block_types`."""
        heads = settings.num_attention_heads
        super().__init__(query_dim=width, heads=heads, dim_head=width // heads, bias=False)
        self._is_global, self._settings = kind == GLOBAL, settings
        length = settings.temporal_position_encoding_max_len
        self.pos_encoder = SinusoidalPositionalEmbedding(width, length) if settings.temporal_position_encoding else None

    def forward(self, tokens: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Attend from (B, F·H·W, C) to the same."""
        frames, height, width = grid
        side = self._settings.block_size
        block = (height, width) if self._is_global else (side, side)
        if self.pos_encoder is not None and not (self._settings.remove_time_embedding_in_photo and frames == 1):
            by_frame = tokens.reshape(-1, frames, height * width, tokens.shape[-1])
            numbers = self.pos_encoder.pe[0, :frames, None].to(tokens.dtype)
            tokens = (by_frame + numbers).reshape(tokens.shape)
        return from_sequences(super().forward(to_sequences(tokens, grid, block)), grid, block)


class MotionBlock(nn.Module):
    """Attentions one after another and a feed-forward network, each with a norm before it and added to its input."""

    def __init__(self, width: int, settings: MotionSettings):
        """Make the attentions that `attention_block_types` names."""
        super().__init__()
        kinds = settings.attention_block_types
        self.attention_blocks = nn.ModuleList(MotionAttention(width, settings, kind) for kind in kinds)
        self.norms = nn.ModuleList(FP32LayerNorm(width) for _ in kinds)
        self.ff = FeedForward(width, activation_fn="geglu")
        self.ff_norm = FP32LayerNorm(width)

    def forward(self, tokens: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Compute from (B, F·H·W, C) to the same."""
        for attention, norm in zip(self.attention_blocks, self.norms, strict=True):
            tokens = tokens + attention(norm(tokens), grid)
        result: torch.Tensor = tokens + self.ff(self.ff_norm(tokens))
        return result


class MotionTransformer(nn.Module):
    """Group norm of each frame, motion blocks between two linear layers, added to the input."""

    def __init__(self, width: int, settings: MotionSettings):
        """Make the layers; the last one is zero."""
        super().__init__()
        if width % GROUPS or width % settings.num_attention_heads:
            heads = settings.num_attention_heads
            raise ModelError(f"motion module: width {width} must be a multiple of {GROUPS} and of its {heads} heads")
        self.norm = nn.GroupNorm(GROUPS, width, eps=GROUP_NORM_EPS)
        self.proj_in = nn.Linear(width, width)
        blocks = (MotionBlock(width, settings) for _ in range(settings.num_transformer_block))
        self.transformer_blocks = nn.ModuleList(blocks)
        self.proj_out = zero(nn.Linear(width, width))

    def forward(self, tokens: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Compute from (B, F·H·W, C) to the same."""
        frames, height, width = grid
        frame_by_frame = tokens.reshape(-1, height * width, tokens.shape[-1]).transpose(1, 2)
        hidden = self.proj_in(self.norm(frame_by_frame).transpose(1, 2).reshape(tokens.shape))
        for block in self.transformer_blocks:
            hidden = block(hidden, grid)
        result: torch.Tensor = tokens + self.proj_out(hidden)
        return result


class MotionModule(nn.Module):
    """A motion transformer under the name that its published weights have."""

    def __init__(self, width: int, settings: MotionSettings):
        """Make the transformer."""
        super().__init__()
        self.temporal_transformer = MotionTransformer(width, settings)

    def forward(self, tokens: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Compute from (B, F·H·W, C) to the same."""
        result: torch.Tensor = self.temporal_transformer(tokens, grid)
        return result
