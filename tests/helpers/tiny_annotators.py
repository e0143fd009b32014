"""Tiny networks of the published layouts, in files as they are published."""

import json
from pathlib import Path

import numpy as np
import torch

from controls.people import DEVIATION, MEAN
from models.annotators.hed import Hed
from models.annotators.mlsd import Mlsd
from models.annotators.skeleton import POINTS
from tests.helpers.tiny_onnx import model, node, tensor, value

DETECTOR_PX, KEYPOINTS_PX = (640, 640), (384, 288)
"""height and width of the two inputs, as published"""
DEPTH = {
    "model_type": "depth_anything",
    "backbone_config": {
        "model_type": "dinov2", "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 4, "image_size": 56,
        "patch_size": 14, "out_features": ["stage1", "stage2", "stage3", "stage4"], "reshape_hidden_states": False,
    },
    "reassemble_hidden_size": 16, "neck_hidden_sizes": [4, 8, 16, 16], "fusion_hidden_size": 8, "head_hidden_size": 4,
    "patch_size": 14, "reassemble_factors": [4, 2, 1, 0.5],
}  # fmt: skip
OLD_NAMES = {
    "attention.q_proj": "attention.attention.query", "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value", "attention.o_proj": "attention.output.dense",
}  # fmt: skip
"""what transformers called them when the weights were published"""


def hed_file(path: Path) -> Hed:
    """Write a HED whose finest map is the strength of edges in luma, and whose others say nothing."""
    torch.manual_seed(0)
    network = Hed((4, 4, 4, 4, 4))
    state = {name: torch.zeros_like(one) for name, one in network.state_dict().items()}
    along = torch.tensor([[-1.0, -2, -1], [0, 0, 0], [1, 2, 1]]) / 3 / 8
    for place, kernel in enumerate((along, -along, along.T, -along.T)):
        state["block1.convs.0.weight"][place] = kernel.expand(3, 3, 3)
        state["block1.convs.1.weight"][place, place, 1, 1] = 1
    state["block1.projection.weight"][:] = 2
    state["block1.projection.bias"][:] = -35  # the mean of five maps is taken
    network.load_state_dict(state)
    torch.save(network.half().state_dict(), path)  # as published
    return network.float()


def mlsd_file(path: Path) -> None:
    """Write an M-LSD of random weights."""
    torch.manual_seed(0)
    torch.save(Mlsd().state_dict(), path)


def depth_folder(folder: Path, *, with_old_names: bool = False) -> torch.nn.Module:
    """Write a Depth Anything of random weights, and return it."""
    from safetensors.torch import save_file
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation

    torch.manual_seed(0)
    network = DepthAnythingForDepthEstimation(DepthAnythingConfig(**DEPTH)).eval()
    with torch.no_grad():  # what it says is near a constant else, which says nothing of how a picture was given to it
        for one in network.backbone.parameters():
            one.mul_(8)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(DEPTH))
    state = {name: one.contiguous() for name, one in network.state_dict().items()}
    if with_old_names:
        for new, old in OLD_NAMES.items():
            state = {name.replace(new, old): one for name, one in state.items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    return network


def detector_onnx() -> bytes:
    """A network of YOLOX's layout: a person is where a cell of 32 px is yellow, one cell wide and two high."""
    parts = [value(11, "images", [1, 3, *DETECTOR_PX]), value(12, "output", [1, 8400, 85])]
    names = []
    for step in (8, 16, 32):
        kernel = np.zeros((85, 3, step, step), np.float32)
        bias = np.full(85, -20.0, np.float32)
        if step == 32:  # blue, green, red; sure where all of a cell has red and green and no blue
            kernel[4] = np.array([-1, 1, 1], np.float32)[:, None, None] / step**2 / 10
            bias[4], bias[5] = -40, 20
        bias[:4] = (0.5, 0.5, 0.0, np.log(2.0))
        cells = DETECTOR_PX[0] // step
        raw, boxes, scores, sure, both, flat = (
            f"{name}{step}" for name in ("raw", "box", "score", "sure", "all", "flat")
        )
        parts += [
            tensor(f"w{step}", kernel), tensor(f"b{step}", bias),
            node("Conv", ["images", f"w{step}", f"b{step}"], raw, kernel_shape=[step, step], strides=[step, step]),
            *_sliced(raw, boxes, 0, 4), *_sliced(raw, scores, 4, 85),
            node("Sigmoid", [scores], sure),
            node("Concat", [boxes, sure], both, axis=1),
            tensor(f"s{step}", np.array([1, 85, cells * cells], np.int64)),
            node("Reshape", [both, f"s{step}"], flat),
        ]  # fmt: skip
        names.append(flat)
    return model(
        *parts, node("Concat", names, "joined", axis=2), node("Transpose", ["joined"], "output", perm=[0, 2, 1])
    )


def keypoints_onnx(channel_of: dict[int, int]) -> bytes:
    """A network of RTMPose's layout: a point is where its channel is the strongest; those without are not seen.

    Args:
        channel_of: 0, 1 or 2, red, green or blue, of points.
    """
    height, width = KEYPOINTS_PX
    weights, bias = np.zeros((POINTS, 3, 1), np.float32), np.zeros(POINTS, np.float32)
    for place, channel in channel_of.items():  # 0 of black, 1 of the full colour
        weights[place, channel] = DEVIATION[channel] / 255
        bias[place] = MEAN[channel] / 255
    parts = [
        value(11, "input", [1, 3, height, width]),
        value(12, "simcc_x", [1, POINTS, 2 * width]), value(12, "simcc_y", [1, POINTS, 2 * height]),
        tensor("w", weights), tensor("b", bias),
    ]  # fmt: skip
    for axis, away, size in (("x", 2, width), ("y", 3, height)):
        parts += [
            node("ReduceMax", ["input"], f"line_{axis}", axes=[away], keepdims=0),
            node("Conv", [f"line_{axis}", "w", "b"], f"of_{axis}", kernel_shape=[1]),
            tensor(f"s_{axis}", np.array([1, POINTS, size, 1], np.int64)),
            node("Reshape", [f"of_{axis}", f"s_{axis}"], f"one_{axis}"),
            node("Concat", [f"one_{axis}", f"one_{axis}"], f"two_{axis}", axis=3),
            tensor(f"t_{axis}", np.array([1, POINTS, 2 * size], np.int64)),
            node("Reshape", [f"two_{axis}", f"t_{axis}"], f"simcc_{axis}"),
        ]
    return model(*parts)


def _sliced(given: str, made: str, begin: int, end: int) -> list[bytes]:
    return [
        tensor(f"{made}_from", np.array([begin], np.int64)),
        tensor(f"{made}_to", np.array([end], np.int64)),
        tensor(f"{made}_axis", np.array([1], np.int64)),
        node("Slice", [given, f"{made}_from", f"{made}_to", f"{made}_axis"], made),
    ]
