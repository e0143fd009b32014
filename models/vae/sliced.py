"""The networks of EasyAnimate's VAEs of slices, V2 to V4: MagViT of 4 channels with attention in the middle.

They are diffusers' `AutoencoderKLMagvit` with the attentions beside its residual blocks, and have the same weights, by
the published names; in how they walk time they differ (`magvit4`, `slice_vae`, `cached_slice_vae`).
"""

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLMagvit

from models.errors import ModelError, check_weights, one_line
from models.geometry import LatentGrid
from models.vae.autoencoder import Scaling
from models.vae.mid_attention import add_attentions
from models.weights.state_dict import REMEDY, read_state_dict, take_weights

CLASS_NAME = "AutoencoderKLMagvit"
CONSTRUCTOR = frozenset(inspect.signature(AutoencoderKLMagvit.__init__).parameters) - {"self"}
WALK_FIELDS = frozenset(
    {"mid_block_attention_type", "mini_batch_encoder", "mini_batch_decoder"}
    | {"slice_mag_vae", "slice_compression_vae", "cache_compression_vae"}
)
"""of `config.json`: the attention, frames and latent frames of a slice, and how slices are walked"""
PUBLISHED_FIELDS = frozenset(
    {"ch", "ch_mult", "use_gc_blocks", "num_attention_heads", "double_z", "use_tiling", "verbose"}
    | {"mid_block_type", "mid_block_use_attention", "mid_block_num_attention_heads"}
)
"""that published files may have besides, which say what is so here anyway, or widths in another way"""
FIELDS = CONSTRUCTOR | WALK_FIELDS | PUBLISHED_FIELDS
SCALING_FACTOR = 0.18215
PUBLISHED_WIDTHS = (128, 256, 512, 512)
FRAMES_PER_LATENT, PIXELS_PER_LATENT, LATENTS_PER_PATCH = 4, 8, 2
TINY: Mapping[str, Any] = {"block_out_channels": (8, 8, 32, 64), "layers_per_block": 2, "norm_num_groups": 4}
"""learns a few small drawn clips on one CPU core within a minute"""


def has_attention(config: Mapping[str, Any]) -> bool:
    """Return whether a config is of a network with attention over slices, as far as it says.

    Files of V2 to V4 name the attention; one that does not is theirs if it has 4 channels and lacks the field that
    every later one has.
    """
    if "mid_block_attention_type" in config:
        return config["mid_block_attention_type"] == "3d" and bool(config.get("mid_block_use_attention", True))
    is_video = config.get("_class_name") == CLASS_NAME
    if blocks := config.get("down_block_types"):
        is_video = "_class_name" in config and any("3D" in str(name) for name in blocks)
    return is_video and "spatial_group_norm" not in config and config.get("latent_channels") == 4


def build(config: Mapping[str, Any], walk: Mapping[str, Any]) -> AutoencoderKLMagvit:
    """Build with torch's random weights.

    Args:
        config: content of a `config.json`, or a preset.
        walk: fields of the kind, which hold where the config has none.

    Raises:
        ModelError: unknown keys, values that do not fit together, or compression other than 4×8×8.
    """
    values = {name: value for name, value in config.items() if not name.startswith("_")}
    unknown = values.keys() - FIELDS
    if unknown:
        raise ModelError(f"VAE config: a VAE of slices knows no key '{min(unknown)}'; remove or rename it")
    if any(values.get("use_gc_blocks") or ()) or values.get("mid_block_num_attention_heads", 1) != 1:
        raise ModelError("VAE config: context blocks and several attention heads are not supported; take EasyAnimate's")
    widths = values.get("block_out_channels") or _widths(values)
    network = {name: value for name, value in values.items() if name in CONSTRUCTOR}
    network |= {"block_out_channels": widths, "latent_channels": values.get("latent_channels", 4)}
    network |= {"scaling_factor": values.get("scaling_factor", SCALING_FACTOR), "spatial_group_norm": False}
    try:
        vae = AutoencoderKLMagvit(**network)
        for part in (vae.encoder, vae.decoder):
            add_attentions(part.mid_block, widths[-1], vae.config.norm_num_groups)
    except (TypeError, ValueError, IndexError) as error:
        raise ModelError(f"VAE config: {one_line(error)}; compare it with the preset magvit4") from error
    time = space = 1
    for block in vae.encoder.down_blocks:
        time, space = time * block.temporal_downsample_factor, space * block.spatial_downsample_factor
    if (time, space) != (FRAMES_PER_LATENT, PIXELS_PER_LATENT):
        raise ModelError(f"VAE config: compression {time}x{space}x{space} is not supported; use blocks that give 4x8x8")
    kept = {name: values[name] for name in WALK_FIELDS if name in values}
    vae.register_to_config(**{"mid_block_attention_type": "3d", **walk, **kept})
    frames, latents = vae.config["mini_batch_encoder"], vae.config["mini_batch_decoder"]
    if latents != grid(vae.config).latents_per_slice:
        raise ModelError(
            f"VAE config: mini_batch_encoder {frames} and mini_batch_decoder {latents} do not go together: {frames} "
            f"frames are {grid(vae.config).latents_per_slice} latents; take {walk['mini_batch_encoder']} and "
            f"{walk['mini_batch_decoder']}"
        )
    return vae


def load(home: Path, config: Mapping[str, Any], dtype: torch.dtype, walk: Mapping[str, Any]) -> AutoencoderKLMagvit:
    """Load from a folder that holds `config.json` (already read) and weights, published or saved here.

    Raises:
        ModelError: weights that are not there, or do not fit the config.
    """
    known = {name: value for name, value in config.items() if name in FIELDS}
    try:
        with torch.device("meta"):
            vae = build(known, walk)
    except ModelError as error:
        raise ModelError(f"{home / 'config.json'}: {error}") from None
    state, wanted = read_state_dict(home), vae.state_dict()
    if not state:
        raise ModelError(f"{home}: holds no state dict; {REMEDY}")
    both = wanted.keys() & state.keys()
    check_weights(
        {
            "missing_keys": sorted(wanted.keys() - both),
            "unexpected_keys": sorted(state.keys() - both),
            "mismatched_keys": sorted(name for name in both if wanted[name].shape != state[name].shape),
        },
        home,
    )
    take_weights(vae, state, dtype)
    return vae.eval()


def grid(config: Mapping[str, Any]) -> LatentGrid:
    """Return the compression of 4×8×8, with the frames of a slice that a config names.

    Raises:
        ModelError: that is no number of frames.
    """
    frames = config["mini_batch_encoder"]
    if not isinstance(frames, int) or frames < 2:
        raise ModelError(f"VAE config: mini_batch_encoder {frames!r}: give the frames of a slice, such as 8")
    return LatentGrid(FRAMES_PER_LATENT, PIXELS_PER_LATENT, LATENTS_PER_PATCH, frames)


def channels(config: Mapping[str, Any]) -> int:
    """Return the channels of a latent."""
    return int(config.get("latent_channels", 4))


def scaling(config: Mapping[str, Any]) -> Scaling:
    """Return the factor, that of Stable Diffusion where the config has none."""
    return Scaling(config.get("scaling_factor", SCALING_FACTOR))


def spans(count: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield begin and end of each slice: a first one of its own where one is over, then whole ones.

    Args:
        count: of frames, or of latent frames.
        size: of a slice.
    """
    begin = 0
    if count % size == 1:
        yield 0, 1
        begin = 1
    for start in range(begin, count, size):
        yield start, min(count, start + size)


def check_at_once(name: str, at_once: int | None, size: int) -> None:
    """Refuse a bound on memory that is no number of whole slices.

    Raises:
        ModelError: it is not a multiple of the slice.
    """
    if at_once is not None and at_once % size:
        raise ModelError(f"{name} {at_once}: must be a multiple of {size}")


def _widths(values: Mapping[str, Any]) -> tuple[int, ...]:
    if "ch" not in values and "ch_mult" not in values:
        return PUBLISHED_WIDTHS
    return tuple(int(values.get("ch", 128)) * int(factor) for factor in values.get("ch_mult", (1, 2, 4, 4)))
