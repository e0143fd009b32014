"""Reading latents in training order against reading the same bytes in one go.

Samples of about 1.7 MB lie in shards as the cache writes them, in the page cache. Each round reads them all by a
fresh random permutation through `CacheReader`, and all the shards' bytes by plain sequential `read()` in
pieces of the same size; the ways take turns at an eighth of the work each. Target: at least 0.7 of the plain rate.

    python -m benchmarks.cache_read
"""

import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from models.geometry import Bucket
from train_bridge.cache.cache import CacheReader, Entry, fold, hold_cache, write_shard
from train_bridge.loop.batches import Ahead
from train_bridge.methods.types import Batch
from train_bridge.types import MicroBatch

SAMPLES = 400
ROWS_PER_SHARD = 32
SHAPE = (16, 13, 32, 32)
"""mean and log-variance of 49 frames of 256 x 256 pixels in float32: 1.7 MB"""
SAMPLE_BYTES = 2 * 4 * 16 * 13 * 32 * 32
ROUNDS = 5
TURNS = 8
TARGET = 0.7
STEPS = 60
STEP_S = 0.1
WAIT_TARGET = 2.0


def write_cache(cache: Path) -> list[str]:
    """Write random latents; return their keys."""
    generator = torch.Generator().manual_seed(0)
    keys = [f"{number:032x}" for number in range(SAMPLES)]
    with hold_cache(cache):
        for begin in range(0, SAMPLES, ROWS_PER_SHARD):
            write_shard(
                cache,
                [
                    (
                        Entry(key, "latent", row_id=key, dtype="float32", size_bytes=SAMPLE_BYTES),
                        {part: torch.randn(SHAPE, generator=generator) for part in ("mean", "logvar")},
                    )
                    for key in keys[begin : begin + ROWS_PER_SHARD]
                ],
            )
        fold(cache)
    return keys


def read_plainly(shards: list[Path]) -> int:
    """Read files from begin to end; return how many bytes."""
    count = 0
    for shard in shards:
        with shard.open("rb", buffering=0) as file:
            while content := file.read(SAMPLE_BYTES):
                count += len(content)
    return count


def read_latents(reader: CacheReader, keys: list[str]) -> int:
    """Read latents one by one; return how many bytes."""
    count = 0
    for key in keys:
        mean, logvar = reader.latent(key)
        count += mean.nbytes + logvar.nbytes
    return count


def read_batches(reader: CacheReader, keys: list[str]) -> int:
    """Read latents in batches of four; return how many bytes."""
    count = 0
    for begin in range(0, len(keys), 4):
        count += sum(tensor.nbytes for tensor in reader.latents(keys[begin : begin + 4]))
    return count


def data_wait(reader: CacheReader, keys: list[str]) -> float:
    """Read batches of four as the trainer does, beside steps that take 100 ms; return the share of time waited."""

    def read(micro: MicroBatch, seeds: tuple[int, ...]) -> Batch:
        mean, logvar = reader.latents([keys[row] for row in micro.rows])
        return Batch(seeds, torch.tensor(micro.weights), mean, logvar)

    rows = [tuple(range(begin, begin + 4)) for begin in range(0, 4 * STEPS, 4)]
    micros = [(MicroBatch(Bucket(49, 256, 256), some, (1.0,) * 4), some) for some in rows]
    ahead = Ahead(read, micros)
    started = 0.0
    for number, batch in enumerate(ahead):
        if number == 0:  # what a run waits for before its first step is not a step's
            started, ahead.waited_s = time.perf_counter(), 0.0
        assert batch.mean is not None
        time.sleep(STEP_S)
    return ahead.waited_s / (time.perf_counter() - started)


def main() -> None:
    """Write, read in turns, print."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        keys = write_cache(cache)
        shards = sorted((cache / "shards").iterdir())
        few, reader = CacheReader(cache, open_shards=2), CacheReader(cache)
        plain = "plain sequential read()"
        ways: dict[str, Callable[[int, list[str]], int]] = {
            plain: lambda turn, _: read_plainly(shards[turn::TURNS]),
            "CacheReader, random order": lambda _, some: read_latents(reader, some),
            "the same, batches of four": lambda _, some: read_batches(reader, some),
            f"the same, 2 of {len(shards)} shards mapped": lambda _, some: read_latents(few, some),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(ROUNDS + 1):  # the first round warms up
            order = random.Random(number).sample(keys, len(keys))  # noqa: S311 - an order, not a secret
            counts, seconds = dict.fromkeys(ways, 0), dict.fromkeys(ways, 0.0)
            for turn in range(TURNS):
                for name, way in ways.items():
                    began = time.perf_counter()
                    counts[name] += way(turn, order[turn::TURNS])
                    seconds[name] += time.perf_counter() - began
            for name in ways if number else ():
                rates[name].append(counts[name] / seconds[name] / 1e9)
        waits = [100 * data_wait(reader, random.Random(n).sample(keys, len(keys))) for n in range(3)]  # noqa: S311
    shares = {name: [a / b for a, b in zip(found, rates[plain], strict=True)] for name, found in rates.items()}
    print(f"{SAMPLES} samples of {SAMPLE_BYTES / 1e6:.1f} MB, {len(shards)} shards, median of {ROUNDS} rounds")
    print(f"{'':34} {'GB/s':>6} {'lowest':>7} {'highest':>8} {'of plain':>9}")
    for name, found in rates.items():
        middle, share = statistics.median(found), statistics.median(shares[name])
        print(f"{name:34} {middle:6.2f} {min(found):7.2f} {max(found):8.2f} {share:9.2f}")
    print(
        f"data-wait beside steps of {1000 * STEP_S:.0f} ms: {statistics.median(waits):.2f} % "
        f"({min(waits):.2f} to {max(waits):.2f}); target {WAIT_TARGET} %: "
        f"{'met' if statistics.median(waits) < WAIT_TARGET else 'missed'}"
    )
    share = statistics.median(shares["CacheReader, random order"])
    print(f"target {TARGET} of plain: {'met' if share >= TARGET else 'missed'} ({share:.2f})")


if __name__ == "__main__":
    main()
