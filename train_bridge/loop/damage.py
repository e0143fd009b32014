"""Checkpoints that are no longer what was written: found before a run goes on, and set aside for the one before."""

import json
import pickle
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch.distributed.checkpoint import filesystem

from core.errors import UserError
from core.files import read_bounded, writing
from core.sanitize import printable
from train_bridge.loop.checkpoint import checkpoints, read_state
from train_bridge.loop.manifest import MANIFEST, MOST_BYTES, against_manifest
from train_bridge.loop.nonfinite import StoppedError
from train_bridge.loop.parallel import Worker, from_first
from train_bridge.loop.sharded import FOLDER

BROKEN_ARCHIVE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError)
"""raised by `zipfile` on bytes that are no archive, or one that torch does not write"""


def find_damage(checkpoint: Path, started: Mapping[str, int]) -> str | None:
    """Return what is wrong with a checkpoint in a few words, or None where all of it is there.

    Without a manifest (version 0.8 and older) the headers and sizes of weights and the checksums that archives of
    moments carry are looked at, and moments must be there where they had started.

    Args:
        checkpoint: its folder, with a state.
        started: by network, the steps that passed before its optimizer had moments.

    Raises:
        OSError: a file is there and cannot be read, which a storage may fix.
    """
    try:
        if not (checkpoint / MANIFEST).is_file():
            return _of_older(checkpoint, started)
        if (why := against_manifest(checkpoint)) is None:
            read_state(checkpoint)
        return why
    except UserError as error:
        return str(error)


def last_whole(run: Path, started: Mapping[str, int], worker: Worker) -> Path | None:
    """Return the newest checkpoint without damage, None where there is none at all; newer ones are set aside.

    Every worker calls it: the first looks, the others are told.

    Args:
        run: the run's folder.
        started: as for `find_damage`.
        worker: this one.

    Raises:
        StoppedError: all are damaged, or one cannot be read now.
        OutputError: a damaged one cannot be set aside.
    """
    name, why = _look(run, started) if worker.rank == 0 else (None, None)
    if worker.world_size > 1:
        name, why = from_first((name, why))
    if why is not None:
        raise StoppedError(why)
    return None if name is None else run / "checkpoints" / name


def _look(run: Path, started: Mapping[str, int]) -> tuple[str | None, str | None]:
    """Return the name of the checkpoint to go on from, and what to tell where there is none but damaged ones."""
    damaged: list[tuple[Path, str]] = []
    for checkpoint in reversed(checkpoints(run)):
        try:
            why = find_damage(checkpoint, started)
        except OSError as error:  # a whole checkpoint behind a storage that fails must not be set aside
            reason = f"{error.filename or checkpoint}: cannot be read ({error.strerror or error})"
            return None, f"{reason}; see to the storage, or delete {checkpoint} to go on before it"
        if why is None:
            for path, reason in damaged:
                _set_aside(path, reason, checkpoint)
            return checkpoint.name, None
        damaged.append((checkpoint, printable(why)))
    if not damaged:
        return None, None
    path, why = damaged[0]
    return None, (
        f"{path}: damaged ({why}), and no checkpoint before it is whole; put the files back, "
        f"or delete {run / 'checkpoints'} to begin anew"
    )


def _set_aside(path: Path, why: str, instead: Path) -> None:
    aside = path.with_name(f"damaged-{path.name}")
    with writing(path):
        if aside.exists():
            shutil.rmtree(aside)
        path.rename(aside)
    print(f"{path}: damaged ({why}); it is now called {aside.name}, and the run goes on from {instead.name}")


def _of_older(checkpoint: Path, started: Mapping[str, int]) -> str | None:
    step = read_state(checkpoint)["step"]
    if (checkpoint / FOLDER).is_dir():
        return _of_parts(checkpoint / FOLDER)
    for name, steps in started.items():
        if not list((checkpoint / name).glob("*.safetensors")):
            return f"{name} has no weights"
        if step > steps and not (checkpoint / f"optimizer_{name}.pt").is_file():
            return f"optimizer_{name}.pt is missing"
    for index in checkpoint.rglob("*.safetensors.index.json"):
        try:
            names = {str(name) for name in json.loads(read_bounded(index, MOST_BYTES))["weight_map"].values()}
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return f"{index.relative_to(checkpoint)} cannot be read"
        if lacking := sorted(name for name in names if not (index.parent / name).is_file()):
            return f"{index.parent.name}/{lacking[0]} is missing"
    for file in sorted(checkpoint.rglob("*.safetensors")):
        try:
            with safe_open(file, "pt"):
                pass
        except SafetensorError:
            return f"{file.relative_to(checkpoint)} is not a whole safetensors file"
    for file in sorted(checkpoint.glob("optimizer_*.pt")):
        try:
            with zipfile.ZipFile(file) as archive:
                broken = archive.testzip()
        except BROKEN_ARCHIVE:
            broken = file.name
        if broken:
            return f"{file.name} is not a whole archive"
    return None


def _of_parts(folder: Path) -> str | None:
    """Look at a checkpoint of divided workers: whether the files are as long as its own list says."""
    try:
        stored = filesystem.FileSystemReader(folder).read_metadata().storage_data
    except (OSError, EOFError, pickle.UnpicklingError, ValueError, LookupError, TypeError, AttributeError, ImportError):
        return f"{folder.name}/.metadata cannot be read"
    ends: dict[str, int] = {}
    for part in (stored or {}).values():
        ends[part.relative_path] = max(ends.get(part.relative_path, 0), part.offset + part.length)
    for name, end in sorted(ends.items()):
        if not (folder / name).is_file():
            return f"{folder.name}/{name} is missing"
        if (folder / name).stat().st_size < end:
            return f"{folder.name}/{name} ends early"
    return None
