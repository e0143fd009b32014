"""What was made for clips that changed rules reject is set aside, so that changing back costs nothing.

OUT/_retired/rows.parquet     captions, file facts and later scores by clip
OUT/_retired/<clip_id>.mp4    their files
"""

import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.cut import FOLDER
from curation.files import atomic_path

CLIP_NAME_LETTERS = 40
"""of a UUID and a suffix"""


def retire(
    out: Path, table: pa.Table, columns: Sequence[str], some: Collection[str], without_place: pa.ChunkedArray
) -> pa.Table:
    """Take values off rows in which they have no place any more, and give them back where they have again.

    Args:
        out: output folder.
        table: its table.
        columns: all columns that are ever set aside.
        some: those of them to look at now.
        without_place: bool (N,), the rows in which their values have no place.

    Returns:
        The table so changed; `settle_files` then moves the files.
    """
    store = _read(out, table.schema, columns)
    where = pc.index_in(table["clip_id"], store["clip_id"].combine_chunks()).combine_chunks()
    gone = without_place.combine_chunks()
    kept: dict[str, pa.Array] = {"clip_id": table["clip_id"].combine_chunks()}
    any_kept = pa.array(np.zeros(len(table), bool))
    for name in columns:
        kept[name] = store[name].combine_chunks().take(where)
        if name in some:
            now = table[name].combine_chunks()
            values = pc.if_else(gone, pa.nulls(len(table), now.type), pc.if_else(pc.is_valid(now), now, kept[name]))
            kept[name] = pc.if_else(pc.and_(gone, pc.is_valid(now)), now, kept[name])
            table = table.set_column(table.schema.get_field_index(name), name, values)
        any_kept = pc.or_(any_kept, pc.is_valid(kept[name]))
    _write(out, pa.table(kept).filter(any_kept))
    return table


def restored(out: Path, table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Give the table with every value that was ever set aside back in its place, to look at; writes nothing."""
    store = _read(out, table.schema, columns)
    where = pc.index_in(table["clip_id"], store["clip_id"].combine_chunks()).combine_chunks()
    for name in columns:
        now = table[name].combine_chunks()
        values = pc.if_else(pc.is_valid(now), now, store[name].combine_chunks().take(where))
        table = table.set_column(table.schema.get_field_index(name), name, values)
    return table


def settle_files(out: Path, table: pa.Table) -> None:
    """Make `train/` hold just the files that the table names: others are set aside, missing ones brought back."""
    named = _names(table["clip_path"])
    for part in (out / "_parts").glob("[!.]*.parquet"):  # finished clips of unfinished sources
        named |= _names(pq.read_table(part, columns=["clip_path"])["clip_path"])
    train, aside = out / FOLDER, out / "_retired"
    kept, retired = _clips_in(train), _clips_in(aside)
    _move(kept - named, train, aside)
    _move((retired & named) - kept, aside, train)


def _names(paths: pa.ChunkedArray) -> set[str]:
    return set(pc.replace_substring_regex(pc.drop_null(paths), f"^{FOLDER}/", "").to_pylist())


def _clips_in(folder: Path) -> set[str]:
    return {name for name in os.listdir(folder) if _is_clip(name)} if folder.is_dir() else set()


def _is_clip(name: str) -> bool:
    return len(name) == CLIP_NAME_LETTERS and name.endswith((".mp4", ".jpg")) and name[0] != "."


def _move(names: set[str], source: Path, target: Path) -> None:
    if names:
        target.mkdir(exist_ok=True)
    for name in names:
        os.replace(f"{source}/{name}", f"{target}/{name}")


def _read(out: Path, schema: pa.Schema, columns: Iterable[str]) -> pa.Table:
    file = out / "_retired" / "rows.parquet"
    wanted = pa.schema([schema.field(name) for name in ("clip_id", *columns)])
    return pq.read_table(file).select(wanted.names).cast(wanted) if file.exists() else wanted.empty_table()


def _write(out: Path, rows: pa.Table) -> None:
    file = out / "_retired" / "rows.parquet"
    if len(rows) or file.exists():
        file.parent.mkdir(exist_ok=True)
        with atomic_path(file) as temporary:
            pq.write_table(rows, temporary, compression="zstd")
