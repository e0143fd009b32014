"""The transformer that a run trains: loaded, with its adapters, and the base kept as the config says."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from core.errors import UserError
from models.lora.adapters import add_lora
from models.lora.files import read_lora
from models.lora.form import AdapterForm
from models.lora.init import begin_from
from models.transformers.architecture import Architecture, Shape
from train_bridge.config import TrainConfig
from train_bridge.loop.base_memory import keep_base
from train_bridge.loop.parallel import Worker, is_divided
from train_bridge.parts import Parts, empty_transformer, load_transformer


@dataclass(frozen=True)
class Trained:
    """A transformer that is trained.

    Attributes:
        family: how to call it.
        network: with its adapters, if any; what has no gradient is frozen.
        shape: its numbers.
        configs: its `config.json`, by name.
        parameters: how many weights change.
    """

    family: Architecture
    network: nn.Module
    shape: Shape
    configs: dict[str, dict[str, Any]]
    parameters: int


def load_trained(config: TrainConfig, worker: Worker, parts: Parts) -> Trained:
    """Load a transformer, or build a preset, and ready it for training.

    Raises:
        UserError: an adapter to begin from is not there.
        ModelError: weights that do not load.
    """
    # A frozen base loses nothing by it; trained weights stay in float32 beneath autocast.
    half = torch.bfloat16 if config.lora.rank and config.train.precision == "bf16" else None
    if is_divided(config, worker):
        family, transformer = empty_transformer(parts)  # filled part by part once it is divided
        transformer = transformer.to(half) if half else transformer
    else:
        family, transformer = load_transformer(parts, config.train.seed, half)
    configs = {"transformer": config_of(transformer)}
    shape = family.shape(transformer)
    if config.lora.rank:
        add_adapter(transformer, family, config)
        begin_adapter(transformer, config)
    unused = set(family.unused_parameters(transformer))
    for name, parameter in transformer.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name not in unused)
    if config.train.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()  # type: ignore[operator]
    trained = sum(p.numel() for p in transformer.parameters() if p.requires_grad)
    keep_base(transformer, config, worker.device)
    return Trained(family, transformer, shape, configs, trained)


def add_adapter(transformer: nn.Module, family: Architecture, config: TrainConfig) -> None:
    """Freeze a transformer and add the adapter that the config asks for."""
    lora = config.lora
    excludes = family.image_lora_excludes if lora.images_only else ()
    targets = lora.targets or family.lora_targets
    add_lora(
        transformer,
        AdapterForm(lora.rank, lora.alpha, dora=lora.dora),
        targets,
        seed=config.train.seed,
        excludes=excludes,
    )


def begin_adapter(transformer: nn.Module, config: TrainConfig) -> None:
    """Load into an added adapter the values of the one that the config names to start from, if any.

    Raises:
        UserError: it is not there.
        ModelError: it is of another rank, kind or model.
    """
    if config.lora.init is None:
        return
    path = Path(config.lora.init)
    if not path.exists():
        fix = "name a run, its lora folder, or a .safetensors file"
        raise UserError("no such file", field="lora.init", value=path, fix=fix)
    begin_from(transformer, read_lora(path / "lora" if (path / "lora").is_dir() else path))


def config_of(network: nn.Module) -> dict[str, Any]:
    """Return what diffusers writes as a network's `config.json`."""
    values: dict[str, Any] = json.loads(network.to_json_string())  # type: ignore[operator]
    return values
