"""EasyAnimate V1: PixArt-XL/2 with a motion module that looks along time at squares of 2x2 tokens.

Its latents are those of an image VAE (4 channels), frame by frame; the text is T5-XXL's, 120 tokens with their mask.
The motion module is published apart from the image model: see `models.transformers.motion_files`.
"""

from collections.abc import Mapping
from typing import Any

from models.conditions.spec import TEXT_TO_VIDEO
from models.transformers.blocks.motion import GRID_MODULE, TEMPORAL
from models.transformers.blocks.pixart_family import NOISE, PIXART, T5, T5_TOKENS, TINY, TINY_MOTION, PixArtFamily
from models.transformers.blocks.pixart_video import UNIFORM
from models.transformers.defaults import FamilyDefaults, SamplerFacts

MOTION: dict[str, Any] = {
    "num_attention_heads": 8,
    "num_transformer_block": 1,
    "attention_block_types": [TEMPORAL, TEMPORAL],
    "temporal_position_encoding": True,
    "temporal_position_encoding_max_len": 4096,
    "temporal_attention_dim_div": 1,
    "block_size": 2,
}
VIDEO: dict[str, Any] = {
    "basic_block_type": UNIFORM,
    "enable_uvit": False,
    "motion_module_type": GRID_MODULE,
    "motion_module_kwargs": MOTION,
}


def takes(config: Mapping[str, Any]) -> bool:
    """Return whether a published config is V1's: one kind of motion module, and no long skip connections."""
    return config.get("basic_block_type", UNIFORM) == UNIFORM and not config.get("enable_uvit", False)


V1 = PixArtFamily(
    facts=FamilyDefaults(
        name="EasyAnimate V1",
        autoencoder="image-vae",
        text_encoder=T5,
        text_tokens=T5_TOKENS,
        objective=NOISE,
        kinds=(TEXT_TO_VIDEO,),
        sampler=SamplerFacts("dpm++", steps=30, guidance=6.0, num_frames=80, fps=12.0),
    ),
    rate_fps=12.0,
    presets={
        "tiny-v1": TINY | VIDEO | {"num_layers": 4, "motion_module_kwargs": MOTION | TINY_MOTION},
        "v1": PIXART | VIDEO,
    },
    video_fields=VIDEO,
    takes_images=False,
    takes=takes,
)
