"""Frozen linear layers with weights in 8 bits (float8 e4m3, one scale for each weight), for training adapters on them.

diffusers' layerwise casting serves sampling: while training, autograd would keep every layer's cast copy until the
backward pass. Here what is kept is the 8-bit weight; the backward pass casts it again.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from models.errors import ModelError

FP8 = torch.float8_e4m3fn
FP8_LARGEST = torch.finfo(FP8).max
FP8_TOLERANCE = 0.05
"""relative difference of a training loss with 8-bit base weights from the same step's loss with float32 ones; below
0.01 was measured with the preset `tiny` (tests/models/test_models_fp8.py)"""


class Fp8Linear(nn.Linear):
    """A frozen linear layer whose weight takes one byte a value; it computes in its input's type (or autocast's)."""

    scale: torch.Tensor

    @staticmethod
    def of(layer: nn.Linear) -> "Fp8Linear":
        """Make one of a frozen layer; also on the `meta` device. The layer itself stays as it is.

        Raises:
            ModelError: the weight is not finite.
        """
        made = Fp8Linear(layer.in_features, layer.out_features, bias=False, device="meta")
        weight = layer.weight.detach()
        largest = weight.abs().amax().float()
        if not weight.is_meta and not bool(largest.isfinite()):
            raise ModelError("fp8: a weight of the base is not finite; fetch its files again")
        scale = torch.where(largest > 0, largest / FP8_LARGEST, torch.ones_like(largest))
        # In float32, since the quotient rounds once more in bf16, and could then exceed the largest value.
        stored = (weight.float() / scale).clamp(-FP8_LARGEST, FP8_LARGEST).to(FP8)
        made.weight = nn.Parameter(stored, requires_grad=False)
        made.bias = layer.bias
        made.register_buffer("scale", scale, persistent=False)
        made.train(layer.training)
        return made

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Compute x W' + b for x (…, in)."""
        kind = input.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else input.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        result: torch.Tensor = _Product.apply(input.to(dtype), self.weight, self.scale)
        return result if bias is None else result + bias

    def dequantized(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Return the weight that the layer computes with, (out, in)."""
        return _dequantized(self.weight, self.scale, dtype)


class _Product(torch.autograd.Function):
    """x W' that keeps W in 8 bits for the backward pass; W itself has no gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight, scale)
        return F.linear(x, _dequantized(weight, scale, x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        weight, scale = ctx.saved_tensors
        return gradients[0] @ _dequantized(weight, scale, gradients[0].dtype), None, None


def _dequantized(weight: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return weight.to(dtype).mul_(scale.to(dtype))


def repeated_blocks(network: nn.Module) -> list[nn.Module]:
    """Return a transformer's repeated blocks, in the order they compute.

    Raises:
        ModelError: its class does not name them.
    """
    names = set(getattr(network, "_repeated_blocks", None) or ())
    blocks = [module for module in network.modules() if type(module).__name__ in names]
    if not blocks:
        raise ModelError(f"{type(network).__name__}: has no repeated blocks; its weights cannot be kept apart")
    return blocks


class Fp8Layer(NamedTuple):
    """A layer that may be kept in 8 bits, with its parent and its name there."""

    parent: nn.Module
    name: str
    layer: nn.Linear


def fp8_layers(network: nn.Module) -> list[Fp8Layer]:
    """Return the layers that may be kept in 8 bits, each with its parent and its name there.

    They are the frozen linear layers of the repeated blocks, without the modulations of their norms. Adapters have
    gradients and keep their digits. The skip patterns for layerwise casting do not count: without scales they must
    leave out a third of the weights.
    """
    found = []
    for block in repeated_blocks(network):
        for name, parent in block.named_modules():
            for child, layer in parent.named_children():
                frozen = isinstance(layer, nn.Linear) and not any(p.requires_grad for p in layer.parameters())
                if frozen and "norm" not in f"{name}.{child}" and "lora_" not in name:
                    found.append(Fp8Layer(parent, child, layer))
    return found


@torch.no_grad()
def store_in_fp8(network: nn.Module) -> int:
    """Keep a network's frozen block weights in 8 bits, in place; adapters must be in it already.

    Returns:
        How many layers were changed.

    Raises:
        ModelError: the network has no repeated blocks, or a weight is not finite.
    """
    layers = fp8_layers(network)
    for parent, name, layer in layers:
        setattr(parent, name, Fp8Linear.of(layer))
    return len(layers)
