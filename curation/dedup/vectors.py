"""Columns of vectors as arrays."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def vectors(table: pa.Table, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a column of equally long lists: values (M, D) of the rows that have one, and their places (M,)."""
    lists = table[column].combine_chunks()
    places = np.flatnonzero(pc.is_valid(lists).to_numpy(zero_copy_only=False))
    flat = pc.list_flatten(lists.drop_null()).to_numpy(zero_copy_only=False)
    return flat.reshape(len(places), -1) if len(places) else np.zeros((0, 0), flat.dtype), places


def unit(values: np.ndarray) -> np.ndarray:
    """Return vectors (N, D) brought to unit length, float32; those without a direction stay near 0."""
    values = values.astype(np.float32)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6))
