"""A training run that lies in a bucket: what of its folder is committed, and when.

Each whole checkpoint is uploaded after it was saved, with the log up to then; the exported model at the end. The cache
of encoded clips stays on the machine: another one makes it again.
"""

import contextlib
import os
import shutil
from pathlib import Path

from curation.output.remote import Layout
from train_bridge.loop.checkpoint import STATE, checkpoints
from train_bridge.loop.job import CONFIG_FILE

NOT_KEPT = ("cache",)
AT_THE_END = ("model", "lora")
"""what the export writes, which is committed once it is whole"""
SAVED = "checkpoints"


def files_at_rest(run: Path) -> dict[str, Path]:
    """Return the files of a run that nobody writes, by their paths in it."""
    return {path: file for path, file in _files(run) if path.partition("/")[0] not in NOT_KEPT}


def files_at_work(run: Path, aside: Path) -> dict[str, Path]:
    """Return the files of a run that goes on: whole checkpoints, linked so that they outlast being deleted, and copies.

    Args:
        run: the run's folder.
        aside: a folder on the same disk for links and copies; what it held is deleted.
    """
    shutil.rmtree(aside, ignore_errors=True)
    found: dict[str, Path] = {}
    for checkpoint in checkpoints(run):
        kept = aside / SAVED / checkpoint.name
        with contextlib.suppress(OSError):  # it is deleted at this moment
            shutil.copytree(checkpoint, kept, copy_function=_link)
            if (checkpoint / STATE).is_file():  # which goes first: all else was still there
                found |= {f"{SAVED}/{checkpoint.name}/{path}": file for path, file in _files(kept)}
    for path, file in _files(run):
        if path.partition("/")[0] not in (*NOT_KEPT, *AT_THE_END, SAVED):
            (aside / path).parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # a temporary one
                found[path] = Path(shutil.copyfile(file, aside / path))
    return found


def _files(folder: Path) -> list[tuple[str, Path]]:
    files = [(path.relative_to(folder).as_posix(), path) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [(name, path) for name, path in files if not any(part.startswith(".") for part in name.split("/"))]


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without links
        shutil.copyfile(source, target)
    return target


def _saved(run: Path) -> tuple[str, ...]:
    return tuple(checkpoint.name for checkpoint in checkpoints(run))


TRAINED = Layout(CONFIG_FILE, files_at_rest, files_at_work, news=_saved)
