"""What was made for clips that changed rules reject is stashed, so that changing back costs nothing.

OUT/_retired/rows.parquet     captions, file facts and later scores by clip
OUT/_retired/<clip_id>.mp4    their files
OUT/_retired/control/<name>/<clip_id>.mp4    their control maps
"""

import os
from collections.abc import Collection, Iterable, Sequence
from functools import reduce
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.files import atomic_path
from curation.cut import folder_of
from curation.folders import CLIPS, PARTS, RETIRED
from curation.output.parquet_files import read_as
from curation.recipe import Recipe
from curation.schema import FILE_COLUMNS, FINISH_COLUMNS, table_schema

CLIP_NAME_LETTERS = (40, 41)
"""of a UUID and a suffix: fewest and most"""
CLIP_SUFFIXES = (b".mp4", b".jpg", b".mkv", b".webm")
"""what `cut` writes, the usual ones first"""
MAP_SUFFIXES = (b".mp4", b".jpg", b".txt")
"""of control maps"""


Stashed = dict[str, pa.ChunkedArray]
"""What is stashed of a table's rows, in their order, by column; columns of which nothing is are left out."""


def stashed_columns(recipe: Recipe) -> list[str]:
    """Return the columns that are ever stashed: those of pools and control maps, and of finished clips."""
    columns = table_schema(recipe.writers).names
    pooled = [c for pool in recipe.pools.values() for op in pool.values() for c in op.writes]
    return [*pooled, *recipe.control_amounts, *(name for name in FINISH_COLUMNS if name in columns)]


def read_stashed(out: Path, table: pa.Table, columns: Iterable[str]) -> Stashed:
    """Return what an output has stashed of its table's rows."""
    file = out / RETIRED / "rows.parquet"
    if not file.exists():
        return {}
    wanted = pa.schema([table.schema.field(name) for name in ("clip_id", *columns)])
    store = read_as(file, wanted).combine_chunks()
    held = [name for name in wanted.names[1:] if store[name].null_count < len(store)]
    where = pc.index_in(table["clip_id"], store["clip_id"]) if held else None
    return {name: store[name].take(where) for name in held}


def stash_values(
    table: pa.Table, stashed: Stashed, columns: Collection[str], without_place: np.ndarray
) -> tuple[pa.Table, Stashed]:
    """Take values off rows in which they have no place any more, and give them back where they have again.

    Args:
        table: an output's table.
        stashed: what is stashed of its rows.
        columns: those to look at now.
        without_place: bool (N,), the rows in which their values have no place.

    Returns:
        The table so changed, and what is stashed from now on.
    """
    gone = pa.array(without_place, pa.bool_())
    for name in columns:
        was = now = table[name]
        taken = pc.and_(pc.is_valid(now), gone)
        if pc.any(taken).as_py():
            stashed = stashed | {name: pc.if_else(taken, now, stashed.get(name, pa.scalar(None, now.type)))}
            now = pc.if_else(gone, pa.scalar(None, now.type), now)
        if name in stashed:
            back = pc.and_(pc.and_(pc.is_null(now), pc.is_valid(stashed[name])), pc.invert(gone))
            now = pc.if_else(back, stashed[name], now) if pc.any(back).as_py() else now
        if now is not was:
            table = table.set_column(table.schema.get_field_index(name), name, now)
    return table, stashed


def restored(table: pa.Table, stashed: Stashed) -> pa.Table:
    """Return the table with every value that was ever stashed back in its place, to look at."""
    for name, values in stashed.items():
        if name in table.column_names and pc.any(pc.and_(pc.is_null(table[name]), pc.is_valid(values))).as_py():
            whole = pc.coalesce(table[name], values)
            table = table.set_column(table.schema.get_field_index(name), name, whole)
    return table


def write_stashed(out: Path, table: pa.Table, stashed: Stashed, columns: Iterable[str]) -> None:
    """Keep what is stashed of the table's rows, of columns that are ever stashed."""
    rows = np.zeros(len(table), bool)
    for values in stashed.values():
        rows |= pc.is_valid(values).to_numpy()
    some = pa.array(np.flatnonzero(rows))
    schema = pa.schema([table.schema.field(name) for name in ("clip_id", *columns)])
    held = {"clip_id": table["clip_id"], **stashed}
    values = [held[f.name].take(some) if f.name in held else pa.nulls(len(some), f.type) for f in schema]
    file = out / RETIRED / "rows.parquet"
    if len(some) or file.exists():
        file.parent.mkdir(exist_ok=True)
        with atomic_path(file) as temporary:
            pq.write_table(pa.table(values, schema=schema), temporary, compression="zstd")


def sync_clip_files(out: Path, table: pa.Table) -> None:
    """Make `train/` and `control/*/` hold just the files that the table names: others are stashed, missing ones
    brought back.

    Args:
        out: the output.
        table: of it at least the columns of `FILE_COLUMNS` that it has.
    """
    columns = [name for name in FILE_COLUMNS if name in table.column_names]
    named = {name: [table[name]] for name in columns}
    for part in (out / PARTS).glob("[!.]*.parquet"):  # finished clips of unfinished sources
        rows = read_as(part, table.select(columns).schema)
        for name in columns:
            named[name].append(rows[name])
    for name, paths in named.items():
        names = pa.chunked_array([chunk for some in paths for chunk in some.chunks], pa.string()).cast(pa.binary())
        _sync_folder(out, folder_of(name), names, CLIP_SUFFIXES if name == "clip_path" else MAP_SUFFIXES)


def _sync_folder(out: Path, folder: str, names: pa.ChunkedArray, suffixes: Sequence[bytes]) -> None:
    """Settle the files of one folder; those of `train/` are stashed at the top, those of another in its like."""
    there, stashed = out / folder, out / RETIRED / ("" if folder == CLIPS else folder)
    kept, retired = _clips_in(there, suffixes), _clips_in(stashed, suffixes)
    paths = pc.binary_join_element_wise(f"{folder}/".encode(), pa.concat_arrays([kept, retired]), b"")
    is_named = pc.is_in(paths, names)
    missing = retired.filter(is_named.slice(len(kept)))
    if len(missing):  # one that lies in both folders was brought back, but for a crash
        missing = missing.filter(pc.invert(pc.is_in(missing, kept.filter(pc.is_in(kept, missing)))))
    move_files(kept.filter(pc.invert(is_named.slice(0, len(kept)))), there, stashed)
    move_files(missing, stashed, there)


def _clips_in(folder: Path, suffixes: Sequence[bytes]) -> pa.Array:
    """Return the names of the clips' files in a folder, as bytes and in the folder's own order."""
    names = pa.array(os.listdir(os.fsencode(folder)) if folder.is_dir() else [], pa.binary())
    letters, (fewest, most) = pc.binary_length(names), CLIP_NAME_LETTERS
    is_named = pc.and_(pc.greater_equal(letters, fewest), pc.less_equal(letters, most))
    is_clip = reduce(pc.or_, (pc.ends_with(names, suffix) for suffix in suffixes))
    return names.filter(pc.and_(pc.and_(is_named, pc.invert(pc.starts_with(names, b"."))), is_clip))


def move_files(names: pa.Array, source: Path, target: Path) -> None:
    """Move files of these names (bytes) from one folder to another, which is made when missing."""
    if not len(names):
        return
    target.mkdir(parents=True, exist_ok=True)
    here, there = os.open(source, os.O_RDONLY), os.open(target, os.O_RDONLY)
    try:
        for name in names.to_pylist():  # in open folders a fifth faster than by whole paths
            os.replace(name, name, src_dir_fd=here, dst_dir_fd=there)
    finally:
        os.close(here)
        os.close(there)
