"""What Ray adds to the plain loop, and what a second core gains, against two bare decodes of the same footage.

    python -m benchmarks.engine [--rounds N] [--minutes M] [--film-minutes M] [--size 480p|720p|1080p] [--folder DIR]

Whole runs of `curate` with the default recipe, each a command of its own on cores of its own, in turns: the plain loop
on one core, Ray on one core, Ray on two. Runs on a source of a second say what starting costs; it is taken off, with
what each run names as start, so that the ratios are those of endless footage. Printed for many short files and for one
long film: CPU of Ray over that of the plain loop (target at most 1.10), and the wall seconds on one core over those on
two, as a share of what two independent bare decodes gain in the same round (target at least 0.95). The rest says what
Ray's part is made of, by the runs' own accounting: the steps themselves, handing rows on in our processes, and Ray's
own processes. Written to `.bench/engine.json`. It fails where a target is missed.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np

from benchmarks.corpus import BY_SIDE, FOLDER, corpus, long_film
from benchmarks.measure import ROOT, Cost, measured, shown, spread, verdict, write_results
from core.cpu_time import DAEMONS, ENGINE, START
from media.container import stream_of
from media.streams import choose_video_stream

MOST_ADDED = 1.10
LEAST_SHARE = 0.95
WAYS = {"inline, 1 core": ("inline", 1), "ray, 1 core": ("ray", 1), "ray, 2 cores": ("ray", 2)}


@dataclass(frozen=True)
class Run:
    """A run of `curate`: its cost seen from outside, and what it says itself of its start."""

    cost: Cost
    told: dict[str, float]
    """CPU-seconds by step, as its own accounting has them"""

    @property
    def start_s(self) -> float:
        """CPU-seconds before the first task, of all processes."""
        return self.told[START]

    @property
    def steps_s(self) -> float:
        """CPU-seconds of the steps themselves."""
        return sum(spent_s for name, spent_s in self.told.items() if name not in (START, ENGINE, DAEMONS))

    @property
    def told_s(self) -> float:
        """CPU-seconds that its own accounting adds up to."""
        return sum(self.told.values())

    @property
    def cpu_s(self) -> float:
        """CPU-seconds without what processes spend before their first task."""
        return self.cost.cpu_s - self.start_s


def curated(
    files: Sequence[Path],
    runner: str,
    cores: Sequence[int],
    out: Path,
    changes: Sequence[str] = (),
    *,
    with_memory: bool = False,
) -> Run:
    """Curate files on some cores, with changes to the default recipe."""
    command = [sys.executable, ROOT / "run_pipeline.py", "curate", *files, *changes]
    command += ["--output", out, "--runner", runner]
    cost = measured(command, out.with_suffix(".log"), cores, with_memory=with_memory)
    told = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert not told["problems"], told["problems"][0]
    return Run(cost, told["cpu_s"])


def draw_second(path: Path) -> Path:
    """Draw a source of a second."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        for shade in range(25):
            picture = np.full((64, 64, 3), 10 * shade, np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode(None))
    return path


def decode_on(core: int, files: Sequence[str]) -> None:
    """Decode files to nothing on one core."""
    os.sched_setaffinity(0, [core])
    for file in files:
        with av.open(file) as container:
            stream = stream_of(container, choose_video_stream(container).index)
            stream.codec_context.thread_count = 1
            for _ in container.decode(stream):
                pass


def decoding_gain(files: Sequence[Path], cores: Sequence[int]) -> float:
    """Return what a second core gains for bare decodes: two at once, over one after the other."""
    names = [str(file) for file in files]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for task in [pool.submit(decode_on, core, names[:0]) for core in cores]:
            task.result()  # both processes are there
        begin = time.perf_counter()
        pool.submit(decode_on, cores[0], names).result()
        alone_s = time.perf_counter() - begin
        begin = time.perf_counter()
        for task in [pool.submit(decode_on, core, names) for core in cores]:
            task.result()
        return 2 * alone_s / (time.perf_counter() - begin)


def one_round(footage: dict[str, list[Path]], second: Path, cores: Sequence[int], folder: Path) -> dict[str, dict]:
    """Run everything once; return the figures by kind of footage."""

    def run(name: str, files: list[Path], kind: str) -> Run:
        runner, count = WAYS[name]
        return curated(files, runner, cores[:count], folder / f"{kind} {name} {time.monotonic_ns()}")

    empty = {name: run(name, [second], "second") for name in WAYS}
    found: dict[str, dict] = {}
    for kind, files in footage.items():
        full = {name: run(name, files, kind) for name in WAYS}
        cpu_s = {name: full[name].cpu_s - empty[name].cpu_s for name in WAYS}
        wall_s = {name: full[name].cost.wall_s - empty[name].cost.wall_s for name in WAYS}
        decodes = decoding_gain(files, cores)
        gain = wall_s["ray, 1 core"] / wall_s["ray, 2 cores"]
        found[kind] = {
            "cpu, ray ÷ inline, 1 core": cpu_s["ray, 1 core"] / cpu_s["inline, 1 core"],
            "cpu, ray on 2 cores ÷ inline": cpu_s["ray, 2 cores"] / cpu_s["inline, 1 core"],
            "2 cores gain": gain,
            "2 cores gain, over inline": wall_s["inline, 1 core"] / wall_s["ray, 2 cores"],
            "2 decodes gain": decodes,
            "gain ÷ that of decodes": gain / decodes,
            **made_of(full, empty),
            "told ÷ seen, cpu": full["ray, 2 cores"].told_s / full["ray, 2 cores"].cost.cpu_s,
            "told ÷ seen, cpu, inline": full["inline, 1 core"].told_s / full["inline, 1 core"].cost.cpu_s,
            "start-up of ray, cpu s": empty["ray, 2 cores"].cost.cpu_s,
            "start-up of ray, wall s": empty["ray, 2 cores"].cost.wall_s,
            "start-up of inline, cpu s": empty["inline, 1 core"].cost.cpu_s,
        }
    return found


def made_of(full: dict[str, Run], empty: dict[str, Run]) -> dict[str, float]:
    """Divide what Ray adds, in shares of the plain loop's steps."""
    found, plain_s = {}, full["inline, 1 core"].steps_s
    for name in ("ray, 1 core", "ray, 2 cores"):
        found[f"  {name}: the steps"] = full[name].steps_s / plain_s
        for part, words in ((ENGINE, "handing rows on"), (DAEMONS, "ray's processes")):
            found[f"  {name}: {words}"] = (full[name].told[part] - empty[name].told[part]) / plain_s
    return found


def misses(results: dict[str, dict[str, list[float]]]) -> list[str]:
    """Name the targets that the medians miss."""
    missed = []
    for kind, figures in results.items():
        for name in ("cpu, ray ÷ inline, 1 core", "cpu, ray on 2 cores ÷ inline"):
            if figures[name][0] > MOST_ADDED:
                missed.append(f"{kind}: {name} is {figures[name][0]:.2f}, target at most {MOST_ADDED}")
        share = figures["gain ÷ that of decodes"][0]
        if share < LEAST_SHARE:
            missed.append(f"{kind}: gain ÷ that of decodes is {share:.2f}, target at least {LEAST_SHARE}")
        for name in ("told ÷ seen, cpu", "told ÷ seen, cpu, inline"):
            if abs(figures[name][0] - 1) > 0.1:
                missed.append(f"{kind}: {name} is {figures[name][0]:.2f}, to be 1 within a tenth")
    return missed


def main() -> int:
    """Print the table; return 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--film-minutes", type=float, default=20.0, help="0: no long film")
    parser.add_argument("--size", choices=list(BY_SIDE), help="many files of this class alone")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        print("a second core is wanted to measure what it gains")
        return 1
    footage = {"many files": [one.path for one in corpus(options.folder, options.minutes, BY_SIDE.get(options.size))]}
    if options.film_minutes:
        footage["one film"] = [long_film(options.folder, options.film_minutes)]
    rounds = []
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            second = draw_second(Path(folder) / "second.mp4")
            rounds.append(one_round(footage, second, cores, Path(folder)))
        print(f"round {number + 1} of {options.rounds} done", file=sys.stderr, flush=True)
    results: dict[str, dict[str, list[float]]] = defaultdict(dict)
    for kind in footage:
        print(kind)
        for name in rounds[0][kind]:
            values = [one[kind][name] for one in rounds]
            results[kind][name] = spread(values)
            print(f"  {name:32} {shown(values)}")
    write_results(f"engine_{options.size}" if options.size else "engine", results)
    return verdict(misses(results))


if __name__ == "__main__":
    sys.exit(main())
