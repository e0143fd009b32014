"""Weights in 8 bits and blocks in main memory while adapters train: what is kept, where, and that losses agree."""

import copy
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from models.errors import ModelError
from models.lora.adapters import add_lora, lora_weights, trainable
from models.lora.form import AdapterForm
from models.memory.block_offload import BlockOffload, PlainCopier, StreamCopier, offload_blocks
from models.memory.cost import saved_bytes
from models.memory.fp8 import FP8, FP8_TOLERANCE, Fp8Linear, fp8_layers, store_in_fp8
from models.transformers.conditioning import Conditioning
from models.transformers.easyanimate_v5 import EasyAnimate

torch.set_num_threads(1)
FAMILY = EasyAnimate()


def adapted(layers: int = 4, checkpointing: bool = True) -> nn.Module:
    torch.manual_seed(0)
    network = FAMILY.build(FAMILY.presets["tiny"] | {"num_layers": layers, "mmdit_layers": layers})
    add_lora(network, AdapterForm(4, None), FAMILY.lora_targets)
    if checkpointing:
        network.enable_gradient_checkpointing()
    return network


def train(network: nn.Module, steps: int = 4) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Train adapters on one batch; return the losses and the adapter."""
    generator = torch.Generator().manual_seed(1)
    latents, noise = (torch.randn(2, 16, 2, 8, 8, generator=generator) for _ in range(2))
    text, times = torch.randn(2, 8, 64, generator=generator), torch.tensor([200.0, 700.0])
    optimizer = torch.optim.AdamW(trainable(network), lr=1e-2)
    losses = []
    for _ in range(steps):
        loss = (FAMILY.predict(network, latents + noise, times, Conditioning(text)) - noise).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    adapter = lora_weights(network)
    return losses, {name: factors.up for name, factors in adapter.layers.items()}


def test_offloaded_blocks_train_to_the_bit_as_those_that_stay() -> None:
    staying, moving = adapted(), adapted()
    offload = offload_blocks(moving, torch.device("cpu"))
    assert offload.names and all("lora" not in name for name in offload.names)
    losses, adapter = train(staying)
    moved_losses, moved_adapter = train(moving)
    assert losses[0] > losses[-1]
    assert moved_losses == losses
    assert all(torch.equal(adapter[name], moved_adapter[name]) for name in adapter)


def test_offloading_is_right_without_checkpointing_too_and_while_sampling() -> None:
    staying, moving = adapted(checkpointing=False), adapted(checkpointing=False)
    offload_blocks(moving, torch.device("cpu"))
    assert train(staying)[0] == train(moving)[0]
    inputs = torch.ones(1, 16, 2, 8, 8), torch.tensor([500.0]), Conditioning(torch.ones(1, 8, 64))
    with torch.no_grad():
        assert torch.equal(FAMILY.predict(staying, *inputs), FAMILY.predict(moving, *inputs))


class Counting(PlainCopier):
    """Notes which copies are alive, by weak references, and how often a block was fetched when it was needed."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.started = 0
        self.alive: list[Any] = []
        self.most = 0

    def start(self, flat: torch.Tensor) -> torch.Tensor:
        self.started += 1
        there = super().start(flat)
        self.alive.append(weakref.ref(there.untyped_storage()))
        self.most = max(self.most, sum(ref() is not None for ref in self.alive))
        return there


def test_few_blocks_are_there_at_once_and_each_is_fetched_ahead_once_a_pass() -> None:
    network, copier = adapted(layers=8), Counting()
    offload_blocks(network, torch.device("cpu"), copier)
    train(network, steps=1)
    assert copier.most <= 3 < 8
    first = copier.started
    train(network, steps=3)
    # Up and down again: 8 fetches up, 7 down (the last one is there), and the first one stays for the next pass.
    assert first <= 16 and copier.started - first <= 3 * 15


def test_a_stream_is_waited_for_before_its_copy_is_used() -> None:
    """The device interface is replaced by one that notes the order of what is asked: no GPU was at hand."""
    noted: list[str] = []

    class Stream:
        def __init__(self, *_: object) -> None: ...

        def __enter__(self) -> None:
            noted.append("enter")

        def __exit__(self, *_: object) -> None:
            noted.append("leave")

        def wait_event(self, event: object) -> None:
            noted.append("wait")

    class Event:
        def record(self, stream: Stream) -> None:
            noted.append("record")

    cuda = SimpleNamespace(
        Stream=Stream, Event=Event, stream=lambda stream: stream, current_stream=lambda device: Stream()
    )

    class Flat:
        def to(self, device: torch.device, non_blocking: bool) -> "Flat":
            assert non_blocking
            noted.append("copy")
            return self

        def record_stream(self, stream: Stream) -> None:
            noted.append("hold")

    copier = StreamCopier(torch.device("cuda", 1), cuda)
    copier.finish(copier.start(Flat()))  # type: ignore[arg-type]
    assert noted == ["enter", "copy", "record", "leave", "wait", "hold"]


def test_what_is_wanted_next_is_known_at_every_turn() -> None:
    network = adapted()
    offload = offload_blocks(network, torch.device("cpu"))
    walk = [0, 1, 2, 3, 3, 2, 1, 0, 0, 1]
    assert [offload._following(block) for block in walk] == [1, 2, 3, 3, 2, 1, 0, 0, 1, 2]
    assert isinstance(offload, BlockOffload)


def test_losses_with_8_bits_are_near_and_the_base_takes_a_byte_a_value() -> None:
    plain, small = adapted(), adapted()
    assert store_in_fp8(small) == len(fp8_layers(plain)) > 0
    weights = [layer.weight for layer in small.modules() if isinstance(layer, Fp8Linear)]
    assert all(weight.dtype == FP8 and not weight.requires_grad for weight in weights)
    losses, small_losses = train(plain)[0], train(small)[0]
    assert small_losses[-1] < small_losses[0]
    assert small_losses == pytest.approx(losses, rel=FP8_TOLERANCE)
    assert small_losses != losses


def test_8_bits_and_offloading_together_are_8_bits_alone() -> None:
    small, both, full = adapted(), adapted(), adapted()
    store_in_fp8(small)
    store_in_fp8(both)
    offload = offload_blocks(both, torch.device("cpu"))
    assert train(small)[0] == train(both)[0]
    assert offload.host_bytes < 0.6 * offload_blocks(full, torch.device("cpu")).host_bytes  # norms stay as they are


@pytest.mark.parametrize("value", [0.0, 1e-30, 3e5])
def test_weights_of_every_size_are_scaled_into_8_bits(value: float) -> None:
    layer = nn.Linear(16, 4)
    layer.requires_grad_(False)
    layer.weight.copy_(torch.linspace(-value, value, 64).view(4, 16))
    made = Fp8Linear.of(layer)
    assert torch.allclose(made.dequantized(), layer.weight, rtol=0.07, atol=value / 400)
    assert torch.equal(made(torch.zeros(1, 16)), layer.bias[None])


def test_gradients_pass_as_through_the_weight_it_computes_with() -> None:
    layer = nn.Linear(16, 4).requires_grad_(False)
    made, x = Fp8Linear.of(layer), torch.randn(3, 16, requires_grad=True)
    made(x).square().sum().backward()
    y = x.detach().clone().requires_grad_()
    torch.nn.functional.linear(y, made.dequantized(), layer.bias).square().sum().backward()
    assert torch.allclose(x.grad, y.grad)


def test_autograd_keeps_no_cast_copy_of_the_weight() -> None:
    """diffusers' layerwise casting keeps one for each layer, which is the size of the model in bf16."""
    small = Fp8Linear.of(nn.Linear(256, 256, bias=False).requires_grad_(False))
    x = torch.randn(1, 256, requires_grad=True)
    assert saved_bytes(small, x) < 256 * 256


def test_a_broken_weight_and_a_network_without_blocks_are_refused() -> None:
    layer = nn.Linear(4, 4).requires_grad_(False)
    layer.weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match="not finite"):
        Fp8Linear.of(layer)
    with pytest.raises(ModelError, match="no repeated blocks"):
        offload_blocks(nn.Linear(4, 4), torch.device("cpu"))
    assert copy.deepcopy(layer).weight.isnan().any()
