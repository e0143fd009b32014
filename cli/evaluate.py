"""The `evaluate` command: samples judged as footage is."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cli.buckets import output_at, output_in_bucket
from cli.common import TABLES, check_weights, print_json, print_problems, runner_of, shown, use_weights
from cli.parser import add_json, add_runner, add_weights, split_overrides
from cli.places import Inputs, inputs, looks_like_file
from configs import CONFIGS, config_file
from core.errors import UserError
from core.storage.opening import open_store
from core.storage.place import called
from core.storage.urls import is_url
from curation.folders import CONTROLS as MAPS
from curation.folders import RETIRED, SHARDS
from curation.inputs.outputs import RECIPE
from curation.output.bucket import files_of
from curation.output.remote import Layout
from curation.pipeline import need_table
from curation.types import AnyOperator
from evaluation.request import FOLDER, SAMPLES, Asked, plan_evaluation
from evaluation.run import evaluate
from evaluation.tell import render_evaluation, write_evaluation
from models.errors import ModelError

UNREAD = (MAPS, RETIRED, SHARDS)
HELP = "judge samples by the operators, and beside the training clips"


def _files(out: Path, aside: Path | None = None) -> dict[str, Path]:
    return dict(files_of(out))


EVALUATED = Layout(f"{SAMPLES}/{RECIPE}", _files, _files)
"""an evaluation; one that is not finished is committed where it breaks, and gone on with"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "words",
        nargs="+",
        metavar="SAMPLES",
        help="folder, file, glob or list, or the URL of a folder or file; and operators.…=…",
    )
    parser.add_argument(
        "--reference", metavar="OUT", help="the output of curate that the model was trained on, or its URL"
    )
    parser.add_argument("--output", metavar="DIR", help="or a URL; default: a folder `evaluation` within SAMPLES")
    parser.add_argument("--config", metavar="FILE", help="recipe whose operators judge; default: the reference's own")
    add_weights(parser)
    add_runner(parser)
    add_json(parser)


def run(parsed: argparse.Namespace) -> int:
    """Judge samples by the operators, beside the clips that their model was trained on."""
    words, overrides = split_overrides(parsed.words)
    output = parsed.output or _output_beside(words)
    with inputs() as here, ExitStack() as stack:
        reference = None if not parsed.reference else stack.enter_context(output_at(parsed.reference, UNREAD))
        if reference is not None:
            need_table(reference)
        own = output.removeprefix(words[0].rstrip("/")).strip("/") if output and words else ""
        files = [_samples_at(here, word, own) for word in words]
        config = config_file(parsed.config) if parsed.config else None
        if output is None or not is_url(output):
            told = _evaluate(parsed, Asked(files, overrides, config, reference, Path(output) if output else None))
        else:
            with output_in_bucket(output, EVALUATED) as remote:
                told = _evaluate(parsed, Asked(files, overrides, config, reference, remote.folder))
                remote.finish(is_complete=True)
    if parsed.json:
        print_json(told.values)
        return 1 if told.problems else 0
    print(told.text)
    return print_problems(told.problems)


def _output_beside(words: Sequence[str]) -> str | None:
    """Return the URL of the evaluation where none is named and the samples lie in a bucket; None: it is as usual."""
    if not words or not is_url(words[0]):
        return None
    first = words[0].rstrip("/")
    return f"{first.rpartition('/')[0] if looks_like_file(first) else first}/{FOLDER}"


def _samples_at(here: Inputs, word: str, own: str) -> str:
    """Return an input with its files on this machine; what lies beside a sample tells of it, and is copied, too.

    Args:
        here: has copies.
        word: file, folder, glob or list, or the URL of a file or folder.
        own: the evaluation's own folder in it, which is no sample; empty: it lies elsewhere.

    Raises:
        UserError: a URL that cannot be read so.
    """
    if not is_url(word):
        return word
    if any(letter in word for letter in "*?["):
        raise UserError(f"{word}: samples in buckets are named by folder or file; leave the wildcards out")
    if looks_like_file(word):
        folder, _, name = word.rpartition("/")
        stem = name.rpartition(".")[0]
        return str(here.at(folder, lambda path: path.rpartition(".")[0] == stem) / name)
    if any(entry.key == RECIPE for entry in open_store(word).list(RECIPE)):
        raise UserError(
            f"{word}: an output of curate, no folder of samples; set two side by side: run_pipeline.py report A B"
        )
    return str(here.at(word, lambda path: not (own and path.startswith(f"{own}/"))))


@dataclass(frozen=True)
class _Told:
    """What is said of an evaluation, on the terminal and as JSON, and its internal errors."""

    text: str
    values: dict[str, Any]
    problems: Sequence[str]


def _evaluate(parsed: argparse.Namespace, asked: Asked) -> _Told:
    from controls import CONTROLS
    from controls.frames import map_makers
    from sampling.obedience import measure  # takes seconds to import, as torch does

    use_weights(parsed.weights)
    request = plan_evaluation(asked, CONFIGS / "default.yaml", TABLES, _lacks)
    obeys = partial(measure, maps=map_makers(CONTROLS))
    found = evaluate(request, runner_of(parsed), _say_aside if parsed.json else print, obeys)
    numbers = write_evaluation(request, found)
    lines = [f"\n{render_evaluation(found)}\n", f"numbers   {shown(numbers)}"]
    lines += [] if found.sheet is None else [f"nearest   {shown(found.sheet)}"]
    sheet = None if found.sheet is None else called(found.sheet)
    values = {"evaluation": called(numbers), "page": called(found.page), "nearest": sheet}
    return _Told(
        "\n".join([*lines, f"page      {shown(found.page)}"]),
        values | {"problems": list(found.problems)},
        found.problems,
    )


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
