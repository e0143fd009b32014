"""The transformers there are, by the class name in their published `config.json`."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from models.architecture import Architecture, Shape
from models.easyanimate import EasyAnimate
from models.errors import ModelError

ARCHITECTURES: Mapping[str, Architecture] = {family.class_name: family for family in (EasyAnimate(),)}


def find_architecture(name: str) -> tuple[Architecture, dict[str, object] | None]:
    """Find the family that a preset or a folder belongs to.

    Args:
        name: a preset, or a folder with `config.json`.

    Returns:
        The family, and the preset's configuration or None for a folder.

    Raises:
        ModelError: neither a preset nor such a folder, or of a family that is not there.
    """
    for family in ARCHITECTURES.values():
        if name in family.presets:
            return family, dict(family.presets[name])
    config = Path(name) / "config.json"
    try:
        class_name = json.loads(config.read_text(encoding="utf-8")).get("_class_name")
    except (OSError, ValueError, AttributeError):
        presets = [preset for family in ARCHITECTURES.values() for preset in family.presets]
        raise ModelError(
            f"transformer '{name}': neither a preset ({', '.join(presets)}) nor a folder with a config.json"
        ) from None
    if class_name not in ARCHITECTURES:
        raise ModelError(f"{config}: _class_name {class_name!r} is not among {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[class_name], None


def build_transformer(name: str, dtype: torch.dtype | None = None) -> tuple[Architecture, nn.Module]:
    """Build a preset with random weights, or load a folder.

    Raises:
        ModelError: as `find_architecture`, or weights that do not load.
    """
    family, config = find_architecture(name)
    model = family.load(Path(name), dtype) if config is None else family.build(config)
    return family, model


def build_empty(name: str) -> tuple[Architecture, nn.Module]:
    """Build a preset or a folder's transformer on the `meta` device: shapes without memory for weights.

    Raises:
        ModelError: as `find_architecture`.
    """
    family, config = find_architecture(name)
    if config is None:
        raw = json.loads((Path(name) / "config.json").read_text(encoding="utf-8"))
        config = {key: value for key, value in raw.items() if not key.startswith("_")}
    with torch.device("meta"):
        return family, family.build(config)


def shape_of(name: str) -> Shape:
    """Give a preset's or folder's numbers without memory for its weights.

    Raises:
        ModelError: as `find_architecture`.
    """
    family, model = build_empty(name)
    return family.shape(model)
