"""From planned micro-batches to tensors, ahead of the trainer in a thread of their own."""

import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

import numpy as np
import torch

from curation.errors import MediaError
from train_bridge.cache import CacheReader
from train_bridge.cache_build import EncodeFrames, EncodeTexts
from train_bridge.frames import read_frames
from train_bridge.methods.types import Batch
from train_bridge.types import Bucket, MicroBatch, TrainRow

AHEAD = 4
"""micro-batches that wait ready"""


class Batches(Protocol):
    """Where a micro-batch's tensors come from."""

    def __call__(self, micro: MicroBatch, seeds: tuple[int, ...]) -> Batch:
        """Give the tensors, on the CPU or on the device."""
        ...


@dataclass(frozen=True)
class CachedLatents:
    """Latents and texts from the cache.

    Attributes:
        reader: the cache.
        latent_keys: (row position, bucket) → key.
        text_keys: key of each row's caption.
    """

    reader: CacheReader
    latent_keys: Callable[[int, Bucket], str]
    text_keys: Sequence[str]

    def __call__(self, micro: MicroBatch, seeds: tuple[int, ...]) -> Batch:
        """Read and stack."""
        mean, logvar = self.reader.latents([self.latent_keys(row, micro.bucket) for row in micro.rows])
        text = self.reader.texts([self.text_keys[row] for row in micro.rows])
        return Batch(seeds, torch.tensor(micro.weights), mean, logvar, text)


@dataclass
class VideoFrames:
    """Frames straight from the files; those read lately are kept in memory.

    A row that cannot be read now (it could when it was planned) gets weight 0 and is told of in `unreadable`.

    Attributes:
        rows: all rows, by position.
        keep_bytes: memory for frames read lately.
        unreadable: row ids and why.
    """

    rows: Sequence[TrainRow]
    keep_bytes: int = 1 << 30
    unreadable: dict[str, str] = field(default_factory=dict)
    _kept: "OrderedDict[tuple[int, Bucket], np.ndarray]" = field(default_factory=OrderedDict, repr=False)
    _kept_bytes: int = 0

    def __call__(self, micro: MicroBatch, seeds: tuple[int, ...]) -> Batch:
        """Read and stack."""
        frames, weights = [], list(micro.weights)
        for place, row in enumerate(micro.rows):
            try:
                frames.append(self._frames(row, micro.bucket))
            except MediaError as error:
                self.unreadable[self.rows[row].row_id] = str(error)
                weights[place] = 0.0
                shape = (micro.bucket.num_frames, micro.bucket.height_px, micro.bucket.width_px, 3)
                frames.append(np.zeros(shape, np.uint8))
        return Batch(seeds=seeds, weights=torch.tensor(weights), frames=torch.from_numpy(np.stack(frames)))

    def _frames(self, row: int, bucket: Bucket) -> np.ndarray:
        key = (row, bucket)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        frames = read_frames(self.rows[row], bucket)
        self._kept[key] = frames
        self._kept_bytes += frames.nbytes
        while self._kept_bytes > self.keep_bytes and len(self._kept) > 1:
            self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
        return frames


@dataclass(frozen=True)
class EncodedVideo:
    """Latents and texts encoded for each batch from the files: nothing on disk, at the cost of time."""

    frames: VideoFrames
    encode_frames: EncodeFrames
    encode_texts: EncodeTexts

    def __call__(self, micro: MicroBatch, seeds: tuple[int, ...]) -> Batch:
        """Read, encode and stack."""
        read = self.frames(micro, seeds)
        assert read.frames is not None
        mean, logvar = self.encode_frames(read.frames)
        text = self.encode_texts([self.frames.rows[row].caption for row in micro.rows])
        return Batch(seeds=seeds, weights=read.weights, mean=mean, logvar=logvar, text=text)


@dataclass(frozen=True)
class Conditioned:
    """Batches with what an inpaint model sees: each row's frames, masked anew each time.

    Attributes:
        batches: latents and texts.
        frames: reads the same rows.
        condition: (uint8 frames (B, T, H, W, 3), seeds) → (B, 1+C, f, h, w).
    """

    batches: Batches
    frames: VideoFrames
    condition: Callable[[torch.Tensor, tuple[int, ...]], torch.Tensor]

    def __call__(self, micro: MicroBatch, seeds: tuple[int, ...]) -> Batch:
        """Read, mask, encode and stack."""
        batch, read = self.batches(micro, seeds), self.frames(micro, seeds)
        assert read.frames is not None
        return replace(batch, weights=read.weights, condition=self.condition(read.frames, seeds))


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move a batch's tensors."""
    tensors = {f.name: getattr(batch, f.name) for f in fields(batch) if f.name not in ("seeds", "weights")}
    moved: dict[str, Any] = {
        name: None if t is None else t.to(device, non_blocking=True) for name, t in tensors.items()
    }
    return replace(batch, weights=batch.weights.to(device), **moved)


class Ahead:
    """Runs a function over items in a thread, a few items ahead of whoever takes the results.

    Attributes:
        waited_s: seconds for which the taker waited, since it was last set to 0.
    """

    def __init__(self, make: Callable[[MicroBatch, tuple[int, ...]], Batch], items: Iterable, depth: int = AHEAD):
        """Begin at once; `items` are pairs of micro-batch and seeds."""
        self.waited_s = 0.0
        self._ready: queue.Queue = queue.Queue(depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(make, iter(items)), daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Batch]:
        """Give the results in order; an error in the thread is raised here."""
        while True:
            began = time.perf_counter()
            result = self._ready.get()
            self.waited_s += time.perf_counter() - began
            if result is None:
                return
            if isinstance(result, BaseException):
                raise result
            yield result

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._ready.get(timeout=0.05)
            except queue.Empty:
                continue

    def _work(self, make: Callable[[MicroBatch, tuple[int, ...]], Batch], items: Iterator) -> None:
        try:
            for micro, seeds in items:
                if self._stop.is_set():
                    return
                self._ready.put(make(micro, seeds))
            self._ready.put(None)
        except BaseException as error:  # noqa: BLE001 - raised where the results are taken
            self._ready.put(error)
