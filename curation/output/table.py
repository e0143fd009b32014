"""The table: parts that workers write, and the folder of Parquet files they are folded into.

OUT/_parts/<time>-<random>.parquet    finished rows, immutable, of sources that may be unfinished
OUT/clips/part-<n>.parquet            the table: finished sources only, replaced as a whole
"""

import itertools
import json
import time
import uuid
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.files import atomic_folder, atomic_path, make_folder
from core.sanitize import clean_text
from curation.folders import PARTS, TABLE
from curation.judge import TRANSITION
from curation.output.parquet_files import read_as
from curation.recipe import Rule
from curation.schema import FILE_COLUMNS, FINISH_COLUMNS, PART_COLUMNS, Writer, part_schema, table_schema
from curation.shots.border import Border
from curation.types import Row

ROWS_PER_FILE = 100_000
ROWS_AT_ONCE = 10_000
"""about so many rows are objects of Python at a time while parts are folded"""
LONGEST_ERROR = 20_000
"""characters of what went wrong with one clip; a traceback has a few thousand"""
SOURCE_KEY = ("source_path", "source_size_bytes", "source_mtime_ns")
FINISHED = (
    *("start_frame", "shot_index", "shot_start_s", "shot_end_s", "transition_kind", "transition_score"),
    *("source_clips", "source_num_frames", "source_duration_s"),
)
"""columns that are known only once a source is whole"""
LOOKED_AT = (*SOURCE_KEY, *FINISHED[:6], "type", "kind", "status", "start_s", "end_s", "num_frames", *PART_COLUMNS)
RULES_KEY = b"selects.rules"
"""Parquet metadata: the rules that the verdicts of this table follow."""
REVIEWS = "(reviews)"
"""among them; no column has such a name"""


@dataclass(frozen=True)
class Unfinished:
    """Segments of sources that are not whole yet: (path, size, mtime) to segment numbers whose rows are parts."""

    segments: dict[tuple[str, int, int], list[int]]


def clips_folder(out: Path) -> Path:
    """Return the folder of the table."""
    return out / TABLE


def parts_folder(out: Path) -> Path:
    """Return the folder of the parts."""
    return out / PARTS


def _parts(out: Path) -> list[Path]:
    """Return the complete parts; a name with a dot in front is a part that a killed worker left half written."""
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
    files = sorted(clips_folder(out).glob("part-*.parquet"))
    if not files:
        return schema.empty_table()
    return pa.concat_tables([read_as(file, schema) for file in files])


def written_rules(out: Path) -> str | None:
    """Return the rules that the table's verdicts follow, as text; None when there is no table."""
    for file in sorted(clips_folder(out).glob("part-*.parquet"))[:1]:
        return _stamp(file)
    return None


def _stamp(file: Path) -> str:
    return (pq.read_schema(file).metadata or {}).get(RULES_KEY, b"").decode()


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
    table = in_order(table).replace_schema_metadata({RULES_KEY: rules.encode()})
    begins = range(0, max(1, len(table)), ROWS_PER_FILE)
    with atomic_folder(clips_folder(out)) as folder, ThreadPoolExecutor(min(len(begins), pa.cpu_count())) as threads:
        files = [folder / f"part-{number:05d}.parquet" for number in range(len(begins))]
        parts = [table.slice(begin, ROWS_PER_FILE) for begin in begins]
        list(threads.map(_write_parquet, parts, files))


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
    _write_part(folder, pa.Table.from_pylist(named, schema=schema), rules)


def _error_of(row: Row) -> str | None:
    """Return what went wrong as the table holds it: libraries say what they like, and at any length."""
    return None if row["error"] is None else clean_text(row["error"], LONGEST_ERROR)


def _write_part(folder: Path, table: pa.Table, rules: str) -> None:
    table = table.replace_schema_metadata({RULES_KEY: rules.encode()})
    with atomic_path(folder / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.parquet") as temporary:
        pq.write_table(table, temporary, compression="zstd")


def fold(out: Path, writers: Iterable[Writer]) -> Unfinished:
    """Move the rows of finished sources from the parts into the table.

    A source is finished when every row of every one of its segments is there. Rows without a segment are new
    states of rows that the table has. Parts of unfinished sources are reduced to their finished segments.

    Returns:
        What is left in the parts.
    """
    writers = tuple(writers)
    files = _parts(out)
    if not files:
        return Unfinished({})
    rows = _newest(_read_parts(files, writers))
    updates = rows.filter(pc.is_null(rows["_segments"]))
    finished: list[pa.Table] = [rows.schema.empty_table()]
    kept: list[pa.Table] = [rows.schema.empty_table()]
    unfinished: dict[tuple[str, int, int], list[int]] = {}
    for some in _by_source(rows.filter(pc.is_valid(rows["_segments"]))):
        done: list[Row] = []
        left: list[int] = []
        for source, segments in _segments_of(some).items():
            whole = {i: rows for i, rows in segments.items() if _is_whole(rows)}
            count = next(iter(segments.values()))[0]["_segments"]
            if len(whole) == count:
                done += _finish_source([sorted(whole[i], key=_place) for i in range(count)])
            elif whole:
                unfinished[source] = sorted(whole)
                left += [row["_row"] for rows in whole.values() for row in rows]
        finished.append(_with_finish(some, done))
        kept.append(some.take(pa.array(left, pa.int64())))
    stamps = {_stamp(file) for file in files}
    new, remaining = pa.concat_tables(finished), pa.concat_tables(kept)
    if len(new) or len(updates):
        old_rules = written_rules(out)
        both = stamps if old_rules is None else stamps | {old_rules}
        # Verdicts by several rules have no stamp: whoever opens the output judges them again.
        _merge(out, writers, both.pop() if len(both) == 1 else "", new, updates)
    with atomic_folder(parts_folder(out)) as folder:
        if len(remaining):
            _write_part(folder, remaining, stamps.pop() if len(stamps) == 1 else "")
    return Unfinished(unfinished)


def drop_parts(out: Path, writers: Iterable[Writer], wanted: Container[tuple[str, int, int]]) -> None:
    """Forget finished segments of sources that are gone, or are not as they were."""
    files = _parts(out)
    if not files:
        return
    rows = _read_parts(files, writers)
    keys = zip(*(rows[name].to_pylist() for name in SOURCE_KEY), strict=True)
    is_wanted = pa.array([key in wanted for key in keys], pa.bool_())
    if pc.all(is_wanted, min_count=0).as_py():
        return
    stamps = {_stamp(file) for file in files}
    with atomic_folder(parts_folder(out)) as folder:
        if pc.any(is_wanted).as_py():
            _write_part(folder, rows.filter(is_wanted), stamps.pop() if len(stamps) == 1 else "")


def _read_parts(files: Iterable[Path], writers: Iterable[Writer]) -> pa.Table:
    schema = part_schema(writers)
    return pa.concat_tables([read_as(file, schema) for file in files]).combine_chunks()


def _newest(rows: pa.Table) -> pa.Table:
    """Return the last row of every clip, in the order in which the clips come first."""
    clips = rows["clip_id"].combine_chunks().dictionary_encode()
    last = np.zeros(len(clips.dictionary), np.int64)
    last[clips.indices.to_numpy()] = np.arange(len(rows))
    return rows if len(last) == len(rows) else rows.take(pa.array(last))


def _by_source(rows: pa.Table) -> Iterator[pa.Table]:
    """Yield rows some sources at a time, whole ones, so that few are looked at as objects at once."""
    order = pc.sort_indices(rows, sort_keys=[("source_path", "ascending")]).to_numpy()
    paths = rows["source_path"].combine_chunks().dictionary_encode().indices.to_numpy()[order]
    starts = np.flatnonzero(np.diff(paths, prepend=-1))
    wanted = np.arange(0, len(order), ROWS_AT_ONCE)
    begins = np.unique(starts[np.searchsorted(starts, wanted, side="right") - 1]) if len(order) else wanted
    for begin, end in itertools.pairwise([*begins.tolist(), len(order)]):
        yield rows.take(pa.array(np.sort(order[begin:end])))


def _segments_of(rows: pa.Table) -> dict[tuple[str, int, int], dict[int, list[Row]]]:
    """Return what `fold` looks at of rows, by source and segment; `_row` is a row's place in the table."""
    sources: dict[tuple[str, int, int], dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for number, row in enumerate(rows.select(LOOKED_AT).to_pylist()):
        segments = sources[tuple(row[name] for name in SOURCE_KEY)]
        if segments and next(iter(segments.values()))[0]["_segments"] != row["_segments"]:
            segments.clear()  # it could not be read any more: that is the last word on all of it
        segments[row["_segment"]].append(row | {"_row": number})
    return sources


def _with_finish(rows: pa.Table, finished: Sequence[Row]) -> pa.Table:
    """Return the rows that are finished, with what `_finish_source` set."""
    table = rows.take(pa.array([row["_row"] for row in finished], pa.int64()))
    fallen = pa.array([row.get("_is_fallen", False) for row in finished], pa.bool_())
    columns = {name: pa.array([row[name] for row in finished], table.schema.field(name).type) for name in FINISHED}
    if pc.any(fallen).as_py():
        blank = {
            name: pa.scalar(None, table.schema.field(name).type) for name in FINISH_COLUMNS if name in rows.column_names
        }
        set_to = {"kind": "transition", "status": "rejected", "reasons": pa.scalar([TRANSITION], pa.list_(pa.string()))}
        columns |= {name: pc.if_else(fallen, value, table[name]) for name, value in (blank | set_to).items()}
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), values)
    return table


def _merge(out: Path, writers: tuple[Writer, ...], rules: str, new: pa.Table, updates: pa.Table) -> None:
    schema = table_schema(writers)
    old = read_table(out, writers)
    redone, changed = new["source_path"].combine_chunks().unique(), updates["clip_id"].combine_chunks()
    stays = pc.and_(pc.invert(pc.is_in(old["source_path"], redone)), pc.invert(pc.is_in(old["clip_id"], changed)))
    there = pc.is_in(updates["clip_id"], old["clip_id"].combine_chunks())
    updates = updates.filter(pc.and_(there, pc.invert(pc.is_in(updates["source_path"], redone))))
    write_table(out, pa.concat_tables([old.filter(stays), *(t.select(schema.names) for t in (new, updates))]), rules)


def _is_whole(rows: list[Row]) -> bool:
    wanted = [row["_segment_rows"] for row in rows if row["_segment_rows"] is not None]
    return bool(wanted) and len(rows) == max(wanted)


def _place(row: Row) -> tuple[float, bool]:
    return (row["start_s"] or 0.0, row["status"] == "failed")


def _finish_source(segments: list[list[Row]]) -> list[Row]:
    """Set what is known only now: frame numbers from the source's start, shots across borders, totals."""
    frames = shots = 0
    end_s = None
    border = Border()
    rows: list[Row] = []
    for segment in segments:
        known = [row["shot_index"] for row in segment if row["shot_index"] is not None]
        first_shot = shots - 1 if not border.is_cut and shots and known else shots
        for row in segment:
            if (
                border.transition_frames > (row["start_frame"] or 0)
                and row["kind"] == "clip"
                and row["status"] != "failed"
            ):
                row = row | {"kind": "transition", "status": "rejected", "_is_fallen": True}
            shot = None if row["shot_index"] is None else first_shot + row["shot_index"]
            start = None if row["start_frame"] is None else frames + row["start_frame"]
            rows.append(row | {"shot_index": shot, "start_frame": start})
        totals = next((row for row in segment if row["_segment_frames"] is not None), {})
        seen = [row["start_frame"] + (row["num_frames"] or 1) for row in segment if row["start_frame"] is not None]
        frames += max([totals.get("_segment_frames") or 0, *seen])  # a decoder that died has told no total
        end_s = totals.get("_segment_end_s") or end_s
        shots = first_shot + max(known, default=-1) + 1
        border = Border.from_column(next((row["_border"] for row in segment if row["_border"] is not None), None))
    spans: dict[int, tuple[float, float | None]] = {}
    ended_by: dict[int, tuple[str | None, float | None]] = {}  # as the last clip of a shot says
    for row in rows:
        if row["shot_index"] is not None:
            start_s, _ = spans.get(row["shot_index"], (row["shot_start_s"], None))
            end = row["end_s"] if row["shot_end_s"] is None else row["shot_end_s"]
            spans[row["shot_index"]] = (start_s, end)
            if row["kind"] != "transition":
                ended_by[row["shot_index"]] = (row["transition_kind"], row["transition_score"])
    moving = any(row["type"] == "video" for row in rows)
    for row in rows:
        if row["shot_index"] is not None:
            row["shot_start_s"], row["shot_end_s"] = spans[row["shot_index"]]
            if row["kind"] != "transition":
                row["transition_kind"], row["transition_score"] = ended_by[row["shot_index"]]
        row["source_clips"] = len(rows)
        row["source_num_frames"] = frames
        row["source_duration_s"] = end_s if moving else None
    return rows
