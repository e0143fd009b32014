"""What the networks of control maps have in common: where their weights come from, and where they compute."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from models.scorers.clip import pick_device
from models.weights.named import weights_file
from models.weights.state_dict import fit_state_dict, read_state_dict, take_weights
from models.weights.table import WEIGHTS

N = TypeVar("N", bound=nn.Module)


def load_network(build: Callable[[Mapping[str, torch.Tensor]], N], named: str, what: str, device: str) -> N:
    """Build a network and give it the weights of a file; ready to compute without gradients.

    Args:
        build: makes it, given the tensors; called on the `meta` device, so that no random weights are drawn.
        named: weights, as `models.weights.named.weights_file` takes them; or a folder with one file of weights.
        what: the network is, for messages.
        device: as torch names it; `auto`: the GPU if there is one.

    Raises:
        ModelError: weights that cannot be had or are not this network's, or a device that is not there.
    """
    path = Path(named) if named not in WEIGHTS and Path(named).is_dir() else weights_file(named)
    state = read_state_dict(path)
    with torch.device("meta"):
        network = build(state)
    fit_state_dict(state, network.state_dict(), path, what)
    take_weights(network, state)
    return network.to(pick_device(device)).eval().requires_grad_(False)


def device_of(network: nn.Module) -> torch.device:
    """Return where a network computes."""
    return next(network.parameters()).device
