"""From planned micro-batches to tensors, ahead of the trainer in a thread of their own."""

import queue
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch

from core.errors import MediaError
from models.accelerator import use_device
from models.geometry import Bucket
from models.transformers.conditioning import moved, of_text
from train_bridge.cache.build import EncodeFrames, EncodeTexts
from train_bridge.cache.cache import CacheReader
from train_bridge.data.drawn_captions import drawn_caption
from train_bridge.data.frames import read_frames
from train_bridge.data.media_process import Decoders
from train_bridge.methods.types import Batch
from train_bridge.types import ALL_LEVELS, MicroBatch, TrainRow

AHEAD = 4
"""micro-batches that wait ready"""


class Batches(Protocol):
    """Where a micro-batch's tensors come from."""

    def __call__(self, micro: MicroBatch, seeds: tuple[int, ...]) -> Batch:
        """Return the tensors, on the CPU or on the device."""
        ...


@dataclass(frozen=True)
class CachedLatents:
    """Latents and texts from the cache.

    Attributes:
        reader: the cache.
        latent_keys: (row position, bucket) → key.
        text_keys: (row position, epoch) → key of its caption.
    """

    reader: CacheReader
    latent_keys: Callable[[int, Bucket], str]
    text_keys: Callable[[int, int], str]

    def __call__(self, micro: MicroBatch, seeds: tuple[int, ...]) -> Batch:
        """Read and stack."""
        mean, logvar = self.reader.latents([self.latent_keys(row, micro.bucket) for row in micro.rows])
        text = self.reader.texts([self.text_keys(row, micro.epoch) for row in micro.rows])
        return Batch(seeds, torch.tensor(micro.weights), mean, logvar, conditioning=text)


@dataclass
class VideoFrames:
    """Frames straight from the files; those read lately are kept in memory.

    A row that cannot be read now (it could when it was planned) gets weight 0 and is reported in `unreadable`.

    Attributes:
        rows: all rows, by position.
        keep_bytes: memory for frames read lately.
        unreadable: row ids and why.
        decoders: processes that read ahead; None: read when wanted, in this process.
    """

    rows: Sequence[TrainRow]
    keep_bytes: int = 1 << 30
    unreadable: dict[str, str] = field(default_factory=dict)
    decoders: Decoders | None = None
    _begun: "dict[tuple[int, Bucket], Future[np.ndarray]]" = field(default_factory=dict, repr=False)
    _kept: "OrderedDict[tuple[int, Bucket], np.ndarray]" = field(default_factory=OrderedDict, repr=False)
    _kept_bytes: int = 0

    def __call__(self, micro: MicroBatch, seeds: tuple[int, ...]) -> Batch:
        """Read and stack."""
        frames, weights = [], list(micro.weights)
        for place, row in enumerate(micro.rows):
            try:
                frames.append(self.frames_of(row, micro.bucket))
            except MediaError as error:
                self.unreadable[self.rows[row].row_id] = str(error)
                weights[place] = 0.0
                shape = (micro.bucket.num_frames, micro.bucket.height_px, micro.bucket.width_px, 3)
                frames.append(np.zeros(shape, np.uint8))
        return Batch(seeds=seeds, weights=torch.tensor(weights), frames=torch.from_numpy(np.stack(frames)))

    def begin(self, micro: MicroBatch) -> None:
        """Have the rows of a coming micro-batch decoded meanwhile."""
        if self.decoders is None:
            return
        for row in micro.rows:
            key = (row, micro.bucket)
            if key not in self._kept and key not in self._begun:
                self._begun[key] = self.decoders.submit(self.rows[row], micro.bucket)

    def frames_of(self, row: int, bucket: Bucket) -> np.ndarray:
        """Return uint8 (T, H, W, 3) of a row by its position.

        Raises:
            MediaError: it cannot be read.
        """
        key = (row, bucket)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        started = self._begun.pop(key, None)
        if started is None and self.decoders is not None:
            started = self.decoders.submit(self.rows[row], bucket)
        frames = read_frames(self.rows[row], bucket) if started is None else started.result()
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
    seed: int = 0

    def begin(self, micro: MicroBatch) -> None:
        """Have a coming micro-batch decoded meanwhile."""
        self.frames.begin(micro)

    def __call__(self, micro: MicroBatch, seeds: tuple[int, ...]) -> Batch:
        """Read, encode and stack."""
        read = self.frames(micro, seeds)
        assert read.frames is not None
        mean, logvar = self.encode_frames(read.frames)
        rows = self.frames.rows
        text = of_text(self.encode_texts([drawn_caption(rows[row], micro.epoch, self.seed) for row in micro.rows]))
        return Batch(seeds=seeds, weights=read.weights, mean=mean, logvar=logvar, conditioning=text)


@dataclass(frozen=True)
class Conditioned:
    """Batches with what an inpaint model sees: each row's frames, masked anew each time.

    Attributes:
        batches: latents and texts.
        frames: reads the same rows.
        condition: (uint8 frames (B, T, H, W, 3), seeds) → (B, channels, f, h, w).
        image: (the same) → tokens of a start image with their mask; None: the model sees none.
    """

    batches: Batches
    frames: VideoFrames
    condition: Callable[[torch.Tensor, tuple[int, ...]], torch.Tensor]
    image: Callable[[torch.Tensor, tuple[int, ...]], dict[str, torch.Tensor]] | None = None

    def begin(self, micro: MicroBatch) -> None:
        """Have a coming micro-batch decoded meanwhile."""
        self.frames.begin(micro)

    def __call__(self, micro: MicroBatch, seeds: tuple[int, ...]) -> Batch:
        """Read, mask, encode and stack."""
        batch, read = self.batches(micro, seeds), self.frames(micro, seeds)
        assert read.frames is not None and batch.conditioning is not None
        tokens = {} if self.image is None else self.image(read.frames, seeds)
        conditioning = replace(batch.conditioning, latents=self.condition(read.frames, seeds), **tokens)
        return replace(batch, weights=read.weights, conditioning=conditioning)


@dataclass(frozen=True)
class Levelled:
    """Batches with each row's own noise levels.

    Attributes:
        batches: what the rows are read by.
        levels: tilt, lowest and highest timestep of all rows (N, 3) float64.
        begin: of `batches`, where they read ahead.
    """

    batches: Batches
    levels: torch.Tensor
    begin: Callable[[MicroBatch], None] | None = None

    @staticmethod
    def of(rows: Sequence[TrainRow], batches: Batches, begin: Callable[[MicroBatch], None] | None) -> Batches:
        """Add the rows' levels; where no row has any, the batches are as they were."""
        levels = torch.tensor([row.levels for row in rows], dtype=torch.float64).reshape(-1, 3)
        if bool((levels == torch.tensor(ALL_LEVELS, dtype=torch.float64)).all()):
            return batches
        return Levelled(batches, levels, begin)

    def __call__(self, micro: MicroBatch, seeds: tuple[int, ...]) -> Batch:
        """Read, and add the levels."""
        return replace(self.batches(micro, seeds), levels=self.levels[list(micro.rows)])


@dataclass(frozen=True)
class Controlled:
    """Batches with what a control model sees.

    Attributes:
        batches: latents and texts.
        condition: (micro-batch, seeds, its batch) → (B, channels, f, h, w), and which rows could not be read.
        begin: of `batches`, where they read ahead.
    """

    batches: Batches
    condition: Callable[[MicroBatch, tuple[int, ...], Batch], tuple[torch.Tensor, list[int]]]
    begin: Callable[[MicroBatch], None] | None = None

    def __call__(self, micro: MicroBatch, seeds: tuple[int, ...]) -> Batch:
        """Read and stack; a row whose map cannot be read counts nothing."""
        batch = self.batches(micro, seeds)
        condition, unreadable = self.condition(micro, seeds, batch)
        weights = batch.weights.clone()
        weights[unreadable] = 0.0
        assert batch.conditioning is not None
        return replace(batch, weights=weights, conditioning=replace(batch.conditioning, latents=condition))


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move a batch's tensors."""

    def there(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else tensor.to(device, non_blocking=True)

    conditioning = None if batch.conditioning is None else moved(batch.conditioning, device, non_blocking=True)
    return replace(
        batch,
        weights=batch.weights.to(device),
        mean=there(batch.mean),
        logvar=there(batch.logvar),
        frames=there(batch.frames),
        conditioning=conditioning,
    )


class Ahead:
    """Runs a function over items in a thread, a few items ahead of whoever takes the results.

    Attributes:
        waited_s: seconds for which the taker waited, since it was last set to 0.
    """

    def __init__(
        self,
        make: Callable[[MicroBatch, tuple[int, ...]], Batch],
        items: Iterable,
        depth: int = AHEAD,
        device: torch.device | None = None,
    ):
        """Begin at once; `items` are pairs of micro-batch and seeds, `device` is current in the thread."""
        self._device = device
        self.waited_s = 0.0
        self._ready: queue.Queue = queue.Queue(depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(make, iter(items)), daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Batch]:
        """Yield the results in order; an error in the thread is raised here."""
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
            if self._device is not None:
                use_device(self._device)
            for micro, seeds in _begun_ahead(make, items):
                if self._stop.is_set():
                    return
                self._ready.put(make(micro, seeds))
            self._ready.put(None)
        except BaseException as error:  # noqa: BLE001 - raised where the results are taken
            self._ready.put(error)


def _begun_ahead(make: object, items: Iterator) -> Iterator:
    """Pass items on, those that follow having been started where `make` can do so."""
    begin: Callable[[MicroBatch], None] | None = getattr(make, "begin", None)
    waiting: deque = deque()
    for item in items:
        if begin is not None:
            begin(item[0])
        waiting.append(item)
        if begin is None or len(waiting) > AHEAD:
            yield waiting.popleft()
    yield from waiting
