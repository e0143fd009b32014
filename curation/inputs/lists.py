"""List files: what their lines, cells and records name.

A line or value that is a file is that file, whatever it begins or ends with. Only where there is none is it read in
other ways: without the blanks around it, without quotes, and in a plain list as a comment if `#` stands first.
"""

import csv
import json
import os
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import UserError
from core.sanitize import printable
from core.storage.urls import is_url, place_of
from curation.inputs.names import is_possible
from curation.inputs.records import MOST_BYTES, Lines, read_document, records, rows
from media.names import is_media_name, suffix_of

PATH_KEYS = (
    *("file_path", "video_path", "image_path", "source_path", "path", "file", "video", "file_name"),
    *("filename", "filepath", "video_file", "image_file", "image", "clip_path"),
)
DELIMITERS = {".csv": (",", ";", "\t", "|"), ".tsv": ("\t", ",", ";", "|")}
SHOWN = 300
"""most characters of a name from outside in a message"""
_BLANK = " \t\r"
_OF_FFMPEG = re.compile(r"file\s+(\S.*)")
"""A line of a list for FFmpeg's concat demuxer."""
_SEPARATOR = re.compile(r"sep=(.)")
"""What some spreadsheets write above a table."""


@dataclass(frozen=True)
class Entry:
    """What one entry of a list names.

    Attributes:
        path: absolute, or a URL; of a missing file it may be one that no file can have.
        number: its place in the list, from 1.
        is_folder: it is to be searched.
        is_missing: there is no such file: a source that fails.
    """

    path: str
    number: int = 1
    is_folder: bool = False
    is_missing: bool = False


def listed(path: Path, beside: str | None = None) -> Iterator[Entry]:
    """Yield what a list names; relative entries are looked for beside the list.

    An entry that is a URL of a bucket or web server is that, unless a file has its name.

    Args:
        path: a file with a suffix of `names.LIST_SUFFIXES`.
        beside: URL of the folder that the list was fetched from: its entries are objects there, or other URLs.

    Raises:
        UserError: the list cannot be read, or an entry names nothing.
    """
    folder, shown = str(path.parent), printable(str(path), SHOWN)
    read = _READERS[path.suffix.lower()]
    try:
        for number, readings in enumerate(read(path, _Looker(folder)), 1):
            if readings is None:
                raise UserError(f"{shown}: entry {number} has none of the keys {', '.join(PATH_KEYS)}")
            yield replace(_first_of(folder, readings, beside), number=number)
    except (OSError, ValueError, csv.Error, RecursionError, pa.ArrowException) as error:
        words = "nested too deeply" if isinstance(error, RecursionError) else printable(str(error), SHOWN)
        raise UserError(f"{shown}: not a readable list ({words})") from None


Readings = list[str]
"""Ways to read one entry, the most literal first; the last is what is meant where no file is any of them."""


@dataclass(frozen=True)
class _Looker:
    """Tells whether something lies beside the list."""

    folder: str

    def __call__(self, name: str) -> bool:
        """Return whether a name is that of a file or folder."""
        return _look(self.folder, name) is not None


def _look(folder: str, name: str) -> Entry | None:
    """Return what a name leads to, None where nothing is there."""
    if not name or not is_possible(name):
        return None
    path = os.path.abspath(os.path.join(folder, name))
    try:
        is_folder = os.path.isdir(path)
        return Entry(path, is_folder=is_folder) if is_folder or os.path.exists(path) else None
    except OSError:
        return None


def _first_of(folder: str, readings: Readings, beside: str | None) -> Entry:
    """Return the first reading that is there, else the last one: as a URL, or as missing."""
    for name in readings if beside is None else ():
        if (found := _look(folder, name)) is not None:
            return found
    name = readings[-1]
    if is_url(name) or beside is not None:
        return Entry(name if is_url(name) else _in_bucket(str(beside), name))
    place = os.path.join(folder, name)
    return Entry(os.path.abspath(place) if is_possible(name) else place, is_missing=True)


def _in_bucket(folder: str, name: str) -> str:
    """Return the URL of what a list in a bucket names, relative to its folder; none leads out of the bucket."""
    place = place_of(folder)
    return f"{place.root}{posixpath.normpath(posixpath.join('/', place.key, name))}"


def _readings(text: str) -> Readings:
    """Return the ways to read a line or value, the most literal first."""
    stripped = text.strip(_BLANK)
    ways = [text, text.rstrip("\r"), text.rstrip(_BLANK), stripped, _unquoted(stripped)]
    if match := _OF_FFMPEG.fullmatch(stripped):
        ways += [stripped, _unquoted(match[1])] if match[1][0] in "'\"" or is_media_name(match[1]) else []
    return list(dict.fromkeys(way for way in ways if way))


def _unquoted(text: str) -> str:
    """Return a text without the quotes around it; a doubled quote within is one."""
    text = text.removesuffix(",").removesuffix(";") if text[:1] in ('"', "'") else text
    if len(text) < 2 or text[0] != text[-1] or text[0] not in "\"'`":
        return text
    return text[1:-1].replace(text[0] * 2, text[0])


def _plain(path: Path, is_there: Callable[[str], bool]) -> Iterator[Readings | None]:
    with path.open("rb") as file:
        head = file.read(4096)
        if head[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in head:
            raise ValueError("it holds zero bytes; save it as UTF-8")
        file.seek(0)
        yield from _plain_lines(file, is_there)


def _plain_lines(file: IO[bytes], is_there: Callable[[str], bool]) -> Iterator[Readings | None]:
    # Lines end in \n alone: names may hold the other separators that Python's splitlines knows.
    for number, content in enumerate(records(Lines(file))):
        line = content.removesuffix(b"\n").decode("utf-8", "surrogateescape")
        unmarked = line.removeprefix("\ufeff") if number == 0 else line
        readings = _readings(unmarked)
        if unmarked is not line and is_there(line.rstrip("\r")):
            readings = [line.rstrip("\r")]
        stripped = unmarked.strip(_BLANK)
        is_nothing = not stripped or stripped.startswith("#") or stripped in (".", "..")  # as `ls -a` lists them
        if is_nothing and (stripped in (".", "..") or not any(map(is_there, readings))):
            continue
        yield readings


def _table(path: Path, is_there: Callable[[str], bool]) -> Iterator[Readings | None]:
    """Read comma-separated values: by the column that the header names, else by the one that holds files."""
    delimiters: tuple[str, ...] = DELIMITERS[path.suffix.lower()]
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = Lines(file)
        first = next(lines, "")
        if match := _SEPARATOR.fullmatch(first.strip().strip('"')):
            delimiters = (match[1],)
            first = next(lines, "")
        for delimiter in delimiters:
            header = [cell.strip().lower() for cell in next(csv.reader([first], delimiter=delimiter), [])]
            if any(key in header for key in PATH_KEYS):
                yield from _below(header, rows(first, lines, delimiter), delimiter)
                return
        yield from _without_header(first, lines, delimiters, is_there)


def _below(header: list[str], table: Iterator[list[str]], delimiter: str) -> Iterator[Readings | None]:
    next(table)
    for row in table:
        if not row:
            continue
        value = _path_of(dict(zip(header, row, strict=False)))
        if value is None:
            yield None
        elif len(row) > len(header) and header[-1] in PATH_KEYS:  # names with a delimiter in them, unquoted
            yield [delimiter.join(row[len(header) - 1 :]), *_readings(value)]
        else:
            yield _readings(value)


def _without_header(
    first: str, lines: Lines[str], delimiters: tuple[str, ...], is_there: Callable[[str], bool]
) -> Iterator[Readings | None]:
    line = first.rstrip("\r\n")
    place = _column_of(line, delimiters, lambda cell: any(map(is_there, _readings(cell))))
    place = place or _column_of(line, delimiters, lambda cell: is_media_name(_readings(cell)[-1]))
    if place is None:
        if first.strip():
            yield None
        return
    delimiter, column = place
    for row in rows(first, lines, delimiter):
        if row:
            cell = row[column] if column < len(row) else row[0]
            yield [delimiter.join(row), *_readings(cell)] if cell.strip() else None


def _column_of(line: str, delimiters: tuple[str, ...], fits: Callable[[str], bool]) -> tuple[str, int] | None:
    """Return the delimiter and number of the column whose first cell fits; a line that fits whole is one cell."""
    if line.strip() and fits(line):
        return delimiters[0], 0
    for delimiter in delimiters:
        for column, cell in enumerate(next(csv.reader([line], delimiter=delimiter), [])):
            if cell.strip() and fits(cell):
                return delimiter, column
    return None


def _json(path: Path, is_there: Callable[[str], bool]) -> Iterator[Readings | None]:
    """Read JSON: an array of paths or records, one record, or one of them a line."""
    with path.open(encoding="utf-8-sig") as file:
        is_array = file.read(4096).lstrip()[:1] == "["
        file.seek(0)
        if path.suffix.lower() == ".json" or is_array:
            yield from _document(read_document(file))
        else:
            yield from (_value(json.loads(line)) for line in records(Lines(file)) if line.strip())


def _document(text: str) -> Iterator[Readings | None]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise
        values = [json.loads(line) for line in text.split("\n") if line.strip()]
    yield from map(_value, values if isinstance(values, list) else [values])


def _parquet(path: Path, is_there: Callable[[str], bool]) -> Iterator[Readings | None]:
    with path.open("rb") as content:
        about = pq.read_metadata(content)
        schema = about.schema.to_arrow_schema()
        columns = [name for name in PATH_KEYS if name in schema.names and _is_text(schema, name)]
        if not columns and about.num_rows:
            yield None
        groups = map(about.row_group, range(about.num_row_groups))
        parts = (group.column(place) for group in groups for place in range(group.num_columns))
        if sum(part.total_uncompressed_size for part in parts if part.path_in_schema in columns) > MOST_BYTES:
            raise ValueError(f"names of more than {MOST_BYTES >> 20} MB; divide it")
        # A text that all rows share stays one: else a few bytes could become as many gigabytes as there are rows.
        table = pq.ParquetFile(content, metadata=about, read_dictionary=columns)
        for batch in table.iter_batches(columns=columns) if columns else ():
            for texts in zip(*batch.columns, strict=True):
                yield _value({name: text.as_py() for name, text in zip(batch.schema.names, texts, strict=True)})


def _is_text(schema: pa.Schema, name: str) -> bool:
    """Return whether a column holds texts; one of pictures with their names, say, is not even read."""
    kinds = [schema.field(place).type for place in schema.get_all_field_indices(name)]
    kinds = [kind.value_type if pa.types.is_dictionary(kind) else kind for kind in kinds]
    return all(pa.types.is_string(kind) or pa.types.is_large_string(kind) for kind in kinds)


def _value(record: Any) -> Readings | None:
    value = _path_of(record)
    return None if value is None else list(dict.fromkeys((value, value.strip(_BLANK) or value, value)))


def _path_of(record: Any) -> str | None:
    if isinstance(record, str):
        return record or None
    if isinstance(record, Mapping):
        for name in PATH_KEYS:
            if isinstance(record.get(name), str) and record[name]:
                return str(record[name])
    return None


_READERS: dict[str, Callable[[Path, Callable[[str], bool]], Iterator[Readings | None]]] = {
    ".txt": _plain,
    ".csv": _table,
    ".tsv": _table,
    ".json": _json,
    ".jsonl": _json,
    ".ndjson": _json,
    ".parquet": _parquet,
}


def names_files(path: str) -> bool:
    """Return whether a file is a text whose first line is another file: a list under a name that says otherwise."""
    try:
        with open(path, "rb") as file:
            head = file.read(8192)
    except OSError:
        return False
    lines = [line for line in head.decode("utf-8", "surrogateescape").split("\n") if line.strip()]
    if not lines or "\0" in lines[0]:
        return False
    folder = os.path.dirname(path)
    found = [entry.path for way in _readings(lines[0]) if (entry := _look(folder, way))]
    return bool(found) and not os.path.samefile(found[0], path)


def refusal(path: str) -> str:
    """Return why a file that is no medium and no list that can be read is not taken."""
    suffix = suffix_of(path)
    named = f"a {suffix} file" if suffix else "a file without suffix"
    return f"{named} is neither a video or image nor a list that can be read; save it as .txt, .csv, .tsv, .json, " + (
        ".jsonl or .parquet"
    )
