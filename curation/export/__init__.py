"""From the published table to what trainers read: JSON, CSV, JSON lines or tar shards.

Every format holds the accepted clips that have a file and a caption, in the table's order, and is written
in one pass over the table, so that a million clips need no more memory than a thousand.

Captions are data and come back exactly as they are from every format. Two writings keep them from doing harm
on the way:

- CSV: a cell that a spreadsheet would run as a formula (`=`, `+`, `-`, `@`, tab or carriage return first,
  blanks and quotes aside) has one apostrophe before it. Our reader takes it off; other readers see it.
- JSON: `<` and the line and control characters that JSON itself lets stand are written as escapes,
  which every JSON reader undoes: the text may be embedded in a page, shown by a terminal and split into lines.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from core.errors import UserError, nearest
from core.files import atomic_path
from curation.export.chosen import EVERYTHING, Chosen
from curation.export.diffusers import NAME as DIFFUSERS_NAME
from curation.export.diffusers import write_diffusers
from curation.export.foreign import EXPORTERS, Exporter
from curation.export.how import USUAL, ExportSettings
from curation.export.internal import NAME as INTERNAL_NAME
from curation.export.internal import write_internal
from curation.export.memory import read_memory, remember
from curation.export.rows import (
    RECORD,
    ExportResult,
    Record,
    Tally,
    complete_batches,
    complete_records,
    open_table,
    other_captions,
    recorded,
)
from curation.export.webdataset import SHARD_BYTES, SHARD_ROWS, write_webdataset
from curation.export.webvid import NAME as WEBVID_NAME
from curation.export.webvid import write_webvid
from curation.folders import SHARDS
from curation.reviews import BY_HAND
from curation.schema import CAPTION_COLUMNS, CONTROL_PATHS
from media.types import MediaType

Format = Literal["internal", "webvid", "diffusers", "webdataset"]
FORMATS: tuple[Format, ...] = get_args(Format)
FILES = {"internal": INTERNAL_NAME, "webvid": WEBVID_NAME, "diffusers": DIFFUSERS_NAME}
"""Formats that are one file, and where it lies in an output."""


def export(
    out: Path,
    format: str,
    settings: ExportSettings = USUAL,
    *,
    refuse_without_files: bool = True,
    table: pa.Table | None = None,
    target: Path | None = None,
) -> ExportResult:
    """Write one trainer's format from the table of an output folder, and remember that it was written.

    Args:
        out: output folder; the table is `out/clips/part-*.parquet`.
        format: `internal` (`json_of_internal_datasets.json`), `webvid` (`webvid.csv`), `diffusers`
            (`train/metadata.jsonl`), `webdataset` (`webdataset/shard-000000.tar` and on, `images-000000.tar` and on),
            or one that a plug-in adds.
        settings: which rows, and how.
        refuse_without_files: raise when no accepted row has a file; else write an empty list.
        table: the folder's table, where it was read already; null: it is read.
        target: another place for a format that is one file; then nothing is remembered.

    Raises:
        UserError: no table; accepted rows but none with a file; a row that names a file outside the output; a
            request that the format cannot meet.
    """
    out, absolute, kind, chosen = Path(out), settings.absolute, settings.kind, settings.chosen
    shard_rows, shard_bytes = settings.shard_rows, settings.shard_bytes
    foreign = EXPORTERS[format] if format not in FORMATS and format in EXPORTERS else None
    if format not in FORMATS and foreign is None:
        raise UserError(f"export: no format {format!r}{nearest(str(format), [*FORMATS, *EXPORTERS])}")
    if absolute and format in ("diffusers", "webdataset"):
        raise UserError(f"{format} names its files relative to itself", field="absolute", fix="leave it out")
    if shard_rows < 1 or shard_bytes < 1:
        raise UserError("export: a shard needs room for at least one row and one byte")
    rows = rows_of(out, table, kind, chosen)
    of_kind = ({"kind": kind} if kind else {}) | chosen.remembered
    if format == "webdataset":
        return _export_shards(
            out, rows, {"shard_rows": shard_rows, "shard_bytes": shard_bytes} | of_kind, refuse=refuse_without_files
        )
    tally = Tally()
    place = target or out / (FILES[format] if foreign is None else foreign.file)
    place.parent.mkdir(exist_ok=True)
    prefix = out.resolve() if absolute else None
    controls = [name for name in CONTROL_PATHS if name in rows.schema.names] if format == "internal" else []
    captions = other_captions(rows) if foreign is None else []
    batches = complete_batches(rows, out, tally, [*controls, *captions], refuse=refuse_without_files)
    with atomic_path(place) as temporary:
        if format == "internal":
            with open(temporary, "wb") as file:
                write_internal(file, batches, tally, prefix)
        else:
            write = _writer_of(format) if foreign is None else foreign.write
            with open(temporary, "w", encoding="utf-8", newline="") as text:
                write(text, complete_records(batches), tally, prefix)
    if target is not None:
        return tally.result(place)
    is_usual = format == "internal" and not absolute and not of_kind
    remember(out, format, None if is_usual else {"absolute": absolute} | of_kind)
    return tally.result(place)


def _writer_of(format: str) -> Callable[[IO[str], Iterator[Record], Tally, Path | None], None]:
    return write_webvid if format == "webvid" else write_diffusers


def rows_of(
    out: Path, table: pa.Table | None, kind: MediaType | None = None, chosen: Chosen = EVERYTHING
) -> ds.Dataset:
    """Return the rows of an output's table: of one that was read already, or without reading any yet.

    Raises:
        UserError: there is none, or it lacks a column; or what is chosen cannot be.
    """
    if table is None:
        rows = open_table(out)
    else:
        more = [name for name in (BY_HAND, *CONTROL_PATHS, *CAPTION_COLUMNS) if name in table.column_names]
        rows = ds.dataset(table.select([*RECORD.values(), "status", *more]))
    holds = chosen.filter(rows if table is None else ds.dataset(table), out)
    rows = rows if holds is None else rows.filter(holds)
    return rows.filter(pc.field("type") == kind) if kind else rows


def _export_shards(out: Path, rows: ds.Dataset, settings: dict[str, Any], *, refuse: bool) -> ExportResult:
    """Write shards; while they are replaced, nothing is remembered of what they hold, whatever ends this process."""
    before, tally, digest = read_memory(out).get("webdataset"), Tally(), hashlib.sha256()
    shards = out / SHARDS
    old = shards.stat().st_ino if shards.is_dir() else None
    if before is not None:
        remember(out, "webdataset", before | {"rows": None})
    try:
        batches = complete_batches(rows, out, tally, refuse=refuse, more=other_captions(rows))
        records = recorded(complete_records(batches), digest)
        result = write_webdataset(out, records, tally, settings["shard_rows"], settings["shard_bytes"])
    except BaseException:
        if before is not None and shards.is_dir() and shards.stat().st_ino == old:
            remember(out, "webdataset", before)  # the old shards are still there
        raise
    remember(out, "webdataset", settings | {"rows": digest.hexdigest()})
    return result


__all__ = [
    "EXPORTERS",
    "FILES",
    "FORMATS",
    "INTERNAL_NAME",
    "RECORD",
    "ExportResult",
    "Exporter",
    "Format",
    "complete_batches",
    "export",
    "open_table",
    "rows_of",
    "SHARD_BYTES",
    "SHARD_ROWS",
]
