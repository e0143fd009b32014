"""A pipeline folder in diffusers layout: `model_index.json` and one folder per component."""

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import diffusers

from core.files import atomic_folder, atomic_path
from models.errors import ModelError
from models.weights.json_file import read_json

PIPELINE_CLASS = "EasyAnimatePipeline"
INPAINT_CLASS = "EasyAnimateInpaintPipeline"
CONTROL_CLASS = "EasyAnimateControlPipeline"
# Each component with the file that its library begins reading at.
COMPONENTS: Mapping[str, str] = {
    "transformer": "config.json",
    "vae": "config.json",
    "text_encoder": "config.json",
    "tokenizer": "tokenizer_config.json",
    "scheduler": "scheduler_config.json",
}
# Smaller files are copied: configurations are edited in place, and an edit would reach every link.
LINKED_FROM_BYTES = 1 << 20


@dataclass(frozen=True)
class Bundle:
    """Where the parts of a pipeline lie.

    Attributes:
        folder: the folder that holds `model_index.json`.
        transformer: the denoiser's folder.
        vae: the autoencoder's folder.
        text_encoder: the text encoder's folder.
        tokenizer: the tokenizer's folder.
        scheduler: the sampler's folder.
        classes: library and class of each component, as `model_index.json` names them.
    """

    folder: Path
    transformer: Path
    vae: Path
    text_encoder: Path
    tokenizer: Path
    scheduler: Path
    classes: Mapping[str, tuple[str, str]]


def read_bundle(folder: Path) -> Bundle:
    """Find the parts of a pipeline folder.

    Args:
        folder: a pipeline folder, or a training run that holds one as `model/`.

    Raises:
        ModelError: no `model_index.json`, or a component that is not named there or not on disk.
    """
    places = (Path(folder), Path(folder) / "model")
    index = next((place / "model_index.json" for place in places if (place / "model_index.json").is_file()), None)
    if index is None:
        raise ModelError(f"{folder}: no model_index.json here or in model/; give a pipeline folder in diffusers layout")
    try:
        entries = read_json(index)
    except (OSError, ValueError) as error:
        raise ModelError(f"{index}: not readable as JSON ({error}); write the pipeline folder again") from None
    if not isinstance(entries, dict):
        raise ModelError(f"{index}: expected keys and values; write the pipeline folder again")
    classes = {name: _class_of(entries.get(name), name, index) for name in COMPONENTS}
    for name, first_file in COMPONENTS.items():
        if not (index.parent / name / first_file).is_file():
            raise ModelError(f"{index.parent / name}: component '{name}' has no {first_file}; copy it into the folder")
    return Bundle(folder=index.parent, classes=classes, **{name: index.parent / name for name in COMPONENTS})


def write_model_index(
    folder: Path, components: Mapping[str, tuple[str, str]], pipeline_class: str = PIPELINE_CLASS
) -> None:
    """Write the `model_index.json` that `from_pretrained` of diffusers' pipelines reads.

    Args:
        folder: the pipeline folder; must exist.
        components: library and class of each component, such as
            `{"transformer": ("diffusers", "EasyAnimateTransformer3DModel"), …}`.
        pipeline_class: the pipeline's class in diffusers.
    """
    content = {"_class_name": pipeline_class, "_diffusers_version": diffusers.__version__}
    entries = {**content, **{name: list(pair) for name, pair in components.items()}}
    # As diffusers' own `ConfigMixin.to_json_string`, so that both write the same bytes.
    with atomic_path(Path(folder) / "model_index.json") as temporary:
        temporary.write_text(json.dumps(entries, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def place_component(source: Path, target: Path) -> None:
    """Bring a component's folder into another pipeline folder, without copying its weights where that is possible.

    Large files become hard links, so they share their content with the source: whoever changes weights must
    write a new file and rename it, as `write_tensors` does. Where the file system has no links, they are copied.

    Args:
        source: the component's folder; its files may be symbolic links, as in a hub cache.
        target: the folder to be; its parent must exist. An older one is replaced.

    Raises:
        ModelError: the source is no folder, or holds nothing.
    """
    source, target = Path(source), Path(target)
    if not source.is_dir() or not any(source.iterdir()):
        raise ModelError(f"{source}: no component folder; give a folder with its configuration and weights")
    if target.exists() and source.resolve() == target.resolve():
        return
    with atomic_folder(target) as temporary:
        for path in sorted(source.rglob("*")):
            relative = path.relative_to(source)
            if path.is_file() and not any(part.startswith(".") for part in relative.parts):
                (temporary / relative).parent.mkdir(parents=True, exist_ok=True)
                _link_or_copy(path.resolve(), temporary / relative)


def _class_of(entry: object, name: str, index: Path) -> tuple[str, str]:
    """Check one entry of `model_index.json`."""
    if isinstance(entry, list) and len(entry) == 2 and all(isinstance(part, str) for part in entry):
        return entry[0], entry[1]
    raise ModelError(f"{index}: component '{name}' is missing; a pipeline needs {', '.join(COMPONENTS)}")


def _link_or_copy(source: Path, target: Path) -> None:
    if source.stat().st_size >= LINKED_FROM_BYTES:
        with contextlib.suppress(OSError):  # another disk, or a file system without links
            os.link(source, target)
            return
    shutil.copy2(source, target)
