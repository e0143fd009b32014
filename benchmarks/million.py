"""What a run over a million sources costs beside the media: time and memory of the driver, by phase.

    python -m benchmarks.million [--sources N ...] [--runner inline|ray ...] [--folder DIR]

Media is made up (`benchmarks/simulated.py`); 3 % of the sources fail, the others give one to three clips each. Each run
is a process of its own. Printed for each: milliseconds of overhead per source, by the clock and of the CPU, workers and
Ray's own processes included; memory of the driver when a quarter, half, three quarters and all of the sources were
probed; and seconds and highest memory of planning, running, folding, summary, report and export. Targets at 10^6
sources: at most 4 GB, and at the end of the run at most 1.1 times what it was at a quarter. The result is in
`.bench/million.json`.
"""

import argparse
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

import curation.pipeline
from benchmarks.measure import verdict, write_results
from benchmarks.simulated import recipe_for, simulate
from core.cpu_time import START
from core.progress import Tally
from curation.export import export
from curation.pipeline import CurateSettings, select

SOURCES = (10_000, 100_000, 1_000_000)
RUNNERS = ("parts", "inline", "ray")
MOST_GB = 4.0
MOST_GROWTH = 1.1
FLAT_FROM = 100_000
"""sources from which on a run is long enough for its memory to be judged"""
LOOK_S = 0.1
PHASES = ("plan_work", "_run", "fold", "follow_rules", "summarise", "refresh_exports", "write_report")
QUARTERS = (0.25, 0.5, 0.75, 1.0)


@dataclass
class Phase:
    """Seconds and highest memory of a phase, over all of its calls."""

    wall_s: float = 0.0
    peak_gb: float = 0.0


@dataclass
class Measured:
    """What one run took.

    Attributes:
        overhead_ms: by the clock, of each source, while the steps ran.
        cpu_ms: of each source, all processes together, the start left out.
        memory_gb: of the driver, by the share of the sources that were probed.
    """

    sources: int
    runner: str
    rows: int = 0
    overhead_ms: float = 0.0
    cpu_ms: float = 0.0
    memory_gb: dict[float, float] = field(default_factory=dict)
    phases: dict[str, Phase] = field(default_factory=dict)

    @property
    def peak_gb(self) -> float:
        """Highest memory of the driver."""
        return max(phase.peak_gb for phase in self.phases.values())

    @property
    def growth(self) -> float:
        """Memory at the end of the run ÷ when a quarter was done."""
        return self.memory_gb[1.0] / self.memory_gb[0.25]


class Watch:
    """Looks at this process's memory again and again, and at what it is doing."""

    def __init__(self, measured: Measured):
        """Begin."""
        self._measured, self._process = measured, psutil.Process()
        self._names: list[str] = ["start"]
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            phase = self._measured.phases.setdefault(self._names[-1], Phase())
            phase.peak_gb = max(phase.peak_gb, self.memory_gb())
            time.sleep(LOOK_S)

    def memory_gb(self) -> float:
        """Return what this process holds now, memory that it shares with Ray's object store included."""
        return self._process.memory_info().rss / 1e9

    def phase(self, name: str, action: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose calls are a phase."""

        def measured(*values: Any, **named: Any) -> Any:
            self._names.append(name)
            begin_s = time.monotonic()
            try:
                return action(*values, **named)
            finally:
                phase = self._measured.phases.setdefault(name, Phase())
                phase.wall_s += time.monotonic() - begin_s
                phase.peak_gb = max(phase.peak_gb, self.memory_gb())
                self._names.pop()

        return measured

    def tally(self, tally: Tally) -> None:
        """Look at how far the run is."""
        for share in QUARTERS:
            if share not in self._measured.memory_gb and tally.rows["probe"] >= share * self._measured.sources:
                self._measured.memory_gb[share] = self.memory_gb()


def measure(folder: Path, count: int, runner: str) -> Measured:
    """Curate so many made-up sources, then export and judge them again; in a process that does nothing else."""
    measured = Measured(count, runner)
    watch = Watch(measured)
    for name in PHASES:
        setattr(curation.pipeline, name, watch.phase(name.strip("_"), getattr(curation.pipeline, name)))
    out = folder / "out"
    outcome = simulate(out, count, runner, CurateSettings(watch=watch.tally))
    watch.tally(outcome.tally)
    recipe, _ = recipe_for(folder)
    watch.phase("export webvid", export)(out, "webvid")
    watch.phase("export diffusers", export)(out, "diffusers")
    watch.phase("select", select)(out, recipe)
    measured.rows = outcome.summary.rows
    measured.overhead_ms = 1e3 * measured.phases["run"].wall_s / count
    cpu_s = outcome.tally.cpu_s
    measured.cpu_ms = 1e3 * (sum(cpu_s.values()) - cpu_s[START]) / count
    return measured


def in_words(found: Measured) -> str:
    """Return the lines of a run."""
    memory = ", ".join(f"{share:.0%} {gb:.2f}" for share, gb in sorted(found.memory_gb.items()))
    lines = [
        f"{found.sources} sources, {found.rows} rows, {found.runner}: {found.overhead_ms:.2f} ms a source, "
        f"{found.cpu_ms:.2f} ms of the CPU; driver GB: {memory}; peak {found.peak_gb:.2f}"
    ]
    lines += [f"  {name:26}{p.wall_s:9.1f} s{p.peak_gb:8.2f} GB" for name, p in found.phases.items()]
    return "\n".join(lines)


def missed(found: Measured) -> list[str]:
    """Name the targets that a run misses."""
    words, name = [], f"{found.sources} sources, {found.runner}"
    if found.peak_gb > MOST_GB:
        words.append(f"{name}: {found.peak_gb:.1f} GB, target {MOST_GB:g}")
    if found.sources >= FLAT_FROM and found.growth > MOST_GROWTH:
        words.append(f"{name}: memory grows by {found.growth:.2f}, target {MOST_GROWTH:g}")
    return words


def main() -> int:
    """Print what each run took; return 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=int, nargs="+", default=SOURCES)
    parser.add_argument("--runner", choices=RUNNERS, nargs="+", default=RUNNERS)
    parser.add_argument("--folder", type=Path, help="for the outputs; null: the system's temporary folder")
    options = parser.parse_args()
    results = []
    for count in options.sources:
        for runner in options.runner:
            with (
                tempfile.TemporaryDirectory(dir=options.folder) as folder,
                ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process,
            ):
                results.append(process.submit(measure, Path(folder), count, runner).result())
            print(in_words(results[-1]), flush=True)
    misses = [words for found in results for words in missed(found)]
    values = [asdict(found) | {"peak_gb": found.peak_gb} for found in results]
    write_results("million", {"runs": values, "missed": misses})
    return verdict(misses)


if __name__ == "__main__":
    sys.exit(main())
