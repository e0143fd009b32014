"""Which model samples, how, and with which adapters; it is opened once, and one is held at a time.

The sampler is imported when it is needed: that takes seconds, and ComfyUI loads every node at its start.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from core.digest import digest
from core.errors import UserError
from integrations.comfyui import host
from integrations.comfyui.ports import MODEL, Node, Out, Port

if TYPE_CHECKING:
    from sampling.model import OpenModel
    from sampling.request import Lora, Options

MEMORY = ("auto", "none", "model_cpu_offload", "model_cpu_offload_and_qfloat8", "sequential_cpu_offload")
"""`models.memory.modes.MODES` and auto, known before torch is loaded"""
WEIGHTS = ("*.safetensors", "*.bin", "*.json")


@dataclass(frozen=True)
class Choice:
    """What SELECTS_MODEL is: a model that can be opened.

    Attributes:
        folder: a training run or a pipeline folder.
        options: how it is opened.
        state: changes when its files change.
    """

    folder: Path
    options: "Options"
    state: str


def find_model(name: str) -> Path:
    """Return the folder of a model: a path, or a name in ComfyUI's folders of models.

    Raises:
        UserError: there is none; names those that are there.
    """
    name = name.strip()
    places = [Path(name).expanduser(), *(folder / name for folder in host.model_folders())]
    for place in places if name else ():
        if place.is_dir():
            return place
    there = sorted(path.name for folder in host.model_folders() if folder.is_dir() for path in folder.iterdir())
    known = f"; there are: {', '.join(there)}" if there else ""
    raise UserError(
        "no such folder", field="model", value=f"'{name}'", fix=f"give a training run or a pipeline folder{known}"
    )


def load(
    model: str, memory: str, cache_threshold: float, loras: str = "", *, vae_tiling: bool, fuse_loras: bool
) -> tuple[Choice]:
    """Check a model with its adapters, without weights; they are loaded with the first sample."""
    from sampling.request import Options

    folder = find_model(model)
    options = Options(
        loras=_named(loras),
        fuse_loras=fuse_loras,
        memory=memory,
        vae_tiling=vae_tiling,
        cache_threshold=cache_threshold if cache_threshold > 0 else None,
    )
    return (_checked(folder, options),)


def load_lora(model: Choice, lora: str, strength: float) -> tuple[Choice]:
    """Add an adapter to a model.

    Raises:
        UserError: it is not there, or does not fit.
    """
    if not lora.strip():
        raise UserError("empty", field="lora", fix="give a .safetensors file, or a run's folder")
    added = replace(_named(lora)[0], scale=strength)
    return (_checked(model.folder, replace(model.options, loras=(*model.options.loras, added))),)


def model_changed(
    model: str, memory: str, cache_threshold: float, loras: str = "", *, vae_tiling: bool, fuse_loras: bool
) -> str:
    """Return what changes when a model's files, or an adapter's, have changed."""
    return _state(find_model(model), [one.path for one in _named(loras)])


def lora_changed(model: Choice, lora: str, strength: float) -> str:
    """Return what changes when an adapter's file has changed."""
    return _state(None, [one.path for one in _named(lora)])


def opened(choice: Choice) -> "OpenModel":
    """Return a model ready to sample; another one is let go first, so that both never lie in memory."""
    from controls import CONTROLS
    from controls.frames import map_makers
    from sampling.model import open_model

    if not _HELD or _HELD[0][0] != choice:
        _HELD.clear()
        host.make_room()
        options = replace(choice.options, maps=map_makers(CONTROLS))
        _HELD.append((choice, open_model(choice.folder, options)))
    return _HELD[0][1]


_HELD: "list[tuple[Choice, OpenModel]]" = []
"""the model that sampled last"""


def _named(loras: str) -> "tuple[Lora, ...]":
    """Return the adapters of some lines.

    Raises:
        UserError: a file that is not there.
    """
    from sampling.request import Lora

    return tuple(Lora.parse(line.strip()) for line in loras.splitlines() if line.strip())


def _checked(folder: Path, options: "Options") -> Choice:
    from sampling.model import open_model

    open_model(folder, options)  # says what cannot be; loads nothing
    return Choice(folder, options, _state(folder, [lora.path for lora in options.loras]))


def _state(folder: Path | None, files: list[Path]) -> str:
    inside = [] if folder is None else [path for pattern in WEIGHTS for path in sorted(folder.rglob(pattern))]
    stats = [(str(path), path.stat()) for path in (*inside, *files)]
    return digest("comfyui", [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats])


LOADERS = (
    Node(
        "SelectsLoadModel",
        "Load video model (Selects)",
        "A training run or a pipeline folder in diffusers layout. Checked at once; weights come with the first sample.",
        (
            Port("model", "STRING", "a folder, or a name in ComfyUI's models/Selects or models/EasyAnimate", ""),
            Port("memory", "COMBO", "auto: the fastest that fits, with the same result", "auto", choices=MEMORY),
            Port("vae_tiling", "BOOLEAN", "less memory for large pictures; faint seams", False),
            Port("cache_threshold", "FLOAT", "first-block caching; 0: none, 0.05 is careful", 0.0, 0.0, 1.0, 0.01),
            Port("fuse_loras", "BOOLEAN", "put the LoRAs into the weights", False),
            Port(
                "loras", "STRING", "a file or a run's folder a line, `:SCALE` after it", "", lines=True, optional=True
            ),
        ),
        (Out("model", MODEL, "for the samplers"),),
        load,
        changed=model_changed,
    ),
    Node(
        "SelectsLoadLora",
        "Add LoRA (Selects)",
        "An adapter for a model; several may follow one another, and all are active together.",
        (
            Port("model", MODEL, "from the loader"),
            Port("lora", "STRING", "a .safetensors file, or a run's folder", ""),
            Port("strength", "FLOAT", "how strongly it acts", 1.0, -100.0, 100.0, 0.05),
        ),
        (Out("model", MODEL, "for the samplers"),),
        load_lora,
        changed=lora_changed,
    ),
)
