"""EasyOCR's text detector, CRAFT (Baek et al., CVPR 2019, arXiv 1904.01941): words as quads at any angle.

The network and its box finder are EasyOCR's; its loader is not, since that unpickles freely and takes one frame at a
time. The recogniser is never loaded.
"""

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np

STEP_PX = 32
MAP_SCALE = 2
"""the network's maps have half the size of its input"""
MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32) * 255
TEXT_LEVEL, LINK_LEVEL, LOW_TEXT = 0.7, 0.4, 0.4
"""EasyOCR's defaults: peak of a word, join between letters, border of a letter"""

FindQuads = Callable[[Sequence[np.ndarray]], list[list[np.ndarray]]]


@dataclass(frozen=True)
class InputSize:
    """The size that a frame is scaled to, and the one it is padded to below and on the right."""

    width_px: int
    height_px: int
    padded_width_px: int
    padded_height_px: int


def input_size(width_px: int, height_px: int, short_side_px: int, long_side_px: int) -> InputSize:
    """Scale to the short side, the long side bounded, and pad to multiples of 32."""
    factor = min(short_side_px / min(width_px, height_px), long_side_px / max(width_px, height_px))
    width, height = (max(1, round(side * factor)) for side in (width_px, height_px))
    return InputSize(width, height, -(-width // STEP_PX) * STEP_PX, -(-height // STEP_PX) * STEP_PX)


def network_input(rgb: np.ndarray, size: InputSize) -> np.ndarray:
    """Scale uint8 (H, W, 3) RGB, pad it with black and give float32 (3, h, w), normalised as ImageNet is."""
    shrinks = rgb.shape[1] > size.width_px
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    canvas = np.zeros((size.padded_height_px, size.padded_width_px, 3), np.float32)
    canvas[: size.height_px, : size.width_px] = cv2.resize(rgb, (size.width_px, size.height_px), interpolation=way)
    return ((canvas - MEAN) / DEVIATION).transpose(2, 0, 1)


def quads_of(maps: np.ndarray, size: InputSize, width_px: int, height_px: int) -> list[np.ndarray]:
    """Turn the network's maps of one frame into quads.

    Args:
        maps: float32 (h / 2, w / 2, 2): how much a pixel is in the middle of a letter, and between two of a word.
        size: of the input they were made from.
        width_px: of the frame as it came.
        height_px: likewise.

    Returns:
        float32 (4, 2) corners x, y in pixels of the frame, within it.
    """
    from easyocr.craft_utils import getDetBoxes

    text, link = np.ascontiguousarray(maps[..., 0]), np.ascontiguousarray(maps[..., 1])
    boxes, _, _ = getDetBoxes(text, link, TEXT_LEVEL, LINK_LEVEL, LOW_TEXT)
    scale = np.array([width_px / size.width_px, height_px / size.height_px], np.float32) * MAP_SCALE
    return [np.clip(box * scale, 0, (width_px, height_px)).astype(np.float32) for box in boxes]


def load_craft(
    path: Path | None = None,
    device: str = "auto",
    short_side_px: int = 720,
    long_side_px: int = 1280,
    batch_frames: int = 8,
) -> FindQuads:
    """Load the detector.

    Args:
        path: its weights (.pth or .safetensors); None: the ones named `craft`, from disk or the network.
        device: as torch names it; `auto`: the GPU if there is one, in float16.
        short_side_px: the network's input; smaller frames are enlarged to it.
        long_side_px: bound on the input's long side.
        batch_frames: frames of one size that go through the network at once.

    Returns:
        The function from uint8 (H, W, 3) RGB frames of any sizes to the quads of each (see `quads_of`).

    Raises:
        ModelError: easyocr is not installed, or weights that cannot be had or do not fit.
    """
    from models.scorers.clip import pick_device
    from models.weights.find import find_weights

    network = _network(path or find_weights("craft"))
    import torch

    device = pick_device(device)
    dtype = torch.float16 if device.startswith("cuda") else torch.float32
    network.to(device, dtype)

    def size_of(rgb: np.ndarray) -> InputSize:
        return input_size(rgb.shape[1], rgb.shape[0], short_side_px, long_side_px)

    def padded(index_and_size: tuple[int, InputSize]) -> tuple[int, int]:
        return index_and_size[1].padded_width_px, index_and_size[1].padded_height_px

    def find(frames: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        found: list[list[np.ndarray]] = [[] for _ in frames]
        items = sorted(((i, size_of(rgb)) for i, rgb in enumerate(frames)), key=padded)
        for _, same_size in groupby(items, key=padded):
            group = list(same_size)
            for start in range(0, len(group), batch_frames):
                part = group[start : start + batch_frames]
                batch = torch.from_numpy(np.stack([network_input(frames[i], size) for i, size in part]))
                with torch.inference_mode():
                    maps = network(batch.to(device, dtype))[0].float().cpu().numpy()
                for (i, size), both in zip(part, maps, strict=True):
                    found[i] = quads_of(both, size, frames[i].shape[1], frames[i].shape[0])
        return found

    return find


def _network(path: Path) -> Any:
    """Build CRAFT and give it the weights of a file.

    Raises:
        ModelError: easyocr is not installed, or the file is not CRAFT's.
    """
    from models.errors import ModelError, one_line

    try:
        import torch
        from easyocr.craft import CRAFT
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise ModelError(f"the engine easyocr needs {error.name}: pip install 'selects-video[scores]'") from None

    with torch.device("meta"):  # no random weights are drawn, only to be replaced
        network = CRAFT()
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        # Published from a parallel run: every name begins with `module.`.
        named = {name.removeprefix("module."): tensor for name, tensor in state.items()}
        network.load_state_dict(named, assign=True)
    except (OSError, EOFError, RuntimeError, AttributeError, SafetensorError, pickle.UnpicklingError) as error:
        raise ModelError(
            f"{path}: not readable as CRAFT's weights ({one_line(error)[:120]}); fetch them again"
        ) from None
    return network.eval().requires_grad_(False)
