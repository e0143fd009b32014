"""How much of a GPU a worker books for the networks that it holds."""

from typing import Any, Protocol, runtime_checkable

SCORE_GPUS = 0.25
"""What a worker of learned scores books of a GPU: CLIP ViT-L/14 in half precision takes some 2 GB."""


@runtime_checkable
class UsesGpu(Protocol):
    """What an operator or captioner states whose network computes on a GPU where there is one."""

    @property
    def gpus(self) -> float:
        """GPUs that one worker books where there are any; 0 if its settings keep it on the CPU."""
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
