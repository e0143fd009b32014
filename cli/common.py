"""What several commands share: the tables of operators and captioners, runners, recipes, and what is printed."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from captioners import CAPTIONERS
from configs import CONFIGS, config_file
from controls import CONTROLS
from core import plugins
from core.errors import UserError
from core.plugins import PluginTable
from core.sanitize import printable, printable_lines, without_secrets
from core.storage.place import called
from curation.engine.node_look import RunNeeds
from curation.engine.runners import InlineRunner, Runner
from curation.export import INTERNAL_NAME
from curation.output.deliveries import Handoff
from curation.output.folder import check_same_recipe, recipe_file
from curation.pipeline import Outcome
from curation.plugins import captioner_fault, operator_fault, remembered
from curation.recipe import Recipe, Tables, load_recipe
from curation.report.summary import funnel
from curation.report.write import PAGE_NAME
from curation.shots import DETECTORS
from curation.types import AnyOperator, Captioner
from evaluation.prompts import NAME as PROMPT
from evaluation.prompts import Prompts
from models.weights.find import FOLDER_VARIABLE, find_weights
from models.weights.wheels import read_wheel
from operators import OPERATORS
from operators.needs import NeedsWeights, wheels_of

OPERATOR_TABLE: PluginTable[type[AnyOperator]] = PluginTable(OPERATORS, plugins.OPERATORS, operator_fault)
CAPTIONER_TABLE: PluginTable[type[Captioner]] = PluginTable(
    {**CAPTIONERS, PROMPT: Prompts}, plugins.CAPTIONERS, captioner_fault
)
TABLES = Tables(OPERATOR_TABLE, CAPTIONER_TABLE, DETECTORS, CONTROLS)
"""ours, and those of installed plug-ins"""


def use_weights(folder: str | None) -> None:
    """Let this process and its workers look for weights in a folder first."""
    if folder is not None:
        os.environ[FOLDER_VARIABLE] = str(Path(folder).resolve())


def check_weights(operator: AnyOperator) -> None:
    """Look for the weights that an operator needs, in the table of published ones and in installed packages.

    Raises:
        ModelError: some are missing and cannot be fetched.
    """
    for name in operator.needs if isinstance(operator, NeedsWeights) else ():
        find_weights(name)
    for wheel in wheels_of(operator):
        read_wheel(wheel)


def recipe_for(out: Path, config: str | None, overrides: list[str]) -> tuple[Recipe, Captioner]:
    """Return the recipe of a run: the output's own, which an explicit one must agree with."""
    own = recipe_file(out)
    if not own.is_file():
        return load_recipe(config_file(config) if config else CONFIGS / "default.yaml", overrides, TABLES)
    need_plugins(out)
    kept, captioner = load_recipe(own, [], TABLES)
    asked, _ = load_recipe(config_file(config) if config else own, overrides, TABLES)
    check_same_recipe(out, asked, kept)
    return asked, captioner


def need_plugins(out: Path) -> None:
    """See that the plug-ins are here whose operators an output follows.

    Raises:
        UserError: one is not, with the package that it came from.
    """
    for name, facts in remembered(out).items():
        if name not in OPERATOR_TABLE and facts.get("package"):
            package = printable(str(facts["package"]), 100)
            raise UserError(f"{out}: its operator '{name}' is of {package}, which is not installed here; install it")


def runner_of(
    parsed: argparse.Namespace, handoff: Handoff | None = None, needs: Callable[[], RunNeeds] | None = None
) -> Runner:
    """Return the runner that was asked for.

    Args:
        parsed: the command line.
        handoff: of an output in a bucket, for nodes that do not see the folder in which it is made.
        needs: tells what each node of a cluster must have and reach; null: what every run needs.

    Raises:
        UserError: options that do not go together.
    """
    if parsed.runner == "inline":
        if parsed.ray_address:
            raise UserError("--ray-address has no meaning with --runner inline")
        return InlineRunner()
    from curation.engine.ray_runner import RayRunner  # takes seconds to import

    return RayRunner(parsed.ray_address, handoff, needs() if needs and parsed.ray_address else RunNeeds())


def print_outcome(out: Path | str, recipe: Recipe, outcome: Outcome, *, as_json: bool = False) -> int:
    """Print what a run of `curate` has left in a folder or at a URL; return the exit code."""
    if as_json:
        values = asdict(outcome.summary) | {"problems": list(outcome.tally.problems)}
        done = {"sources_done": outcome.sources_done, "clips_finished": outcome.clips_finished}
        print_json({"output": str(out), "summary": values, "is_complete": outcome.is_complete} | done)
        return 0 if outcome.is_complete and not outcome.tally.problems else 1
    print(funnel(outcome.summary))
    if not outcome.sources_done and not outcome.clips_finished:
        print("up to date")
    there = printable(str(out).rstrip("/"))
    print(f"\ntable     {there}/clips")
    if recipe.cut.mode != "none":
        print(f"clips     {there}/train\nmetadata  {there}/{INTERNAL_NAME}")
    print(f"report    {there}/{PAGE_NAME}\nrun       {there}/run.json   ({outcome.wall_s:.1f} s)")
    if outcome.tally.problems:
        return print_problems(outcome.tally.problems)
    if not outcome.is_complete:
        print("stopped before the end; run the same command to resume", file=sys.stderr)
        return 1
    return 0


def print_problems(problems: Sequence[str]) -> int:
    """Print the first of the internal errors of a run; return the exit code."""
    if not problems:
        return 0
    first = printable_lines(without_secrets(problems[0]))
    print(f"error: {len(problems)} internal errors; the first:\n{first}", file=sys.stderr)
    return 1


def print_json(values: Mapping[str, Any]) -> None:
    """Print a result as one JSON object; letters beyond ASCII are escaped, so that no terminal obeys them."""
    print(json.dumps(values, indent=1, allow_nan=False, default=str))


def shown(path: Path) -> str:
    """Return what a path is called, as a terminal may show it: a URL where it is of a copy."""
    return printable(called(path))
