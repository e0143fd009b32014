"""Where networks compute whose weights may lie elsewhere."""

import torch
from diffusers.hooks.group_offloading import _get_group_onload_device, _is_group_offload_enabled
from torch import nn


def offloads_layers(module: nn.Module) -> bool:
    """Return whether a network fetches its layers only while they compute (`sequential_cpu_offload`)."""
    return bool(_is_group_offload_enabled(module))


def execution_device(module: nn.Module) -> torch.device:
    """Return where a network computes."""
    if offloads_layers(module):
        device: torch.device = _get_group_onload_device(module)
        return device
    return next(module.parameters()).device
