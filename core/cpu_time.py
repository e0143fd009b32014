"""What each step costs: CPU seconds by step, with what no step claims under names of its own, so that all adds up."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from typing import TypeVar

import psutil

T = TypeVar("T")

START = "start"
"""what a process spends before its first task: imports, loading models"""
ENGINE = "engine"
"""what a process spends on handing rows on, beside its steps"""
DAEMONS = "ray"
"""what Ray's own processes spend"""
WORKERS = ("ray::IDLE", "ray::MapBatches", "ray::MapWorker", "ray::_TallyActor", "ray::_do_step", "ray::_Worker")
"""titles of those processes of Ray that tell for themselves what they spend"""


class _Process:
    """This process's CPU seconds, all threads together (encoders, networks): each is given away once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.until_s = 0.0
        """the process's CPU time up to which steps have claimed theirs"""
        self._claimed_s = self._told_s = 0.0
        self.has_started = False

    def claim(self, begin_s: float) -> float:
        """Return what was spent since `begin_s`, less what a step of another thread has claimed meanwhile."""
        with self._lock:
            now_s = time.process_time()
            spent_s = now_s - (begin_s if begin_s > self.until_s else self.until_s)
            self.until_s = now_s
            self._claimed_s += spent_s
            return spent_s

    def rest(self) -> float:
        """Return what no step claimed since the last call."""
        with self._lock:
            rest_s = time.process_time() - self._claimed_s - self._told_s
            self._told_s += rest_s
            return rest_s


_process = _Process()


class _Step:
    """A stretch of one step; a class, as it is entered several times for each frame."""

    __slots__ = ("_begin_s", "_name", "_spent_s")

    def __init__(self, spent_s: dict[str, float], name: str) -> None:
        self._spent_s, self._name = spent_s, name

    def __enter__(self) -> None:
        self._begin_s = time.process_time()

    def __exit__(self, *error: object) -> None:
        self._spent_s[self._name] += _process.claim(self._begin_s)


class StepClock:
    """Adds up this process's CPU seconds by step name."""

    def __init__(self) -> None:
        """Start with nothing spent."""
        self._spent_s: dict[str, float] = defaultdict(float)
        self._lap_s = 0.0

    def step(self, name: str) -> AbstractContextManager[None]:
        """Count what runs inside towards a step; steps do not nest."""
        return _Step(self._spent_s, name)

    def begin(self) -> None:
        """Let the next `lap` count from here."""
        self._lap_s = time.process_time()

    def lap(self, name: str) -> None:
        """Count towards a step all since the last `begin` or `lap`; the clock is read once, not twice."""
        self._spent_s[name] += _process.claim(self._lap_s)
        self._lap_s = _process.until_s

    def each(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Count what producing each item costs towards a step."""
        iterator = iter(items)
        while True:
            begin_s = time.process_time()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self._spent_s[name] += _process.claim(begin_s)
            yield item

    def take(self) -> dict[str, float]:
        """Return what was spent since the last call."""
        spent, self._spent_s = dict(self._spent_s), defaultdict(float)
        return spent


def unclaimed(name: str | None = None) -> dict[str, float]:
    """Return this process's CPU seconds since the last call that no step has claimed.

    Args:
        name: what to call them; null: the start at the first call, the engine's at all others.
    """
    usual, _process.has_started = ENGINE if _process.has_started else START, True
    return {name or usual: _process.rest()}


def daemons_s() -> float:
    """Return the CPU seconds of Ray's own processes, as far as this process started them."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            title, *words = [*process.cmdline(), ""]
            is_rays = title.startswith("ray::") or any("/ray/" in word for word in (title, *words[:2]))
            if is_rays and not title.startswith(WORKERS) and "default_worker" not in " ".join(words[:2]):
                spent = process.cpu_times()
                total += spent.user + spent.system
    return total
