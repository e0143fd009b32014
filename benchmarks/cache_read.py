"""Reading latents in training order against reading the same bytes in one go.

Samples of about 1.7 MB lie in shards as the cache writes them, in the page cache. Each round reads them all by a
fresh random permutation through `CacheReader`, and all the shards' bytes by plain sequential `read()` in
pieces of the same size; the two take turns. Target: at least 0.7 of the plain rate.

    python -m benchmarks.cache_read
"""

import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from train_bridge.cache import CacheReader, Entry, fold, hold_cache, write_shard

SAMPLES = 400
ROWS_PER_SHARD = 32
SHAPE = (16, 13, 32, 32)
"""mean and log-variance of 49 frames of 256 x 256 pixels in float32: 1.7 MB"""
SAMPLE_BYTES = 2 * 4 * 16 * 13 * 32 * 32
ROUNDS = 5
TARGET = 0.7


def write_cache(cache: Path) -> list[str]:
    """Write random latents; give their keys."""
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
    """Read files from begin to end; give how many bytes."""
    count = 0
    for shard in shards:
        with shard.open("rb", buffering=0) as file:
            while content := file.read(SAMPLE_BYTES):
                count += len(content)
    return count


def read_latents(reader: CacheReader, keys: list[str]) -> int:
    """Read latents into memory of their own; give how many bytes."""
    count = 0
    for key in keys:
        mean, logvar = reader.latent(key)
        count += mean.nbytes + logvar.nbytes
    return count


def read_batch(reader: CacheReader, keys: list[str]) -> int:
    """Read latents and stack them by four, as a trainer does."""
    count = 0
    for begin in range(0, len(keys), 4):
        moments = [reader.latent(key) for key in keys[begin : begin + 4]]
        count += sum(torch.stack(tensors).nbytes for tensors in zip(*moments, strict=True))
    return count


def rate(read: Callable[[], int]) -> float:
    """Time one call; give GB/s."""
    began = time.perf_counter()
    count = read()
    return count / (time.perf_counter() - began) / 1e9


def main() -> None:
    """Write, read in turns, print."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        keys = write_cache(cache)
        shards = sorted((cache / "shards").iterdir())
        shuffle = random.Random(0).sample  # noqa: S311 - an order, not a secret
        few = CacheReader(cache, open_shards=2)
        reader = CacheReader(cache)
        ways: dict[str, Callable[[], int]] = {
            "plain sequential read()": lambda: read_plainly(shards),
            "CacheReader, random order": lambda: read_latents(reader, shuffle(keys, len(keys))),
            "the same, stacked by four": lambda: read_batch(reader, shuffle(keys, len(keys))),
            "the same, 2 of 13 shards open": lambda: read_latents(few, shuffle(keys, len(keys))),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(ROUNDS + 1):  # the first round warms up
            for name, way in ways.items():
                measured = rate(way)
                if number:
                    rates[name].append(measured)
    plain = statistics.median(rates["plain sequential read()"])
    print(f"{SAMPLES} samples of {SAMPLE_BYTES / 1e6:.1f} MB, {len(shards)} shards, median of {ROUNDS} rounds")
    print(f"{'':32} {'GB/s':>6} {'lowest':>7} {'highest':>8} {'of plain':>9}")
    for name, found in rates.items():
        middle = statistics.median(found)
        print(f"{name:32} {middle:6.2f} {min(found):7.2f} {max(found):8.2f} {middle / plain:9.2f}")
    share = statistics.median(rates["CacheReader, random order"]) / plain
    print(f"target {TARGET} of plain: {'met' if share >= TARGET else 'missed'} ({share:.2f})")


if __name__ == "__main__":
    main()
