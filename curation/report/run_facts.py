"""The run in words and numbers: when, where, how long, and which step cost most."""

import json
import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.files import read_bounded
from core.sanitize import clean_text

MOST_BYTES = 64 << 20
"""of `run.json`; ours have a few kilobytes, with problems a megabyte"""
LONGEST_TEXT = 10_000
"""characters of each text of it that the page shows"""


@dataclass(frozen=True)
class StepCost:
    """What a step cost: CPU seconds, and its share of all steps, 0..1."""

    name: str
    cpu_s: float
    share: float


@dataclass(frozen=True)
class RunFacts:
    """The last run that did something, for the page; empty where there is no `run.json`."""

    finished: str = ""
    wall_s: float = 0.0
    command: str = ""
    machine: tuple[tuple[str, str], ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    steps: tuple[StepCost, ...] = ()
    bottleneck: str = ""
    problems: int = 0
    is_complete: bool = True


def read_run(out: Path) -> RunFacts:
    """Read `run.json`; one that is gone or damaged costs its facts, not the page."""
    try:
        run = json.loads(read_bounded(out / "run.json", MOST_BYTES))
        return _facts(run)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):  # a file from outside may hold anything
        return RunFacts()


def _facts(run: dict[str, Any]) -> RunFacts:
    cpu_s = {str(name): _number(seconds) for name, seconds in run.get("cpu_s", {}).items()}
    footage_s = max(map(_number, run.get("footage_s", {}).values()), default=0.0)
    total = sum(cpu_s.values()) or 1.0
    steps = tuple(StepCost(n, s, s / total) for n, s in sorted(cpu_s.items(), key=lambda item: -item[1]) if s > 0)
    machine, wall_s = run.get("machine", {}), _number(run.get("wall_s", 0.0))
    cpus = machine.get("cpus")
    return RunFacts(
        finished=_text(run.get("finished", "")),
        wall_s=wall_s,
        command=_text(" ".join(shlex.quote(word) for word in run.get("command", ()))),
        machine=tuple((name.replace("_", " "), _text(value)) for name, value in machine.items()),
        versions=tuple((name, _text(value)) for name, value in run.get("versions", {}).items())
        + tuple((f"operator {name}", _text(value)) for name, value in run.get("plugins", {}).items()),
        steps=steps,
        bottleneck=in_words(steps, wall_s, None if cpus is None else int(_number(cpus)), footage_s),
        problems=len(run.get("problems", ())),
        is_complete=bool(run.get("is_complete", True)),
    )


def _text(value: Any) -> str:
    return clean_text(str(value), LONGEST_TEXT)


def _number(value: Any) -> float:
    """Return a finite number; raises ValueError or TypeError for anything else."""
    if not math.isfinite(value):
        raise ValueError(f"{value} is no number")
    return float(value)


def in_words(steps: tuple[StepCost, ...], wall_s: float, cpus: int | None, footage_s: float) -> str:
    """Return what the time went into."""
    if not steps:
        return "No step of the last run reported its time."
    total = sum(step.cpu_s for step in steps)
    first = steps[0]
    words = f"{first.name} cost most: {first.share:.0%} of {total:.0f} CPU-seconds"
    if len(steps) > 1:
        words += f", before {steps[1].name} with {steps[1].share:.0%}"
    if footage_s:
        words += f"; all steps together took {total / footage_s:.2f} CPU-seconds for a second of footage"
    busy = total / (wall_s * cpus) if wall_s and cpus else 1.0
    if busy < 0.6:
        words += f". The machine's {cpus} CPUs were busy {busy:.0%} of the {wall_s:.0f} s: starting up, or waiting"
    return words + "."
