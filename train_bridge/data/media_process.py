"""Several media processes of one training worker, each of which decodes a row ahead of the trainer."""

import queue
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from models.geometry import Bucket
from train_bridge.data.frames import FrameReader
from train_bridge.types import TrainRow


class Decoders:
    """Reads rows in child processes (`frames.FrameReader`), as many at a time as there are."""

    def __init__(self, count: int):
        """Start nothing yet; `count` processes at most."""
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="decoder")
        self._idle: queue.SimpleQueue[FrameReader] = queue.SimpleQueue()
        self._readers = [FrameReader() for _ in range(count)]
        for reader in self._readers:
            self._idle.put(reader)

    def submit(self, row: TrainRow, bucket: Bucket) -> "Future[np.ndarray]":
        """Begin to read a row; the future raises MediaError where it cannot be read."""
        return self._threads.submit(self._read, row, bucket)

    def close(self) -> None:
        """End the processes."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for reader in self._readers:
            reader.close()

    def _read(self, row: TrainRow, bucket: Bucket) -> np.ndarray:
        reader = self._idle.get()
        try:
            return reader(row, bucket)
        finally:
            self._idle.put(reader)
