"""The benchmark of waiting for frames: what it counts, and what it says stands in the way."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from benchmarks import data_wait
from benchmarks.data_wait import EMPTIES, Case, cores_needed, draw_clip, least_share, waited
from models.geometry import Bucket
from train_bridge.data.frames import read_frames
from train_bridge.loop.batches import VideoFrames
from train_bridge.methods.types import Batch
from train_bridge.types import MicroBatch, TrainRow

SMALL = Case("small", 64, 48, Bucket(5, 32, 48))


def test_where_decoding_takes_more_than_the_cores_the_rest_is_waited() -> None:
    assert cores_needed(0.3, 0.1) == pytest.approx(3)
    assert least_share(0.3, 0.1, cores=2) == pytest.approx(1 / 3)  # a row comes every 150 ms
    assert least_share(0.3, 0.1, cores=3) == pytest.approx(0) and least_share(0.1, 0.1, cores=8) == 0


def test_clips_of_other_seeds_are_others_and_move(tmp_path: Path) -> None:
    for seed in (0, 1):
        draw_clip(tmp_path / f"{seed}.mp4", SMALL, seed, seconds=0.5)
    one, other = (
        read_frames(TrainRow(str(seed), tmp_path / f"{seed}.mp4", "", "video"), SMALL.bucket).astype(int)
        for seed in (0, 1)
    )
    assert one.shape == (5, 32, 48, 3)
    assert abs(one - other).mean() > 20 and abs(one[0] - one[-1]).mean() > 5


def test_waiting_for_the_first_batches_is_not_counted_and_for_the_others_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    class Waiting:
        """Lets each batch be waited for, the first ones for long."""

        def __init__(self, make: VideoFrames, micros: Sequence[tuple[MicroBatch, tuple[int, ...]]]):
            self.micros, self.waited_s = micros, 0.0

        def __iter__(self) -> Iterator[Batch]:
            nonlocal now
            for number, (_, seeds) in enumerate(self.micros):
                wait = 100.0 if number <= EMPTIES else 1.0
                self.waited_s, now = self.waited_s + wait, now + wait
                yield Batch(seeds, torch.ones(1), frames=torch.zeros(1))

        def close(self) -> None: ...

    def step() -> None:
        nonlocal now
        now += 3.0

    monkeypatch.setattr(data_wait, "Ahead", Waiting)
    row = TrainRow("0", Path("0.mp4"), "", "video")
    found = waited([row], SMALL.bucket, decoders=1, steps=5, step=step, clock=lambda: now)
    assert found.share == pytest.approx(4 / (5 * 3 + 4))


def test_the_cpu_time_of_children_is_counted_while_they_live() -> None:
    busy = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True); input()"
    before = data_wait._children_cpu_s()
    with subprocess.Popen([sys.executable, "-S", "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline()
        assert 0.15 <= data_wait._children_cpu_s() - before < 1.0
        child.communicate(b"\n")


def test_each_step_is_given_a_row_that_was_read(tmp_path: Path) -> None:
    draw_clip(tmp_path / "0.mp4", SMALL, 0, seconds=0.5)
    taken: list[int] = []
    row = TrainRow("0", tmp_path / "0.mp4", "", "video")
    found = waited([row], SMALL.bucket, decoders=1, steps=3, step=lambda: taken.append(1))
    assert len(taken) == EMPTIES + 3
    assert 0 <= found.share <= 1 and found.cpu_s >= 0


def test_a_row_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    row = TrainRow("0", tmp_path / "missing.mp4", "", "video")
    with pytest.raises(AssertionError, match="cannot be opened"):
        waited([row], SMALL.bucket, decoders=1, steps=1, step=lambda: None)
