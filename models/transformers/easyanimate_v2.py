"""EasyAnimate V2: V1's transformer with long skip connections, and a motion module that looks at single tokens.

Its latents are those of MagViT with 4 channels: 9 frames become 3.
"""

from collections.abc import Mapping
from typing import Any

from models.conditions.spec import TEXT_TO_VIDEO
from models.transformers import easyanimate_v1
from models.transformers.blocks.motion import PLAIN_MODULE
from models.transformers.blocks.pixart_family import (
    LINEAR,
    NOISE,
    PIXART,
    T5,
    T5_TOKENS,
    TINY,
    TINY_MOTION,
    PixArtFamily,
)
from models.transformers.blocks.pixart_video import UNIFORM
from models.transformers.defaults import FamilyDefaults, SamplerFacts

MOTION: dict[str, Any] = easyanimate_v1.MOTION | {"block_size": 1}
VIDEO: dict[str, Any] = {
    "basic_block_type": UNIFORM,
    "enable_uvit": True,
    "motion_module_type": PLAIN_MODULE,
    "motion_module_kwargs": MOTION,
}


def takes(config: Mapping[str, Any]) -> bool:
    """Return whether a published config is V2's: one kind of motion module, and long skip connections."""
    return config.get("basic_block_type", UNIFORM) == UNIFORM and bool(config.get("enable_uvit", False))


V2 = PixArtFamily(
    facts=FamilyDefaults(
        name="EasyAnimate V2",
        autoencoder="magvit4",
        text_encoder=T5,
        text_tokens=T5_TOKENS,
        objective=NOISE,
        kinds=(TEXT_TO_VIDEO,),
        sampler=SamplerFacts("dpm++", steps=50, guidance=6.0, num_frames=144, fps=24.0, smooths=True),
    ),
    rate_fps=24.0,
    presets={
        "tiny-v2": TINY | VIDEO | {"num_layers": 6, "motion_module_kwargs": MOTION | TINY_MOTION},
        "v2": PIXART | VIDEO,
    },
    video_fields=VIDEO,
    takes_images=False,
    takes=takes,
    lora_targets=(*LINEAR, "long_connect_fc.*"),
)
