"""What was made for clips that a change of rules rejects is set aside, so that changing back costs nothing.

OUT/_retired/rows.parquet     captions and file facts by clip
OUT/_retired/<clip_id>.mp4    their files
"""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.cut import FOLDER
from curation.files import atomic_path
from curation.schema import FINISH_COLUMNS, table_schema

KEPT = ("clip_id", *FINISH_COLUMNS)


def retire(out: Path, table: pa.Table, rejected_by_rules: pa.Array) -> pa.Table:
    """Take captions and files off rows that rules reject, and give them back to rows that rules accept again.

    Args:
        out: output folder.
        table: the judged table.
        rejected_by_rules: bool (N,), rows whose captions and files have no place in the table.

    Returns:
        The table with `FINISH_COLUMNS` set accordingly; `settle_files` then moves the files.
    """
    store = _read(out)
    made = pc.or_(pc.is_valid(table["caption_status"]), pc.is_valid(table["clip_path"]))
    leaving = table.filter(pc.and_(made, rejected_by_rules)).select(KEPT)
    bare = pc.and_(pc.invert(made), pc.invert(rejected_by_rules))
    coming = store.filter(pc.is_in(store["clip_id"], table.filter(bare)["clip_id"].combine_chunks()))
    if len(leaving):
        stays = pc.invert(pc.is_in(store["clip_id"], leaving["clip_id"].combine_chunks()))
        _write(out, pa.concat_tables([store.filter(stays), leaving.combine_chunks()]))
    where = pc.index_in(table["clip_id"], coming["clip_id"].combine_chunks())
    for name in FINISH_COLUMNS:
        values = pc.if_else(pc.fill_null(rejected_by_rules, False), pa.scalar(None, table[name].type), table[name])
        if len(coming):
            restored = coming[name].combine_chunks().take(where.combine_chunks())
            values = pc.if_else(pc.is_valid(where), restored, values)
        table = table.set_column(table.schema.get_field_index(name), name, values)
    return table


def settle_files(out: Path, table: pa.Table) -> None:
    """Make `train/` hold just the files that the table names: others are set aside, missing ones brought back."""
    named = set(pc.drop_null(table["clip_path"]).to_pylist())
    for part in (out / "_parts").glob("*.parquet"):  # finished clips of unfinished sources
        named |= set(pc.drop_null(pq.read_table(part, columns=["clip_path"])["clip_path"]).to_pylist())
    train, aside = out / FOLDER, out / "_retired"
    if train.is_dir():
        for entry in os.scandir(train):
            if entry.name.startswith(".") or f"{FOLDER}/{entry.name}" in named or not _is_clip(entry.name):
                continue
            aside.mkdir(exist_ok=True)
            os.replace(entry.path, aside / entry.name)
    if aside.is_dir():
        for entry in os.scandir(aside):
            if f"{FOLDER}/{entry.name}" in named and not (train / entry.name).exists():
                train.mkdir(exist_ok=True)
                os.replace(entry.path, train / entry.name)


def _is_clip(name: str) -> bool:
    stem, _, suffix = name.rpartition(".")
    return len(stem) == 36 and suffix in ("mp4", "jpg")


def _read(out: Path) -> pa.Table:
    file = out / "_retired" / "rows.parquet"
    full = table_schema(())
    schema = pa.schema([full.field(name) for name in KEPT])
    return pq.read_table(file).cast(schema) if file.exists() else schema.empty_table()


def _write(out: Path, rows: pa.Table) -> None:
    (out / "_retired").mkdir(exist_ok=True)
    with atomic_path(out / "_retired" / "rows.parquet") as temporary:
        pq.write_table(rows, temporary, compression="zstd")
