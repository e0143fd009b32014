"""The `evaluate` command: samples judged as footage is."""

import argparse
import sys
from functools import partial
from pathlib import Path

from cli.common import TABLES, check_weights, print_json, print_problems, runner_of, shown, use_weights
from cli.parser import add_json, add_runner, add_weights, split_overrides
from configs import CONFIGS, config_file
from curation.pipeline import need_table
from curation.types import AnyOperator
from evaluation.request import Asked, plan_evaluation
from evaluation.run import evaluate
from evaluation.tell import render_evaluation, write_evaluation
from models.errors import ModelError

HELP = "judge samples by the operators, and beside the training clips"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("words", nargs="+", metavar="SAMPLES", help="folder, file, glob or list; and operators.…=…")
    parser.add_argument("--reference", metavar="OUT", help="the output of curate that the model was trained on")
    parser.add_argument("--output", metavar="DIR", help="default: a folder `evaluation` within SAMPLES")
    parser.add_argument("--config", metavar="FILE", help="recipe whose operators judge; default: the reference's own")
    add_weights(parser)
    add_runner(parser)
    add_json(parser)


def run(parsed: argparse.Namespace) -> int:
    """Judge samples by the operators, beside the clips that their model was trained on."""
    from controls import CONTROLS
    from controls.frames import map_makers
    from sampling.obedience import measure  # takes seconds to import, as torch does

    files, overrides = split_overrides(parsed.words)
    reference = Path(parsed.reference) if parsed.reference else None
    if reference is not None:
        need_table(reference)
    use_weights(parsed.weights)
    request = plan_evaluation(
        Asked(
            files,
            overrides,
            config_file(parsed.config) if parsed.config else None,
            reference,
            Path(parsed.output) if parsed.output else None,
        ),
        CONFIGS / "default.yaml",
        TABLES,
        _lacks,
    )
    obeys = partial(measure, maps=map_makers(CONTROLS))
    found = evaluate(request, runner_of(parsed), _say_aside if parsed.json else print, obeys)
    if parsed.json:
        values = {"evaluation": str(write_evaluation(request, found)), "page": str(found.page)}
        print_json(values | {"nearest": found.sheet and str(found.sheet), "problems": list(found.problems)})
        return 1 if found.problems else 0
    print(f"\n{render_evaluation(found)}\n")
    print(f"numbers   {shown(write_evaluation(request, found))}")
    if found.sheet is not None:
        print(f"nearest   {shown(found.sheet)}")
    print(f"page      {shown(found.page)}")
    return print_problems(found.problems)


def _say_aside(line: str) -> None:
    """Print what is under way where it does not mix with the result."""
    print(line, file=sys.stderr)


def _lacks(operator: AnyOperator) -> str | None:
    """Return which weights of an operator are missing here, None where all are there."""
    try:
        check_weights(operator)
    except ModelError as error:
        return str(error)
    return None
