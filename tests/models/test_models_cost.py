"""Predicted cost against what is counted."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models.memory.cost import (
    SAVED_VALUES,
    SAVED_VALUES_CHECKPOINTED,
    RowsAtOnce,
    TrainedHow,
    forward_flops,
    saved_bytes,
    training_flops,
    training_memory,
)
from models.transformers.conditioning import Conditioning
from models.transformers.easyanimate_v5 import EasyAnimate

torch.set_num_threads(1)
FAMILY = EasyAnimate()
TEXT = 16


class Call(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, latents: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return FAMILY.predict(self.network, latents, timesteps, Conditioning(text))


def case(heads: int, layers: int, side: int, device: str = "meta") -> tuple[nn.Module, tuple[torch.Tensor, ...], int]:
    config = {"num_attention_heads": heads, "num_layers": layers, "mmdit_layers": layers}
    with torch.device(device):
        network = FAMILY.build(FAMILY.presets["tiny"] | config)
        inputs = (torch.zeros(2, 16, 3, side, side), torch.zeros(2), torch.zeros(2, TEXT, 64))
    return network, inputs, 3 * (side // 2) ** 2


@pytest.mark.parametrize(("heads", "layers", "side"), [(4, 4, 8), (16, 2, 16), (48, 8, 32)])
def test_flops_are_those_counted(heads: int, layers: int, side: int) -> None:
    network, inputs, tokens = case(heads, layers, side)
    shape = FAMILY.shape(network)
    # Projections only: the counter does not know the attention kernel of the meta device.
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        Call(network)(*inputs)
    attention = 4.0 * (tokens + TEXT) ** 2 * shape.width * layers
    counted = {str(op): flops for op, flops in counter.get_flop_counts()["Global"].items()}
    products = sum(flops for op, flops in counted.items() if "attention" not in op and "bmm" not in op) / 2
    assert forward_flops(shape, tokens, TEXT) - attention == pytest.approx(products, rel=0.12)
    assert training_flops(shape, tokens, TEXT, checkpointing=True) == 4 * forward_flops(shape, tokens, TEXT)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("heads", "layers", "side"), [(4, 4, 8), (16, 6, 16), (16, 2, 32)])
def test_activations_are_those_autograd_keeps(heads: int, layers: int, side: int, checkpointing: bool) -> None:
    # On the CPU: the meta device knows no attention that keeps no matrix.
    network, inputs, tokens = case(heads, layers, side, "cpu")
    shape = FAMILY.shape(network)
    if checkpointing:
        network.enable_gradient_checkpointing()
    kept = saved_bytes(Call(network), *inputs)
    predicted = training_memory(
        shape, RowsAtOnce(tokens, TEXT, 2), shape.parameters, TrainedHow(checkpointing=checkpointing, half=False)
    )
    if checkpointing:  # one block is computed again while its inputs are held
        kept += int(SAVED_VALUES * (tokens + TEXT) * shape.width * 4 * 2)
        assert SAVED_VALUES_CHECKPOINTED < SAVED_VALUES / 10
    assert predicted.activations == pytest.approx(kept, rel=0.25)


def test_adapters_8_bits_shards_and_half_precision_save_what_they_save() -> None:
    shape = FAMILY.shape(case(4, 4, 8)[0])
    row = RowsAtOnce(48, TEXT)
    full = training_memory(shape, row, shape.parameters, TrainedHow(checkpointing=False, half=False, ema=True))
    assert full.weights + full.gradients + full.optimizer + full.ema == 20 * shape.parameters
    adapter = training_memory(shape, row, 1000, TrainedHow(checkpointing=False, half=True))
    assert adapter.weights == 4 * 1000 + 2 * (shape.parameters - 1000)
    assert adapter.optimizer == 8 * 1000
    how = TrainedHow(checkpointing=False, half=False, eight_bit=True)
    shared = training_memory(shape, row, shape.parameters, how, shards=4)
    assert shared.optimizer == 2 * shape.parameters // 4
    assert shared.activations == full.activations
