"""Several workers: how networks are divided among them, and how numbers are brought together."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from train_bridge.types import Metrics


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


def own_device() -> torch.device:
    """Give what a process computes on that shares its machine with no other worker: a GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def divide(network: nn.Module, worker: Worker, sharding: Literal["ddp", "fsdp"]) -> nn.Module:
    """Wrap a network for training on several workers; alone it stays as it is.

    Args:
        network: on the worker's device; frozen weights have `requires_grad` unset.
        worker: this one.
        sharding: `ddp` keeps whole weights everywhere; `fsdp` divides each repeated block (FSDP2).
    """
    if worker.world_size == 1:
        return network
    if sharding == "ddp":
        return DistributedDataParallel(network)
    blocks = set(getattr(network, "_no_split_modules", None) or ())
    for module in network.modules():
        if type(module).__name__ in blocks:
            fully_shard(module)
    fully_shard(network)  # changes it in place
    return network


def bring_together(network: nn.Module, now: bool) -> None:
    """Say whether the coming forward and backward pass averages gradients over the workers; else they add up."""
    if isinstance(network, DistributedDataParallel):
        network.require_backward_grad_sync = now  # what DDP.no_sync sets
    elif isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(now)


def mean_over_workers(metrics: Metrics, worker: Worker) -> Metrics:
    """Average numbers over the workers; all of them call it with the same names."""
    if worker.world_size == 1:
        return dict(metrics)
    names = sorted(metrics)
    values = torch.tensor([metrics[name] for name in names], dtype=torch.float64, device=worker.device)
    dist.all_reduce(values)
    return dict(zip(names, (values / worker.world_size).tolist(), strict=True))
