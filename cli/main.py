"""The commands there are, and what becomes of their errors."""

import os
import sys
import traceback
from collections.abc import Sequence
from types import TracebackType

from cli import (
    buckets,
    curate,
    demo,
    doctor,
    evaluate,
    export,
    find,
    inflate,
    recipe,
    report,
    review,
    sample,
    select,
    serve,
    studio,
    submit,
    training,
    weights,
)
from cli.fields import in_options
from cli.parser import LONGEST_ERROR, Command, parse
from core.errors import RunError, UserError
from core.sanitize import printable, printable_lines, without_secrets
from models.errors import ModelError

ABOUT = "From raw footage to training data for video models, and to a model trained on it."
EXTRAS = {
    **dict.fromkeys(
        ("torch", "diffusers", "transformers", "peft", "safetensors", "tensorboard", "huggingface_hub"), "train"
    ),
    **dict.fromkeys(("fastapi", "uvicorn", "multipart"), "serve,train"),
    "obstore": "buckets",
    "gradio": "studio,train",
}
"""which extra of the package brings a module that commands need"""

COMMANDS = {
    "demo": Command(demo.HELP, demo.add_arguments, demo.run),
    "curate": Command(curate.HELP, curate.add_arguments, curate.run),
    "select": Command(select.HELP, select.add_arguments, select.run),
    "export": Command(export.HELP, export.add_arguments, export.run),
    "report": Command(report.HELP, report.add_arguments, report.run),
    "review": Command(review.HELP, review.add_arguments, review.run),
    "find": Command(find.HELP, find.add_arguments, find.run),
    "recipe": Command(recipe.HELP, recipe.add_arguments, recipe.run),
    "doctor": Command(doctor.HELP, doctor.add_arguments, doctor.run),
    "weights": Command(weights.HELP, weights.add_arguments, weights.run),
    "plan": Command(training.PLAN_HELP, training.add_plan_arguments, training.run_plan),
    "train": Command(training.TRAIN_HELP, training.add_train_arguments, training.run_train),
    "inflate": Command(inflate.HELP, inflate.add_arguments, inflate.run),
    "sample": Command(sample.HELP, sample.add_arguments, sample.run),
    "serve": Command(serve.HELP, serve.add_arguments, serve.run),
    "push": Command(buckets.PUSH_HELP, buckets.add_push_arguments, buckets.run_push),
    "clean": Command(buckets.CLEAN_HELP, buckets.add_clean_arguments, buckets.run_clean),
    "submit": Command(submit.HELP, submit.add_arguments, submit.run),
    "studio": Command(studio.HELP, studio.add_arguments, studio.run),
    "evaluate": Command(evaluate.HELP, evaluate.add_arguments, evaluate.run),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code: 0 done, 2 a mistake in the request, 1 the run broke or was stopped."""
    parsed = parse(COMMANDS, arguments, ABOUT)
    try:
        return COMMANDS[parsed.command].run(parsed)
    except (UserError, ModelError, RunError) as error:
        print(f"error: {printable(without_secrets(in_options(error, parsed.command)), LONGEST_ERROR)}", file=sys.stderr)
        return 1 if isinstance(error, RunError) else 2
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(error.name or "")
        if extra is None:
            raise
        print(f"error: {parsed.command} needs {error.name}: pip install 'selects-video[{extra}]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; run the same command to resume", file=sys.stderr)
        return 1


def run_and_exit() -> None:
    """Run as an installed command."""
    sys.excepthook = print_bug
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def print_bug(kind: type[BaseException], bug: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback of a bug of ours, without secrets and without what a terminal would obey."""
    lines = "".join(traceback.format_exception(kind, bug, trace)).rstrip("\n")
    print(printable_lines(without_secrets(lines)), file=sys.stderr)
