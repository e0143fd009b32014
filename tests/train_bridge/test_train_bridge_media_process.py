"""Frames decoded ahead of the trainer, in processes."""

import os
from pathlib import Path

import numpy as np
import psutil
from clips import CLIPS, write_clips

from models.geometry import Bucket
from train_bridge.data.frames import read_frames
from train_bridge.data.media_process import Decoders
from train_bridge.loop.batches import Ahead, VideoFrames
from train_bridge.types import MicroBatch, TrainRow

BUCKET = Bucket(5, 32, 32)


def test_rows_are_decoded_ahead_by_processes_and_an_unreadable_one_weighs_nothing(tmp_path: Path) -> None:
    write_clips(tmp_path, CLIPS)
    (tmp_path / "zz.mp4").write_bytes(b"no video")
    paths = sorted(tmp_path.glob("*.mp4"))
    rows = [TrainRow(p.name, p, "c", "video") for p in paths]
    decoders = Decoders(2)
    read = VideoFrames(rows, keep_bytes=0, decoders=decoders)
    micros = [(MicroBatch(BUCKET, (i,), (1.0,)), (0,)) for i in range(len(rows))]
    ahead = Ahead(read, micros)
    batches = list(ahead)
    ahead.close()
    for row, batch in zip(rows[:-1], batches[:-1], strict=True):
        assert batch.frames is not None and np.array_equal(batch.frames[0].numpy(), read_frames(row, BUCKET))
    assert batches[-1].weights.tolist() == [0.0] and list(read.unreadable) == ["zz.mp4"]
    children = [reader.pid for reader in decoders._readers if reader.pid is not None]
    assert children and all(pid != os.getpid() and psutil.pid_exists(pid) for pid in children)
    decoders.close()
    assert not any(map(psutil.pid_exists, children)) and all(reader.pid is None for reader in decoders._readers)
