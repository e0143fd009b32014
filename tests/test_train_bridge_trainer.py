"""The loop: what it adds up, what it keeps, and that an interruption changes nothing."""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from train_bridge.buckets import Assignment
from train_bridge.checkpoint import checkpoints, load_weights
from train_bridge.config import TrainConfig, TrainSettings, WatchSettings
from train_bridge.methods.types import Batch, Networks, draw_normal, generators_of
from train_bridge.parallel import Worker
from train_bridge.planner import Budget, Index, Schedule, plan_epoch
from train_bridge.trainer import Job, Trainer, row_seeds
from train_bridge.types import Bucket, MicroBatch, TrainRow

torch.set_num_threads(1)
ROWS = tuple(TrainRow(f"row {i}", Path("x"), "c", "video", weight=1.0 + (i % 2)) for i in range(13))
SMALL, LARGE = Bucket(5, 16, 16), Bucket(9, 32, 32)


@dataclass(frozen=True)
class Regression:
    """Learns each row's number from noisy looks at it."""

    network: nn.Module
    main: str = "regression"

    def networks(self) -> dict[str, nn.Module]:
        return {self.main: self.network}

    def losses(self, networks: Networks, batch: Batch, step: int) -> Iterator[tuple[str, torch.Tensor]]:
        noise = draw_normal((4,), generators_of(batch), torch.device("cpu"))
        yield self.main, (networks[self.main](batch.mean + 0.1 * noise) - batch.text).square().mean(1)

    def validation_losses(self, networks: Networks, batch: Batch) -> dict[str, torch.Tensor]:
        return {"squared": (networks[self.main](batch.mean) - batch.text).square().mean(1)}


def look_up(micro: MicroBatch, seeds: tuple[int, ...]) -> Batch:
    numbers = torch.tensor(micro.rows, dtype=torch.float32)[:, None]
    return Batch(seeds, torch.tensor(micro.weights), mean=torch.cos(numbers * torch.arange(1, 5)), text=numbers / 13)


def make_job(run: Path, steps: int, weights: tuple[float, ...] | None = None, **watch: int) -> Job:
    options = np.array([[i % 2] for i in range(len(ROWS))], np.int32)
    index = Index.of(ROWS, Assignment((SMALL, LARGE), options, [], 0))
    budget = Budget(32, 2)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    settings = TrainSettings(steps=steps, learning_rate=0.05, ema=0.9, warmup_steps=3)
    config = TrainConfig(
        train=settings, watch=WatchSettings(**{"log_every": 1, "checkpoint_every": 4, "keep_checkpoints": 2} | watch)
    )
    return Job(
        config=config,
        run=run,
        method=Regression(network),
        batches=look_up,
        schedule=Schedule(index, budget, 0),
        row_weights=weights or tuple(row.weight for row in ROWS),
        validation=(plan_epoch(index, budget, 0, 0), look_up),
        adapters_only=False,
        configs={},
        row_flops={str(SMALL): 1.0, str(LARGE): 2.0},
        peak_flops=1e9,
        data_id=index.fingerprint(),
    )


def lines(run: Path, what: str) -> dict[int, dict[str, float]]:
    found = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line for line in found if line["what"] == what}


def final(run: Path) -> dict[str, torch.Tensor]:
    last = checkpoints(run)[-1]
    return load_weights(last / "regression") | {
        f"ema.{name}": tensor for name, tensor in load_weights(last / "ema" / "regression").items()
    }


def test_going_on_equals_never_having_stopped_bit_for_bit(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    Trainer.start(make_job(whole, 21, validate_every=7), Worker()).run()
    for steps in (5, 6, 17, 21):  # each ends with a checkpoint of its own
        Trainer.start(make_job(parts, steps, validate_every=7), Worker()).run()
    one, other = final(whole), final(parts)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["0.weight"], one["ema.0.weight"])
    a, b = lines(whole, "train"), lines(parts, "train")
    assert list(a) == list(range(1, 22)) == list(b)
    assert all(a[step]["regression"] == b[step]["regression"] for step in a)
    assert lines(whole, "validation")[21]["squared"] == lines(parts, "validation")[21]["squared"]
    assert [path.name for path in checkpoints(whole)] == ["step-00000020", "step-00000021"]


def test_what_was_logged_after_the_last_checkpoint_is_taken_back(tmp_path: Path) -> None:
    Trainer.start(make_job(tmp_path, 8), Worker()).run()
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 9, "what": "train", "regression": 1e9}\n{"step": 10, "wha')  # killed while writing
    Trainer.start(make_job(tmp_path, 12), Worker()).run()
    assert list(lines(tmp_path, "train")) == list(range(1, 13))
    assert max(line["regression"] for line in lines(tmp_path, "train").values()) < 100


def test_an_unfinished_checkpoint_is_not_taken_for_one(tmp_path: Path) -> None:
    Trainer.start(make_job(tmp_path, 8), Worker()).run()
    (tmp_path / "checkpoints" / "step-00000099").mkdir()
    (tmp_path / "checkpoints" / ".step-00000012.tmp-1-abcdef01").mkdir()
    assert checkpoints(tmp_path)[-1].name == "step-00000008"


def test_it_learns_and_its_loss_is_the_weighted_mean_of_real_rows(tmp_path: Path) -> None:
    job = make_job(tmp_path, 60)
    untouched = dataclasses.replace(make_job(tmp_path / "first", 1), row_weights=tuple(r.weight for r in ROWS))
    Trainer.start(job, Worker()).run()
    losses = lines(tmp_path, "train")
    assert losses[60]["regression"] < 0.2 * losses[1]["regression"]
    # The first step's loss, added up by hand from the plan.
    network = untouched.method.networks()["regression"]
    _, inner, plan = untouched.schedule.at(0)
    total = weighed = 0.0
    for place, micro in enumerate(plan.micro_batches(inner)):
        batch = look_up(micro, row_seeds(0, "step 0", place, len(micro.rows)))
        for loss, real, row in zip(
            next(untouched.method.losses({"regression": network}, batch, 0))[1], micro.weights, micro.rows, strict=True
        ):
            total += loss.item() * real * ROWS[row].weight
            weighed += real * ROWS[row].weight
    assert losses[1]["regression"] == pytest.approx(total / weighed, rel=1e-5)


def test_rows_of_weight_0_change_nothing(tmp_path: Path) -> None:
    only = tuple(1.0 if i < 6 else 0.0 for i in range(len(ROWS)))
    job = make_job(tmp_path / "a", 8, only)
    Trainer.start(job, Worker()).run()

    def poisoned(micro: MicroBatch, seeds: tuple[int, ...]) -> Batch:
        batch = look_up(micro, seeds)
        rows = torch.tensor(micro.rows)[:, None] >= 6
        return dataclasses.replace(batch, text=torch.where(rows, torch.tensor(1e6), batch.text))

    Trainer.start(dataclasses.replace(make_job(tmp_path / "b", 8, only), batches=poisoned), Worker()).run()
    one, other = final(tmp_path / "a"), final(tmp_path / "b")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_error_in_the_reading_thread_ends_the_run_with_itself(tmp_path: Path) -> None:
    def broken(micro: MicroBatch, seeds: tuple[int, ...]) -> Batch:
        raise ZeroDivisionError("in the thread")

    job = dataclasses.replace(make_job(tmp_path, 4), batches=broken)
    with pytest.raises(ZeroDivisionError, match="in the thread"):
        Trainer.start(job, Worker()).run()


def test_seeds_are_different_for_every_row_and_step() -> None:
    seeds = [s for step in range(50) for place in range(4) for s in row_seeds(0, f"step {step}", place, 16)]
    assert len(set(seeds)) == len(seeds)
    assert row_seeds(0, "step 3", 1, 4) == row_seeds(0, "step 3", 1, 8)[:4]
