"""EasyAnimate V3: hybrid motion modules, and image conditions by channels and by tokens at once.

Even blocks look along time twice; odd blocks once along time, and once at all tokens of the video. Behind the latents
come the VAE-encoded mask and masked video (4 + 4 + 4 channels); an embedding of the start image by CLIP becomes eight
tokens behind the text's. The latents are those of the slice VAE: 8 frames become 2.
"""

from collections.abc import Mapping
from typing import Any

from models.conditions.spec import EASYANIMATE_V3
from models.transformers import easyanimate_v2
from models.transformers.blocks.motion import GLOBAL, PLAIN_MODULE, TEMPORAL
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
from models.transformers.blocks.pixart_video import HYBRID
from models.transformers.defaults import FamilyDefaults, SamplerFacts

EVEN: dict[str, Any] = easyanimate_v2.MOTION | {"num_attention_heads": 16, "remove_time_embedding_in_photo": False}
ODD: dict[str, Any] = EVEN | {"attention_block_types": [TEMPORAL, GLOBAL]}
VIDEO: dict[str, Any] = {
    "basic_block_type": HYBRID,
    "enable_uvit": True,
    "motion_module_type": PLAIN_MODULE,
    "motion_module_kwargs_even": EVEN,
    "motion_module_kwargs_odd": ODD,
}


def takes(config: Mapping[str, Any]) -> bool:
    """Return whether a published config is V3's: two kinds of motion modules."""
    return bool(config.get("basic_block_type") == HYBRID)


V3 = PixArtFamily(
    facts=FamilyDefaults(
        name="EasyAnimate V3",
        autoencoder="slice",
        text_encoder=T5,
        text_tokens=T5_TOKENS,
        objective=NOISE,
        kinds=EASYANIMATE_V3,
        masks={"box": 0.05, "all": 0.3, "first_frames": 0.3, "both_ends": 0.3, "timed_box": 0.05},
        sampler=SamplerFacts(
            "dpm++", steps=25, guidance=7.0, num_frames=144, fps=24.0, image_from=0.5, overlap=4, smooths=True
        ),
        image_encoder="clip_embedding",
        reference_noise=False,
    ),
    rate_fps=24.0,
    presets={
        "tiny-v3": TINY
        | VIDEO
        | {
            "in_channels": 12,
            "num_layers": 6,
            "motion_module_kwargs_even": EVEN | TINY_MOTION,
            "motion_module_kwargs_odd": ODD | TINY_MOTION,
        },
        "v3": PIXART | VIDEO | {"in_channels": 12},
    },
    video_fields=VIDEO,
    takes_images=True,
    takes=takes,
    lora_targets=(*LINEAR, "long_connect_fc.*"),
)
