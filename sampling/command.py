"""The `sample` command: prompts, images and videos in, files out, each with the settings that made it."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from core.errors import UserError
from core.files import make_folder, remove_leftovers
from core.sanitize import printable
from sampling.files import targets_for, write_sample
from sampling.model import Progress, open_model
from sampling.request import DEFAULTS, Options, Request

LONGEST_NOTE = 400
"""characters; prompts may have any length"""


def sample(
    model: Path,
    requests: Sequence[Request],
    output: Path,
    options: Options = DEFAULTS,
    threads: int = 1,
    on_made: Callable[[Path], None] = lambda path: None,
) -> list[Path]:
    """Sample every request; all are checked before the first is made.

    The same request again replaces its own files; those of others are never replaced.

    Args:
        model: a training run, or a pipeline folder in diffusers layout.
        requests: what to make.
        output: a folder, or with one request a `.mp4` (or for one frame a `.png`), which no other request has made.
        options: how the model is opened.
        threads: of the CPU; on a busy machine more than one are slower.
        on_made: called with each file once it and what lies beside it are whole.

    Returns:
        The files; beside each lies `.json` (settings), beside videos `.png` (contact sheet).

    Raises:
        UserError: something in the requests that cannot be.
        ModelError: weights that do not fit the requests or each other.
    """
    if not requests:
        raise UserError(
            "none is given", field="prompt", fix="give at least one, or a file with one a line as `prompts_file`"
        )
    torch.set_num_threads(max(1, threads))
    opened = open_model(model, options)
    jobs = [opened.check(request) for request in requests]
    targets = targets_for(jobs, [opened.request_id(job) for job in jobs], output)
    plan = dict(zip(targets, jobs, strict=True))  # the same request twice is one file
    try:
        make_folder(targets[0].parent)
    except (FileExistsError, NotADirectoryError):
        raise UserError(
            "a file is in the way", field="output", value=output, fix="name a folder, or a file in one"
        ) from None
    remove_leftovers(targets[0].parent)
    opened.prepare(jobs)
    for place, (target, job) in enumerate(plan.items()):
        made = opened.sample(job, _progress(place, len(plan)))
        for note in opened.take_notes():
            print(f"note: {printable(note, LONGEST_NOTE)}", file=sys.stderr)
        write_sample(made, target)
        on_made(target)
    return list(plan)


def _progress(place: int, count: int) -> Progress:
    def show(done: int, total: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done == total else ""
            print(f"\r\x1b[Ksample {place + 1}/{count}  step {done}/{total}", end=end, file=sys.stderr, flush=True)

    return show
