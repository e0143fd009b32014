"""Frozen weights of a transformer's blocks in main memory while it trains: each block is fetched when it computes.

The next block, in the order of the pass at hand, is copied meanwhile; on a GPU from page-locked memory on a stream of
its own. diffusers' group offloading serves sampling: it moves a parameter's storage away under autograd, which still
needs it for the backward pass. Here a block computes with parameters of their own in the places of those in main
memory, and gradient checkpointing sees to it that autograd does not keep them between the passes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from models.memory.fp8 import repeated_blocks

ALIGNED_BYTES = 256
BLOCKS_THERE = 3
"""blocks on the device at most: the one that computes, the one fetched, and one whose memory is not free yet"""


class Copier(Protocol):
    """How a block's bytes come to the device."""

    def start(self, flat: torch.Tensor) -> Any:
        """Begin to copy uint8 (N,) from main memory; return a token for `finish`."""
        ...

    def finish(self, token: Any) -> torch.Tensor:
        """Return the copy, safe to be used by what the current thread computes next."""
        ...


class PlainCopier:
    """Copies within main memory, or at once where a device has no streams."""

    def __init__(self, device: torch.device):
        """Copy to this device."""
        self._device = device

    def start(self, flat: torch.Tensor) -> torch.Tensor:
        """Copy."""
        return flat.to(self._device, copy=True)

    def finish(self, token: torch.Tensor) -> torch.Tensor:
        """Return the copy."""
        return token


class StreamCopier:
    """Copies on a stream of its own, beside what computes."""

    def __init__(self, device: torch.device, cuda: Any = torch.cuda):
        """Make the stream; `cuda` is what offers streams and events."""
        self._device, self._cuda = device, cuda
        self._stream = cuda.Stream(device)

    def start(self, flat: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Begin to copy page-locked memory; the host goes on."""
        with self._cuda.stream(self._stream):
            there = flat.to(self._device, non_blocking=True)
            event = self._cuda.Event()
            event.record(self._stream)
        return there, event

    def finish(self, token: tuple[torch.Tensor, Any]) -> torch.Tensor:
        """Let the current stream wait for the copy, and the allocator for the current stream."""
        there, event = token
        current = self._cuda.current_stream(self._device)
        current.wait_event(event)
        there.record_stream(current)
        return there


@dataclass(frozen=True)
class _Place:
    """Where a parameter belongs, and where its bytes lie in its block's."""

    module: nn.Module
    name: str
    begin: int
    dtype: torch.dtype
    shape: torch.Size
    waiting: nn.Parameter

    def of(self, flat: torch.Tensor) -> nn.Parameter:
        """Return the parameter as a view of a block's bytes."""
        count = self.shape.numel() * self.dtype.itemsize
        values = flat[self.begin : self.begin + count].view(self.dtype).view(self.shape)
        return nn.Parameter(values, requires_grad=False)


class BlockOffload:
    """The blocks of one network, and which of them are on the device.

    Attributes:
        names: of the parameters that wait in main memory.
        host_bytes: that they take there.
        block_bytes: of the largest block.
    """

    def __init__(self, network: nn.Module, blocks: Sequence[nn.Module], copier: Copier, *, pin: bool):
        """Bring the blocks' frozen parameters into one piece of memory for each block, and wrap the blocks."""
        self._copier = copier
        self._waiting = [_gather(block, pin=pin) for block in blocks]
        self._there: dict[int, Any] = {}
        self._last: int | None = None
        waiting = {id(place.waiting) for _, places in self._waiting for place in places}
        self.names = [name for name, p in network.named_parameters() if id(p) in waiting]
        self.host_bytes = sum(flat.nbytes for flat, _ in self._waiting)
        self.block_bytes = max((flat.nbytes for flat, _ in self._waiting), default=0)
        for number, block in enumerate(blocks):
            block.forward = self._fetching(number, block.forward)

    def _fetching(self, number: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        def fetch_and_compute(*args: Any, **kwargs: Any) -> Any:
            following = self._following(number)
            flat, places = self._waiting[number]
            token = self._there.pop(number, None)
            if token is None:
                token = self._copier.start(flat)
            there = self._copier.finish(token)
            # What was fetched on a wrong guess is dropped, so that the bound on memory holds.
            self._there = {n: kept for n, kept in self._there.items() if n == following}
            if following == number:
                self._there[number] = token
            elif following not in self._there:
                self._there[following] = self._copier.start(self._waiting[following][0])
            for place in places:
                place.module._parameters[place.name] = place.of(there)
            try:
                # Recomputation for the backward pass leaves by an exception once it has what it needs.
                return forward(*args, **kwargs)
            finally:
                for place in places:
                    place.module._parameters[place.name] = place.waiting

        return fetch_and_compute

    def _following(self, number: int) -> int:
        """Guess the next block: forward passes go up, backward passes down, and a backward begins where it ended."""
        last, self._last = self._last, number
        top = len(self._waiting) - 1
        goes_down = last is not None and (number < last or number == last == top) and not (number == 0 and last == top)
        if not torch.is_grad_enabled():
            return number + 1 if number < top else 0
        if goes_down:
            return max(0, number - 1)
        return min(top, number + 1)


def _gather(block: nn.Module, *, pin: bool) -> tuple[torch.Tensor, list[_Place]]:
    """Move a block's frozen parameters into one piece of main memory."""
    found: list[tuple[nn.Module, str, nn.Parameter, int]] = []
    size = 0
    for module in block.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and not parameter.requires_grad:
                found.append((module, name, parameter, size))
                size += -(-parameter.nbytes // ALIGNED_BYTES) * ALIGNED_BYTES
    flat = torch.empty(size, dtype=torch.uint8, pin_memory=pin)
    places = []
    for module, name, parameter, begin in found:
        bytes_there = flat[begin : begin + parameter.nbytes]
        bytes_there.copy_(parameter.detach().contiguous().view(-1).view(torch.uint8))
        waiting = nn.Parameter(bytes_there.view(parameter.dtype).view(parameter.shape), requires_grad=False)
        places.append(_Place(module, name, begin, parameter.dtype, parameter.shape, waiting))
        module._parameters[name] = waiting  # at once, so that one block's copy is all that is needed besides
    return flat, places


def offload_blocks(network: nn.Module, device: torch.device, copier: Copier | None = None) -> BlockOffload:
    """Let a network's frozen block weights wait in main memory, and move all the rest to the device.

    Args:
        network: on the CPU, with its adapters; changed in place. To train it needs gradient checkpointing, without
            which autograd keeps every block that was fetched (the result is the same).
        device: where it computes.
        copier: how blocks are fetched; None: by a stream on a GPU, else plainly.

    Raises:
        ModelError: the network has no repeated blocks.
    """
    on_gpu = device.type == "cuda"
    copier = copier or (StreamCopier(device) if on_gpu else PlainCopier(device))
    offload = BlockOffload(network, repeated_blocks(network), copier, pin=on_gpu)
    waiting = set(offload.names)
    for prefix, module in network.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and f"{prefix}.{name}".removeprefix(".") not in waiting:
                parameter.data = parameter.data.to(device)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(device)
    object.__setattr__(network, "_block_offload", offload)
    return offload


def offload_of(network: nn.Module) -> BlockOffload | None:
    """Return what a network's blocks are fetched by; None where all of it is on its device."""
    found: BlockOffload | None = getattr(network, "_block_offload", None)
    return found


def put_on_device(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to a device, but for what waits in main memory."""
    return network if offload_of(network) is not None else network.to(device)
