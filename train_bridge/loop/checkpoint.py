"""Checkpoints: weights in diffusers layout, optimizer and step beside them; a folder appears whole or not at all."""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
from torch.distributed.fsdp import FSDPModule

from core.errors import UserError
from core.files import atomic_folder, read_bounded, remove_leftovers
from train_bridge.loop.manifest import write_manifest
from train_bridge.storage import storing

NAME = re.compile(r"step-(\d{8})")
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
TRAINED = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
WEIGHTS_PATTERN = "diffusion_pytorch_model{suffix}.safetensors"
STATE = "state.json"
MOST_STATE_BYTES = 1 << 20

Tensors = dict[str, torch.Tensor]


def checkpoints(run: Path) -> list[Path]:
    """List a run's complete checkpoints, oldest first."""
    folder = run / "checkpoints"
    found = [path for path in folder.glob("step-*") if NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(path for path in found if (path / STATE).is_file())


def weights_of(network: nn.Module, *, adapters_only: bool) -> Tensors:
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
    """Put gathered weights back; those not named keep what they have.

    Raises:
        UserError: they are of other shapes.
    """
    if not isinstance(network, FSDPModule):
        # Each worker has read them; and torch's own function wants all of a network's weights on one device.
        bare = network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network
        shapes = {name: tensor.shape for name, tensor in bare.state_dict().items()}
        for name, tensor in weights.items():
            if shapes.get(name, tensor.shape) != tensor.shape:
                raise UserError(
                    f"the checkpoint's {name} is {tuple(tensor.shape)}, the config wants {tuple(shapes[name])}; "
                    "go on with the run's own config, or take another `output`"
                )
        bare.load_state_dict(weights, strict=False)
        return
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=_divided(), strict=False)
    set_model_state_dict(network, dict[str, Any](weights), options=options)


def optimizer_state(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Gather an optimizer's moments on the CPU, by the names of the weights."""
    state: dict[str, Any] = get_optimizer_state_dict(network, optimizer, options=TRAINED)
    return state


def put_optimizer_state(network: nn.Module, optimizer: torch.optim.Optimizer, file: Path | None) -> None:
    """Put gathered moments back; None: the first worker has read them and sends them.

    The groups and their settings are the optimizer's own, not those of the file: moments belong to weights by name.
    """
    # Nothing is gathered for the names of weights by group.
    own = get_optimizer_state_dict(network, optimizer, options=StateDictOptions(ignore_frozen_params=True))
    state = {} if file is None else torch.load(file, map_location="cpu", weights_only=True)
    if state:
        state["param_groups"] = own["param_groups"]
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=_divided(), ignore_frozen_params=True)
    with kept_settings(optimizer):
        set_optimizer_state_dict(network, optimizer, state, options=options)


@contextmanager
def kept_settings(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Keep the optimizer's own rates and decays while a block gives it moments with those of another time."""
    kept = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    yield
    for group, settings in zip(optimizer.param_groups, kept, strict=True):
        group.update(settings)


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

    Raises:
        OutputError: the storage refuses to be written.
    """
    target = run / "checkpoints" / f"step-{step:08d}"
    with storing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target.parent, older_than_s=0)  # a run is held by one process
        with atomic_folder(target) as folder:
            for name, (tensors, config) in weights.items():
                save_weights(folder / name, tensors, config)
            for name, moments in optimizers.items():
                # Through Python's file, which says why it cannot be written.
                with open(folder / f"optimizer_{name}.pt", "wb") as file:
                    torch.save(moments, file)
            (folder / STATE).write_text(json.dumps({"step": step, **state}, indent=2) + "\n", encoding="utf-8")
            write_manifest(folder)
        prune(run, keep)
    return target


def prune(run: Path, keep: int) -> None:
    """Delete the oldest checkpoints beyond `keep`, at least 1, and those that a killed run has deleted half.

    For whoever holds the run's lock, or the first worker of the one who does.
    """
    whole = checkpoints(run)
    for old in whole[: -max(1, keep)]:
        (old / STATE).unlink()  # first: without it the folder no longer counts as a checkpoint
    kept = whole[-max(1, keep) :]
    for folder in (run / "checkpoints").glob("step-*"):
        if NAME.fullmatch(folder.name) and folder not in kept:
            shutil.rmtree(folder)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Read what a checkpoint says of itself.

    Raises:
        UserError: it is damaged.
    """
    try:
        state = json.loads(read_bounded(checkpoint / STATE, MOST_STATE_BYTES))
        if type(state["step"]) is int and state["step"] >= 0 and isinstance(state["data_id"], str):
            return dict(state)
        why = "not what a checkpoint says of itself"
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    raise UserError(
        f"{checkpoint / STATE}: cannot be read ({why}); delete the folder {checkpoint.name}, "
        "and the run goes on from the checkpoint before it"
    )


def _divided() -> bool:
    return torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1
