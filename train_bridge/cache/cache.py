"""The cache of encoded latents and texts on disk: immutable shards, an index, and a reader for training.

CACHE/shards/<name>.safetensors   tensors `<key>.mean` and `<key>.logvar`, or `<key>.text` and, where the family's
                                  text encoders yield them, its mask, a second text and the mask of that
CACHE/parts/<name>.parquet        the index rows of one shard, written after it; gone once folded
CACHE/index.parquet               the index: one row per key and type of tensors, sorted, replaced as a whole
CACHE/files.parquet               content ids of files already read (`train_bridge.cache.fingerprint`)

Shards and parts have the digest of their keys as name, so that work done twice replaces itself. At every
instant each row of the index and of the parts names a shard that is there and whole. Runs of different precision
share a cache: each has rows and shards of its own, and none removes what another may be reading.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
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

from core.digest import digest
from core.errors import UserError
from core.files import atomic_path, tidy
from core.lock import locked
from models.transformers.conditioning import TEXT_PARTS, Conditioning, of_text
from train_bridge.cache.rows import as_bytes, newest, renamed, rows_of
from train_bridge.cache.shards import Shard, is_whole

Kind = Literal["latent", "text"]
DType = Literal["float32", "bf16"]
TORCH_DTYPES: Mapping[str, torch.dtype] = {"float32": torch.float32, "bf16": torch.bfloat16}
OPEN_SHARDS = 1024
HOW_TO_BUILD = "run_pipeline.py train CONFIG encodes what is missing"


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the index.

    Attributes:
        key: see `train_bridge.cache.fingerprint`.
        kind: `latent` or `text`.
        shard: name of the shard that holds its tensors; null when it could not be encoded.
        row_id: the row that it was encoded for first; null for texts.
        num_frames: frames of the bucket; null for texts.
        height_px: of the bucket; null for texts.
        width_px: of the bucket; null for texts.
        tokens: video tokens of the bucket, or positions of the text.
        dtype: `float32` or `bf16`, also of what could not be encoded as that; null in errors of versions before 0.9.
        size_bytes: of its tensors.
        error: why it could not be encoded; such rows are tried again by the next build.
        stored_as: key that its tensors have in the shard, where it was taken over from another one; else null.
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
    stored_as: str | None = None


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
    ("stored_as", pa.string()),
])
assert INDEX_SCHEMA.names == [field.name for field in fields(Entry)]

Encoded = tuple[Entry, dict[str, torch.Tensor]]
"""An entry, without its shard's name, and its tensors by suffix (`mean`, `logvar`, or names of `TEXT_PARTS`); with an
error none"""


def can_write(folder: Path) -> bool:
    """Return whether files can be made in a folder; a read-only file system refuses root, too."""
    return os.access(folder, os.W_OK)


def shard_path(cache: Path, name: str) -> Path:
    """Return where a shard lies."""
    return cache / "shards" / f"{name}.safetensors"


def _part_path(cache: Path, name: str) -> Path:
    return cache / "parts" / f"{name}.parquet"


def _index_path(cache: Path) -> Path:
    return cache / "index.parquet"


@contextmanager
def hold_cache(cache: Path, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Make a cache's folders and hold it for writing, and delete what a killed build left half written.

    Args:
        cache: the folder.
        waiting: while another process builds it, called once with who that is, and then it is waited for; None:
            that is an error.

    Raises:
        UserError: another process builds it, or it cannot be written to.
    """
    try:
        for folder in (cache / "shards", cache / "parts"):
            folder.mkdir(parents=True, exist_ok=True)
        (cache / ".lock").touch()
    except OSError as error:
        raise UserError(f"cache {cache}: cannot be written to ({error.strerror}); give another folder") from None
    with locked(cache, waiting):
        tidy(cache, cache / "shards", cache / "parts")
        yield


def write_shard(cache: Path, encoded: Sequence[Encoded]) -> None:
    """Write encoded rows: the shard, then its part of the index, each whole or not at all.

    Rows with an error get an index row only.

    Args:
        cache: the folder, held by whoever runs the build.
        encoded: at least one; tensors on the CPU.
    """
    # What failed counts without its type: a shard that lacks it never takes the place of one that has it.
    name = digest(*sorted([entry.key, None if entry.error else entry.dtype] for entry, _ in encoded))
    tensors = {f"{entry.key}.{suffix}": t.contiguous() for entry, found in encoded for suffix, t in found.items()}
    if tensors:
        with atomic_path(shard_path(cache, name)) as temporary:
            save_file(tensors, temporary)
    rows = [asdict(entry) | {"shard": name if found else None} for entry, found in encoded]
    with atomic_path(_part_path(cache, name)) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), temporary)


def read_index(cache: Path) -> pa.Table:
    """Read the index with the parts that are not folded yet: one row per key and type of tensors, sorted by both.

    An error never replaces tensors of its type; tensors replace it.
    """
    return newest(_read_rows(cache))


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


def fold(cache: Path) -> pa.Table:
    """Fold the parts into the index, and delete shards that nothing names; the cache must be held.

    A row of the index stays while its shard is whole, so a run that has read it can go on reading.
    Rows whose shard is gone or cut short are dropped, so that they are encoded again. A kill at any instant
    is fixed by the next fold.

    Returns:
        The index.
    """
    parts = list((cache / "parts").glob("[!.]*.parquet"))
    rows = _read_rows(cache)
    whole = [path.stem for path in (cache / "shards").glob("[!.]*.safetensors") if is_whole(path)]
    found = pc.is_in(rows["shard"], value_set=pa.array(whole, pa.string()))
    table = newest(rows.filter(pc.or_(found, pc.is_valid(rows["error"]))))
    _write_index(cache, table)
    for path in parts:
        path.unlink()
    named = set(pc.unique(table["shard"]).to_pylist())
    for path in (cache / "shards").glob("[!.]*.safetensors"):
        if path.stem not in named:
            path.unlink()
    return table


def take_over(cache: Path, index: pa.Table, names: Mapping[str, str]) -> pa.Table:
    """Enter rows of the index under a second key, so that renaming a model costs no encoding; the cache must be held.

    Args:
        cache: the folder.
        index: what `fold` returned.
        names: new key → key that it may be there under; rows with errors are passed over.

    Returns:
        The index, with a row more for each key that was found, in every type that it is there in.
    """
    more = renamed(index, names)
    if not len(more):
        return index
    table = newest(pa.concat_tables([index, more]))
    _write_index(cache, table)
    return table


def _write_index(cache: Path, table: pa.Table) -> None:
    with atomic_path(_index_path(cache)) as temporary:
        pq.write_table(table, temporary, compression="zstd")


class CacheReader:
    """Reads latents and texts by key, in any order.

    Shards are mapped and their headers read once; what is given out is a copy, which nothing else changes and
    which outlives the reader. One reader serves several threads, and children after a fork; pickled, it travels
    as the folder's name and reads the index again.
    """

    def __init__(self, cache: Path, open_shards: int = OPEN_SHARDS, dtype: DType | None = None):
        """Read the index.

        Args:
            cache: the folder.
            open_shards: how many shards are held mapped at most.
            dtype: which tensors are read; None: of each key what there is, float32 before bf16.

        Raises:
            UserError: no cache is there.
        """
        if not (cache / "shards").is_dir():
            raise UserError(f"{cache}: no cache is there; {HOW_TO_BUILD}")
        self.cache = cache
        self._open_shards = open_shards
        self._dtype = dtype
        self._shards: dict[str, Shard] = {}
        table = rows_of(read_index(cache), dtype)
        self._keys = as_bytes(table["key"])
        shards = table["shard"].combine_chunks().dictionary_encode()
        self._names: list[str] = shards.dictionary.to_pylist()
        self._shard = shards.indices.fill_null(-1).to_numpy()
        self._rows = table.select(["row_id", "error"])
        places = pc.indices_nonzero(pc.is_valid(table["stored_as"]))
        self._stored_as = dict(zip(places.to_pylist(), table["stored_as"].take(places).to_pylist(), strict=True))

    def __len__(self) -> int:
        """Count the keys that can be read."""
        return int((self._shard >= 0).sum())

    def __contains__(self, key: str) -> bool:
        """Return whether a key can be read."""
        place = self._place(key)
        return place is not None and bool(self._shard[place] >= 0)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as the folder's name."""
        return type(self), (self.cache, self._open_shards, self._dtype)

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

    def text(self, key: str, caption: str | None = None) -> Conditioning:
        """Read a caption's embedding, with its mask and a second one where they were stored, as a batch of one.

        Args:
            key: `fingerprint.text_key`.
            caption: the text, for the message when it is missing.

        Raises:
            UserError: not in the cache, or its shard has gone.
        """
        what = None if caption is None else f"caption '{caption[:60]}'"
        return of_text({name: part[None].clone() for name, part in self._named(key, what, TEXT_PARTS).items()})

    def texts(self, keys: Sequence[str]) -> Conditioning:
        """Read captions' embeddings as a batch.

        Raises:
            UserError: one is not in the cache, or its shard has gone.
        """
        rows = [self._named(key, None, TEXT_PARTS) for key in keys]
        return of_text({name: torch.stack([row[name] for row in rows]) for name in rows[0]})

    def _views(self, key: str, what: str | None, *suffixes: str) -> list[torch.Tensor]:
        found = self._named(key, what, suffixes)
        return [found[suffix] for suffix in suffixes]

    def _named(self, key: str, what: str | None, suffixes: Sequence[str]) -> dict[str, torch.Tensor]:
        place = self._place(key)
        if place is None:
            kind = f" as {self._dtype}" if self._dtype else ""
            raise UserError(f"{what or key}: not in the cache {self.cache}{kind}; {HOW_TO_BUILD}")
        if self._shard[place] < 0:
            row = self._rows.slice(place, 1).to_pylist()[0]
            raise UserError(f"{what or row['row_id']}: could not be encoded ({row['error']}); fix or leave out the row")
        name = self._names[self._shard[place]]
        try:
            shard = self._shards.get(name) or self._open(name)
        except FileNotFoundError:
            raise UserError(f"{shard_path(self.cache, name)}: has gone; {HOW_TO_BUILD}") from None
        name = self._stored_as.get(place, key)
        return {suffix: shard.view(f"{name}.{suffix}") for suffix in suffixes if shard.has(f"{name}.{suffix}")}

    def _open(self, name: str) -> Shard:
        shard = self._shards[name] = Shard(shard_path(self.cache, name))
        while len(self._shards) > self._open_shards:  # one that is being read is let go after that
            self._shards.pop(list(self._shards)[0], None)
        return shard

    def _place(self, key: str) -> int | None:
        place = int(np.searchsorted(self._keys, key.encode()))
        return place if place < len(self._keys) and self._keys[place] == key.encode() else None
