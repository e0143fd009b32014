"""Folding: the rows of finished sources move from the parts into the table, a range of source paths at a time."""

import itertools
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.files import atomic_folder
from curation.inputs.many import SOURCE_KEY
from curation.judge import TRANSITION
from curation.output.parquet_files import read_as
from curation.output.table import (
    about_file,
    in_order,
    part_files,
    parts_folder,
    table_files,
    write_parts_file,
    write_tables,
    written_rules,
)
from curation.schema import FINISH_COLUMNS, PART_COLUMNS, Writer, part_schema, table_schema
from curation.shots.border import Border
from curation.types import Row

ROWS_AT_ONCE = 10_000
"""about so many rows are objects of Python at a time while parts are folded"""
ROWS_PER_RANGE = 50_000
"""about so many rows are in memory at a time, however many there are"""
FINISHED = (
    *("start_frame", "shot_index", "shot_start_s", "shot_end_s", "transition_kind", "transition_score"),
    *("source_clips", "source_num_frames", "source_duration_s"),
)
"""columns that are known only once a source is whole"""
LOOKED_AT = (*SOURCE_KEY, *FINISHED[:6], "type", "kind", "status", "start_s", "end_s", "num_frames", *PART_COLUMNS)


@dataclass(frozen=True)
class Unfinished:
    """Segments of sources that are not whole yet: (path, size, mtime) to segment numbers whose rows are parts."""

    segments: dict[tuple[str, int, int], list[int]]


class _NothingNewError(Exception):
    """No row enters the table: it stays as it is."""


def fold(out: Path, writers: Iterable[Writer]) -> Unfinished:
    """Move the rows of finished sources from the parts into the table.

    A source is finished when every row of every one of its segments is there. Rows without a segment are new
    states of rows that the table has. Parts of unfinished sources are reduced to their finished segments.

    Returns:
        What is left in the parts.
    """
    writers = tuple(writers)
    files = part_files(out)
    if not files:
        return Unfinished({})
    about = [about_file(file) for file in files]
    stamps = {each.rules for each in about}
    old_rules = written_rules(out)
    both = stamps if old_rules is None else stamps | {old_rules}
    folding = _Folding(writers, files, table_files(out))
    count = sum(each.rows for each in about) + sum(about_file(file).rows for file in folding.table)
    with suppress(_NothingNewError):
        # Verdicts by several rules have no stamp: whoever opens the output judges them again.
        write_tables(out, folding.merged(count), next(iter(both)) if len(both) == 1 else "")
    with atomic_folder(parts_folder(out)) as folder:
        if folding.kept:
            write_parts_file(folder, pa.concat_tables(folding.kept), stamps.pop() if len(stamps) == 1 else "")
    return Unfinished(folding.unfinished)


@dataclass
class _Folding:
    """Merges parts into a table, and gathers what stays in the parts meanwhile."""

    writers: tuple[Writer, ...]
    parts: Sequence[Path]
    table: Sequence[Path]
    kept: list[pa.Table] = field(default_factory=list)
    unfinished: dict[tuple[str, int, int], list[int]] = field(default_factory=dict)

    def merged(self, count: int) -> Iterator[pa.Table]:
        """Yield the rows of the new table in order, some sources at a time, of `count` rows in all.

        Raises:
            _NothingNewError: they are those of the old one.
        """
        has_news = False
        old_schema, new_schema = table_schema(self.writers), part_schema(self.writers)
        whole = count <= ROWS_PER_RANGE
        extents = {} if whole else {file: _extent(file) for file in (*self.table, *self.parts)}
        for first, end in [(None, None)] if whole else _ranges([*self.table, *self.parts]):
            rows = _newest(_read_range(self.parts, new_schema, first, end, extents))
            updates = rows.filter(pc.is_null(rows["_segments"]))
            new = self._finished(rows.filter(pc.is_valid(rows["_segments"])))
            has_news = has_news or bool(len(new) or len(updates))
            if whole and not has_news:
                break
            old = _read_range(self.table, old_schema, first, end, extents)
            yield in_order(_merge(old, new, updates))
        if not has_news:
            raise _NothingNewError

    def _finished(self, rows: pa.Table) -> pa.Table:
        """Return the rows of sources that are whole; of the others, finished segments are kept."""
        finished: list[pa.Table] = [rows.schema.empty_table()]
        for some in _by_source(rows):
            done: list[Row] = []
            left: list[int] = []
            for source, segments in _segments_of(some).items():
                whole = {i: rows for i, rows in segments.items() if _is_whole(rows)}
                count = next(iter(segments.values()))[0]["_segments"]
                if len(whole) == count:
                    done += _finish_source([sorted(whole[i], key=_place) for i in range(count)])
                elif whole:
                    self.unfinished[source] = sorted(whole)
                    left += [row["_row"] for rows in whole.values() for row in rows]
            finished.append(_with_finish(some, done))
            if left:
                self.kept.append(some.take(pa.array(left, pa.int64())))
        return pa.concat_tables(finished)


def _ranges(files: Sequence[Path]) -> list[tuple[str | None, str | None]]:
    """Return ranges of source paths, from the first on and before the second; null: from the start, to the end."""
    paths = pa.concat_tables([_paths(file) for file in files])["source_path"]
    order = pc.sort_indices(paths)
    starts = paths.take(order.take(pa.array(range(ROWS_PER_RANGE, len(paths), ROWS_PER_RANGE), pa.int64())))
    return list(itertools.pairwise([None, *dict.fromkeys(starts.to_pylist()), None]))


def _paths(file: Path) -> pa.Table:
    return read_as(file, pa.schema([("source_path", pa.string())]))


def _extent(file: Path) -> tuple[str, str]:
    """Return the first and last source path of a file."""
    found = pc.min_max(_paths(file)["source_path"]).as_py()
    return found["min"] or "", found["max"] or ""


def _read_range(
    files: Sequence[Path],
    schema: pa.Schema,
    first: str | None,
    end: str | None,
    extents: dict[Path, tuple[str, str]],
) -> pa.Table:
    """Read the rows of some sources, in the order of the files; see `_ranges`."""
    found = [schema.empty_table()]
    for file in files:
        least, most = extents.get(file, ("", ""))
        if file in extents and ((first is not None and most < first) or (end is not None and least >= end)):
            continue
        rows = read_as(file, schema)
        if first is not None:
            rows = rows.filter(pc.greater_equal(rows["source_path"], first))
        if end is not None:
            rows = rows.filter(pc.less(rows["source_path"], end))
        found.append(rows)
    return pa.concat_tables(found).combine_chunks()


def _merge(old: pa.Table, new: pa.Table, updates: pa.Table) -> pa.Table:
    """Return a table's rows with those of sources that were done anew, and with later states of others."""
    redone, changed = new["source_path"].combine_chunks().unique(), updates["clip_id"].combine_chunks()
    stays = pc.and_(pc.invert(pc.is_in(old["source_path"], redone)), pc.invert(pc.is_in(old["clip_id"], changed)))
    there = pc.is_in(updates["clip_id"], old["clip_id"].combine_chunks())
    updates = updates.filter(pc.and_(there, pc.invert(pc.is_in(updates["source_path"], redone))))
    return pa.concat_tables([old.filter(stays), *(t.select(old.column_names) for t in (new, updates))])


def drop_parts(out: Path, writers: Iterable[Writer], wanted: Container[tuple[str, int, int]]) -> None:
    """Forget finished segments of sources that are gone, or are not as they were; the parts are folded."""
    files = part_files(out)
    if not files:
        return
    rows = _read_range(files, part_schema(writers), None, None, {})
    keys = zip(*(rows[name].to_pylist() for name in SOURCE_KEY), strict=True)
    is_wanted = pa.array([key in wanted for key in keys], pa.bool_())
    if pc.all(is_wanted, min_count=0).as_py():
        return
    stamps = {about_file(file).rules for file in files}
    with atomic_folder(parts_folder(out)) as folder:
        if pc.any(is_wanted).as_py():
            write_parts_file(folder, rows.filter(is_wanted), stamps.pop() if len(stamps) == 1 else "")


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
