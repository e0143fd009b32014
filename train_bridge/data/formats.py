"""Metadata files as they are written: outputs of `curate`, JSON arrays, JSON lines and CSV, told apart by content.

Rows come as they are, unchecked; `metadata` checks them. Formats:

- a folder with `clips/part-*.parquet`: the accepted rows of the table; where a clip has no file, its span;
- a JSON array of `{"file_path", "text", "type", …}` as EasyAnimate reads it, also as JSON lines or CSV;
- a CSV with `videoid,name,page_dir` (webvid): the file is `{page_dir}/{videoid}.mp4`; the apostrophe that
  `export` puts before what a spreadsheet would run is taken off;
- JSON lines or a CSV with `file_name,text` (Hugging Face's `imagefolder` and `videofolder`);
- a folder of clips with `.txt` captions beside them (`clips_folder`);
- a WebDataset: a tar, a folder or glob of tars (`webdataset`).
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from core.errors import UserError
from core.files import read_bounded
from core.sanitize import clean_text, from_safe_cell, printable
from curation.export import open_table
from curation.expressions import MAX_CHARS, Expression
from curation.reviews import BY_HAND, with_captions
from curation.schema import CAPTION_COLUMNS, CONTROL_AMOUNTS, CONTROL_PATHS
from train_bridge.data.clips_folder import holds_clips, read_clips
from train_bridge.data.controls import controls_of_json, controls_of_table, empty_of_table
from train_bridge.data.webdataset import Shards, find_shards, read_samples, unpack, unpacked_folder
from train_bridge.types import Refusal

MOST_BYTES = 16 << 30
"""of a text file; a million rows with long captions have a few gigabytes"""
MOST_PIPE_BYTES = 1 << 30
"""of what has no size, and perhaps no end"""
EXPECTED = (
    "expected an output folder of `curate`, a JSON array or JSON lines with file_path and text, "
    "a metadata.jsonl or .csv with file_name and text, a webvid .csv with videoid, name and page_dir, "
    "a folder of clips with .txt captions, or a WebDataset (.tar shards)"
)
FILE_KEYS = ("file_path", "file_name")
SOURCE_KEYS = ("source_id", "source_path", "source")
FACT_KEYS = frozenset(("width", "height", "fps", "num_frames"))
TEXT_KEYS = frozenset((*FILE_KEYS, "text", "type", "clip_id", "videoid", "name", "page_dir"))
WEBVID_KEYS = ("videoid", "name", "page_dir")
TABLE_COLUMNS = (
    "clip_id", "type", "caption", "clip_path", "clip_width_px", "clip_height_px", "clip_num_frames", "duration_s",
    "source_root", "source_path", "source_id", "width_px", "height_px", "num_frames", "start_s", "end_s",
)  # fmt: skip

Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Record:
    """One row as the metadata says it; values may be of any type.

    Attributes:
        place: file and line, array index or clip.
        key: the key or column that names the file.
        file: path of the file, relative to `root`, else to the listing's root.
        source: name of what the clip was cut from.
        is_span: a stretch of `file` from `start_s` to `end_s`, not the whole of it.
        controls: files of control maps by name; the name is empty where the metadata says none.
        empty: names of those of which the metadata says that there is next to nothing in them.
    """

    place: str
    key: str
    file: Any
    caption: Any
    type: Any
    clip_id: Any = None
    width: Any = None
    height: Any = None
    num_frames: Any = None
    fps: Any = None
    duration_s: Any = None
    is_span: bool = False
    start_s: Any = None
    end_s: Any = None
    root: str | None = None
    source: Any = None
    controls: Any = None
    empty: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Listing:
    """All rows of one metadata file.

    Attributes:
        records: its rows.
        refused: rows that could not even be read.
        table: the columns that the expressions read, one row for each record.
        root: folder that relative paths start from.
        caption_key: the key or column that holds the text.
        unpack: brings the files of some records to disk, by position; None where they lie there.
    """

    records: list[Record]
    refused: list[Refusal]
    table: pa.Table
    root: str
    caption_key: str
    unpack: Callable[[Iterable[int]], None] | None = None


def read_listing(
    source: Path, root: str | None, expressions: Sequence[Expression], unpacked: str | None = None
) -> Listing:
    """Read metadata of any format.

    Args:
        source: file or folder.
        root: folder that relative paths start from; None: the metadata's own. Clips of an output are always
            looked for in the output; there the root is that of the sources, of which spans are read.
        expressions: their columns are read, too.
        unpacked: folder that the clips of a WebDataset are unpacked to; None: one in the user's cache.

    Raises:
        UserError: not there, empty, of no known format, or without a column that an expression reads.
    """
    inside = [source / name for name in ("metadata.jsonl", "metadata.csv") if (source / name).is_file()]
    if not inside and not (source / "clips").is_dir() and (shards := find_shards(source)):
        return _read_shards(source, shards, unpacked_folder(unpacked), expressions)
    if source.is_dir():
        if not inside and not any((source / "clips").glob("part-*.parquet")) and holds_clips(source):
            return _read_folder(source, expressions)
        if (source / "clips").is_dir() or not inside:
            return _read_output(source, root, expressions)
        source = inside[0]
    text = _read_text(source)
    root = root or str(source.parent)
    begin = text.lstrip()[:1]
    if begin == "[":
        return _listing(source, root, expressions, *_read_array(source, text))
    if begin == "{":
        return _listing(source, root, expressions, *_read_lines(source, text))
    if begin:
        return _listing(source, root, expressions, *_read_csv(source, text), is_csv=True)
    raise UserError(f"{source}: empty; {EXPECTED}")


# -- an output of `curate` -------------------------------------------------------------------------------


def _read_output(out: Path, root: str | None, expressions: Sequence[Expression]) -> Listing:
    try:
        dataset = open_table(out)
        for expression in expressions:
            expression.check(dataset.schema.names)
        if lacking := [name for name in TABLE_COLUMNS if name not in dataset.schema.names]:
            raise UserError(f"{out}: its table has no column '{lacking[0]}'; was it written by this program?")
        scored = sorted(set().union(*(expression.columns for expression in expressions)))
        maps = (*CONTROL_PATHS, *CONTROL_AMOUNTS)
        rows = [*TABLE_COLUMNS, *(name for name in maps if name in dataset.schema.names)]
        by_hand = [name for name in (BY_HAND,) if name in dataset.schema.names]
        wanted = list(dict.fromkeys([*rows, *by_hand, *scored]))
        table = dataset.to_table(columns=wanted, filter=pc.field("status") == "accepted")
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{out}: its table cannot be read ({' '.join(str(error).split())})") from None
    if not len(table):
        raise UserError(f"{out}: no clip is accepted; loosen its rules with: run_pipeline.py select {out}")
    batches = with_captions(table).select(rows).to_batches()
    records = [_clip_record(root, row) for batch in batches for row in batch.to_pylist()]
    # A constant reads no column, but needs to know how many rows there are.
    return Listing(records, [], table.select(scored or TABLE_COLUMNS[:1]), str(out), "caption")


def _clip_record(root: str | None, row: Values) -> Record:
    """Take the clip's file where it has one, else its span of the source."""
    clip_id, is_cut = row["clip_id"], row["clip_path"] is not None
    return Record(
        place=f"clip {clip_id}",
        key="clip_path" if is_cut else "source_path",
        file=row["clip_path"] if is_cut else row["source_path"],
        caption=row["caption"],
        type=row["type"],
        clip_id=clip_id,
        width=row["clip_width_px" if is_cut else "width_px"],
        height=row["clip_height_px" if is_cut else "height_px"],
        num_frames=row["clip_num_frames" if is_cut else "num_frames"],
        duration_s=row["duration_s"],
        is_span=not is_cut and row["type"] == "video",
        start_s=None if is_cut else row["start_s"],
        end_s=None if is_cut else row["end_s"],
        root=None if is_cut else root or row["source_root"] or "",
        source=row["source_id"] or row["source_path"],
        controls=controls_of_table(row),
        empty=empty_of_table(row),
    )


def _read_folder(folder: Path, expressions: Sequence[Expression]) -> Listing:
    """Take the clips of a folder; their paths start from it, whatever `data.root` is."""
    placed, refused = read_clips(folder)
    return replace(_listing(folder, str(folder), expressions, placed, refused), caption_key=".txt")


def _read_shards(source: Path, shards: Shards, folder: Path, expressions: Sequence[Expression]) -> Listing:
    samples = read_samples(shards)
    listing = _listing(source, str(folder), expressions, samples.placed, samples.refused)
    return replace(listing, caption_key=".txt", unpack=lambda kept: unpack(samples, kept, folder))


# -- text files ------------------------------------------------------------------------------------------

Placed = list[tuple[str, Values]]
"""Places and what stands there."""


def _read_text(source: Path) -> str:
    try:
        content = read_bounded(source, MOST_BYTES if source.is_file() else MOST_PIPE_BYTES)
    except FileNotFoundError:
        raise UserError(f"{source}: no such file or folder; {EXPECTED}") from None
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{source}: {error}; divide it, or give the output folder of `curate`") from None
    if content.startswith(b"PAR1"):
        raise UserError(f"{source}: a Parquet file; give the output folder of `curate` that holds it")
    return content.decode("utf-8-sig", "surrogateescape")  # bytes that are no text cost their rows only


def _read_array(source: Path, text: str) -> tuple[Placed, list[Refusal]]:
    try:
        items = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{source}: broken JSON at {where} ({error.msg}); write it again, or correct it") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: no readable JSON ({error}); {EXPECTED}") from None
    if not items:
        raise UserError(f"{source}: an empty list; {EXPECTED}")
    placed = [(f"{source.name}[{i}]", item) for i, item in enumerate(items)]
    odd = [_unreadable(place, "is not an object", "write {…} there") for place, v in placed if not isinstance(v, dict)]
    return [(place, values) for place, values in placed if isinstance(values, dict)], odd


def _read_lines(source: Path, text: str) -> tuple[Placed, list[Refusal]]:
    placed, refused = [], []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = f"{source.name}:{number}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            refused.append(_unreadable(place, "is broken JSON", f"{error}; correct or delete the line"))
            continue
        if isinstance(values, dict):
            placed.append((place, values))
        else:
            refused.append(_unreadable(place, "is not an object", "write {…} there"))
    return placed, refused


def _read_csv(source: Path, text: str) -> tuple[Placed, list[Refusal]]:
    placed: Placed = []
    refused: list[Refusal] = []
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    while True:
        first = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return placed, refused
        except csv.Error as error:
            place = f"{source.name}:{first}" + (f"-{reader.line_num}" if reader.line_num > first else "")
            if header is None:
                raise UserError(f"{source}: no readable header ({error}); {EXPECTED}") from None
            refused.append(_unreadable(place, "is broken CSV", f"{error}; correct its quotes or delete it"))
            continue
        if header is None:
            header = [name.strip() for name in fields]
            if not _has_file(header):
                first_line = printable(text.strip().split("\n")[0][:60])
                raise UserError(f"{source}: a file whose first line is '{first_line}'; {EXPECTED}")
        elif len(fields) == len(header):
            place = f"{source.name}:{first}"
            placed.append((place, {name: value or None for name, value in zip(header, fields, strict=True)}))
        elif fields:
            fix = f"it has {len(fields)}, the header {len(header)}; put texts with commas in quotes"
            refused.append(_unreadable(f"{source.name}:{first}", "has another number of fields", fix))


def _unreadable(place: str, reason: str, fix: str) -> Refusal:
    return Refusal(place, "row", reason, fix)


def _has_file(names: Sequence[str] | Values) -> bool:
    return any(key in names for key in FILE_KEYS) or all(key in names for key in WEBVID_KEYS)


def _listing(
    source: Path,
    root: str,
    expressions: Sequence[Expression],
    placed: Placed,
    refused: list[Refusal],
    *,
    is_csv: bool = False,
) -> Listing:
    if not any(_has_file(values) for _, values in placed):
        first = f" (first: {refused[0]})" if refused else ""
        raise UserError(f"{source}: no row names a file{first}; {EXPECTED}")
    is_webvid = is_csv and not any(key in values for _, values in placed for key in FILE_KEYS)
    if is_webvid:
        placed = [(place, _as_exported(values)) for place, values in placed]
    record = _webvid_record if is_webvid else _record
    records = [record(place, values) for place, values in placed]
    table = _columns(source, [values for _, values in placed], expressions, is_csv=is_csv)
    return Listing(records, refused, table, root, "name" if is_webvid else "text")


def _record(place: str, values: Values) -> Record:
    get = values.get
    key = next((key for key in FILE_KEYS if key in values), FILE_KEYS[0])
    facts = get("width"), get("height"), get("num_frames"), get("fps")
    source = next((get(name) for name in SOURCE_KEYS if get(name)), None)
    controls = controls_of_json(values)
    return Record(
        place, key, get(key), get("text"), get("type"), get("clip_id"), *facts, source=source, controls=controls
    )


def _as_exported(values: Values) -> Values:
    """Take off the apostrophes that `export` put before formulas."""
    kept = {key: values[key] for key in (*WEBVID_KEYS, *CAPTION_COLUMNS) if values.get(key) is not None}
    return values | {key: from_safe_cell(text) for key, text in kept.items()}


def _webvid_record(place: str, values: Values) -> Record:
    name, folder = values.get("videoid"), values.get("page_dir")
    file = None if name is None else f"{folder}/{name}.mp4" if folder else f"{name}.mp4"
    return Record(place, "videoid", file, values.get("name"), "video")


# -- columns of text files -------------------------------------------------------------------------------


def _columns(source: Path, rows: list[Values], expressions: Sequence[Expression], *, is_csv: bool) -> pa.Table:
    """Return the columns that expressions read."""
    if not expressions:
        return pa.table({})
    usable = (str, int, float, type(None))
    found = {name for values in rows for name, value in values.items() if isinstance(value, usable)}
    names = sorted(name for name in found if len(name) <= MAX_CHARS and clean_text(name) == name)  # else no column's
    hint = f"; {source.name} has {', '.join(names)}; the output folder of `curate` has all scores: give it instead"
    for expression in expressions:
        expression.check(names, hint)
    wanted = sorted(set().union(*(expression.columns for expression in expressions))) or names[:1]
    return pa.table({name: _column(name, [values.get(name) for values in rows], is_csv=is_csv) for name in wanted})


def _column(name: str, values: list[Any], *, is_csv: bool) -> pa.Array:
    """Return one column as numbers, texts or true/false, whichever most of it are; the rest is missing."""
    digits_count = name in FACT_KEYS or (is_csv and name not in TEXT_KEYS)
    numbers = [_number(v) if digits_count or not isinstance(v, str) else None for v in values]
    texts = [_text(v) if number is None else None for v, number in zip(values, numbers, strict=True)]
    amount = [len(values) - some.count(None) for some in (numbers, texts)]
    if amount[0] and amount[0] >= amount[1]:
        return pa.array(numbers, pa.float64())
    if amount[1]:
        return pa.array([_text(v) for v in values], pa.string())
    if any(isinstance(v, bool) for v in values):
        return pa.array([v if isinstance(v, bool) else None for v in values], pa.bool_())
    return pa.nulls(len(values))


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float) or (isinstance(value, str) and "_" in value):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _text(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    try:
        value.encode()
    except UnicodeEncodeError:
        return None
    return value
