"""Compare planned steps with workers that each draw their own bucket, by the share of computing that is useful.

    python -m benchmarks.planner [--ranks N] [--rows N ...]

Prints useful / (ranks × slowest rank), summed over an epoch, and the time to assign and plan a million rows.
Workers on their own drop what fills no batch, and batches that do not go round; that loss is not in their number.
The rows are drawn: 20 % images, 5 aspects, 7 sizes from 360p to 2160p, clips of 2 to 20 s at 24 to 60 fps.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from train_bridge.config import BucketSettings
from train_bridge.plan.buckets import assign
from train_bridge.plan.planner import Budget, EpochPlan, Index, plan_epoch
from train_bridge.types import TrainRow

WIDTH, LAYERS, TEXT_TOKENS = 3072, 48, 256  # EasyAnimate V5.1, 12B
SIZES_PX = (256, 384, 512, 640, 768, 896, 1024)
FIXED = BucketSettings(sizes_px=SIZES_PX, fps=0.0)
BY_TOKENS = BucketSettings(
    sizes_px=SIZES_PX, frames=(9, 17, 25, 33, 49, 65, 81, 97, 113, 129, 145), fps=0.0, tokens_per_row=13312
)
SETTINGS = {"fixed lengths": FIXED, "by tokens": BY_TOKENS}


def forward_flops(tokens: np.ndarray) -> np.ndarray:
    """Return FLOPs of one row with so many video tokens: L·(24·d²·N + 4·N²·d), full attention with the text."""
    n = tokens.astype(np.float64) + TEXT_TOKENS
    return LAYERS * (24.0 * WIDTH**2 * n + 4.0 * n**2 * WIDTH)


def mixed_rows(count: int, seed: int = 0) -> list[TrainRow]:
    """Draw probed rows as a collection of web video and photos has them."""
    rng = np.random.default_rng(seed)
    images = rng.random(count) < 0.2
    aspects = rng.choice([16 / 9, 4 / 3, 1.0, 3 / 4, 9 / 16], count, p=[0.5, 0.1, 0.1, 0.1, 0.2])
    sides = rng.choice([360, 480, 576, 720, 1080, 1440, 2160], count, p=[0.1, 0.15, 0.1, 0.25, 0.3, 0.05, 0.05])
    seconds = np.clip(rng.lognormal(1.6, 0.6, count), 2, 20)
    rates = rng.choice([24.0, 25.0, 30.0, 60.0], count)
    # The short side is the one that names the resolution.
    widths = np.where(aspects >= 1, sides * aspects, sides).round().astype(int).tolist()
    heights = np.where(aspects >= 1, sides, sides / aspects).round().astype(int).tolist()
    frames, durations = np.floor(seconds * rates).astype(int).tolist(), seconds.tolist()
    path = Path("row")
    return [
        TrainRow(f"row-{i:07d}", path, "", "image", widths[i], heights[i], 1, 0.0)
        if image
        else TrainRow(f"row-{i:07d}", path, "", "video", widths[i], heights[i], frames[i], durations[i])
        for i, image in enumerate(images.tolist())
    ]


def planned_efficiency(plan: EpochPlan, ranks: int) -> float:
    """Return the share of the ranks' time that real rows take, where all wait for the slowest at every step."""
    useful, waited = 0.0, 0.0
    for step in range(plan.num_steps):
        done, busy = [], []
        for rank in range(ranks):
            micros = plan.for_rank(step, rank, ranks)
            costs = [float(forward_flops(np.array(micro.bucket.tokens))) for micro in micros]
            done.append(sum(cost * sum(m.weights) for cost, m in zip(costs, micros, strict=True)))
            busy.append(sum(cost * len(m.rows) for cost, m in zip(costs, micros, strict=True)))
        useful += float(np.mean(done))
        waited += max(busy)
    return useful / waited


def independent_efficiency(index: Index, rows_of: Sequence[int], ranks: int, seed: int = 0) -> float:
    """Return the same for ranks that each go through their own shuffled batches of one bucket; rests are dropped.

    Args:
        index: the rows; the first epoch's options are drawn at random.
        rows_of: rows of a batch, by bucket (EasyAnimate: the same in all of them).
        ranks: how many workers.
        seed: of the shuffle.
    """
    rng = np.random.default_rng(seed)
    count = (index.options >= 0).sum(axis=1)
    options = index.options[count > 0]
    chosen = options[np.arange(len(options)), rng.integers(0, count[count > 0])]
    counts = np.bincount(chosen, minlength=len(index.buckets))
    costs = forward_flops(np.array([bucket.tokens for bucket in index.buckets])) * rows_of
    batches = rng.permutation(np.repeat(costs, counts // rows_of))
    steps = batches[: len(batches) // ranks * ranks].reshape(-1, ranks)
    return float(steps.mean(axis=1).sum() / steps.max(axis=1).sum())


def index_of(rows: Sequence[TrainRow], settings: BucketSettings) -> Index:
    """Assign rows to buckets."""
    return Index.of(rows, assign(rows, settings))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 5000, 20000])
    parser.add_argument("--million", type=int, default=1_000_000, help="rows that are timed; 0: none")
    arguments = parser.parse_args()

    budget = Budget(16384, arguments.ranks)
    print(f"{arguments.ranks} ranks, {budget.tokens_per_micro_batch} tokens per micro-batch")
    print("lengths        rows   buckets  steps  fillers  planned  own bucket, 1 row  own bucket, same budget")
    for name, settings in SETTINGS.items():
        for count in arguments.rows:
            index = index_of(mixed_rows(count), settings)
            plan = plan_epoch(index, budget, 0, 0)
            one = independent_efficiency(index, [1] * len(index.buckets), arguments.ranks)
            sizes = [budget.rows(bucket.tokens) for bucket in index.buckets]
            same = independent_efficiency(index, sizes, arguments.ranks)
            print(
                f"{name:13s} {count:6d} {len(index.buckets):9d} {plan.num_steps:6d} {plan.fillers:8d}"
                f" {planned_efficiency(plan, arguments.ranks):8.3f} {one:18.3f} {same:24.3f}"
            )
    if arguments.million:
        rows = mixed_rows(arguments.million)
        for name, settings in SETTINGS.items():
            times = [time.perf_counter()]
            assignment = assign(rows, settings)
            times.append(time.perf_counter())
            index = Index.of(rows, assignment)
            times.append(time.perf_counter())
            plan_epoch(index, budget, 0, 1)
            times.append(time.perf_counter())
            assigned, indexed, planned = np.diff(times).tolist()
            print(f"{len(rows)} rows, {name}: assign {assigned:.1f} s, index {indexed:.1f} s, plan {planned:.1f} s")


if __name__ == "__main__":
    main()
