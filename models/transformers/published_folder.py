"""A transformer's folder as it was published: `config.json`, and safetensors or a pickle of nothing but tensors."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from core.files import atomic_folder
from models.errors import ModelError, one_line
from models.transformers.architecture import Architecture
from models.weights.json_file import read_json
from models.weights.published_config import known_fields
from models.weights.safetensors_file import write_tensors
from models.weights.state_dict import fit_state_dict, read_state_dict, take_weights
from models.weights.weight_files import DIFFUSERS_STEM

UNREADABLE = (OSError, ValueError, TypeError, AttributeError, ArithmeticError, RuntimeError, ImportError, IndexError)
State = dict[str, torch.Tensor]


def load_folder(
    folder: Path,
    fields: Collection[str],
    build: Callable[[Mapping[str, Any]], nn.Module],
    dtype: torch.dtype | None = None,
    rename: Callable[[State], State] = dict,
) -> nn.Module:
    """Load a network, without memory for weights that are then replaced.

    Args:
        folder: has both files.
        fields: of the config that `build` takes; others are named in a line and passed over.
        build: makes the network from the config.
        dtype: of the network's weights; None: float32.
        rename: brings published names to those of the network.

    Returns:
        The network on the CPU, in evaluation mode.

    Raises:
        ModelError: files are missing or do not fit each other.
    """
    try:
        config = known_fields(read_json(folder / "config.json"), fields, folder / "config.json")
        with torch.device("meta"):
            model = build(config)
        state = rename(read_state_dict(folder))
    except UNREADABLE as error:
        raise ModelError(f"{folder}: no transformer can be loaded ({one_line(error)}); copy its files again") from None
    fit_state_dict(state, model.state_dict(), folder, "config.json")
    take_weights(model, state, dtype)
    return model.eval()


def save_published(family: Architecture, model: nn.Module, folder: Path) -> None:
    """Write `config.json` and the weights under the published names, for programs that read those.

    Args:
        family: the model's.
        model: on any device.
        folder: appears whole, in place of one that is there.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as temporary:
        model.save_config(temporary)  # type: ignore[operator]
        write_tensors(temporary / f"{DIFFUSERS_STEM}.safetensors", family.published(model.state_dict()), {})
