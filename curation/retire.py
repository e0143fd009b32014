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
    out: Path, table: pa.Table, columns: Sequence[str], some: Collection[str], without_place: np.ndarray
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
    aside = _aside(table, store)
    gone = pa.array(without_place, pa.bool_())
    kept: dict[str, pa.Array] = {}
    rows = np.zeros(len(table), bool)
    is_news = False
    for name in columns:
        now = table[name].combine_chunks()
        taken = pc.and_(gone, pc.is_valid(now)) if name in some else None
        if taken is not None and pc.any(taken).as_py():
            kept[name] = pc.if_else(taken, now, aside[name]) if name in aside else pc.if_else(taken, now, _null(now))
            is_news = True
        elif name in aside:
            kept[name] = aside[name]
        else:
            continue
        rows |= pc.is_valid(kept[name]).to_numpy(zero_copy_only=False)
        if taken is not None:
            back = pc.coalesce(now, aside[name]) if name in aside else now
            values = pc.if_else(gone, _null(now), back)
            table = table.set_column(table.schema.get_field_index(name), name, values)
    if is_news or rows.sum() < len(store):
        _write(out, store.schema, table["clip_id"], kept, rows)
    return table


def restored(out: Path, table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Give the table with every value that was ever set aside back in its place, to look at; writes nothing."""
    for name, values in _aside(table, _read(out, table.schema, columns)).items():
        whole = pc.coalesce(table[name].combine_chunks(), values)
        table = table.set_column(table.schema.get_field_index(name), name, whole)
    return table


def settle_files(out: Path, table: pa.Table) -> None:
    """Make `train/` hold just the files that the table names: others are set aside, missing ones brought back."""
    named = [table["clip_path"]]
    for part in (out / "_parts").glob("[!.]*.parquet"):  # finished clips of unfinished sources
        named.append(pq.read_table(part, columns=["clip_path"])["clip_path"])
    names = pa.chunked_array([chunk for paths in named for chunk in paths.chunks], pa.string()).cast(pa.binary())
    train, aside = out / FOLDER, out / "_retired"
    kept, retired = _clips_in(train), _clips_in(aside)
    kept_is_named, retired_is_named = (
        pc.is_in(pc.binary_join_element_wise(f"{FOLDER}/".encode(), some, b""), names) for some in (kept, retired)
    )
    _move(kept.filter(pc.invert(kept_is_named)), train, aside)
    _move(retired.filter(pc.and_(retired_is_named, pc.invert(pc.is_in(retired, kept)))), aside, train)


def _clips_in(folder: Path) -> pa.Array:
    """Give the names of the clips' files in a folder, as bytes and in the folder's own order."""
    names = pa.array(os.listdir(os.fsencode(folder)) if folder.is_dir() else [], pa.binary())
    is_clip = pc.and_(pc.equal(pc.binary_length(names), CLIP_NAME_LETTERS), pc.invert(pc.starts_with(names, b".")))
    return names.filter(pc.and_(is_clip, pc.or_(pc.ends_with(names, b".mp4"), pc.ends_with(names, b".jpg"))))


def _move(names: pa.Array, source: Path, target: Path) -> None:
    if not len(names):
        return
    target.mkdir(exist_ok=True)
    for name in names.to_pylist():
        os.replace(os.fsencode(source) + b"/" + name, os.fsencode(target) + b"/" + name)


def _aside(table: pa.Table, store: pa.Table) -> dict[str, pa.Array]:
    """Give what the store holds of the table's rows, in their order; columns of which it holds nothing are left out."""
    if not len(store):
        return {}
    where = pc.index_in(table["clip_id"], store["clip_id"].combine_chunks()).combine_chunks()
    held = [name for name in store.column_names if name != "clip_id" and store[name].null_count < len(store)]
    return {name: store[name].combine_chunks().take(where) for name in held}


def _null(values: pa.Array) -> pa.Scalar:
    return pa.scalar(None, values.type)


def _read(out: Path, schema: pa.Schema, columns: Iterable[str]) -> pa.Table:
    file = out / "_retired" / "rows.parquet"
    wanted = pa.schema([schema.field(name) for name in ("clip_id", *columns)])
    return pq.read_table(file).select(wanted.names).cast(wanted) if file.exists() else wanted.empty_table()


def _write(
    out: Path, schema: pa.Schema, clip_ids: pa.ChunkedArray, kept: dict[str, pa.Array], rows: np.ndarray
) -> None:
    """Write the store: of some of the table's rows what is set aside."""
    some = pa.array(np.flatnonzero(rows))
    kept = {"clip_id": clip_ids.combine_chunks(), **kept}
    columns = [kept[f.name].take(some) if f.name in kept else pa.nulls(len(some), f.type) for f in schema]
    file = out / "_retired" / "rows.parquet"
    file.parent.mkdir(exist_ok=True)
    with atomic_path(file) as temporary:
        pq.write_table(pa.table(columns, schema=schema), temporary, compression="zstd")
