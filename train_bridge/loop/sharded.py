"""Checkpoints of divided networks (`torch.distributed.checkpoint`): each worker writes its part, any number reads them.

Nothing is gathered: a resumed run may have another number of workers, and the export reads a few tensors at a time.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from safetensors.torch import save_file
from torch import nn
from torch.distributed.checkpoint import filesystem, state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from core.files import atomic_folder, remove_leftovers
from train_bridge.loop.checkpoint import STATE, kept_settings, prune
from train_bridge.loop.manifest import write_manifest
from train_bridge.loop.parallel import Worker, from_first

FOLDER = "sharded"
MOST_BYTES = 5_000_000_000
"""of a file of exported weights"""
FILE = "diffusion_pytorch_model{part}.safetensors"


@dataclass(frozen=True)
class Sharded:
    """What a worker holds of a run, for saving and loading; networks may be divided or whole.

    Attributes:
        networks: by name.
        optimizers: by network.
        ema: running mean of the main network.
        main: its name.
        adapters_only: only what is trained is saved.
    """

    networks: Mapping[str, nn.Module]
    optimizers: Mapping[str, torch.optim.Optimizer]
    ema: EMAModel | None
    main: str
    adapters_only: bool

    def state(self, *, begun_only: bool) -> dict[str, Any]:
        """Return the tensors themselves, each worker's part of them, by kind, network and name.

        Args:
            begun_only: leave out optimizers that have no moments yet; else they are given some, to load into.
        """
        trained = StateDictOptions(ignore_frozen_params=True)
        options = StateDictOptions(ignore_frozen_params=self.adapters_only)
        state: dict[str, Any] = {
            "weights": {name: get_model_state_dict(n, options=options) for name, n in self.networks.items()},
            "optimizer": {
                name: get_optimizer_state_dict(self.networks[name], optimizer, options=trained)
                for name, optimizer in self.optimizers.items()
                if optimizer.state or not begun_only
            },
        }
        if self.ema is not None:
            names = [name for name, p in self.networks[self.main].named_parameters() if p.requires_grad]
            state["ema"] = {self.main: dict(zip(names, self.ema.shadow_params, strict=True))}
            state["ema_steps"] = self.ema.optimization_step
        return state

    def load(self, checkpoint: Path) -> None:
        """Put a checkpoint back, of whatever number of workers."""
        state = self.state(begun_only=False)
        stored = filesystem.FileSystemReader(checkpoint / FOLDER).read_metadata().state_dict_metadata
        has_mean = any(name.startswith("ema.") for name in stored)
        if not has_mean:
            state = {kind: part for kind, part in state.items() if kind not in ("ema", "ema_steps")}
        # Groups are not read: older checkpoints have other groups of weights, and moments belong to weights by name.
        groups = {name: moments.pop("param_groups") for name, moments in state["optimizer"].items()}
        state_dict_loader.load(state, checkpoint_id=checkpoint / FOLDER)
        for name, network in self.networks.items():
            set_model_state_dict(network, state["weights"][name], options=StateDictOptions(strict=False))
            with kept_settings(self.optimizers[name]):
                set_optimizer_state_dict(
                    network, self.optimizers[name], state["optimizer"][name] | {"param_groups": groups[name]},
                    options=StateDictOptions(ignore_frozen_params=True),
                )  # fmt: skip
        if self.ema is not None and not has_mean:  # train.ema was set since: the mean begins here
            main = self.networks[self.main]
            self.ema.shadow_params = [p.detach().clone() for p in main.parameters() if p.requires_grad]
        elif self.ema is not None:
            self.ema.optimization_step = state["ema_steps"]  # the running means were read in place


def is_sharded(checkpoint: Path) -> bool:
    """Return whether a checkpoint was written by divided workers."""
    return (checkpoint / FOLDER).is_dir()


def write_sharded(
    run: Path,
    step: int,
    sharded: Sharded,
    configs: Mapping[str, Mapping[str, Any]],
    state: Mapping[str, Any],
    keep: int,
    worker: Worker,
) -> None:
    """Write one checkpoint and delete the oldest beyond `keep`; every worker calls it.

    Args:
        run: the run's folder, on a disk that all workers share.
        step: optimizer steps done.
        sharded: this worker's part.
        configs: `config.json` of each network.
        state: what resuming needs to know besides, as JSON.
        keep: how many checkpoints stay, at least 1.
        worker: this one.
    """
    tensors = sharded.state(begun_only=True)
    target = run / "checkpoints" / f"step-{step:08d}"
    if worker.rank:
        state_dict_saver.save(tensors, checkpoint_id=Path(from_first("")) / FOLDER)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target.parent, older_than_s=0)  # a run is held by one process
        with atomic_folder(target) as folder:
            from_first(str(folder))
            state_dict_saver.save(tensors, checkpoint_id=folder / FOLDER)  # returns when all workers have written
            for name, config in configs.items():
                (folder / f"{name}.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            (folder / STATE).write_text(json.dumps({"step": step, **state}, indent=2) + "\n", encoding="utf-8")
            write_manifest(folder)
        prune(run, keep)
    worker.barrier()


def read_sharded(checkpoint: Path, network: str) -> dict[str, torch.Tensor]:
    """Read a network's weights whole, or their running mean where there is one."""
    return {name: tensor for part in _parts(checkpoint, network, most_bytes=2**63) for name, tensor in part.items()}


def convert(
    checkpoint: Path, network: str, folder: Path, config: Mapping[str, Any], most_bytes: int = MOST_BYTES
) -> None:
    """Write a network as diffusers does: safetensors files of bounded size with an index, and `config.json`.

    A file's worth of tensors is in memory at a time.
    """
    files: dict[str, list[str]] = {}
    total = 0
    parts = list(_plan(checkpoint, network, most_bytes))
    for number, names in enumerate(parts, 1):
        part = f"-{number:05d}-of-{len(parts):05d}" if len(parts) > 1 else ""
        tensors = _read(checkpoint, names)
        total += sum(tensor.nbytes for tensor in tensors.values())
        save_file(tensors, folder / FILE.format(part=part), metadata={"format": "pt"})
        files[FILE.format(part=part)] = list(tensors)
    if len(parts) > 1:
        index = {
            "metadata": {"total_size": total},
            "weight_map": {name: file for file, names_of in files.items() for name in names_of},
        }
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / f"{FILE.format(part='')}.index.json").write_text(text, encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _parts(checkpoint: Path, network: str, most_bytes: int) -> Iterator[dict[str, torch.Tensor]]:
    for names in _plan(checkpoint, network, most_bytes):
        yield _read(checkpoint, names)


def _plan(checkpoint: Path, network: str, most_bytes: int) -> Iterator[dict[str, TensorStorageMetadata]]:
    """Divide a network's tensors into parts: stored name → what is known of it."""
    stored = filesystem.FileSystemReader(checkpoint / FOLDER).read_metadata().state_dict_metadata
    found = {name: kept for name, kept in stored.items() if isinstance(kept, TensorStorageMetadata)}
    chosen = {name: kept for name, kept in found.items() if name.startswith(f"weights.{network}.")}
    # Frozen weights have no running mean.
    for name, kept in found.items():
        if name.startswith(f"ema.{network}."):
            chosen.pop(f"weights.{name.removeprefix('ema.')}", None)
            chosen[name] = kept
    part: dict[str, TensorStorageMetadata] = {}
    size = 0
    for name, kept in sorted(chosen.items()):
        count = kept.size.numel() * kept.properties.dtype.itemsize
        if part and size + count > most_bytes:
            yield part
            part, size = {}, 0
        part[name] = kept
        size += count
    if part:
        yield part


def _read(checkpoint: Path, names: Mapping[str, TensorStorageMetadata]) -> dict[str, torch.Tensor]:
    tensors = {name: torch.empty(kept.size, dtype=kept.properties.dtype) for name, kept in names.items()}
    state_dict_loader.load(dict(tensors), checkpoint_id=checkpoint / FOLDER, no_dist=True)
    return {name.split(".", 2)[2]: tensor for name, tensor in tensors.items()}
