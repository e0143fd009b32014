"""A CLIP of two layers with random weights, as a folder in open_clip's layout."""

import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

DIM = 16
SIDE_PX = 32
CONFIG = {
    "embed_dim": DIM,
    "quick_gelu": True,
    "vision_cfg": {"image_size": SIDE_PX, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


def build_tiny_clip(folder: Path, seed: int = 0) -> Path:
    """Write the folder; the same seed gives the same weights."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.CLIP(**CONFIG)
        # Larger weights than those that training begins with, so that pictures and words differ clearly.
        for weight in model.parameters():
            if weight.ndim >= 2:
                weight.data.mul_(4)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG}), encoding="utf-8")
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder
