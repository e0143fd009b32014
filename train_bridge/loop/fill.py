"""Weights for a network that was built on the `meta` device and divided: one worker reads, each receives its part.

One tensor is whole at a time, on each device, and nothing else: no worker ever holds the whole network. Where the files
of a folder do not hold the network's weights under its own names (PyTorch's files, names of another code, layers that
were added), the first worker loads it whole.
"""

from collections.abc import Callable, Collection
from pathlib import Path

import torch
from safetensors import safe_open
from torch import distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from core.errors import UserError
from models.errors import ModelError
from models.lora.adapters import reset_magnitudes
from models.weights.weight_files import DIFFUSERS_STEM, find_weights
from train_bridge.loop.parallel import Worker
from train_bridge.parts import Parts, load_transformer

Read = Callable[[str], torch.Tensor]
"""name of a weight → its values, on the CPU"""


def has_meta(network: nn.Module) -> bool:
    """Return whether weights are still without memory."""
    return any(parameter.is_meta for parameter in network.parameters())


def fill_transformer(parts: Parts, seed: int, network: nn.Module, worker: Worker, *, started: bool = False) -> None:
    """Load the weights of a divided transformer, and the norms of DoRA; every worker calls it.

    Args:
        parts: where the weights are; those of a preset are drawn from `seed`, whole, by the first worker.
        seed: of a preset's weights.
        network: divided; adapters have their values already.
        worker: this one.
        started: DoRA's norms came from another adapter, and stay.

    Raises:
        UserError: weights are missing or of other shapes, at every worker alike.
    """
    read: Read | None = None
    names: Collection[str] = ()
    refused = None
    if worker.rank == 0:
        try:
            read, names = _source(parts, seed, _wanted(network).keys())
        except ModelError as error:  # the others wait to hear of it
            refused = str(error)
    fill(network, worker, read, names, refused)
    if not started and any("lora_magnitude_vector" in name for name, _ in network.named_parameters()):
        reset_magnitudes(network)


@torch.no_grad()
def fill(
    network: nn.Module, worker: Worker, read: Read | None, names: Collection[str], refused: str | None = None
) -> None:
    """Allocate every weight and saved buffer that is on `meta`, then load its values.

    Args:
        network: divided by FSDP2.
        worker: this one.
        read: of the first worker; None at the others.
        names: what it can read.
        refused: why the first worker can read nothing.

    Raises:
        UserError: as `fill_transformer`.
    """
    wanted = _wanted(network)
    lacking: list[str | None] = [refused]
    if read is not None and (missing := sorted(wanted.keys() - set(names))):
        lacking = [f"{len(missing)} weights are missing from the base ({missing[0]}, …); fetch its files again"]
    dist.broadcast_object_list(lacking, src=0)
    if lacking[0] is not None:
        raise UserError(lacking[0])
    network._apply(lambda t: torch.empty_like(t, device=worker.device) if t.is_meta else t)
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    for plain, name in sorted(wanted.items()):
        target = tensors[name]
        whole = torch.empty(target.shape, dtype=target.dtype, device=worker.device)
        if read is not None:
            whole.copy_(_fitting(read(plain), target.shape, plain))
        if not isinstance(target, DTensor):  # buffers are not divided
            dist.broadcast(whole, src=0)
            target.copy_(whole)
            continue
        received = distribute_tensor(whole, target.device_mesh, target.placements, src_data_rank=0)
        target.to_local().copy_(received.to_local())
        del whole, received


def _wanted(network: nn.Module) -> dict[str, str]:
    """Return the weights and saved buffers on `meta`: the name in files → the network's own."""
    saved = network.state_dict().keys()
    names = [name for name, parameter in network.named_parameters() if parameter.is_meta]
    names += [name for name, buffer in network.named_buffers() if buffer.is_meta and name in saved]
    return {plain_name(name): name for name in names}


def plain_name(name: str) -> str:
    """Return the name that a weight has in files: without the adapter around its layer."""
    return name.replace(".base_layer.", ".")


def folder_tensors(folder: Path) -> tuple[Read, Collection[str]]:
    """Return what reads one tensor at a time from a folder's safetensors, and the names there are.

    Raises:
        ModelError: no weights there.
    """
    files: dict[str, Path] = {}
    for file in find_weights(folder, DIFFUSERS_STEM).files:
        with safe_open(file, "pt") as opened:
            files |= dict.fromkeys(opened.keys(), file)

    def read(name: str) -> torch.Tensor:
        with safe_open(files[name], "pt") as opened:
            tensor: torch.Tensor = opened.get_tensor(name)
        return tensor

    return read, files.keys()


def _source(parts: Parts, seed: int, wanted: Collection[str]) -> tuple[Read, Collection[str]]:
    assert parts.transformer is not None
    folder = Path(parts.transformer)
    if any(folder.glob("*.safetensors*")):
        read, names = folder_tensors(folder)
        if set(wanted) <= set(names):
            return read, names
    state = load_transformer(parts, seed)[1].state_dict()
    return state.__getitem__, state.keys()


def _fitting(tensor: torch.Tensor, shape: torch.Size, name: str) -> torch.Tensor:
    """Widen a weight by input channels of zero where the network has more (`inpaint.widen`)."""
    if tensor.shape == shape:
        return tensor
    if tensor.ndim == len(shape) == 4 and tensor.shape[0] == shape[0] and tensor.shape[1] < shape[1]:
        wide = tensor.new_zeros(shape)
        wide[:, : tensor.shape[1]] = tensor
        return wide
    raise UserError(f"{name}: is {tuple(tensor.shape)}, the config wants {tuple(shape)}; fetch the base's files again")
