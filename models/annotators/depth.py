"""Depth by Depth Anything V2 (Yang et al., NeurIPS 2024, arXiv 2406.09414), through transformers.

What it says is relative and inverse: the larger, the nearer, up to a factor and a shift.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from models.annotators.loading import device_of
from models.errors import ModelError, check_weights, one_line
from models.scorers.clip import pick_device
from models.weights.find import find_weights
from models.weights.json_file import read_json
from models.weights.safetensors_file import read_tensors

STEP_PX = 14
"""a side of the backbone's patches"""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
SMALL: dict[str, Any] = {
    "backbone_config": {
        "model_type": "dinov2", "hidden_size": 384, "num_attention_heads": 6, "num_hidden_layers": 12,
        "image_size": 518, "patch_size": 14, "out_features": ["stage3", "stage6", "stage9", "stage12"],
        "reshape_hidden_states": False, "apply_layernorm": True,
    },
    "reassemble_hidden_size": 384, "neck_hidden_sizes": [48, 96, 192, 384], "fusion_hidden_size": 64,
    "head_hidden_size": 32, "patch_size": 14, "reassemble_factors": [4, 2, 1, 0.5],
}  # fmt: skip
"""the published config of V2 Small"""
CONFIGS = {"depth-v2-small": SMALL}

FindDepth = Callable[[np.ndarray], np.ndarray]


def looked_at_size(width_px: int, height_px: int, side_px: int) -> tuple[int, int]:
    """Return the (width, height) that a picture is looked at.

    As the model's published preprocessing: the aspect is kept, the side that needs the smaller change becomes
    `side_px`, and both are rounded to multiples of 14.
    """
    scales = side_px / width_px, side_px / height_px
    scale = min(scales, key=lambda one: abs(1 - one))
    width, height = (max(STEP_PX, round(scale * side / STEP_PX) * STEP_PX) for side in (width_px, height_px))
    return width, height


def load_depth(model: str, device: str = "auto", side_px: int = 518) -> FindDepth:
    """Load the network.

    Args:
        model: a name of `CONFIGS`, or a folder in transformers' layout (`config.json`, `model.safetensors`).
        device: as torch names it; `auto`: the GPU if there is one.
        side_px: see `looked_at_size`.

    Returns:
        The function from uint8 (H, W, 3) RGB to float32 (H, W): how near each pixel is, without a unit.

    Raises:
        ModelError: transformers is not installed, weights that cannot be had or are not this network's, or a device
            that is not there.
    """
    network = _network(model).to(pick_device(device)).eval().requires_grad_(False)
    mean, deviation = (torch.tensor(values, device=device_of(network)).view(3, 1, 1) for values in (MEAN, DEVIATION))

    def find(rgb: np.ndarray) -> np.ndarray:
        height, width = rgb.shape[:2]
        size = looked_at_size(width, height, side_px)[::-1]
        pixels = torch.from_numpy(np.ascontiguousarray(rgb)).to(mean.device).permute(2, 0, 1)[None].float()
        with torch.inference_mode():
            small = F.interpolate(pixels, size, mode="bicubic", align_corners=False, antialias=True)
            given = (small.round().clamp(0, 255)[0] / 255 - mean) / deviation
            near = network(given[None]).predicted_depth[:, None]
            full = F.interpolate(near, (height, width), mode="bicubic", align_corners=False)
        return np.asarray(full[0, 0].cpu().numpy())

    return find


def _network(model: str) -> Any:
    """Build Depth Anything and give it the weights of a name or a folder.

    Raises:
        ModelError: see `load_depth`.
    """
    try:
        from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation
        from transformers.utils import logging
    except ModuleNotFoundError as error:
        raise ModelError(f"depth needs {error.name}: pip install 'selects-video[maps]'") from None
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    values = CONFIGS.get(model) or _config_of(Path(model))
    path = find_weights(model) if model in CONFIGS else Path(model) / WEIGHTS_FILE
    tensors = read_tensors(path)[0]
    try:
        # Given its tensors alone it looks for nothing itself, but knows the names that earlier versions gave them.
        network, report = DepthAnythingForDepthEstimation.from_pretrained(
            None,
            config=DepthAnythingConfig(**values),
            state_dict=tensors,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are reported, and refused below
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        raise ModelError(f"{model}: not loadable as Depth Anything ({one_line(error)[:200]})") from None
    check_weights(report, path)
    return network


def _config_of(folder: Path) -> dict[str, Any]:
    try:
        config = read_json(folder / CONFIG_FILE)
        if config.get("model_type") == "depth_anything" and isinstance(config.get("backbone_config"), dict):
            return dict(config)
    except (OSError, ValueError, AttributeError):
        pass
    known = ", ".join(CONFIGS)
    raise ModelError(f"depth '{folder}': neither one of {known} nor a folder with Depth Anything's {CONFIG_FILE}")
