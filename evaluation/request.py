"""What to evaluate, checked before anything is measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import UserError
from core.sanitize import printable
from core.settings_file import override, read_yaml
from curation.output.folder import recipe_file
from curation.recipe import Recipe, Tables, load_recipe, resolve
from curation.types import AnyOperator, Captioner, Source
from evaluation.recipe import judging_recipe
from evaluation.samples import find_samples

FOLDER = "evaluation"
"""within the samples, where no other place is named"""
SAMPLES, REFERENCE = "samples", "reference"
"""folders in it: what was measured of the samples, and of training clips"""
WHOLE_TABLE = ("duplicates", "clusters")
"""operators that look at a whole table, and so have nothing to say of samples"""
MAY_CHANGE = ("operators.", "limits.", "workers.", "reader=")


@dataclass(frozen=True)
class Request:
    """What to evaluate.

    Attributes:
        sources: the samples' files.
        out: where the evaluation is written.
        recipe: what measures them.
        captioner: takes their prompts for their captions.
        reference: folder and recipe of the output that the model was trained on; None: nothing to compare with.
        left_out: operators of the recipe that cannot run here, with the reason.
    """

    sources: tuple[Source, ...]
    out: Path
    recipe: Recipe
    captioner: Captioner
    reference: tuple[Path, Recipe] | None
    left_out: dict[str, str]


@dataclass(frozen=True)
class Asked:
    """What a user asks for.

    Attributes:
        inputs: files, folders, globs or lists of samples.
        overrides: `operators.NAME.key=value`; limits and workers as well.
        config: a recipe whose operators are asked for; one that cannot run here is an error.
        reference: an output of `curate`; operators of its recipe that cannot run here are left out.
        out: null: a folder within the first input.
    """

    inputs: Sequence[str]
    overrides: Sequence[str]
    config: Path | None
    reference: Path | None
    out: Path | None


def plan_evaluation(asked: Asked, default: Path, tables: Tables, lacks: Callable[[AnyOperator], str | None]) -> Request:
    """Check a request and choose the operators: those of `config`, else of the reference, else of `default`.

    Args:
        asked: what is asked for.
        default: recipe file where neither is given.
        tables: the operators and captioners there are.
        lacks: says what an operator lacks to run here, None for nothing.

    Raises:
        UserError: no samples, a reference without table, or operators that cannot be.
    """
    inputs, overrides, config, reference = asked.inputs, asked.overrides, asked.config, asked.reference
    for text in overrides:
        if not text.startswith(MAY_CHANGE):
            raise UserError(
                f"'{printable(text, 200)}': evaluate changes operators only, such as operators.motion=false"
            )
    if not inputs:
        raise UserError("evaluate needs samples: a folder that `sample` wrote, or video files")
    first = Path(inputs[0])
    out = asked.out or (first if first.is_dir() else first.parent) / FOLDER
    sources = find_samples(inputs, [out / SAMPLES, out / REFERENCE])
    file = config or (recipe_file(reference) if reference else default)
    given = _recipe_of(file, overrides, tables)
    wanting = {name: word for name, op in given.operators.items() if (word := lacks(op)) is not None}
    if wanting and config is not None:
        raise UserError(next(iter(wanting.values())))
    recipe, captioner = judging_recipe(given, tables, lacks)
    kept = None if reference is None else (reference, load_recipe(recipe_file(reference), [], tables)[0])
    return Request(tuple(sources), out, recipe, captioner, kept, wanting)


def _recipe_of(file: Path, overrides: Sequence[str], tables: Tables) -> Recipe:
    """Read a recipe for its operators' sake; its rules are not asked, so that operators under rules may be left out."""
    values = read_yaml(file, "recipe")
    for text in overrides:
        override(values, text, "operators.motion=false")
    operators = values.get("operators")
    if isinstance(operators, dict):
        values["operators"] = {name: settings for name, settings in operators.items() if name not in WHOLE_TABLE}
    return resolve(values | {"rules": {}}, tables)[0]
