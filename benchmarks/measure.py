"""What a command and all that it starts cost: CPU-seconds, wall seconds and memory, looked at from outside."""

import json
import os
import statistics
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
LOOK_EVERY_S = 0.25
LOOK_AT_MEMORY_EVERY_S = 1.0


@dataclass(frozen=True)
class Cost:
    """What a command cost.

    Attributes:
        cpu_s: of the command and all its descendants, also of those that ended, to a quarter of a second each.
        peak_mb: highest sum of their memory, shared pages counted once (PSS); 0 where nobody looked.
        largest_mb: highest memory of one of them.
    """

    wall_s: float
    cpu_s: float
    peak_mb: float = 0.0
    largest_mb: float = 0.0


def measured(command: Sequence[str | Path], cores: Sequence[int], with_memory: bool = False) -> Cost:
    """Run a command on some cores and give what it cost.

    Raises:
        RuntimeError: it failed, with the last of what it said.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    spent_s: dict[tuple[int, float], float] = {}
    peak_mb = largest_mb = looked = 0.0
    begin = time.monotonic()
    process = subprocess.Popen(
        [str(word) for word in command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    os.set_blocking(process.stderr.fileno(), False)
    said = b""
    while process.poll() is None:
        said = (said + (process.stderr.read() or b""))[-2000:]
        tree = _tree(process.pid)
        spent_s |= _cpu_s(tree)
        if with_memory and time.monotonic() - looked > LOOK_AT_MEMORY_EVERY_S:
            looked = time.monotonic()
            memory = _memory_mb(tree)
            peak_mb, largest_mb = max(peak_mb, sum(memory.values())), max(largest_mb, *memory.values(), 0.0)
        with suppress(subprocess.TimeoutExpired):
            process.wait(LOOK_EVERY_S)
    wall_s = time.monotonic() - begin
    if process.returncode:
        said += process.stderr.read() or b""
        raise RuntimeError(f"{' '.join(map(str, command[:6]))} …: {said.decode(errors='replace')[-500:]}")
    return Cost(wall_s, sum(spent_s.values()), peak_mb, largest_mb)


def spread(values: Sequence[float]) -> list[float]:
    """Give median, lowest and highest."""
    return [statistics.median(values), min(values), max(values)]


def shown(values: Sequence[float], digits: int = 2) -> str:
    """Write median, lowest and highest for a table."""
    middle, low, high = spread(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def verdict(missed: Sequence[str]) -> int:
    """Name the targets that were missed; give the exit status."""
    print("\n".join(f"missed: {words}" for words in missed) or "every target is met", flush=True)
    return 1 if missed else 0


def write_results(name: str, results: object) -> Path:
    """Keep the figures of a benchmark as `.bench/NAME.json`, for the plots."""
    path = ROOT / ".bench" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _tree(pid: int) -> list[psutil.Process]:
    with suppress(psutil.Error):
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    return []


def _cpu_s(tree: list[psutil.Process]) -> dict[tuple[int, float], float]:
    found = {}
    for process in tree:
        with suppress(psutil.Error):
            spent = process.cpu_times()
            found[process.pid, process.create_time()] = spent.user + spent.system
    return found


def _memory_mb(tree: list[psutil.Process]) -> dict[int, float]:
    found = {}
    for process in tree:
        with suppress(psutil.Error):
            found[process.pid] = process.memory_full_info().pss / 1e6
    return found
