"""Which entries of the cache rows want, and which of them are there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from models.geometry import Bucket
from train_bridge.cache.cache import DType
from train_bridge.cache.fingerprint import content_ids, row_key
from train_bridge.cache.rows import rows_of
from train_bridge.types import Refusal, TrainRow


@dataclass(frozen=True)
class CacheItem:
    """A row, and the shape that it is wanted in."""

    row: TrainRow
    bucket: Bucket


@dataclass(frozen=True)
class Wanted:
    """What is to be in a cache.

    Attributes:
        items: rows with their buckets; equal content in one bucket is encoded once.
        captions: texts; each is encoded once, and the empty one always.
    """

    items: Sequence[CacheItem]
    captions: Sequence[str]


def stored_keys(index: pa.Table, dtype: DType) -> set[str]:
    """Return the keys that are encoded in a precision."""
    rows = rows_of(index, dtype)
    return set(rows.filter(pc.is_null(rows["error"]))["key"].to_pylist())


def latent_keys(cache: Path, items: Sequence[CacheItem], vae_id: str) -> tuple[list[str | None], list[Refusal]]:
    """Return the key of each item; files that the cache's memo knows are not read.

    Args:
        cache: the folder, which must exist.
        items: rows with their buckets.
        vae_id: fingerprint of the VAE.

    Returns:
        A key for each item, null where the file cannot be read; and why.
    """
    found = content_ids((item.row.path for item in items), cache / "files.parquet")
    keys: list[str | None] = []
    for item in items:
        content_id = found.ids.get(item.row.path)
        keys.append(content_id and row_key(content_id, item.row, item.bucket, vae_id))
    refused = [refusal_of(i.row, found.errors[i.row.path]) for i in items if i.row.path in found.errors]
    return keys, refused


def refusal_of(row: TrainRow, reason: str) -> Refusal:
    """Return the refusal of a row whose file cannot be read or encoded."""
    return Refusal(str(row.path), "file", reason, "repair the file or leave out the row", row.row_id)
