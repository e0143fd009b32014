"""The transformers there are, found by the class name and the fields of their published `config.json`."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from models.errors import ModelError, one_line
from models.transformers.architecture import Architecture, Shape
from models.transformers.defaults import FamilyDefaults
from models.transformers.easyanimate_v1 import V1
from models.transformers.easyanimate_v2 import V2
from models.transformers.easyanimate_v3 import V3
from models.transformers.easyanimate_v4 import EasyAnimateV4
from models.transformers.easyanimate_v5 import EasyAnimate
from models.weights.json_file import read_json
from models.weights.published_config import known_fields

# Where families share a class name, the first whose `takes` says so is taken.
ARCHITECTURES: Mapping[str, Architecture] = {
    "v1": V1,
    "v2": V2,
    "v3": V3,
    "v4": EasyAnimateV4(),
    "v5": EasyAnimate(),
}
"""by a name of our own"""
IMAGE_CLASSES = ("PixArtTransformer2DModel", "Transformer2DModel")
"""class names of image models that a video model can begin from"""


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
        values = read_json(config)
        class_name = values.get("_class_name")
    except (OSError, ValueError, AttributeError):
        presets = [preset for family in ARCHITECTURES.values() for preset in family.presets]
        raise ModelError(
            f"transformer '{name}': neither a preset ({', '.join(presets)}) nor a folder with a config.json"
        ) from None
    if class_name in IMAGE_CLASSES:
        raise ModelError(f"{config}: {class_name} is an image model; make a video model of it first (inflation)")
    named = [family for family in ARCHITECTURES.values() if family.class_name == class_name]
    if not named:
        known = ", ".join(sorted({family.class_name for family in ARCHITECTURES.values()}))
        raise ModelError(f"{config}: _class_name {class_name!r} is not among {known}")
    for family in named:
        if family.takes(values):
            return family, None
    raise ModelError(f"{config}: no family of class {class_name} has such fields; choose another model")


def defaults_of(name: str) -> FamilyDefaults:
    """Return the facts of the family that a preset or a folder belongs to.

    Raises:
        ModelError: as `find_architecture`.
    """
    family, config = find_architecture(name)
    return family.defaults(read_json(Path(name) / "config.json") if config is None else config)


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

    Fields of a folder's config that the family does not know are named in a line and passed over.

    Raises:
        ModelError: as `find_architecture`, or values that do not fit together.
    """
    family, config = find_architecture(name)
    where = Path(name) / "config.json"
    if config is None:
        config = known_fields(read_json(where), family.fields, where)
    try:
        with torch.device("meta"):
            return family, family.build(config)
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from None
    except (TypeError, ValueError, IndexError, ArithmeticError, RuntimeError) as error:
        raise ModelError(f"{where}: {one_line(error)}; copy the file again") from error


def shape_of(name: str) -> Shape:
    """Return a preset's or folder's numbers without memory for its weights.

    Raises:
        ModelError: as `find_architecture`.
    """
    family, model = build_empty(name)
    return family.shape(model)
