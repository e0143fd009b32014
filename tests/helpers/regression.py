"""A training job of a few numbers, for tests of the loop."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from models.geometry import Bucket
from models.transformers.conditioning import Conditioning
from train_bridge.config import TrainConfig, TrainSettings, WatchSettings
from train_bridge.loop.checkpoint import checkpoints, load_weights
from train_bridge.loop.trainer import Job
from train_bridge.methods.types import Batch, Networks, draw_normal, generators_of
from train_bridge.plan.buckets import Assignment
from train_bridge.plan.planner import Budget, Index, Schedule, plan_epoch
from train_bridge.types import MicroBatch, TrainRow

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
        yield self.main, (networks[self.main](batch.mean + 0.1 * noise) - batch.conditioning.text).square().mean(1)

    def validation_losses(self, networks: Networks, batch: Batch) -> dict[str, torch.Tensor]:
        return {"squared": (networks[self.main](batch.mean) - batch.conditioning.text).square().mean(1)}


def look_up(micro: MicroBatch, seeds: tuple[int, ...]) -> Batch:
    numbers = torch.tensor(micro.rows, dtype=torch.float32)[:, None]
    return Batch(
        seeds,
        torch.tensor(micro.weights),
        mean=torch.cos(numbers * torch.arange(1, 5)),
        conditioning=Conditioning(numbers / 13),
    )


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
