"""Several workers: how networks are divided among them, and how numbers are brought together."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from train_bridge.config import TrainConfig
from train_bridge.types import Metrics

T = TypeVar("T")


def _no_report(metrics: Metrics) -> None:
    """Report to nobody."""


@dataclass(frozen=True)
class Worker:
    """One of the processes that train together.

    Attributes:
        rank: its number.
        world_size: how many there are.
        device: what it computes on.
        report: takes its numbers; every worker calls it equally often.
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device = torch.device("cpu")
    report: Callable[[Metrics], None] = _no_report

    def barrier(self) -> None:
        """Wait for the others."""
        if self.world_size > 1:
            dist.barrier()


def is_divided(config: TrainConfig, worker: Worker) -> bool:
    """Return whether each worker holds a part of the weights."""
    return config.launch.sharding == "fsdp" and worker.world_size > 1


def divide(network: nn.Module, worker: Worker, sharding: Literal["ddp", "fsdp"], *, half: bool = False) -> nn.Module:
    """Wrap a network for training on several workers; alone it stays as it is.

    Args:
        network: on the worker's device, or for `fsdp` on `meta`; frozen weights have `requires_grad` unset.
        worker: this one.
        sharding: `ddp` keeps whole weights everywhere; `fsdp` divides each repeated block (FSDP2).
        half: with `fsdp`, weights are gathered in bf16; gradients are added up in float32.
    """
    if worker.world_size == 1:
        return network
    if sharding == "ddp":
        return DistributedDataParallel(network)
    blocks = set(getattr(network, "_no_split_modules", None) or getattr(network, "_repeated_blocks", None) or ())
    # Inputs stay as they are: autocast knows what may be rounded, and noise levels up to 1000 may not.
    half_policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    policy = half_policy if half else MixedPrecisionPolicy()
    mesh = init_device_mesh(worker.device.type, (worker.world_size,))
    for module in network.modules():
        if type(module).__name__ in blocks:
            fully_shard(module, mesh=mesh, mp_policy=policy)
    fully_shard(network, mesh=mesh, mp_policy=policy)  # changes it in place
    return network


def bring_together(network: nn.Module, *, now: bool) -> None:
    """Say whether the coming forward and backward pass averages gradients over the workers; else they add up."""
    if isinstance(network, DistributedDataParallel):
        network.require_backward_grad_sync = now  # what DDP.no_sync sets
    elif isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(now)


def from_first(value: T) -> T:
    """Return the first worker's value at every worker; it must be picklable. All of several workers call it."""
    box: list[T] = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def mean_over_workers(metrics: Metrics, worker: Worker) -> Metrics:
    """Average numbers over the workers; all of them call it with the same names."""
    if worker.world_size == 1:
        return dict(metrics)
    names = sorted(metrics)
    values = torch.tensor([metrics[name] for name in names], dtype=torch.float64, device=worker.device)
    dist.all_reduce(values)
    return dict(zip(names, (values / worker.world_size).tolist(), strict=True))
