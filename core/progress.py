"""Progress that a person can read: per step, clips and footage done, rate, time left."""

import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TextIO

PLAIN_EVERY_S = 15.0
MOST_PROBLEMS = 20


@dataclass(frozen=True)
class Done:
    """What a step reports as it goes: clips and seconds of footage dealt with, CPU seconds by part."""

    step: str
    rows: int = 0
    video_s: float = 0.0
    share: float = 0.0
    """bytes of source fully dealt with"""
    cpu_s: dict[str, float] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    """tracebacks of bugs of ours"""
    fetched_bytes: int = 0
    """read from buckets and web servers"""
    looked_bytes: int = 0
    """read of sources there before they were fetched"""
    looked_at_bytes: int = 0
    """size of these sources"""
    waited_s: float = 0.0
    """for sources there that were not here when their turn came"""
    rejects: dict[str, int] = field(default_factory=dict)
    """finished clips by the first reason that rejects them"""


Report = Callable[[Done], None]


@dataclass
class Tally:
    """What the steps have reported so far."""

    rows: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    video_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    cpu_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    bytes_done: float = 0.0
    problems: list[str] = field(default_factory=list)
    fetched_bytes: int = 0
    looked_bytes: int = 0
    looked_at_bytes: int = 0
    waited_s: float = 0.0
    rejects: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    gpus: dict[str, float] = field(default_factory=dict)
    """of the cluster: how many there are (`there`), and how much of them workers have booked (`booked`), now"""

    def add(self, done: Done) -> None:
        """Count one report."""
        self.rows[done.step] += done.rows
        self.video_s[done.step] += done.video_s
        self.bytes_done += done.share
        self.fetched_bytes += done.fetched_bytes
        self.looked_bytes += done.looked_bytes
        self.looked_at_bytes += done.looked_at_bytes
        self.waited_s += done.waited_s
        for reason, count in done.rejects.items():
            self.rejects[reason] += count
        self.spend(done.cpu_s)
        self.problems += [p for p in done.problems if len(self.problems) < MOST_PROBLEMS]

    def spend(self, cpu_s: Mapping[str, float]) -> None:
        """Count CPU seconds by part."""
        for part, seconds in cpu_s.items():
            self.cpu_s[part] += seconds

    def plus(self, other: "Tally") -> "Tally":
        """Return the sum of both."""
        total = Tally(bytes_done=self.bytes_done + other.bytes_done)
        total.fetched_bytes = self.fetched_bytes + other.fetched_bytes
        total.looked_bytes = self.looked_bytes + other.looked_bytes
        total.looked_at_bytes = self.looked_at_bytes + other.looked_at_bytes
        total.waited_s = self.waited_s + other.waited_s
        total.gpus = self.gpus | other.gpus
        for part in (self, other):
            for name, count in part.rows.items():
                total.rows[name] += count
            for reason, count in part.rejects.items():
                total.rejects[reason] += count
            for mine, theirs in ((total.video_s, part.video_s), (total.cpu_s, part.cpu_s)):
                for name, seconds in theirs.items():
                    mine[name] += seconds
        total.problems = [*self.problems, *other.problems][:MOST_PROBLEMS]
        return total


class Display:
    """Shows a tally while a run goes on: one rewritten line on a terminal, a plain line now and then in a pipe."""

    def __init__(
        self,
        steps: list[str],
        total_bytes: int,
        stream: TextIO | None = None,
        watch: "Callable[[Tally], None] | None" = None,
    ):
        """Begin with nothing done out of `total_bytes` of sources; `watch` is given every tally."""
        self._watch = watch
        self._steps, self._total = steps, total_bytes
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._begin = time.monotonic()
        self._shown = self._begin if not self._live else 0.0
        self._lock = threading.Lock()

    def show(self, tally: Tally, *, final: bool = False) -> None:
        """Show the tally if it is time to."""
        if self._watch is not None:
            self._watch(tally)
        with self._lock:
            now = time.monotonic()
            if not final and now - self._shown < (0.2 if self._live else PLAIN_EVERY_S):
                return
            self._shown = now
            line = progress_line(self._steps, tally, self._total, now - self._begin)
            if self._live:
                width = os.get_terminal_size(self._stream.fileno()).columns if self._stream.isatty() else 120
                self._stream.write("\r" + line[: width - 1].ljust(width - 1) + ("\n" if final else ""))
            else:
                self._stream.write(line + "\n")
            self._stream.flush()


def progress_line(steps: list[str], tally: Tally, total_bytes: int, elapsed_s: float) -> str:
    """Return one line, what matters first: share done, time left, rate, then each step's clips and footage."""
    share = min(1.0, tally.bytes_done / total_bytes) if total_bytes else 1.0
    parts = [f"{share:4.0%}"]
    if 0.02 < share < 1:
        parts.append(f"{clock_text(elapsed_s * (1 - share) / share)} left")
    analysed = tally.video_s["analyse"]
    if elapsed_s > 1 and analysed:
        parts.append(f"{analysed / elapsed_s:.1f}x real time")
    for step in steps:
        seconds = tally.video_s[step]
        unit = "sources" if step == "probe" else "clips"
        parts.append(f"{step} {tally.rows[step]} {unit}" + (f" {clock_text(seconds)}" if seconds else ""))
    return " | ".join(parts)


def clock_text(seconds: float) -> str:
    """Return a duration as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
