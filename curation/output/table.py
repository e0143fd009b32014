"""The table: parts that workers write, and the folder of Parquet files they are folded into.

OUT/_parts/<time>-<random>.parquet      finished rows, immutable, of sources that may be unfinished
OUT/_parts/<time>-<random>-<n>.parquet  the rows of many parts, see `compaction`
OUT/clips/part-<n>.parquet              the table: finished sources only, replaced as a whole
"""

import json
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.files import atomic_folder, atomic_path, make_folder
from core.sanitize import clean_text
from curation.folders import PARTS, TABLE
from curation.output.parquet_files import read_as
from curation.recipe import Rule
from curation.schema import FILE_COLUMNS, Writer, part_schema, table_schema
from curation.types import Row

ROWS_PER_FILE = 100_000
FILES_AT_ONCE = 2
"""of a table that is written while its rows are made: the rows of so many are in memory"""
SMALL_PART = 64
"""rows"""
LONGEST_ERROR = 20_000
"""characters of what went wrong with one clip; a traceback has a few thousand"""
RULES_KEY = b"selects.rules"
"""Parquet metadata: the rules that the verdicts of this table follow."""
REVIEWS = "(reviews)"
"""among them; no column has such a name"""


def clips_folder(out: Path) -> Path:
    """Return the folder of the table."""
    return out / TABLE


def parts_folder(out: Path) -> Path:
    """Return the folder of the parts."""
    return out / PARTS


class AboutFile(NamedTuple):
    """What a file of ours says of itself."""

    rows: int
    rules: str
    """text of the rules that its verdicts follow; nothing where they follow several"""


def about_file(file: Path) -> AboutFile:
    """Return what a part, or a file of the table, says of itself."""
    found = pq.read_metadata(file)
    return AboutFile(found.num_rows, (found.metadata or {}).get(RULES_KEY, b"").decode())


def table_files(out: Path) -> list[Path]:
    """Return the files of the table, in order."""
    return sorted(clips_folder(out).glob("part-*.parquet"))


def part_files(out: Path) -> list[Path]:
    """Return the complete parts, in the order of their age.

    A name with a dot in front is a part that a killed worker left half written.
    """
    return sorted(parts_folder(out).glob("[!.]*.parquet"))


@contextmanager
def reusing_memory() -> Iterator[None]:
    """Let Arrow take memory from the C library meanwhile, which hands large blocks out again.

    Arrow's usual allocator gives each back to the system at once, where the next is cleared anew: a third of the time
    that a million rows take to be judged.
    """
    usual = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(usual)


def read_table(out: Path, writers: Iterable[Writer], columns: Sequence[str] | None = None) -> pa.Table:
    """Read the table, or some of its columns; empty when there is none yet."""
    schema = table_schema(writers)
    if columns is not None:
        schema = pa.schema([schema.field(c) for c in columns])
    files = table_files(out)
    if not files:
        return schema.empty_table()
    return pa.concat_tables([read_as(file, schema) for file in files])


def written_rules(out: Path) -> str | None:
    """Return the rules that the table's verdicts follow, as text; None when there is no table."""
    for file in table_files(out)[:1]:
        return about_file(file).rules
    return None


def rules_text(rules: dict[str, Rule], reviews: str = "") -> str:
    """Return what verdicts follow as the text kept beside the table: rules, and the stamp of what people have said."""
    said = {REVIEWS: reviews} if reviews else {}
    return json.dumps({column: {"min": rule.min, "max": rule.max} for column, rule in rules.items()} | said)


def write_table(out: Path, table: pa.Table, rules: str) -> None:
    """Replace the table as a whole: a reader sees the old one or the new one.

    Args:
        out: output folder.
        table: all its rows.
        rules: text of the rules that its verdicts follow, or nothing when they follow several.
    """
    write_tables(out, [in_order(table)], rules, files_at_once=pa.cpu_count())


def write_tables(out: Path, tables: Iterable[pa.Table], rules: str, *, files_at_once: int = FILES_AT_ONCE) -> None:
    """Replace the table as `write_table` does, by rows that come in order and one table after another."""
    with atomic_folder(clips_folder(out)) as folder, ThreadPoolExecutor(files_at_once) as threads:
        writing: deque[Future[None]] = deque()
        for number, table in enumerate(_of_file_size(tables)):
            if len(writing) == files_at_once:
                writing.popleft().result()
            table = table.replace_schema_metadata({RULES_KEY: rules.encode()})
            writing.append(threads.submit(_write_parquet, table, folder / f"part-{number:05d}.parquet"))
        for each in writing:
            each.result()


def _of_file_size(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the rows of tables in as many as there are to be files; at least one."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        while sum(map(len, held)) > ROWS_PER_FILE:
            rows = pa.concat_tables(held)
            yield rows.slice(0, ROWS_PER_FILE)
            held = [rows.slice(ROWS_PER_FILE)]
    yield pa.concat_tables(held)


def _write_parquet(table: pa.Table, file: Path) -> None:
    """Write rows; where values seldom repeat, without a dictionary: half the time, and an eighth smaller."""
    pq.write_table(table, file, compression="zstd", use_dictionary=[_leaf(f) for f in table.schema if _repeats(f)])


def _repeats(field: pa.Field) -> bool:
    inner = _inner(field.type)
    is_plain = not pa.types.is_floating(inner) and not pa.types.is_struct(inner)
    return is_plain and field.name not in ("clip_id", "temporal_hash", *FILE_COLUMNS)


def _leaf(field: pa.Field) -> str:
    """Return the name under which Parquet knows a column, or the elements of its lists."""
    return field.name if _inner(field.type) is field.type else f"{field.name}.list.element"


def _inner(dtype: pa.DataType) -> pa.DataType:
    is_list = pa.types.is_list(dtype) or pa.types.is_fixed_size_list(dtype)
    return dtype.value_type if is_list else dtype


def in_order(table: pa.Table) -> pa.Table:
    """Sort rows by source, time and clip; rows that are in order, as those of a table are, stay where they lie."""
    keys = ("source_path", "start_s", "clip_id")
    if _is_in_order([table[name].slice(0, max(0, len(table) - 1)) for name in keys], [table[n].slice(1) for n in keys]):
        return table
    return table.take(pc.sort_indices(table, sort_keys=[(name, "ascending") for name in keys]))


def _is_in_order(rows: Sequence[pa.ChunkedArray], following: Sequence[pa.ChunkedArray]) -> bool:
    """Return whether each row's keys come before the following row's; missing times come last."""
    (path, start_s, clip), (next_path, next_start_s, next_clip) = rows, following
    earlier = pc.or_kleene(pc.less(start_s, next_start_s), pc.and_(pc.is_valid(start_s), pc.is_null(next_start_s)))
    together = pc.or_kleene(pc.equal(start_s, next_start_s), pc.and_(pc.is_null(start_s), pc.is_null(next_start_s)))
    within = pc.or_kleene(earlier, pc.and_kleene(together, pc.less(clip, next_clip)))
    marks = pc.or_kleene(pc.less(path, next_path), pc.and_kleene(pc.equal(path, next_path), within))
    return bool(pc.all(pc.fill_null(marks, False), min_count=0).as_py())


def write_part(out: Path, writers: Iterable[Writer], rows: Sequence[Row], rules: str) -> None:
    """Write finished rows as a new part; it appears whole or not at all."""
    folder, schema = parts_folder(out), part_schema(writers)
    make_folder(folder)
    named = [{name: row[name] for name in schema.names} | {"error": _error_of(row)} for row in rows]
    write_parts_file(folder, pa.Table.from_pylist(named, schema=schema), rules)


def _error_of(row: Row) -> str | None:
    """Return what went wrong as the table holds it: libraries say what they like, and at any length."""
    return None if row["error"] is None else clean_text(row["error"], LONGEST_ERROR)


def write_parts_file(folder: Path, table: pa.Table, rules: str) -> None:
    """Write rows as a new part; one of few rows so that it is quickly written and read, for it is soon merged."""
    table = table.replace_schema_metadata({RULES_KEY: rules.encode()})
    is_small = len(table) <= SMALL_PART
    with atomic_path(folder / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.parquet") as temporary:
        pq.write_table(
            table, temporary, compression="lz4" if is_small else "zstd", use_dictionary=not is_small,
            write_statistics=not is_small,
        )  # fmt: skip
