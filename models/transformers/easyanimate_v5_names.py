"""Names of the weights of EasyAnimate V5 and V5.1: as published, and as diffusers has them.

The published files keep what attention does with text as an attention of its own, `attn2`; diffusers keeps it within
`attn1`. Nothing else differs.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from models.weights.state_dict import TORCH_SUFFIXES

# Published name within a block, and diffusers'.
NAMES: Mapping[str, str] = {
    "attn2.to_q": "attn1.add_q_proj",
    "attn2.to_k": "attn1.add_k_proj",
    "attn2.to_v": "attn1.add_v_proj",
    "attn2.to_out.0": "attn1.to_add_out",
    "attn2.norm_q": "attn1.norm_added_q",
    "attn2.norm_k": "attn1.norm_added_k",
}
PUBLISHED_NAMES: Mapping[str, str] = {theirs: ours for ours, theirs in NAMES.items()}


def has_published_names(folder: Path) -> bool:
    """Return whether a folder's weights are to be renamed, or are a pickle, which diffusers' loader does not read."""
    folder = Path(folder)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return any(path.suffix in TORCH_SUFFIXES for path in folder.glob("*"))
    try:
        for file in files:
            with safe_open(file, framework="pt") as opened:
                if any(".attn2." in name for name in opened.keys()):  # noqa: SIM118
                    return True
    except (OSError, SafetensorError):  # whoever loads it says what is wrong
        return False
    return False


def to_diffusers(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights under diffusers' names; those that have them already keep them."""
    return {_renamed(name, NAMES): tensor for name, tensor in state.items()}


def to_published(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights under the published names; the inverse of `to_diffusers`."""
    return {_renamed(name, PUBLISHED_NAMES): tensor for name, tensor in state.items()}


def _renamed(name: str, names: Mapping[str, str]) -> str:
    head, dot, rest = name.partition(".attn")
    module, _, parameter = (dot + rest).removeprefix(".").rpartition(".")
    return f"{head}.{names[module]}.{parameter}" if module in names else name
