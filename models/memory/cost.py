"""What training costs: FLOPs, memory and time, predicted from shapes before anything is loaded."""

import time
from dataclasses import dataclass

import torch
from torch import nn

from models.transformers.architecture import Shape

# Dense bf16 (fp16 where there is no bf16) peak of one device, TFLOP/s, from the makers' data sheets.
PEAK_TFLOPS = {
    "B200": 2250.0, "H200": 989.0, "H100 PCIe": 756.0, "H100": 989.0, "H20": 148.0, "L40S": 362.0, "L40": 181.0,
    "A100": 312.0, "A800": 312.0, "A10": 125.0, "L4": 121.0, "T4": 65.0, "V100": 125.0, "4090": 165.0, "3090": 71.0,
}  # fmt: skip
ASSUMED_SHARE_OF_PEAK = 0.4
"""of peak that training reaches; published runs lie at 0.2 to 0.5 of bf16 peak"""

# What one block keeps for the backward pass, per token and channel, in values of the compute type; read off
# what autograd saves (tests/models/test_models_cost.py counts it).
SAVED_VALUES = 25.0
SAVED_VALUES_CHECKPOINTED = 2.0


@dataclass(frozen=True)
class Memory:
    """Predicted bytes on one device at the peak of a step."""

    weights: int
    gradients: int
    optimizer: int
    ema: int
    activations: int
    beside: int = 0
    """networks that are not trained, such as the VAE that encodes or a perceptual loss"""

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.gradients + self.optimizer + self.ema + self.activations + self.beside


def forward_flops(shape: Shape, tokens: int, text_tokens: int) -> float:
    """Predict the FLOPs of one row's forward pass: L·((8 + 4·r)·d²·N + 4·N²·d), N with the text's tokens.

    Half of an MMDiT's weights see the video's tokens and half the text's, so 2·parameters·N would say twice
    as much.
    """
    n, d = tokens + text_tokens, shape.width
    return shape.layers * ((8 + 4 * shape.mlp_ratio) * d * d * n + 4.0 * n * n * d)


def training_flops(shape: Shape, tokens: int, text_tokens: int, *, checkpointing: bool) -> float:
    """Predict forward and backward of one row; recomputing activations adds a forward."""
    return forward_flops(shape, tokens, text_tokens) * (4 if checkpointing else 3)


@dataclass(frozen=True)
class RowsAtOnce:
    """A micro-batch by its numbers.

    Attributes:
        tokens: video tokens of a row.
        text_tokens: text tokens of a row.
        rows: rows computed at once.
    """

    tokens: int
    text_tokens: int
    rows: int = 1


@dataclass(frozen=True, kw_only=True)
class TrainedHow:
    """What of a training decides on its memory.

    Attributes:
        checkpointing: activations are recomputed: only each block's inputs are kept, and one block's own.
        half: bf16 compute; a frozen base is then held in bf16, too.
        eight_bit: Adam's two moments in 8 bits each.
        ema: a running mean of the trained weights.
    """

    checkpointing: bool
    half: bool
    eight_bit: bool = False
    ema: bool = False


def training_memory(
    shape: Shape,
    batch: RowsAtOnce,
    trained_parameters: int,
    how: TrainedHow,
    *,
    shards: int = 1,
    frozen_bytes: int | None = None,
) -> Memory:
    """Predict a step's peak for one micro-batch.

    Args:
        shape: the transformer's.
        batch: the micro-batch.
        trained_parameters: those with gradients (all, or the adapters').
        how: what decides on memory beside the weights.
        shards: devices that share weights, gradients and moments (1 for plain data parallelism).
        frozen_bytes: on the device, of weights without gradients; None: all of them in the compute type.
    """
    size = 2 if how.half else 4
    frozen = shape.parameters - min(trained_parameters, shape.parameters)
    weights = 4 * trained_parameters + (size * frozen if frozen_bytes is None else frozen_bytes)
    block = (batch.tokens + batch.text_tokens) * shape.width * size * batch.rows
    if how.checkpointing:
        activations = block * (SAVED_VALUES_CHECKPOINTED * shape.layers + SAVED_VALUES)
    else:
        activations = block * SAVED_VALUES * shape.layers
    return Memory(
        weights=weights // shards,
        gradients=4 * trained_parameters // shards,
        optimizer=(2 if how.eight_bit else 8) * trained_parameters // shards,
        ema=4 * trained_parameters // shards if how.ema else 0,
        activations=int(activations),
    )


def peak_flops(device: torch.device, *, half: bool = True) -> float:
    """Return a device's FLOP/s: from the table for known GPUs, else a measured matrix product."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for known, tflops in PEAK_TFLOPS.items():
            if known in name:
                return tflops * 1e12
    return measured_flops(device, torch.bfloat16 if half and device.type == "cuda" else torch.float32)


def measured_flops(device: torch.device, dtype: torch.dtype, size: int = 1024) -> float:
    """Measure the FLOP/s of a square matrix product, best of five."""
    if device.type == "cuda":
        size *= 8
    a = torch.ones(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2.0 * size**3 / best


def saved_bytes(model: nn.Module, *inputs: torch.Tensor) -> int:
    """Count the bytes that a forward pass keeps for the backward pass, weights not counted; also on `meta`."""
    owned = {_storage(p) for p in model.parameters()}
    seen: dict[int, int] = {}
    alive = []  # so that no storage takes the place of another

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if _storage(tensor) not in owned:
            seen[_storage(tensor)] = tensor.untyped_storage().nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(*inputs)
    return sum(seen.values())


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
