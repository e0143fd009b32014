"""Sizes and lengths that the metadata does not tell: read from the files themselves, once."""

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import MediaError
from core.files import atomic_path
from media.measure import measure
from train_bridge.types import Refusal, TrainRow

Progress = Callable[[int, int], None]
"""Called with how many files are read, and how many there are to read."""

THREADS = 16
MEMO_SCHEMA = pa.schema([
    ("path", pa.binary()),  # names need not be UTF-8
    ("kind", pa.string()),
    ("start_s", pa.float64()),
    ("end_s", pa.float64()),
    ("size_bytes", pa.int64()),
    ("mtime_ns", pa.int64()),
    ("width_px", pa.int64()),
    ("height_px", pa.int64()),
    ("num_frames", pa.int64()),
    ("duration_s", pa.float64()),
])

Key = tuple[bytes, str, float | None, float | None]
"""Path, kind and span."""


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a file told, as it was at that size and time; `error` where it could not be read."""

    size_bytes: int
    mtime_ns: int
    width_px: int | None = None
    height_px: int | None = None
    num_frames: int | None = None
    duration_s: float | None = None
    error: str | None = None


def probe_rows(
    rows: Iterable[TrainRow],
    refused: Iterable[Refusal] = (),
    progress: Progress | None = None,
    memo: Path | None = None,
) -> tuple[tuple[TrainRow, ...], tuple[Refusal, ...]]:
    """Fill in sizes and lengths that rows lack. Rows that lack nothing are not opened.

    Args:
        rows: rows to train on.
        refused: rows refused before; the new ones follow them.
        progress: called after each file.
        memo: Parquet file of what files told before; while their size and time of change are the same they are
            not opened again. Files that could not be read are not in it: what kept them closed may be gone. It is
            made when missing, and made anew when unreadable.

    Returns:
        The rows, in order, and all refusals.
    """
    rows = tuple(rows)
    known = _read_memo(memo) if memo else {}
    lacking: dict[Key, TrainRow] = {_key(row): row for row in rows if _lacks(row)}
    states = {key: _state(row.path) for key, row in lacking.items()}
    found = {key: facts for key in lacking if (facts := known.get(key)) and states[key] == _state_of(facts)}
    todo = [key for key in lacking if key not in found]
    fresh: dict[Key, _Facts] = {}
    try:
        _read_all([(key, lacking[key], states[key]) for key in todo], fresh, progress)
    finally:  # what was read stays known when the rest is interrupted
        if memo and fresh:
            readable = {key: facts for key, facts in fresh.items() if facts.error is None}
            _write_memo(memo, known | readable)
    found |= fresh
    filled: list[TrainRow] = []
    problems = list(refused)
    for row in rows:
        facts = found.get(_key(row)) if _lacks(row) else None
        if facts is None:
            filled.append(row)
        elif facts.error is None:
            filled.append(_fill(row, facts))
        else:
            fix = f"{facts.error}; replace the file, or leave the row out"
            problems.append(Refusal(str(row.path), "file_path", "cannot be read", fix, row.row_id))
    return tuple(filled), tuple(problems)


def _lacks(row: TrainRow) -> bool:
    return None in (row.width_px, row.height_px, row.num_frames, row.duration_s)


def _key(row: TrainRow) -> Key:
    return os.fsencode(os.path.abspath(row.path)), row.kind, row.start_s, row.end_s


def _state(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return (-1, -1)  # reading it will tell what is wrong
    return stat.st_size, stat.st_mtime_ns


def _state_of(facts: _Facts) -> tuple[int, int]:
    return facts.size_bytes, facts.mtime_ns


def _fill(row: TrainRow, facts: _Facts) -> TrainRow:
    """Take what the row lacks; a size is one fact, and so is a length."""
    if row.width_px is None or row.height_px is None:
        row = replace(row, width_px=facts.width_px, height_px=facts.height_px)
    if row.num_frames is None or row.duration_s is None:
        row = replace(row, num_frames=facts.num_frames, duration_s=facts.duration_s)
    return row


# -- reading ---------------------------------------------------------------------------------------------


def _read_all(
    todo: Sequence[tuple[Key, TrainRow, tuple[int, int]]], into: dict[Key, _Facts], progress: Progress | None
) -> None:
    """Read files in threads: FFmpeg and Pillow leave Python's lock while they read."""
    if not todo:
        return
    workers = min(THREADS, os.cpu_count() or 1, len(todo))
    with warnings.catch_warnings():  # Pillow's, of large images: this reads headers only
        warnings.simplefilter("ignore")
        pool = ThreadPoolExecutor(workers, "probe")
        try:
            waiting = {pool.submit(_read, row, state): key for key, row, state in todo}
            for count, future in enumerate(as_completed(waiting), 1):
                into[waiting[future]] = future.result()
                if progress:
                    progress(count, len(todo))
        finally:
            pool.shutdown(cancel_futures=True)


def _read(row: TrainRow, state: tuple[int, int]) -> _Facts:
    try:
        return _Facts(*state, *astuple(measure(row.path, row.kind, row.start_s, row.end_s)))
    except MediaError as error:
        return _Facts(*state, error=str(error))


# -- the memo --------------------------------------------------------------------------------------------


def _read_memo(path: Path) -> dict[Key, _Facts]:
    try:
        file = pq.ParquetFile(path)
        if not file.schema_arrow.equals(MEMO_SCHEMA):
            return {}
        columns = [column.to_pylist() for column in file.read().columns]
    except (OSError, pa.ArrowException):  # none yet, or damaged: files are read again
        return {}
    return {values[:4]: _Facts(*values[4:]) for values in zip(*columns, strict=True)}


def _write_memo(path: Path, known: dict[Key, _Facts]) -> None:
    names = MEMO_SCHEMA.names[4:]
    rows = [(*key, *(getattr(facts, name) for name in names)) for key, facts in sorted(known.items(), key=_path_of)]
    arrays = [
        pa.array(list(column), kind) for column, kind in zip(zip(*rows, strict=True), MEMO_SCHEMA.types, strict=True)
    ]
    table = pa.table(arrays, schema=MEMO_SCHEMA)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _path_of(item: tuple[Key, _Facts]) -> tuple[bytes, str]:
    return item[0][0], item[0][1]
