"""Video models that begin as image models: what is new changes nothing at first.

The output layers of the motion modules, the long skip connections, the weights of added channels and the image tokens
are zero, so that each frame is predicted as the image model would.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from models.errors import ModelError, one_line
from models.transformers.blocks.pixart_family import ARGUMENTS, PLACES_KEY, SETTLED, SIZE_KEY, PixArtFamily
from models.transformers.motion_files import load_motion_module, load_personalised
from models.transformers.table import IMAGE_CLASSES, find_architecture
from models.weights.json_file import read_json
from models.weights.state_dict import fit_state_dict, read_state_dict


def inflate(family: PixArtFamily, folder: Path, video_fields: Mapping[str, Any] | None = None) -> nn.Module:
    """Make a video model from an image model (PixArt).

    Args:
        family: what the video model shall be.
        folder: the image model's `config.json` and weights.
        video_fields: fields other than the family's published ones, such as `motion_module_kwargs`.

    Returns:
        The model, with new layers from torch's global generator. Until it is trained, each frame is predicted as the
        image model would; where the family takes condition images, they are not seen.

    Raises:
        ModelError: no image model that can be read, or values that do not fit.
    """
    folder = Path(folder)
    where = folder / "config.json"
    try:
        config = read_json(where)
        name = config.get("_class_name")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{where}: not readable ({one_line(error)}); give an image model's folder") from None
    if name not in IMAGE_CLASSES:
        raise ModelError(f"{where}: {name!r} is no image model that can be inflated ({', '.join(IMAGE_CLASSES)})")
    tensors = read_state_dict(folder)
    tensors.pop(PLACES_KEY, None)
    image = {field: value for field, value in config.items() if field in ARGUMENTS or field in SETTLED}
    image["use_additional_conditions"] = SIZE_KEY in tensors
    try:
        model = family.build(image | dict(family.video_fields) | dict(video_fields or {}))
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from None
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise ModelError(f"{where}: {one_line(error)}; copy the file again") from None
    new = {key for key in model.state_dict() if is_new(key)}
    spatial = {key: tensor for key, tensor in model.state_dict().items() if key not in new}
    fit_state_dict(tensors, spatial, folder, "config.json")
    model.load_state_dict(tensors, strict=False)
    if family.takes_images:
        family.widen(model)
    return model.eval()


def is_new(name: str) -> bool:
    """Return whether a weight of a video model is none that its image model has."""
    return ".attn_temporal." in name or name.startswith(("long_connect_fc.", "clip_projection."))


def assemble(
    family: PixArtFamily, base: Path, personalised: Path | None = None, motion_module: Path | None = None
) -> nn.Module:
    """Put together a model that is published in parts, as V1 is.

    Args:
        family: what the video model shall be.
        base: folder of an image model, or of a video model.
        personalised: a checkpoint of the image model that was trained further; None: without.
        motion_module: its file; None: the base's own, or new ones that change nothing.

    Raises:
        ModelError: parts are missing or do not fit each other.
    """
    try:
        class_name = read_json(Path(base) / "config.json").get("_class_name")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(
            f"{base}: no config.json that can be read ({one_line(error)}); give a model's folder"
        ) from None
    if class_name in IMAGE_CLASSES:
        model = inflate(family, base)
    else:
        found, _ = find_architecture(str(base))
        if found is not family:
            raise ModelError(f"{base}: not of {family.facts.name}; give one of its folders, or an image model's")
        model = family.load(Path(base))
    if personalised is not None:
        load_personalised(model, personalised)
    if motion_module is not None:
        load_motion_module(model, motion_module)
    return model
