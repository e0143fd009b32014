"""What was made for clips that changed rules reject is set aside, so that changing back costs nothing.

OUT/_retired/rows.parquet     captions, file facts and later scores by clip
OUT/_retired/<clip_id>.mp4    their files
"""

import os
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.cut import FOLDER
from curation.files import atomic_path
from curation.recipe import Recipe
from curation.schema import FINISH_COLUMNS, table_schema

CLIP_NAME_LETTERS = 40
"""of a UUID and a suffix"""


Aside = dict[str, pa.ChunkedArray]
"""What is set aside of a table's rows, in their order, by column; columns of which nothing is are left out."""


def aside_columns(recipe: Recipe) -> list[str]:
    """Give the columns that are ever set aside: those of pools of operators, and what is known of finished clips."""
    columns = table_schema(recipe.writers).names
    pooled = [c for pool in recipe.pools.values() for op in pool.values() for c in op.writes]
    return [*pooled, *(name for name in FINISH_COLUMNS if name in columns)]


def read_aside(out: Path, table: pa.Table, columns: Iterable[str]) -> Aside:
    """Give what an output has set aside of its table's rows."""
    file = out / "_retired" / "rows.parquet"
    if not file.exists():
        return {}
    wanted = pa.schema([table.schema.field(name) for name in ("clip_id", *columns)])
    store = pq.read_table(file).select(wanted.names).cast(wanted).combine_chunks()
    held = [name for name in wanted.names[1:] if store[name].null_count < len(store)]
    where = pc.index_in(table["clip_id"], store["clip_id"]) if held else None
    return {name: store[name].take(where) for name in held}


def retire(
    table: pa.Table, aside: Aside, columns: Collection[str], without_place: np.ndarray
) -> tuple[pa.Table, Aside]:
    """Take values off rows in which they have no place any more, and give them back where they have again.

    Args:
        table: an output's table.
        aside: what is set aside of its rows.
        columns: those to look at now.
        without_place: bool (N,), the rows in which their values have no place.

    Returns:
        The table so changed, and what is set aside from now on.
    """
    gone = pa.array(without_place, pa.bool_())
    for name in columns:
        was = now = table[name]
        taken = pc.and_(pc.is_valid(now), gone)
        if pc.any(taken).as_py():
            aside = aside | {name: pc.if_else(taken, now, aside.get(name, pa.scalar(None, now.type)))}
            now = pc.if_else(gone, pa.scalar(None, now.type), now)
        if name in aside:
            back = pc.and_(pc.and_(pc.is_null(now), pc.is_valid(aside[name])), pc.invert(gone))
            now = pc.if_else(back, aside[name], now) if pc.any(back).as_py() else now
        if now is not was:
            table = table.set_column(table.schema.get_field_index(name), name, now)
    return table, aside


def restored(table: pa.Table, aside: Aside) -> pa.Table:
    """Give the table with every value that was ever set aside back in its place, to look at."""
    for name, values in aside.items():
        if name in table.column_names and pc.any(pc.and_(pc.is_null(table[name]), pc.is_valid(values))).as_py():
            whole = pc.coalesce(table[name], values)
            table = table.set_column(table.schema.get_field_index(name), name, whole)
    return table


def write_aside(out: Path, table: pa.Table, aside: Aside, columns: Iterable[str]) -> None:
    """Keep what is set aside of the table's rows, of columns that are ever set aside."""
    rows = np.zeros(len(table), bool)
    for values in aside.values():
        rows |= pc.is_valid(values).to_numpy()
    some = pa.array(np.flatnonzero(rows))
    schema = pa.schema([table.schema.field(name) for name in ("clip_id", *columns)])
    held = {"clip_id": table["clip_id"], **aside}
    values = [held[f.name].take(some) if f.name in held else pa.nulls(len(some), f.type) for f in schema]
    file = out / "_retired" / "rows.parquet"
    if len(some) or file.exists():
        file.parent.mkdir(exist_ok=True)
        with atomic_path(file) as temporary:
            pq.write_table(pa.table(values, schema=schema), temporary, compression="zstd")


def settle_files(out: Path, table: pa.Table) -> None:
    """Make `train/` hold just the files that the table names: others are set aside, missing ones brought back."""
    named = [table["clip_path"]]
    for part in (out / "_parts").glob("[!.]*.parquet"):  # finished clips of unfinished sources
        named.append(pq.read_table(part, columns=["clip_path"])["clip_path"])
    names = pa.chunked_array([chunk for paths in named for chunk in paths.chunks], pa.string()).cast(pa.binary())
    train, aside = out / FOLDER, out / "_retired"
    kept, retired = _clips_in(train), _clips_in(aside)
    paths = pc.binary_join_element_wise(f"{FOLDER}/".encode(), pa.concat_arrays([kept, retired]), b"")
    is_named = pc.is_in(paths, names)
    missing = retired.filter(is_named.slice(len(kept)))
    if len(missing):  # one that lies in both folders was brought back, but for a crash
        missing = missing.filter(pc.invert(pc.is_in(missing, kept.filter(pc.is_in(kept, missing)))))
    move_files(kept.filter(pc.invert(is_named.slice(0, len(kept)))), train, aside)
    move_files(missing, aside, train)


def _clips_in(folder: Path) -> pa.Array:
    """Give the names of the clips' files in a folder, as bytes and in the folder's own order."""
    names = pa.array(os.listdir(os.fsencode(folder)) if folder.is_dir() else [], pa.binary())
    is_clip = pc.and_(pc.equal(pc.binary_length(names), CLIP_NAME_LETTERS), pc.invert(pc.starts_with(names, b".")))
    return names.filter(pc.and_(is_clip, pc.or_(pc.ends_with(names, b".mp4"), pc.ends_with(names, b".jpg"))))


def move_files(names: pa.Array, source: Path, target: Path) -> None:
    """Move files of these names (bytes) from one folder to another, which is made when missing."""
    if not len(names):
        return
    target.mkdir(exist_ok=True)
    here, there = os.open(source, os.O_RDONLY), os.open(target, os.O_RDONLY)
    try:
        for name in names.to_pylist():  # in open folders a fifth faster than by whole paths
            os.replace(name, name, src_dir_fd=here, dst_dir_fd=there)
    finally:
        os.close(here)
        os.close(there)
