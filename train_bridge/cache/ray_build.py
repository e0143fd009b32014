"""Build the cache as one streaming Ray Data graph: read frames → encode → write shards.

Frames are read by tasks, as many at a time as there are CPUs; models are held by a pool of actors, one for
each GPU, or on half of the CPUs; shards are filled by tasks from the encoded rows, which are six to eleven
times smaller than their frames. Each row of the graph is one pass (`cache_build.Unit`) up to the encoder and
one index row after it, so that a shard's worth of frames need never be in memory at once.
"""

import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load, save

from core.errors import UserError
from curation.engine.capacity import MODEL_CPUS
from curation.engine.ray_runner import start_ray
from models.errors import ModelError
from models.geometry import Bucket, LatentGrid
from train_bridge.cache.build import Job, Unit, encode_latents, encode_texts, read_unit
from train_bridge.cache.cache import Encoded, Entry, Kind, write_shard
from train_bridge.cache.wanted import CacheItem
from train_bridge.data.frames import FrameReader
from train_bridge.types import TrainRow

import ray  # isort: skip  # after ray_runner, which sets Ray's environment

MOST_BLOCKS = 10_000
BLOCK_BYTES = 16 << 20
"""Rows are gathered into blocks of about this size; a larger row is a block of its own."""
WRITE_CPUS = 0.25
STORE_SHARE = 1 / 8
"""of the object store that the rows of one shard may take; with more, Ray Data holds the encoders back"""
BYTES_PER_PIXEL = 0.5
"""of frames, for mean and log-variance in float32 with 16 channels, 4 × 8 × 8 pixels each"""
TEXT_BYTES = 256 * 3584 * 4


@dataclass(frozen=True)
class Booking:
    """How many encoders there are, and what each worker of a step books of CPUs and GPUs."""

    encoders: int
    encoder_cpus: float
    encoder_gpus: float
    reader_cpus: float
    writer_cpus: float


def book(cpus: float, gpus: float) -> Booking:
    """Fit the graph to a machine, so that all of its steps can run at once.

    Raises:
        UserError: there are too few CPUs for the GPUs.
    """
    encoders = int(gpus) if gpus >= 1 else max(1, int(cpus) // 2)
    booked = encoders * MODEL_CPUS
    if booked > cpus / 2:
        raise UserError(
            f"{encoders} encoders book {booked:.1f} CPUs of {cpus:g}; at most half may be booked: "
            f"give Ray {2 * booked:.1f} CPUs or more, or fewer GPUs"
        )
    # What the encoders leave, in as many shares as there are CPUs. Not the encoders' own share: equal ones would
    # let Ray fuse the two steps, and read on the encoders alone.
    reader_cpus = math.floor(1000 * min(1.0, (cpus - booked) / max(1, int(cpus)))) / 1000
    return Booking(encoders, MODEL_CPUS, 1.0 if gpus >= 1 else 0.0, reader_cpus, min(WRITE_CPUS, reader_cpus))


@dataclass(frozen=True)
class RayCacheRunner:
    """Does the work on Ray: at an address, or within this process.

    Attributes:
        address: of a cluster, whose machines all see the media and the cache; null: Ray is started here.
    """

    address: str | None = None

    def run(self, job: Job, kind: Kind, units: Sequence[Unit], done: Callable[[int], None]) -> None:
        """Encode and write all units."""
        start_ray(self.address)
        resources = ray.cluster_resources()
        booking = book(resources.get("CPU", 0.0), resources.get("GPU", 0.0))
        context = ray.data.DataContext.get_current().copy()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.target_max_block_size = BLOCK_BYTES
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        try:
            with ray.data.DataContext.current(context):
                rows = shard_rows(job.rows_per_shard, units, resources.get("object_store_memory", 0.0))
                for bundle in _graph(job, kind, units, booking, rows).iter_internal_ref_bundles():
                    done(bundle.num_rows() or 0)
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, UserError | ModelError):
                raise type(cause)(str(cause).splitlines()[0]) from None  # Ray adds lines about retries
            raise


def shard_rows(most: int, units: Sequence[Unit], store_bytes: float) -> int:
    """Return how many encoded rows are written together: at most what fits into a share of the object store."""
    buckets = {item.bucket for unit in units for item in unit.items}
    pixels = max((b.num_frames * b.height_px * b.width_px for b in buckets), default=0)
    row_bytes = pixels * BYTES_PER_PIXEL if buckets else TEXT_BYTES
    return max(1, min(most, int(store_bytes * STORE_SHARE / row_bytes)))


def _graph(job: Job, kind: Kind, units: Sequence[Unit], booking: Booking, rows: int) -> "ray.data.Dataset":
    dataset = ray.data.from_arrow(_blocks([_packed(unit) for unit in units]))
    batches: dict[str, Any] = {"batch_format": "pyarrow", "zero_copy_batch": True}
    if kind == "latent":
        dataset = dataset.map_batches(_read, batch_size=1, num_cpus=booking.reader_cpus, **batches)
    dataset = dataset.map_batches(
        _Encoder,
        fn_constructor_args=(job, kind),
        fn_constructor_kwargs={"has_gpu": booking.encoder_gpus > 0},
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(booking.encoders, len(units))),
        num_cpus=booking.encoder_cpus,
        num_gpus=booking.encoder_gpus,
        **batches,
    )
    return dataset.map_batches(_write, fn_kwargs={"job": job}, batch_size=rows, num_cpus=booking.writer_cpus, **batches)


_readers: list[FrameReader] = []  # of this worker, at most one


def _read(batch: pa.Table) -> Iterator[pa.Table]:
    """Read the frames of units."""
    if not _readers:
        _readers.append(FrameReader())
    for unit in _unpacked(batch):
        entries, frames = read_unit(unit, _readers[0])
        yield _table([json.dumps([asdict(entry) for entry in entries])], frames)


class _Encoder:
    """An actor that holds a model, loaded with its first unit."""

    def __init__(self, job: Job, kind: Kind, *, has_gpu: bool):
        self._job, self._kind = job, kind
        self._model: Any = None
        if not has_gpu:
            torch.set_num_threads(1)

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        encoders, dtype = self._job.encoders, self._job.dtype
        if self._model is None:
            self._model = encoders.load_vae() if self._kind == "latent" else encoders.load_text()
        if self._kind == "text":
            for unit in _unpacked(batch):
                yield from map(_sealed, encode_texts(self._model, unit, dtype))
            return
        for text, data in zip(batch["text"], batch["data"], strict=True):
            entries = [Entry(**values) for values in json.loads(text.as_py())]
            frames = _frames(entries, data.as_buffer())
            yield from map(_sealed, encode_latents(self._model, entries, frames, dtype))


def _write(batch: pa.Table, job: Job) -> Iterator[pa.Table]:
    """Write one shard."""
    encoded: list[Encoded] = []
    for text, data in zip(batch["text"], batch["data"], strict=True):
        encoded.append((Entry(**json.loads(text.as_py())), load(data.as_py())))
    write_shard(job.cache, encoded)
    yield pa.table({"key": [entry.key for entry, _ in encoded]})


def _sealed(encoded: Encoded) -> pa.Table:
    """Bring an encoded entry into a row that travels: its index row as JSON, its tensors as safetensors."""
    entry, tensors = encoded
    return _table([json.dumps(asdict(entry))], np.frombuffer(save(tensors), np.uint8))


def _frames(entries: Sequence[Entry], data: pa.Buffer) -> np.ndarray:
    first, count = entries[0], sum(entry.error is None for entry in entries)
    assert first.num_frames and first.height_px and first.width_px
    shape = (count, first.num_frames, first.height_px, first.width_px, 3)
    return np.frombuffer(data, np.uint8).reshape(shape).copy()  # the object store's own memory is read-only


def _table(text: list[str], data: np.ndarray) -> pa.Table:
    """Make a row of text and bytes; the bytes are not copied."""
    content = np.ascontiguousarray(data).reshape(-1)
    offsets = pa.py_buffer(np.array([0, len(content)], np.int64))
    column = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, pa.py_buffer(content)])
    return pa.table({"text": pa.array(text, pa.string()), "data": column})


def _blocks(rows: list[str]) -> list[pa.Table]:
    """Divide the planned units into blocks, one each unless there are very many."""
    count = min(len(rows), MOST_BLOCKS)
    bounds = [round(i * len(rows) / count) for i in range(count + 1)]
    return [pa.table({"unit": rows[a:b]}) for a, b in zip(bounds, bounds[1:], strict=False)]


def _packed(unit: Unit) -> str:
    items = [
        {
            "row_id": item.row.row_id,
            "path": os.fspath(item.row.path),
            "kind": item.row.kind,
            "start_s": item.row.start_s,
            "end_s": item.row.end_s,
            "duration_s": item.row.duration_s,
            "rate_fps": item.row.rate_fps,
            "letterbox": item.row.letterbox,
            "bucket": asdict(item.bucket),
        }
        for item in unit.items
    ]
    entries = [asdict(entry) for entry in unit.entries]
    return json.dumps({"entries": entries, "items": items, "captions": unit.captions})


def _unpacked(batch: pa.Table) -> Iterator[Unit]:
    for text in batch["unit"].to_pylist():
        values = json.loads(text)
        items = []
        for item in values["items"]:
            shape = item.pop("bucket")
            bucket = Bucket(**shape | {"grid": LatentGrid(**shape["grid"])})
            items.append(CacheItem(TrainRow(**item | {"path": Path(item["path"]), "caption": ""}), bucket))
        yield Unit(tuple(Entry(**e) for e in values["entries"]), tuple(items), tuple(values["captions"]))
