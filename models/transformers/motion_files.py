"""Motion modules in files of their own, as EasyAnimate V1's are published, and the image models that they go onto."""

from pathlib import Path

import torch
from torch import nn

from models.errors import ModelError
from models.transformers.blocks.pixart_family import PLACES_KEY, TEMPORAL_LAYERS
from models.weights.safetensors_file import write_tensors
from models.weights.state_dict import fit_state_dict, read_state_dict

WIDTH_KEY = f"{TEMPORAL_LAYERS}.temporal_transformer.proj_in.weight"


def save_motion_module(model: nn.Module, path: Path) -> None:
    """Write the motion modules of all blocks, and nothing else, to a safetensors file.

    Args:
        model: a video model of V1, V2 or V3.
        path: the file to be; its folder must exist.
    """
    write_tensors(path, _temporal(model.state_dict()), {})


def load_motion_module(model: nn.Module, path: Path) -> None:
    """Load the motion modules of all blocks from a file of their own; the other weights stay.

    Args:
        model: changed in place. Long skip connections are no part of a motion module.
        path: safetensors or PyTorch's file.

    Raises:
        ModelError: no motion module, one of another width or number of blocks, or other weights beside it.
    """
    tensors = read_state_dict(path)
    given, wanted = _temporal(tensors), _temporal(model.state_dict())
    if not given:
        raise ModelError(f"{path}: holds no motion module (no name with '{TEMPORAL_LAYERS}'); give a motion module's")
    if others := sorted(tensors.keys() - given.keys()):
        raise ModelError(
            f"{path}: {len(others)} weights are no motion module's ({repr(others[0])[1:-1][:100]}); load it as a "
            "transformer, or save its motion module alone"
        )
    widths = {width for tensors in (given, wanted) if (width := _width(tensors)) is not None}
    if len(widths) > 1:
        raise ModelError(
            f"{path}: a motion module of width {_width(given)}, for a model of width {_width(wanted)}; give one that "
            "was trained on such a model"
        )
    fit_state_dict(given, wanted, path, "the model's motion modules")
    _assign(model, given)


def load_personalised(model: nn.Module, path: Path) -> None:
    """Load an image model that was trained further onto a video model's spatial layers; motion modules stay.

    Args:
        model: changed in place.
        path: a checkpoint of the image model, safetensors or PyTorch's: all of its weights or some.

    Raises:
        ModelError: weights that the model does not have, of other shapes, or none at all.
    """
    tensors = read_state_dict(path)
    tensors.pop(PLACES_KEY, None)
    if temporal := _temporal(tensors):
        raise ModelError(
            f"{path}: {len(temporal)} weights are a motion module's; a personalised checkpoint is an image model's"
        )
    if not tensors:
        raise ModelError(f"{path}: holds no weights; give an image model's checkpoint")
    there = model.state_dict()
    fit_state_dict(tensors, {name: there[name] for name in tensors if name in there}, path, "the model's image layers")
    _assign(model, tensors)


def _temporal(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if TEMPORAL_LAYERS in name}


def _width(tensors: dict[str, torch.Tensor]) -> int | None:
    return next((int(tensor.shape[0]) for name, tensor in tensors.items() if name.endswith(WIDTH_KEY)), None)


@torch.no_grad()
def _assign(model: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Copy values into a model, in its own type."""
    there = model.state_dict()
    for name, tensor in tensors.items():
        there[name].copy_(tensor)
