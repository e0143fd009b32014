"""What a command and all that it starts cost: CPU-seconds, wall seconds and memory, looked at from outside."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
METER = ROOT / "benchmarks" / "meter.py"
LOOK_AT_MEMORY_EVERY_S = 1.0


@dataclass(frozen=True)
class Cost:
    """What a command cost.

    Attributes:
        cpu_s: of the command and all that it started, also of what outlived it.
        peak_mb: highest sum of their memory, shared pages counted once (PSS); 0 where nobody looked.
        largest_mb: highest memory of one of them.
    """

    cpu_s: float
    wall_s: float
    peak_mb: float = 0.0
    largest_mb: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        """Add commands that follow each other."""
        peaks = max(self.peak_mb, other.peak_mb), max(self.largest_mb, other.largest_mb)
        return Cost(self.cpu_s + other.cpu_s, self.wall_s + other.wall_s, *peaks)


def measured(
    command: Sequence[str | Path],
    log: Path,
    cores: Collection[int] | None = None,
    env: Mapping[str, str] | None = None,
    *,
    with_memory: bool = False,
) -> Cost:
    """Run a command to its end and give what it cost.

    Args:
        command: words of it.
        log: where what it says is added.
        cores: those it may use; null: all.
        env: settings beside those of this process.
        with_memory: look at its memory, too.

    Raises:
        SystemExit: it failed, with the last of what it said.
    """
    words = [str(word) for word in command]
    numbers = ",".join(map(str, sorted(cores or os.sched_getaffinity(0))))
    peak_mb = largest_mb = 0.0
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        # The meter waits for every child it has, so it is a process of its own: the caller may have others.
        meter = subprocess.Popen(
            [sys.executable, METER, numbers, *words],
            cwd=ROOT,
            env=os.environ | dict(env or {}),
            stdout=subprocess.PIPE,
            stderr=file,
        )
    while with_memory and meter.poll() is None:
        memory = _memory_mb(meter.pid)
        peak_mb, largest_mb = max(peak_mb, sum(memory)), max([largest_mb, *memory])
        with suppress(subprocess.TimeoutExpired):
            meter.wait(LOOK_AT_MEMORY_EVERY_S)
    told = meter.communicate()[0].split()
    status = int(told[2]) if told else meter.returncode
    if status:
        said = log.read_text(encoding="utf-8", errors="replace")[-500:]
        raise SystemExit(f"{' '.join(words[:6])} …: ended with status {status}; {log} ends with: {said}")
    return Cost(float(told[0]), float(told[1]), peak_mb, largest_mb)


def spread(values: Sequence[float]) -> list[float]:
    """Return median, lowest and highest."""
    return [statistics.median(values), min(values), max(values)]


def shown(values: Sequence[float], digits: int = 2) -> str:
    """Write median, lowest and highest for a table."""
    middle, low, high = spread(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def verdict(missed: Sequence[str]) -> int:
    """Name the targets that were missed; return the exit status."""
    print("\n".join(f"missed: {words}" for words in missed) or "every target is met", flush=True)
    return 1 if missed else 0


def write_results(name: str, results: object) -> Path:
    """Keep the figures of a benchmark as `.bench/NAME.json`, for the plots."""
    path = ROOT / ".bench" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _memory_mb(meter: int) -> list[float]:
    """Return the memory of each process that the meter's command started."""
    found = []
    with suppress(psutil.Error):
        for process in psutil.Process(meter).children(recursive=True):
            with suppress(psutil.Error):
                found.append(process.memory_full_info().pss / 1e6)
    return found
