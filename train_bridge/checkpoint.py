"""Checkpoints: weights in diffusers layout, optimizer and step beside them; a folder appears whole or not at all."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from curation.errors import UserError
from curation.files import atomic_folder, remove_leftovers

NAME = re.compile(r"step-(\d{8})")
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
TRAINED = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
WEIGHTS_PATTERN = "diffusion_pytorch_model{suffix}.safetensors"
STATE = "state.json"

Tensors = dict[str, torch.Tensor]


def checkpoints(run: Path) -> list[Path]:
    """List a run's complete checkpoints, oldest first."""
    folder = run / "checkpoints"
    found = [path for path in folder.glob("step-*") if NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(path for path in found if (path / STATE).is_file())


def weights_of(network: nn.Module, adapters_only: bool) -> Tensors:
    """Gather a network's weights on the CPU, under their own names, however it is divided or wrapped.

    Every worker must call it; workers other than the first may get an empty mapping.
    """
    tensors: Any = get_model_state_dict(network, options=TRAINED if adapters_only else WHOLE)
    # On the CPU these are the weights themselves, which change with the next step.
    live = {parameter.data_ptr() for parameter in network.parameters()}
    return {name: tensor.clone() if tensor.data_ptr() in live else tensor for name, tensor in tensors.items()}


def save_weights(folder: Path, weights: Tensors, config: Mapping[str, Any] | None, most_bytes: str = "5GB") -> None:
    """Write weights as safetensors, in several files with an index where they are large; config beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    contiguous = {name: tensor.contiguous() for name, tensor in weights.items()}
    save_torch_state_dict(
        contiguous, folder, filename_pattern=WEIGHTS_PATTERN, max_shard_size=most_bytes, safe_serialization=True
    )
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_weights(folder: Path) -> Tensors:
    """Read all weights of a folder.

    Raises:
        UserError: there are none.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(
            f"{folder}: no weights (*.safetensors); the checkpoint is damaged, delete it to go on before it"
        )
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def put_weights(network: nn.Module, weights: Tensors) -> None:
    """Put gathered weights back; those not named keep what they have."""
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=_divided(), strict=False)
    set_model_state_dict(network, dict[str, Any](weights), options=options)


def optimizer_state(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Gather an optimizer's moments on the CPU, by the names of the weights."""
    state: dict[str, Any] = get_optimizer_state_dict(network, optimizer, options=TRAINED)
    return state


def put_optimizer_state(network: nn.Module, optimizer: torch.optim.Optimizer, file: Path) -> None:
    """Put gathered moments back."""
    state = torch.load(file, map_location="cpu", weights_only=True)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=_divided(), ignore_frozen_params=True)
    set_optimizer_state_dict(network, optimizer, state, options=options)


def write_checkpoint(
    run: Path,
    step: int,
    weights: Mapping[str, tuple[Tensors, Mapping[str, Any] | None]],
    optimizers: Mapping[str, dict[str, Any]],
    state: Mapping[str, Any],
    keep: int,
) -> Path:
    """Write one checkpoint and delete the oldest beyond `keep`.

    Args:
        run: the run's folder.
        step: optimizer steps done.
        weights: by folder name (`transformer`, `ema/transformer`): tensors and config.
        optimizers: gathered states, by network.
        state: what resuming needs to know besides, as JSON.
        keep: how many checkpoints stay, at least 1.
    """
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    remove_leftovers(run / "checkpoints", older_than_s=0)  # a run is held by one process
    target = run / "checkpoints" / f"step-{step:08d}"
    with atomic_folder(target) as folder:
        for name, (tensors, config) in weights.items():
            save_weights(folder / name, tensors, config)
        for name, moments in optimizers.items():
            torch.save(moments, folder / f"optimizer_{name}.pt")
        (folder / STATE).write_text(json.dumps({"step": step, **state}, indent=2) + "\n", encoding="utf-8")
    for old in checkpoints(run)[: -max(1, keep)]:
        (old / STATE).unlink()  # first: without it the folder no longer counts as a checkpoint
        shutil.rmtree(old)
    return target


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Read what a checkpoint says of itself."""
    state: dict[str, Any] = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    return state


def _divided() -> bool:
    return torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1
