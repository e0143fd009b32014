"""What a run of `curate` needs of each node of a cluster: packages, weights, sources, room."""

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from captioners.presets import repository_of
from captioners.transformers import Transformers
from captioners.vllm import Vllm
from cli.checkup import DISTRIBUTIONS, EXTRAS, Lack, lack_of_weights, missing_packages
from controls.networks import MapNetwork, published_weights
from curation.engine.node_checks import Fault, ModelNeed
from curation.engine.node_look import BASE_PACKAGES, RunNeeds, samples_of
from curation.gpus import SCORE_GPUS, booked_gpus
from curation.recipe import Recipe
from curation.steps import steps_of
from curation.types import Captioner, Source
from curation.work import Plan
from models.errors import ModelError
from models.scorers.clip import TOWERS
from models.weights.find import FOLDER_VARIABLE, on_disk
from models.weights.repositories import is_here
from models.weights.wheels import is_installed
from operators.needs import NeedsWeights, wheels_of


def node_needs(recipe: Recipe, captioner: Captioner, sources: Sequence[Source], bucket: str | None = None) -> RunNeeds:
    """Return what every node must have and reach.

    Args:
        recipe: of the run.
        captioner: of the run.
        sources: all of them.
        bucket: URL that the output goes to, if it does.
    """
    largest = max((source.size_bytes for source in sources if source.is_remote), default=0)
    extras = [*_extras(recipe, captioner), *(["buckets"] if largest or bucket else [])]
    packages = dict.fromkeys(DISTRIBUTIONS.get(name, name) for extra in extras for name in EXTRAS[extra])
    plan = Plan(recipe, "")
    passes = [plan] if recipe.duplicates is None else [replace(plan, judges_apart=True), plan]
    specs = [step.spec for each in passes for step in steps_of(each, captioner)]
    return RunNeeds(
        tuple(dict.fromkeys([*BASE_PACKAGES, *packages])),
        samples_of(sources),
        largest,
        bucket,
        tuple(ModelNeed(spec.name, spec.gpu_memory_gb) for spec in specs if spec.gpu_memory_gb),
        partial(faults_here, recipe, captioner),
    )


def _extras(recipe: Recipe, captioner: Captioner) -> list[str]:
    """Return the extras whose packages compute within a run's workers."""
    holders = _holders(recipe)
    found = ["decord"] if recipe.reader == "decord" else []
    found += ["scores"] if any(isinstance(holder, NeedsWeights) and _needs(holder)[0] for holder in holders) else []
    found += ["maps"] if any(isinstance(control, MapNetwork) for control in recipe.controls.values()) else []
    if isinstance(captioner, Vllm | Transformers):
        found.append("vllm" if isinstance(captioner, Vllm) else "train")
    return found


def faults_here(recipe: Recipe, captioner: Captioner, *, runs_gpu_steps: bool) -> list[Fault]:
    """Return what the models of a run lack on this machine; nothing that they fetch by themselves is lacking.

    Args:
        recipe: of the run.
        captioner: of the run.
        runs_gpu_steps: whether steps that compute on GPUs may run here.
    """
    lacks: list[Lack] = []
    for holder in _holders(recipe):
        if not booked_gpus(holder, SCORE_GPUS) or runs_gpu_steps:
            lacks += _lacks_of(holder)
    if isinstance(captioner, Vllm | Transformers) and (runs_gpu_steps or not booked_gpus(captioner, 1.0)):
        lacks += missing_packages("vllm" if isinstance(captioner, Vllm) else "train")
        repository = repository_of(captioner.model)
        lacks += _missing(repository, partial(is_here, repository))
    return [Fault(f"lacks {lack.what}", f"there: {lack.fix}") for lack in dict.fromkeys(lacks)]


def _holders(recipe: Recipe) -> list[Any]:
    """Return what workers load: operators and controls, not those that the driver's table alone is judged by."""
    pooled = (operator for pool in recipe.pools.values() for operator in pool.values())
    late = [] if recipe.alignment is None else [recipe.alignment]
    return [*recipe.pixel_operators.values(), *pooled, *late, *recipe.controls.values()]


def _lacks_of(holder: Any) -> list[Lack]:
    """Return what one operator or control lacks here."""
    names, lacks = _needs(holder)
    if isinstance(holder, MapNetwork):
        lacking = [name for name in holder.packages if importlib.util.find_spec(name) is None]
        lacks += [Lack(name, "pip install 'selects-video[maps]'") for name in lacking]
        own = [name for name in holder.weights_named if name not in names and not Path(name).exists()]
        lacks += [Lack(f"the file {name}", "put it there under the same path") for name in own]
    elif names:
        lacks += missing_packages("scores")
    for name in names:
        lacks += _missing(name, partial(_is_on_disk, name))
    absent = [wheel for wheel in wheels_of(holder) if not is_installed(wheel)]
    return lacks + [Lack(f"package {wheel.module}", wheel.install) for wheel in absent]


def _needs(holder: Any) -> tuple[Sequence[str], list[Lack]]:
    """Return names of published weights, and what of the holder's own is not here."""
    if drawn := published_weights(holder):
        return drawn, []
    lacks = []
    model = getattr(getattr(holder, "clip", None), "model", None)
    if model is not None and model not in TOWERS and not Path(model).is_dir():
        lacks.append(Lack(f"the folder {model}", "put it there under the same path"))
    try:
        return holder.needs if isinstance(holder, NeedsWeights) else (), lacks
    except ModelError as error:  # such as a head's file that is nowhere
        return (), [*lacks, Lack(str(error), "put it there under the same path")]


def _is_on_disk(name: str) -> bool:
    return on_disk(name) is not None


def _missing(name: str, is_there: Callable[[], bool]) -> list[Lack]:
    """Return the lack of weights that are not here and that the model cannot fetch when it is loaded."""
    try:
        return [] if is_there() or _may_fetch() else [lack_of_weights(name)]
    except ModelError:  # the weights folder is not there
        what = f"the weights folder {os.environ.get(FOLDER_VARIABLE)}"
        return [Lack(what, f"mount it there, or start Ray there with another {FOLDER_VARIABLE}")]
    except ModuleNotFoundError:  # the hub's client, which is named among the packages
        return []


def _may_fetch() -> bool:
    from huggingface_hub import is_offline_mode

    return not is_offline_mode()
