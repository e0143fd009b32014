"""Which device this process computes on: the one place that asks for a GPU."""

import torch


def own_device() -> torch.device:
    """Return the device of this process, with its index: the current GPU where there is one, else the CPU.

    A training worker does not call it: Ray Train says which device is its own (`Worker.device`), and it is passed on.
    """
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def use_device(device: torch.device) -> None:
    """Make a device the current one of this thread: each thread begins with GPU 0, whatever its process uses."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


def free_memory() -> None:
    """Return the memory of tensors that are gone to the GPU, so that other programs and other models have it."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
