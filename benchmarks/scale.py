"""Memory and time against the amount of footage: once, twice, four and eight times as much.

    python -m benchmarks.scale [--rounds N] [--minutes M] [--film-minutes M] [--times K ...] [--folder DIR]

Whole runs of `curate` with the default recipe on Ray and all cores, each a command of its own: many files (copies of
the corpus that differ in a tag of their container, so that none is known already) and one film that grows longer.
Printed for each amount: peak memory of all processes together, Ray's own among them (pages that they share counted
once), that of the largest one, and CPU and wall seconds per second of footage, without the start. Written to
`.bench/scale.json`. It fails where eight times the footage takes more than 1.1 times the memory.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import av

from benchmarks.corpus import FOLDER, corpus, long_film
from benchmarks.engine import Run, curated, draw_second
from benchmarks.measure import shown, spread, verdict, write_results
from core.files import atomic_path

MOST_GROWTH = 1.1
TIMES = (1, 2, 4, 8)


def copy_with_tag(file: Path, to: Path, tag: str) -> Path:
    """Copy a video's streams into a file of other content: its container carries a tag."""
    if not to.exists():
        made = {"mode": "w", "format": "matroska"}
        with atomic_path(to) as temporary, av.open(str(file)) as source, av.open(str(temporary), **made) as output:
            output.metadata["comment"] = tag
            stream = output.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(source.streams.video[0]):
                if packet.dts is not None:
                    packet.stream = stream
                    output.mux(packet)
    return to


def many_files(folder: Path, minutes: float, times: int) -> list[Path]:
    """Return so many copies of the corpus."""
    copies = folder / "copies"
    copies.mkdir(parents=True, exist_ok=True)
    files = [one.path for one in corpus(folder, minutes)]
    return [copy_with_tag(file, copies / f"{k}_{file.stem}.mkv", str(k)) for k in range(times) for file in files]


def length_s(files: Sequence[Path]) -> float:
    """Return the length of files together."""
    total = 0.0
    for file in files:
        with av.open(str(file)) as container:
            total += (container.duration or 0) / 1e6
    return total


def figures(run: Run, empty: Run, video_s: float) -> dict[str, float]:
    """Return what a run took."""
    return {
        "video s": video_s,
        "peak mb": run.cost.peak_mb,
        "largest mb": run.cost.largest_mb,
        "cpu s per video s": max(0.0, run.cpu_s - empty.cpu_s) / video_s,
        "wall s per video s": max(0.0, run.cost.wall_s - empty.cost.wall_s) / video_s,
    }


def main() -> int:
    """Print the table; return 1 where memory grows with the footage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=4.0, help="the footage that is taken once, twice, …")
    parser.add_argument("--film-minutes", type=float, default=8.0, help="long enough for a segment for each worker")
    parser.add_argument("--times", type=int, nargs="+", default=TIMES)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    footage = {
        "many files": {k: many_files(options.folder, options.minutes, k) for k in options.times},
        "one film": {k: [long_film(options.folder, options.film_minutes * k)] for k in options.times},
    }
    rounds: list[dict[str, dict[int, dict[str, float]]]] = []
    for number in range(options.rounds):
        found: dict[str, dict[int, dict[str, float]]] = {kind: {} for kind in footage}
        with tempfile.TemporaryDirectory() as folder:
            second = draw_second(Path(folder) / "second.mp4")
            empty = curated([second], "ray", cores, Path(folder) / "empty")
            for kind, amounts in footage.items():
                for times, files in amounts.items():
                    run = curated(files, "ray", cores, Path(folder) / f"{kind} {times}", with_memory=True)
                    found[kind][times] = figures(run, empty, length_s(files))
        rounds.append(found)
        print(f"round {number + 1} of {options.rounds} done", file=sys.stderr, flush=True)
    results: dict[str, dict[str, dict[str, list[float]]]] = {}
    missed = []
    for kind, amounts in footage.items():
        heads = ("memory of all, MB", "of the largest, MB", "CPU s a s", "wall s a s")
        print(f"{kind:12}{'footage':>10}" + "".join(f"{head:>26}" for head in heads))
        results[kind] = {}
        for times in amounts:
            values = {name: [one[kind][times][name] for one in rounds] for name in rounds[0][kind][times]}
            results[kind][str(times)] = {name: spread(several) for name, several in values.items()}
            print(
                f"{times:>10} ×{values['video s'][0] / 60:>6.1f} min{shown(values['peak mb'], 0):>26}"
                f"{shown(values['largest mb'], 0):>26}{shown(values['cpu s per video s'], 3):>26}"
                f"{shown(values['wall s per video s'], 3):>26}"
            )
        least, most = str(min(options.times)), str(max(options.times))
        growth = results[kind][most]["peak mb"][0] / results[kind][least]["peak mb"][0]
        print(f"{'':10} memory {most} × ÷ {least} ×: {growth:.2f}, target at most {MOST_GROWTH}")
        if growth > MOST_GROWTH:
            missed.append(f"{kind}: memory grows {growth:.2f} times, target at most {MOST_GROWTH}")
    write_results("scale", results)
    return verdict(missed)


if __name__ == "__main__":
    sys.exit(main())
