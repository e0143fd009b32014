"""What share of a training step waits for frames that are read from video files, with no cache.

    python -m benchmarks.data_wait [--rounds N] [--steps N] [--decoders N,N,…] [--step-ms MS]

Drawn clips of 480p and 720p (textures that pan, with grain; H.264 at 24 fps, three seconds) are read as the trainer
reads them: by its media processes, ahead, in a thread beside the steps, one row of 49 frames a step; a step is
simulated by sleeping. What is waited before the steps that empty what lay ready is not counted. No row is kept in
memory.
Target: less than 2 % of steps of 100 ms. Printed, too: the CPU-seconds that decoding a row takes, and so how many cores
it takes to keep up, which is what stands in the way where the target is missed. Written to `.bench/data_wait.json`.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import psutil

from benchmarks.measure import shown, spread, verdict, write_results
from models.geometry import Bucket
from sampling.pictures import write_mp4
from train_bridge.data.media_process import Decoders
from train_bridge.loop.batches import AHEAD, Ahead, VideoFrames
from train_bridge.types import MicroBatch, TrainRow

WAIT_TARGET_PERCENT = 2.0
FPS, SECONDS, CLIPS = 24.0, 3.0, 3
EMPTIES = 2 * AHEAD + 2
"""steps until what was made ready before the first one is used up"""


@dataclass(frozen=True)
class Case:
    """Clips of one size, and what they are brought to."""

    name: str
    width_px: int
    height_px: int
    bucket: Bucket


CASES = (
    Case("480p", 854, 480, Bucket(49, 256, 448)),
    Case("720p", 1280, 720, Bucket(49, 384, 672)),
)


@dataclass(frozen=True)
class Waited:
    """What one round found.

    Attributes:
        share: of the time that was waited for data, 0..1.
        cpu_s: of the media processes, for each row that was read.
    """

    share: float
    cpu_s: float


def draw_clip(path: Path, case: Case, seed: int, seconds: float = SECONDS) -> None:
    """Write a clip: a texture that pans, under grain."""
    draw = np.random.default_rng(seed)
    count, reach = round(FPS * seconds), 2 * round(FPS * seconds)
    small = draw.integers(0, 256, (case.height_px // 12, (case.width_px + reach) // 12, 3), np.uint8)
    wide = cv2.resize(small, (case.width_px + reach, case.height_px), interpolation=cv2.INTER_CUBIC)
    frames = np.empty((count, case.height_px, case.width_px, 3), np.uint8)
    for number in range(count):
        grain = draw.integers(-6, 7, (case.height_px, case.width_px, 1), np.int16)
        frames[number] = np.clip(wide[:, 2 * number : 2 * number + case.width_px] + grain, 0, 255)
    write_mp4(frames, FPS, path, crf=23)


def waited(
    rows: Sequence[TrainRow],
    bucket: Bucket,
    decoders: int,
    steps: int,
    step: Callable[[], None],
    clock: Callable[[], float] = time.perf_counter,
) -> Waited:
    """Read a row for each step, and measure for how much of the time the steps wait.

    Args:
        rows: read in turns.
        bucket: that they are brought to.
        decoders: media processes.
        steps: that are measured.
        step: is called with each batch at hand.
        clock: in seconds.
    """
    processes = Decoders(decoders)
    make = VideoFrames(rows, keep_bytes=0, decoders=processes)
    count = EMPTIES + steps + EMPTIES  # so that as much is read ahead at the end as at the beginning
    micros = [(MicroBatch(bucket, (number % len(rows),), (1.0,)), (number,)) for number in range(count)]
    ahead, began, before = Ahead(make, micros), clock(), 0.0
    try:
        for number, batch in enumerate(ahead):
            if number == EMPTIES:
                began, ahead.waited_s, before = clock(), 0.0, _children_cpu_s()
            assert batch.frames is not None and not make.unreadable, make.unreadable
            step()
            if number + 1 == EMPTIES + steps:
                break
        return Waited(ahead.waited_s / (clock() - began), (_children_cpu_s() - before) / steps)
    finally:
        ahead.close()
        processes.close()


def cores_needed(cpu_s: float, step_s: float) -> float:
    """Return how many cores decoding keeps busy beside steps that take so long."""
    return cpu_s / step_s


def least_share(cpu_s: float, step_s: float, cores: float) -> float:
    """Return the share of time that must be waited where decoding takes more than the cores there are."""
    round_s = max(step_s, cpu_s / cores)
    return 1 - step_s / round_s


def _children_cpu_s() -> float:
    """Return what the media processes have used by now."""
    times = [child.cpu_times() for child in psutil.Process().children()]
    return sum(one.user + one.system for one in times)


def main() -> int:
    """Print the table; return 1 where the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--decoders", default="1,2,4")
    parser.add_argument("--step-ms", type=float, default=100.0)
    options = parser.parse_args()
    counts, step_s = [int(count) for count in options.decoders.split(",")], options.step_ms / 1000
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    found: dict[tuple[str, int], list[Waited]] = {(case.name, n): [] for case in CASES for n in counts}
    with tempfile.TemporaryDirectory() as folder:
        rows: dict[str, list[TrainRow]] = {}
        for case in CASES:
            files = [Path(folder) / f"{case.name}_{number}.mp4" for number in range(CLIPS)]
            for seed, path in enumerate(files):
                draw_clip(path, case, seed)
            rows[case.name] = [TrainRow(path.stem, path, "", "video") for path in files]
        for _ in range(options.rounds):
            for case in CASES:
                for count in counts:
                    one = waited(rows[case.name], case.bucket, count, options.steps, lambda: time.sleep(step_s))
                    found[case.name, count].append(one)
                    told = f"{case.name}, {count} decoders: {100 * one.share:.1f} %, {one.cpu_s:.3f} CPU-s a row"
                    print(told, file=sys.stderr, flush=True)
    print(f"steps of {options.step_ms:.0f} ms, one row each; {cores} cores, load {load:.1f} before; medians and spread")
    print("clips  bucket       decoders  waited, % of the time     CPU-s a row          cores to keep up")
    results, missed = {}, []
    for case in CASES:
        for count in counts:
            rounds = found[case.name, count]
            shares, cpu_s = [100 * one.share for one in rounds], [one.cpu_s for one in rounds]
            print(
                f"{case.name:6} {case.bucket!s:12} {count:8}  {shown(shares):24}  {shown(cpu_s, 3):20} "
                f"{cores_needed(spread(cpu_s)[0], step_s):.1f}"
            )
            results[f"{case.name}, {count} decoders"] = {"waited_percent": spread(shares), "cpu_s": spread(cpu_s)}
        best = min(spread([100 * one.share for one in found[case.name, count]])[0] for count in counts)
        cpu = min(spread([one.cpu_s for one in found[case.name, count]])[0] for count in counts)
        if best >= WAIT_TARGET_PERCENT:
            needed, least = cores_needed(cpu, step_s), 100 * least_share(cpu, step_s, cores)
            missed.append(
                f"{case.name}: {best:.1f} % waited, target {WAIT_TARGET_PERCENT:g} %; decoding takes {cpu:.3f} CPU-s "
                f"a step of {step_s:.3f} s, which is {needed:.1f} cores of {cores}: no less than {least:.0f} % with "
                f"these, were nothing else running (load {load:.1f})"
            )
    write_results("data_wait", {"step_s": step_s, "cores": cores, "load": load, "cases": results})
    return verdict(missed)


if __name__ == "__main__":
    sys.exit(main())
