"""Build the cache: find what is missing, bring it into passes of one shape, encode, write.

The functions here know nothing of Ray. `InlineRunner` calls them in a loop; `cache_ray.RayCacheRunner` calls
the same ones from a Ray Data graph. Both leave equal tensors.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow.compute as pc
import torch

from core.errors import MediaError, OutputError
from models.geometry import Bucket
from train_bridge.cache.cache import (
    TORCH_DTYPES,
    DType,
    Encoded,
    Entry,
    Kind,
    can_write,
    fold,
    hold_cache,
    read_index,
    take_over,
    write_shard,
)
from train_bridge.cache.fingerprint import text_key
from train_bridge.cache.rows import rows_of
from train_bridge.cache.wanted import CacheItem, Wanted, latent_keys, refusal_of, stored_keys
from train_bridge.data.frames import FrameReader
from train_bridge.types import Refusal, TrainRow

PIXELS_PER_PASS = 16 << 20
"""frames × height × width × rows that are encoded at once, where one row alone is not more"""
ROWS_PER_PASS = 16
TEXTS_PER_PASS = 32
ROWS_PER_SHARD = 32

EncodeFrames = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""uint8 (B, T, H, W, 3) to mean and log-variance (B, C, F, h, w)"""
EncodeTexts = Callable[[Sequence[str]], Mapping[str, torch.Tensor]]
"""captions to their parts by name (`models.transformers.conditioning.TEXT_PARTS`): `text` (B, L, D), masks (B, L)"""
ReadFrames = Callable[[TrainRow, Bucket], np.ndarray]


class Encoders(Protocol):
    """The models that encode: a picklable recipe, carried out once in each worker process."""

    @property
    def vae_id(self) -> str:
        """Fingerprint of what encoding reads of the VAE's weights and configuration."""
        ...

    @property
    def text_id(self) -> str:
        """Fingerprint of the text encoder, its tokenizer and its number of positions."""
        ...

    def earlier_ids(self) -> tuple[str | None, str | None]:
        """Compute the VAE's and the text encoder's fingerprints of earlier versions; null: none."""
        ...

    def load_vae(self) -> EncodeFrames:
        """Load the VAE's encoder onto this process's device."""
        ...

    def load_text(self) -> EncodeTexts:
        """Load the text encoder onto this process's device."""
        ...


@dataclass(frozen=True)
class Unit:
    """What is encoded in one pass: rows of one bucket, or captions.

    Attributes:
        entries: their index rows, not encoded yet.
        items: the rows of latents, in the order of the entries.
        captions: the captions of texts, in the order of the entries.
    """

    entries: tuple[Entry, ...]
    items: tuple[CacheItem, ...] = ()
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """What every worker of a build knows.

    Attributes:
        cache: the folder, the same for all workers: on a cluster it lies on a shared disk.
        encoders: the models.
        dtype: what tensors are stored as.
        rows_per_shard: index rows of a shard.
    """

    cache: Path
    encoders: Encoders
    dtype: DType
    rows_per_shard: int


class CacheRunner(Protocol):
    """How units are carried out."""

    def run(self, job: Job, kind: Kind, units: Sequence[Unit], done: Callable[[int], None]) -> None:
        """Encode and write all units; `done` is told how many entries were written since the last call."""
        ...


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes:
        encoded: latents and texts that were encoded.
        reused: latents and texts that were there already.
        failed: rows that could not be read or encoded.
        seconds: wall time.
    """

    encoded: int
    reused: int
    failed: list[Refusal]
    seconds: float


@dataclass(frozen=True, eq=False)
class Encoding:
    """How a cache's entries are encoded and stored.

    Attributes:
        encoders: the models.
        dtype: what tensors are stored as; entries of another type do not count.
        rows_per_shard: rows that are written together, the most that a kill can cost each writer.
        at_once: most rows of a bucket in one pass, by what the encoder's device has; None: by pixels alone.
    """

    encoders: Encoders
    dtype: DType
    rows_per_shard: int = ROWS_PER_SHARD
    at_once: Callable[[Bucket], int] | None = None


def build_cache(
    cache: Path,
    wanted: Wanted,
    encoding: Encoding,
    runner: CacheRunner,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    waiting: Callable[[str], None] | None = None,
) -> BuildReport:
    """Encode what is missing of these rows and captions, and nothing else.

    A build that is killed at any instant loses the shards that were being filled; the next one goes on.
    Entries of other models, shapes, rows or types stay as they are.

    Args:
        cache: the folder; made if need be.
        wanted: what is to be there.
        encoding: how it is encoded and stored.
        runner: who does it.
        progress: called with entries done and entries to do, latents and texts together.
        waiting: as `hold_cache` takes it.

    Raises:
        UserError: another process builds this cache, or it cannot be written to.
        OutputError: it is read-only, and something is missing.
    """
    began = time.perf_counter()
    items, captions, encoders, dtype = wanted.items, wanted.captions, encoding.encoders, encoding.dtype
    cache = Path(os.path.abspath(cache))
    if cache.is_dir() and not can_write(cache):
        return _from_finished(cache, wanted, encoding)
    with hold_cache(cache, waiting):
        index = fold(cache)
        keys, refusals = latent_keys(cache, items, encoders.vae_id)
        latents = {key: item for key, item in zip(keys, items, strict=True) if key is not None}
        texts = {text_key(caption, encoders.text_id): caption for caption in ("", *captions)}
        stored = stored_keys(index, dtype)
        if len(index) and (latents.keys() | texts.keys()) - stored:
            names = _earlier_names(
                cache,
                {key: item for key, item in latents.items() if key not in stored},
                {key: text for key, text in texts.items() if key not in stored},
                encoders,
            )
            index = take_over(cache, index, names)
            stored = stored_keys(index, dtype)
        index = rows_of(index, dtype)
        missing = {
            "text": plan_texts({k: v for k, v in texts.items() if k not in stored}),
            "latent": plan_latents({k: v for k, v in latents.items() if k not in stored}, at_once=encoding.at_once),
        }
        total = sum(len(unit.entries) for units in missing.values() for unit in units)
        finished = 0

        def done(count: int) -> None:
            nonlocal finished
            finished += count
            progress(finished, total)

        job = Job(cache, encoders, dtype, encoding.rows_per_shard)
        for kind in ("text", "latent"):
            if missing[kind]:
                runner.run(job, kind, missing[kind], done)
        index = rows_of(fold(cache), dtype) if total else index
    failed = index.filter(pc.is_valid(index["error"]))
    errors = dict(zip(failed["key"].to_pylist(), failed["error"].to_pylist(), strict=True))
    pairs = [(key, item.row) for key, item in zip(keys, items, strict=True) if key is not None]
    refusals += [refusal_of(row, errors[key]) for key, row in pairs if key in errors]
    refusals += [
        Refusal(f"caption '{text[:60]}'", "caption", errors[key], "encode texts in float32", None)
        for key, text in texts.items()
        if key in errors
    ]
    keys_wanted = latents.keys() | texts.keys()
    lost = len(keys_wanted & errors.keys())
    return BuildReport(total - lost, len(keys_wanted) - total, refusals, time.perf_counter() - began)


def _earlier_names(
    cache: Path, latents: dict[str, CacheItem], texts: dict[str, str], encoders: Encoders
) -> dict[str, str]:
    """Return the keys that earlier versions gave to what is missing, by its key of today."""
    vae_id, text_id = encoders.earlier_ids()
    names: dict[str, str] = {}
    if vae_id:
        earlier, _ = latent_keys(cache, list(latents.values()), vae_id)
        names |= {key: old for key, old in zip(latents, earlier, strict=True) if old is not None}
    if text_id:
        names |= {key: text_key(caption, text_id) for key, caption in texts.items()}
    return names


def _from_finished(cache: Path, asked: Wanted, encoding: Encoding) -> BuildReport:
    """Look whether all is in a cache that cannot be written to."""
    began = time.perf_counter()
    items, captions, encoders, dtype = asked.items, asked.captions, encoding.encoders, encoding.dtype
    index = rows_of(read_index(cache), dtype)
    failed, stored = index.filter(pc.is_valid(index["error"])), stored_keys(index, dtype)
    errors = dict(zip(failed["key"].to_pylist(), failed["error"].to_pylist(), strict=True))
    keys, refusals = latent_keys(cache, items, encoders.vae_id)
    pairs = [(key, item.row) for key, item in zip(keys, items, strict=True) if key is not None]
    wanted = {key for key, _ in pairs} | {text_key(caption, encoders.text_id) for caption in ("", *captions)}
    if missing := wanted - stored - errors.keys():
        raise OutputError(
            f"cache {cache}: {len(missing)} of {len(wanted)} entries are missing, and it cannot be written to; "
            "give access, or set train.cache to another folder"
        )
    refusals += [refusal_of(row, errors[key]) for key, row in pairs if key in errors and key not in stored]
    return BuildReport(0, len(wanted & stored), refusals, time.perf_counter() - began)


def plan_latents(
    missing: dict[str, CacheItem],
    pixels_per_pass: int = PIXELS_PER_PASS,
    at_once: Callable[[Bucket], int] | None = None,
) -> list[Unit]:
    """Bring rows into passes of one bucket and bounded pixels, the largest bucket first.

    What does not fit into memory so fails at once, not after hours; spans of one file stay together.

    Args:
        missing: rows by key.
        pixels_per_pass: most pixels of a pass; a row that has more is a pass of its own.
        at_once: most rows of a bucket; None: as many as the pixels allow.
    """

    def place(pair: tuple[str, CacheItem]) -> tuple[int, Bucket, str, float, str]:
        key, item = pair
        return -item.bucket.tokens, item.bucket, str(item.row.path), item.row.start_s or 0.0, key

    units = []
    for bucket, group in groupby(sorted(missing.items(), key=place), key=lambda pair: pair[1].bucket):
        pixels = bucket.num_frames * bucket.height_px * bucket.width_px
        most = max(1, min(ROWS_PER_PASS, pixels_per_pass // pixels, at_once(bucket) if at_once else ROWS_PER_PASS))
        pairs = [(key, _travelling(item)) for key, item in group]
        for begin in range(0, len(pairs), most):
            some = pairs[begin : begin + most]
            entries = tuple(_latent_entry(key, item) for key, item in some)
            units.append(Unit(entries, items=tuple(item for _, item in some)))
    return units


def plan_texts(missing: dict[str, str]) -> list[Unit]:
    """Bring captions (by key) into passes."""
    pairs = sorted(missing.items())
    units = []
    for begin in range(0, len(pairs), TEXTS_PER_PASS):
        some = pairs[begin : begin + TEXTS_PER_PASS]
        units.append(Unit(tuple(Entry(key, "text") for key, _ in some), captions=tuple(text for _, text in some)))
    return units


def read_unit(unit: Unit, read: ReadFrames) -> tuple[list[Entry], np.ndarray]:
    """Read the frames of a unit of latents.

    Returns:
        Its entries, with an error where a row cannot be read; and uint8 (B, T, H, W, 3) of the others.
    """
    entries, frames = [], []
    for entry, item in zip(unit.entries, unit.items, strict=True):
        try:
            frames.append(read(item.row, item.bucket))
            entries.append(entry)
        except MediaError as error:
            entries.append(replace(entry, error=str(error)))
    bucket = unit.items[0].bucket
    shape = (len(frames), bucket.num_frames, bucket.height_px, bucket.width_px, 3)
    return entries, np.stack(frames) if frames else np.empty(shape, np.uint8)


def encode_latents(vae: EncodeFrames, entries: Sequence[Entry], frames: np.ndarray, dtype: DType) -> list[Encoded]:
    """Encode the frames of the entries that have no error; the others only get their type."""
    encoded: dict[str, Encoded] = {entry.key: (replace(entry, dtype=dtype), {}) for entry in entries}
    readable = [entry for entry in entries if entry.error is None]
    if readable:
        with torch.inference_mode():
            mean, logvar = vae(torch.from_numpy(frames))
        for entry, *pair in zip(readable, mean, logvar, strict=True):
            encoded[entry.key] = _encoded(entry, dict(zip(("mean", "logvar"), pair, strict=True)), dtype)
    return [encoded[entry.key] for entry in entries]


def encode_texts(model: EncodeTexts, unit: Unit, dtype: DType) -> list[Encoded]:
    """Encode the captions of a unit."""
    with torch.inference_mode():
        parts = model(unit.captions)
    rows = [{name: part[row] for name, part in parts.items()} for row in range(len(parts["text"]))]
    return [
        _encoded(replace(entry, tokens=len(row["text"])), row, dtype)
        for entry, row in zip(unit.entries, rows, strict=True)
    ]


def _encoded(entry: Entry, tensors: dict[str, torch.Tensor], dtype: DType) -> Encoded:
    # Masks are stored as they are.
    stored = {
        name: tensor.to("cpu", TORCH_DTYPES[dtype] if tensor.is_floating_point() else tensor.dtype, copy=True)
        for name, tensor in tensors.items()
    }
    if not all(bool(tensor.isfinite().all()) for tensor in stored.values()):
        return replace(entry, dtype=dtype, error="the encoder gave values that are not finite"), {}
    size = sum(tensor.nbytes for tensor in stored.values())
    return replace(entry, dtype=dtype, size_bytes=size), stored


@dataclass(frozen=True)
class InlineRunner:
    """Does everything in this process, one unit after the other."""

    def run(self, job: Job, kind: Kind, units: Sequence[Unit], done: Callable[[int], None]) -> None:
        """Encode and write all units."""
        waiting: list[Encoded] = []
        for encoded in _encode_all(job, kind, units):
            waiting += encoded
            while len(waiting) >= job.rows_per_shard:
                ready, waiting = waiting[: job.rows_per_shard], waiting[job.rows_per_shard :]
                write_shard(job.cache, ready)
                done(len(ready))
        if waiting:
            write_shard(job.cache, waiting)
            done(len(waiting))


def _encode_all(job: Job, kind: Kind, units: Sequence[Unit]) -> Iterator[list[Encoded]]:
    if kind == "text":
        model = job.encoders.load_text()
        yield from (encode_texts(model, unit, job.dtype) for unit in units)
        return
    vae, read = job.encoders.load_vae(), FrameReader()
    try:
        for unit in units:
            entries, frames = read_unit(unit, read)
            yield encode_latents(vae, entries, frames, job.dtype)
    finally:
        read.close()


def _latent_entry(key: str, item: CacheItem) -> Entry:
    bucket = item.bucket
    return Entry(
        key, "latent", None, item.row.row_id, bucket.num_frames, bucket.height_px, bucket.width_px, bucket.tokens
    )


def _travelling(item: CacheItem) -> CacheItem:
    """Return an item as workers need it: with a path that holds in any folder, without its caption."""
    return replace(item, row=replace(item.row, path=Path(os.path.abspath(item.row.path)), caption=""))
