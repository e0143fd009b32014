"""Which rows of a cache's index count, where several were written of one key."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def newest(table: pa.Table) -> pa.Table:
    """Return one row per key and type: the first that has tensors, else the last error.

    A worker that outlives its killed run may write once more what the next run has written: that shard goes.
    An error without a type, as earlier versions wrote it, stands only where the key has no other row.
    """
    ages = np.arange(len(table))
    types = (
        table.select(["key", "dtype"]).append_column("whole", pc.is_null(table["error"])).append_column("age", [ages])
    )
    groups = types.group_by(["key", "dtype", "whole"]).aggregate([("age", "min"), ("age", "max")])
    order = [("key", "ascending"), ("dtype", "ascending"), ("whole", "descending")]
    groups = groups.take(pc.sort_indices(groups, order, null_placement="at_end"))
    keys, dtypes = as_bytes(groups["key"]), as_bytes(pc.fill_null(groups["dtype"], ""))
    is_same_key = np.append(False, keys[1:] == keys[:-1])[: len(keys)]
    is_same_type = np.append(False, dtypes[1:] == dtypes[:-1])[: len(keys)]
    begins = ~is_same_key | (~is_same_type & (dtypes != b""))
    chosen = pc.if_else(groups["whole"], groups["age_min"], groups["age_max"]).combine_chunks()
    return table.take(chosen.filter(pa.array(begins))).combine_chunks()


def rows_of(index: pa.Table, dtype: str | None) -> pa.Table:
    """Return the rows of one type, at most one per key, sorted by key; errors without a type are among them.

    Args:
        index: as `read_index` and `fold` return it.
        dtype: None: of each key the row with tensors, float32 before bf16, else an error.
    """
    if dtype is not None:
        return index.filter(pc.or_kleene(pc.equal(index["dtype"], dtype), pc.is_null(index["dtype"])))
    preferred = index.append_column("exact", pc.fill_null(pc.equal(index["dtype"], "float32"), False))
    preferred = preferred.append_column("whole", pc.is_null(index["error"]))
    order = [("key", "ascending"), ("whole", "descending"), ("exact", "descending")]
    table = index.take(pc.sort_indices(preferred, order))
    keys = as_bytes(table["key"])
    return table.filter(pa.array(np.append(True, keys[1:] != keys[:-1])[: len(keys)]))


def renamed(index: pa.Table, names: Mapping[str, str]) -> pa.Table:
    """Return copies of rows with tensors under other keys; `stored_as` says what their tensors are called.

    Args:
        index: as `read_index` and `fold` return it.
        names: new key → key of the row; those that are not there are passed over.
    """
    rows = index.filter(
        pc.and_(pc.is_in(index["key"], pa.array(names.values(), pa.string())), pc.is_null(index["error"]))
    )
    stored_as = pc.coalesce(rows["stored_as"], rows["key"])
    new_keys = {old: new for new, old in names.items()}
    keys = pa.array([new_keys[key] for key in rows["key"].to_pylist()], pa.string())
    rows = rows.set_column(rows.schema.get_field_index("key"), index.schema.field("key"), keys)
    return rows.set_column(rows.schema.get_field_index("stored_as"), "stored_as", stored_as)


def as_bytes(column: pa.ChunkedArray) -> np.ndarray:
    """Return short texts as an array of bytes, which compares fast."""
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype="S")
