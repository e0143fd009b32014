"""Exports after the table has changed: what is cheap is written again, what is not is said to be out of date."""

import filecmp
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from core.errors import UserError
from core.files import temporary_path
from core.sanitize import printable
from core.storage.place import called
from curation.export import EXPORTERS, FILES, FORMATS, Format, export, rows_of
from curation.export.chosen import chosen_of
from curation.export.how import ExportSettings
from curation.export.memory import Memory, read_memory, remember
from curation.export.rows import Tally, complete_batches, digest_of, other_captions
from curation.folders import SHARDS

CHEAP: tuple[Format, ...] = ("webvid", "diffusers")
"""Besides `internal`, which every output has."""
HEAD_BYTES = 65536


def refresh_exports(out: Path, table: pa.Table | None = None) -> tuple[str, ...]:
    """Bring what was exported from an output up to its table.

    The trainers' JSON is always written, other formats of one file where they were exported before. Shards are left
    as they are, and so is a file that this program does not know to have written: those are reported.

    Args:
        out: output folder.
        table: its table, where it was read already; null: it is read.

    Returns:
        For each export that is out of date one line, with the command that writes it again.
    """
    memory = read_memory(out)

    def again(format: str) -> None:
        held = memory.get(format, {})
        absolute, kind, chosen = _is_absolute(out, format, memory), held.get("kind"), chosen_of(held)
        export(
            out,
            format,
            ExportSettings(absolute=absolute, kind=kind, chosen=chosen),
            refuse_without_files=False,
            table=table,
        )

    stale = _chosen_again(out, "internal", again, memory)
    for format in CHEAP:
        if not (out / FILES[format]).is_file():
            remember(out, format, None)  # somebody has deleted it
        elif format in memory or _is_current(out, format, table):
            stale += _chosen_again(out, format, again, memory)
        else:
            stale.append(_line(out, format, FILES[format], ["--absolute"] if _is_absolute(out, format, {}) else []))
    for foreign in sorted(memory.keys() - {*FORMATS}):
        stale += _foreign_again(out, foreign, again)
    if (out / SHARDS).is_dir():
        held = memory.get("webdataset", {})
        if held.get("rows") is None or held["rows"] != _digest_now(out, table, held):
            stale.append(_line(out, "webdataset", SHARDS, _options(held)))
    else:
        remember(out, "webdataset", None)
    return tuple(stale)


def _chosen_again(out: Path, format: Format, again: Callable[[str], None], memory: Memory) -> list[str]:
    """Write a format again; return a line where the selection that it was written of is gone or fits no more."""
    held = memory.get(format, {})
    try:
        again(format)
    except UserError:
        if not chosen_of(held).remembered:
            raise
        return [_line(out, format, FILES[format], _options(held))]
    return []


def _digest_now(out: Path, table: pa.Table | None, held: dict[str, Any]) -> str | None:
    """Return the digest of what shards would hold now; None where their selection is gone or fits no more."""
    try:
        rows = rows_of(out, table, held.get("kind"), chosen_of(held))
    except UserError:
        if not chosen_of(held).remembered:
            raise
        return None
    return digest_of(complete_batches(rows, out, Tally(), refuse=False, more=other_captions(rows)))


def _options(held: dict[str, Any]) -> list[str]:
    """Return the options of `export` that a format was written with."""
    options = ["--absolute"] if held.get("absolute") else []
    options += ["--type", held["kind"]] if held.get("kind") else []
    return options + [word for name, value in chosen_of(held).remembered.items() for word in (f"--{name}", value)]


def _foreign_again(out: Path, format: str, again: Callable[[str], None]) -> list[str]:
    """Write a plug-in's format again, and forget it where its file was deleted; return a line where it cannot be."""
    try:
        exporter = EXPORTERS[format]
        if not (out / exporter.file).is_file():
            remember(out, format, None)
        else:
            again(format)
    except KeyError:
        return [f"export '{printable(format, 100)}' is out of date: no installed package has this format"]
    except Exception as error:  # a stranger's code may raise anything, and the table is more than one of its exports
        return [f"export '{printable(format, 100)}' is out of date: {printable(' '.join(str(error).split()), 300)}"]
    return []


def _line(out: Path, format: str, name: str, options: list[str]) -> str:
    words = ["run_pipeline.py", "export", called(out), "--format", format, *options]
    return f"{printable(name)} is out of date; write it again: {printable(shlex.join(words))}"


def _is_current(out: Path, format: Format, table: pa.Table | None) -> bool:
    """Return whether a file that nothing is remembered of is what would be written now."""
    there = out / FILES[format]
    written = temporary_path(there)
    try:
        absolute = _is_absolute(out, format, {})
        export(out, format, ExportSettings(absolute=absolute), refuse_without_files=False, table=table, target=written)
        return filecmp.cmp(there, written, shallow=False)
    finally:
        written.unlink(missing_ok=True)


def _is_absolute(out: Path, format: str, memory: Memory) -> bool:
    """Return whether a file names its clips by absolute paths; one of earlier versions is asked itself."""
    if format in memory or format == "diffusers":
        return bool(memory.get(format, {}).get("absolute", False))
    try:
        with (out / FILES[format]).open("rb") as file:  # type: ignore[index]
            head = file.read(HEAD_BYTES)
    except OSError:
        return False
    return b'{"file_path": "/' in head[:64] if format == "internal" else b'","/' in head.split(b"\n", 1)[-1]
