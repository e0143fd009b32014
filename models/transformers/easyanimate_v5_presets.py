"""Configurations of EasyAnimate V5 and V5.1: small ones for a CPU, and the published ones.

V5 has two texts (`text_embed_dim_t5` is there), V5.1 one text that is normalised first (`add_norm_text_encoder`); all
else is the same.
"""

from collections.abc import Mapping
from typing import Any

TINY = {
    "num_attention_heads": 4,
    "attention_head_dim": 32,
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "num_layers": 4,
    "mmdit_layers": 4,
    "time_embed_dim": 128,
    "text_embed_dim": 64,
    "add_norm_text_encoder": True,
    "add_noise_in_inpaint_model": False,
}
V5_1_12B = {
    "num_attention_heads": 48,
    "attention_head_dim": 64,
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "num_layers": 48,
    "mmdit_layers": 48,
    "time_embed_dim": 512,
    "text_embed_dim": 3584,
    "add_norm_text_encoder": True,
    "add_noise_in_inpaint_model": False,
}
LAYERS_7B = {"num_layers": 36, "mmdit_layers": 18}
"""the first 18 blocks have weights of their own for text, the others share theirs with the video"""
TWO_TEXTS = {"add_norm_text_encoder": False, "text_embed_dim": 1024, "text_embed_dim_t5": 2048}
"""of the bilingual CLIP and mT5"""
TINY_TWO_TEXTS = TWO_TEXTS | {"text_embed_dim": 64, "text_embed_dim_t5": 64}
KINDS: Mapping[str, Mapping[str, Any]] = {
    "": {},
    "-inpaint": {"in_channels": 33, "add_noise_in_inpaint_model": True},
    "-control": {"in_channels": 32},  # V5
    "-control-reference": {"in_channels": 48},  # V5.1
    "-camera": {"in_channels": 38},  # V5.1
}
"""published kinds by the end of a preset's name"""


def _of_all_kinds(sizes: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {f"{size}{end}": {**values, **kind} for size, values in sizes.items() for end, kind in KINDS.items()}


V5_1 = _of_all_kinds({"tiny": TINY, "12b": V5_1_12B, "7b": V5_1_12B | LAYERS_7B})
V5 = _of_all_kinds({
    "tiny-v5": TINY | TINY_TWO_TEXTS,
    "v5-12b": V5_1_12B | TWO_TEXTS,
    "v5-7b": V5_1_12B | LAYERS_7B | TWO_TEXTS,
})
