"""The cache of encoded latents and texts on disk: immutable shards, an index, and a reader for training.

CACHE/shards/<name>.safetensors   tensors `<key>.mean` and `<key>.logvar`, or `<key>.text`
CACHE/parts/<name>.parquet        the index rows of one shard, written after it; gone once folded
CACHE/index.parquet               the index: one row per key, sorted by key, replaced as a whole
CACHE/files.parquet               content ids of files already read (`train_bridge.fingerprint`)

Shards and parts have the digest of their keys as name, so that work done twice replaces itself. At every
instant each row of the index and of the parts names a shard that is there and whole.
"""

import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from curation.errors import UserError
from curation.files import atomic_path, remove_leftovers
from curation.lock import locked
from train_bridge.fingerprint import digest

Kind = Literal["latent", "text"]
DType = Literal["float32", "bf16"]
TORCH_DTYPES: Mapping[str, torch.dtype] = {"float32": torch.float32, "bf16": torch.bfloat16}
_STORED_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16}
MOST_HEADER_BYTES = 100 << 20
OPEN_SHARDS = 1024
HOW_TO_BUILD = "run_pipeline.py train CONFIG encodes what is missing"


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the index.

    Attributes:
        key: see `train_bridge.fingerprint`.
        kind: `latent` or `text`.
        shard: name of the shard that holds its tensors; null when it could not be encoded.
        row_id: the row that it was encoded for first; null for texts.
        num_frames: frames of the bucket; null for texts.
        height_px: of the bucket; null for texts.
        width_px: of the bucket; null for texts.
        tokens: video tokens of the bucket, or positions of the text.
        dtype: `float32` or `bf16`; null when it could not be encoded.
        size_bytes: of its tensors.
        error: why it could not be encoded; such rows are tried again by the next build.
    """

    key: str
    kind: Kind
    shard: str | None = None
    row_id: str | None = None
    num_frames: int | None = None
    height_px: int | None = None
    width_px: int | None = None
    tokens: int | None = None
    dtype: str | None = None
    size_bytes: int = 0
    error: str | None = None


INDEX_SCHEMA = pa.schema([
    pa.field("key", pa.string(), nullable=False),
    pa.field("kind", pa.string(), nullable=False),
    ("shard", pa.string()),
    ("row_id", pa.string()),
    ("num_frames", pa.int32()),
    ("height_px", pa.int32()),
    ("width_px", pa.int32()),
    ("tokens", pa.int64()),
    ("dtype", pa.string()),
    pa.field("size_bytes", pa.int64(), nullable=False),
    ("error", pa.string()),
])
assert INDEX_SCHEMA.names == [field.name for field in fields(Entry)]

Encoded = tuple[Entry, dict[str, torch.Tensor]]
"""An entry, without its shard's name, and its tensors by suffix (`mean`, `logvar`, `text`); none with an error"""


def shard_path(cache: Path, name: str) -> Path:
    """Give where a shard lies."""
    return cache / "shards" / f"{name}.safetensors"


def _part_path(cache: Path, name: str) -> Path:
    return cache / "parts" / f"{name}.parquet"


def _index_path(cache: Path) -> Path:
    return cache / "index.parquet"


@contextmanager
def hold_cache(cache: Path) -> Iterator[None]:
    """Make a cache's folders and hold it for writing, and delete what a killed build left half written.

    Raises:
        UserError: another process builds it, or it cannot be written to.
    """
    try:
        for folder in (cache / "shards", cache / "parts"):
            folder.mkdir(parents=True, exist_ok=True)
        (cache / ".lock").touch()
    except OSError as error:
        raise UserError(f"cache {cache}: cannot be written to ({error.strerror}); give another folder") from None
    with locked(cache):
        for folder in (cache / "shards", cache / "parts"):
            remove_leftovers(folder, older_than_s=0.0)
        yield


def write_shard(cache: Path, encoded: Sequence[Encoded]) -> None:
    """Write encoded rows: the shard, then its part of the index, each whole or not at all.

    Rows with an error get an index row only.

    Args:
        cache: the folder, held by whoever runs the build.
        encoded: at least one; tensors on the CPU.
    """
    name = digest(*sorted([entry.key, entry.dtype] for entry, _ in encoded))
    tensors = {f"{entry.key}.{suffix}": t.contiguous() for entry, found in encoded for suffix, t in found.items()}
    if tensors:
        with atomic_path(shard_path(cache, name)) as temporary:
            save_file(tensors, temporary)
    rows = [asdict(entry) | {"shard": name if found else None} for entry, found in encoded]
    with atomic_path(_part_path(cache, name)) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), temporary)


def read_index(cache: Path) -> pa.Table:
    """Read the index with the parts that are not folded yet: one row per key, sorted by key.

    A later row of a key with another type of tensors replaces an earlier one; an error never replaces tensors.
    """
    return _newest(_read_rows(cache))


def _read_rows(cache: Path) -> pa.Table:
    # Parts first: one that is folded meanwhile is in the index read after it.
    parts = []
    for path in sorted((cache / "parts").glob("[!.]*.parquet")):
        with suppress(FileNotFoundError):
            parts.append(_read_part(path))
    try:
        index = _read_part(_index_path(cache))
    except FileNotFoundError:
        index = INDEX_SCHEMA.empty_table()
    return pa.concat_tables([index, *parts])


def _read_part(path: Path) -> pa.Table:
    try:
        return pq.read_table(path, schema=INDEX_SCHEMA)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException):
        raise UserError(f"{path}: cannot be read; delete it, and what it names is encoded again") from None


def _newest(table: pa.Table) -> pa.Table:
    """Give one row per key: of the last type written, the first row there was; of errors, the last.

    A worker that outlives its killed run may write once more what the next run has written: that shard goes.
    """
    ages = np.arange(len(table))
    types = (
        table.select(["key", "dtype"]).append_column("whole", pc.is_null(table["error"])).append_column("age", [ages])
    )
    groups = types.group_by(["key", "dtype", "whole"]).aggregate([("age", "min"), ("age", "max")])
    order = [("key", "ascending"), ("whole", "descending"), ("age_max", "descending")]
    groups = groups.take(pc.sort_indices(groups, order))
    keys = np.asarray(groups["key"].to_numpy(zero_copy_only=False), dtype="S")
    begins = np.append(True, keys[1:] != keys[:-1]) if len(keys) else np.zeros(0, bool)
    chosen = pc.if_else(groups["whole"], groups["age_min"], groups["age_max"]).combine_chunks()
    return table.take(chosen.filter(pa.array(begins))).combine_chunks()


def fold(cache: Path) -> pa.Table:
    """Fold the parts into the index, and delete shards that nothing names; the cache must be held.

    Rows whose shard is gone or cut short are dropped, so that they are encoded again. A kill at any instant
    is mended by the next fold.

    Returns:
        The index.
    """
    parts = list((cache / "parts").glob("[!.]*.parquet"))
    rows = _read_rows(cache)
    whole = [path.stem for path in (cache / "shards").glob("[!.]*.safetensors") if _is_whole(path)]
    found = pc.is_in(rows["shard"], value_set=pa.array(whole, pa.string()))
    table = _newest(rows.filter(pc.or_(found, pc.is_valid(rows["error"]))))
    with atomic_path(_index_path(cache)) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    for path in parts:
        path.unlink()
    named = set(pc.unique(table["shard"]).to_pylist())
    for path in (cache / "shards").glob("[!.]*.safetensors"):
        if path.stem not in named:
            path.unlink()
    return table


def _is_whole(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            header, begin = _read_header(file.fileno(), path)
            return os.fstat(file.fileno()).st_size == begin + _data_bytes(header)
    except (OSError, UserError, LookupError, TypeError):
        return False


def _read_header(descriptor: int, path: Path) -> tuple[dict[str, Any], int]:
    """Read a shard's header (name → dtype, shape, data_offsets) and where its data begin."""
    try:
        (length,) = struct.unpack("<Q", os.pread(descriptor, 8, 0))
        if length > MOST_HEADER_BYTES:
            raise ValueError
        header = json.loads(os.pread(descriptor, length, 8))
        header.pop("__metadata__", None)
    except (struct.error, ValueError, AttributeError):
        raise UserError(f"{path}: not a whole safetensors file; delete it and build the cache again") from None
    return header, 8 + length


def _data_bytes(header: Mapping[str, Any]) -> int:
    return max((tensor["data_offsets"][1] for tensor in header.values()), default=0)


class _Shard:
    """A mapped shard; no file stays open."""

    def __init__(self, path: Path):
        with path.open("rb") as file:
            self._header, self._begin = _read_header(file.fileno(), path)
            size = os.fstat(file.fileno()).st_size
        if size != self._begin + _data_bytes(self._header):  # read beyond its end, it would kill the process
            raise UserError(f"{path}: not a whole safetensors file; delete it and build the cache again")
        self._content = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()

    def view(self, name: str) -> torch.Tensor:
        """Give a tensor that lies in the mapped file: to be read, not written to."""
        tensor = self._header[name]
        begin, end = tensor["data_offsets"]
        dtype = _STORED_DTYPES[tensor["dtype"]]
        count = (end - begin) // dtype.itemsize
        return torch.frombuffer(self._content, dtype=dtype, count=count, offset=self._begin + begin).view(
            tensor["shape"]
        )


class CacheReader:
    """Reads latents and texts by key, in any order.

    Shards are mapped and their headers read once; what is given out is a copy, which nothing else changes and
    which outlives the reader. One reader serves several threads, and children after a fork; pickled, it travels
    as the folder's name and reads the index again.
    """

    def __init__(self, cache: Path, open_shards: int = OPEN_SHARDS):
        """Read the index.

        Args:
            cache: the folder.
            open_shards: how many shards are held mapped at most.

        Raises:
            UserError: no cache is there.
        """
        if not (cache / "shards").is_dir():
            raise UserError(f"{cache}: no cache is there; {HOW_TO_BUILD}")
        self.cache = cache
        self._open_shards = open_shards
        self._shards: dict[str, _Shard] = {}
        table = read_index(cache)
        self._keys = np.asarray(table["key"].to_numpy(zero_copy_only=False), dtype="S32")
        shards = table["shard"].combine_chunks().dictionary_encode()
        self._names: list[str] = shards.dictionary.to_pylist()
        self._shard = shards.indices.fill_null(-1).to_numpy()
        self._rows = table.select(["row_id", "error"])

    def __len__(self) -> int:
        """Count the keys that can be read."""
        return int((self._shard >= 0).sum())

    def __contains__(self, key: str) -> bool:
        """Tell whether a key can be read."""
        place = self._place(key)
        return place is not None and bool(self._shard[place] >= 0)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as the folder's name."""
        return type(self), (self.cache, self._open_shards)

    def latent(self, key: str, row_id: str | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Read a clip's posterior.

        Args:
            key: `fingerprint.latent_key`.
            row_id: the row, for the message when it is missing.

        Returns:
            Mean and log-variance, (C, F, H, W) each, as stored (float32 or bf16).

        Raises:
            UserError: not in the cache, or its shard has gone.
        """
        mean, logvar = self._views(key, row_id, "mean", "logvar")
        return mean.clone(), logvar.clone()

    def latents(self, keys: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Read the posteriors of clips of one shape as a batch, (B, C, F, H, W) each: copied once, not twice.

        Raises:
            UserError: one is not in the cache, or its shard has gone.
        """
        pairs = [self._views(key, None, "mean", "logvar") for key in keys]
        return torch.stack([mean for mean, _ in pairs]), torch.stack([logvar for _, logvar in pairs])

    def text(self, key: str, caption: str | None = None) -> torch.Tensor:
        """Read a caption's embedding (L, D).

        Args:
            key: `fingerprint.text_key`.
            caption: the text, for the message when it is missing.

        Raises:
            UserError: not in the cache, or its shard has gone.
        """
        (text,) = self._views(key, None if caption is None else f"caption '{caption[:60]}'", "text")
        return text.clone()

    def texts(self, keys: Sequence[str]) -> torch.Tensor:
        """Read captions' embeddings as a batch (B, L, D).

        Raises:
            UserError: one is not in the cache, or its shard has gone.
        """
        return torch.stack([self._views(key, None, "text")[0] for key in keys])

    def _views(self, key: str, what: str | None, *suffixes: str) -> list[torch.Tensor]:
        place = self._place(key)
        if place is None:
            raise UserError(f"{what or key}: not in the cache {self.cache}; {HOW_TO_BUILD}")
        if self._shard[place] < 0:
            row = self._rows.slice(place, 1).to_pylist()[0]
            raise UserError(
                f"{what or row['row_id']}: could not be encoded ({row['error']}); mend or leave out the row"
            )
        name = self._names[self._shard[place]]
        try:
            shard = self._shards.get(name) or self._open(name)
        except FileNotFoundError:
            raise UserError(f"{shard_path(self.cache, name)}: has gone; {HOW_TO_BUILD}") from None
        return [shard.view(f"{key}.{suffix}") for suffix in suffixes]

    def _open(self, name: str) -> _Shard:
        shard = self._shards[name] = _Shard(shard_path(self.cache, name))
        while len(self._shards) > self._open_shards:  # one that is being read is let go after that
            self._shards.pop(list(self._shards)[0], None)
        return shard

    def _place(self, key: str) -> int | None:
        place = int(np.searchsorted(self._keys, key.encode()))
        return place if place < len(self._keys) and self._keys[place] == key.encode() else None
