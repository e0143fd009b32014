"""How much of a GPU a worker books for the networks that it holds.

Memory is stated in GB (10^9 bytes) as sizes of published weights plus room for what is computed at once. It decides
what is booked in a cluster whose GPUs have been looked at; elsewhere `gpus` does.
"""

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

SCORE_GPUS = 0.25
"""What a worker of learned scores books of a GPU: CLIP ViT-L/14 in half precision takes some 2 GB."""

CONTEXT_GB = 0.7
"""what each process takes that computes on a GPU, whatever it computes: CUDA's context and its libraries' workspaces"""


@runtime_checkable
class UsesGpu(Protocol):
    """What an operator or captioner states whose network computes on a GPU where there is one."""

    @property
    def gpus(self) -> float:
        """GPUs that one worker books where there are any; 0 if its settings keep it on the CPU."""
        ...


@runtime_checkable
class TakesGpuMemory(Protocol):
    """What an operator, captioner or control states whose network takes so much of a GPU and leaves others the rest."""

    @property
    def gpu_memory_gb(self) -> float | None:
        """GB of each GPU on which it computes, beside `CONTEXT_GB`; null: not known for these settings."""
        ...


@runtime_checkable
class FillsGpus(Protocol):
    """What a captioner states that takes whole GPUs, however large they are."""

    @property
    def least_gpu_gb(self) -> float | None:
        """GB that each of them must have at least; null: not known for this model."""
        ...


def score_gpus(device: str) -> float:
    """Return what a worker of learned scores books for a network on this device: `auto`, `cpu`, `cuda`, ..."""
    return 0.0 if device == "cpu" else SCORE_GPUS


def booked_gpus(holder: Any, usual: float) -> float:
    """Return the GPUs that a worker books for what it holds.

    Args:
        holder: an operator, a captioner, a scorer of captions or a control.
        usual: what a network of its kind takes of a GPU, for plug-ins that do not say it.
    """
    if isinstance(holder, UsesGpu):
        return float(holder.gpus)
    # Plug-ins written for version 0.9 state no `gpus`: there it followed from `takes_gpu`, else from the setting
    # `device`, their own or that of their `clip`. Ours all state it, so this is for plug-ins alone.
    network = getattr(holder, "clip", holder)
    takes_gpu = getattr(holder, "takes_gpu", getattr(network, "device", "cpu") != "cpu")
    return usual if takes_gpu else 0.0


def pictures_gb(short_side_px: int, count: int, bytes_each_px: int) -> float:
    """Return the GB that go with the pictures under way at once, as wide as 16:9.

    Args:
        short_side_px: of the network's input.
        count: pictures at once.
        bytes_each_px: that the network's widest layers hold of each pixel of the input.
    """
    return short_side_px**2 * 16 / 9 * count * bytes_each_px / 1e9


def taken_gb(holders: Iterable[Any]) -> float:
    """Return the GB that one worker takes of each GPU for all that it holds there; 0 where one of them does not say.

    Args:
        holders: operators, captioners and controls that compute on a GPU; those with an equal `clip` share its network.
    """
    networks: list[Any] = []
    total_gb = CONTEXT_GB
    for holder in holders:
        network = getattr(holder, "clip", holder)
        if network in networks:
            continue
        networks.append(network)
        memory_gb = None
        if isinstance(holder, FillsGpus):
            memory_gb = holder.least_gpu_gb
        elif isinstance(holder, TakesGpuMemory):
            memory_gb = holder.gpu_memory_gb
        if memory_gb is None:
            return 0.0
        total_gb += memory_gb
    return total_gb if networks else 0.0
