"""How large what is computed is: small for comparing with the CPU, large for rates; on a CPU small for both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.transformers.easyanimate_v5_presets import TINY
from models.vae.video_vae import PRESETS

Grid = tuple[int, int, int]


@dataclass(frozen=True)
class Sizes:
    """Sizes of all checks.

    Attributes:
        small: configuration of the transformer whose results are compared with the CPU's.
        small_grid: its latent frames, height and width.
        small_vae: configuration of the VAE likewise.
        small_px: side of its pictures; its tiles are half as large.
        large: configuration of the transformer whose rates are measured.
        fewer_layers: numbers of layers to try, in turn, until training fits the memory.
        grids: latent grids for training rates.
        text_tokens: of a caption, for rates.
        large_vae: configuration of the VAE whose rates are measured.
        video: its frames, height and width in pixels.
        tile_px: side of its tiles; they begin at most three quarters of it apart.
        repeats: runs that are measured, after one that warms up.
        least_share: of the peak FLOP/s that training and sampling shall reach; 0: only measured.
    """

    small: Mapping[str, Any]
    small_grid: Grid
    small_vae: Mapping[str, Any]
    small_px: int
    large: Mapping[str, Any]
    fewer_layers: Sequence[int]
    grids: Sequence[Grid]
    text_tokens: int
    large_vae: Mapping[str, Any]
    video: tuple[int, int, int]
    tile_px: int
    repeats: int
    least_share: float


def tokens_of(grid: Grid, patch: int = 2) -> int:
    """Return the video tokens of a latent grid."""
    return grid[0] * (grid[1] // patch) * (grid[2] // patch)


def transformer_config(heads: int, head_dim: int, layers: int, text_dim: int, time_dim: int) -> dict[str, Any]:
    """Return a configuration of the EasyAnimate family."""
    return TINY | {
        "num_attention_heads": heads, "attention_head_dim": head_dim, "num_layers": layers, "mmdit_layers": layers,
        "text_embed_dim": text_dim, "time_embed_dim": time_dim,
    }  # fmt: skip


ON_GPU = Sizes(
    small=transformer_config(8, 64, 4, 64, 128),
    small_grid=(3, 16, 16),
    small_vae=PRESETS["tiny"],
    small_px=128,
    large=transformer_config(24, 64, 24, 1024, 512),  # 1.6 B parameters
    fewer_layers=(24, 12, 6, 3),
    grids=((13, 48, 60), (13, 96, 120)),  # 49 frames of 480 x 384 and 960 x 768 px: 9 360 and 37 440 tokens
    text_tokens=256,
    large_vae=PRESETS["magvit"],
    video=(49, 512, 896),
    tile_px=384,
    repeats=3,
    least_share=0.2,
)
ON_CPU = Sizes(
    small=transformer_config(2, 32, 2, 64, 64),
    small_grid=(2, 4, 4),
    small_vae=PRESETS["tiny"] | {"block_out_channels": (8, 8, 8, 8)},
    small_px=32,
    large=transformer_config(4, 32, 4, 64, 64),
    fewer_layers=(4,),
    grids=((2, 8, 8), (2, 16, 16)),
    text_tokens=16,
    large_vae=PRESETS["tiny"] | {"block_out_channels": (8, 8, 8, 8)},
    video=(5, 32, 32),
    tile_px=16,
    repeats=2,
    least_share=0.0,
)
