"""The process in which media is decoded: it may crash, hang or swell without harming its worker.

Run as `python -m curation.child FD`; speaks with `curation.isolate` over the socket FD.
"""

import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import cv2

from curation import analyse
from curation.clock import StepClock
from curation.cut import cut_clip
from curation.errors import MediaError
from curation.samples import encode_samples
from curation.work import Plan

BEAT_EVERY_S = 0.5


def serve(connection: Connection) -> None:
    """Answer requests until the other side hangs up.

    A request is `(name, arguments)`; the answers are any number of `("item", value)` and
    `("beat", seconds of footage)`, then one of `("done", CPU seconds by step)`,
    `("media", message, time_s)`, `("bug", traceback)`.
    """
    plan = connection.recv()
    _limit(plan.recipe.limits.memory_gb)
    clock = StepClock()
    beat = _Beat(connection)
    tasks = _tasks(plan, beat, clock)
    while True:
        try:
            name, arguments = connection.recv()
        except EOFError:
            return
        try:
            for item in tasks[name](*arguments):
                beat.flush()
                connection.send(("item", item))
            beat.flush()
            connection.send(("done", clock.take()))
        except MediaError as error:
            connection.send(("media", str(error), error.time_s, clock.take()))
        except (MemoryError, cv2.error) as error:
            if isinstance(error, cv2.error) and "memory" not in str(error):
                connection.send(("bug", traceback.format_exc(), clock.take()))
                continue
            limit = plan.recipe.limits.memory_gb
            connection.send(("media", f"needs more than the {limit:g} GB of limits.memory_gb", None, clock.take()))
        except (BrokenPipeError, ConnectionResetError):
            return
        except Exception:  # a bug of ours: the parent says so, and where
            connection.send(("bug", traceback.format_exc(), clock.take()))


def _tasks(plan: Plan, beat: "_Beat", clock: StepClock) -> dict[str, Callable[..., Iterator[Any]]]:
    def probe(source: Any) -> Iterator[Any]:
        with clock.step("probe"):
            tasks = analyse.probe_source(plan, source, beat)
        yield from tasks

    def segment(task: Any) -> Iterator[Any]:
        yield from analyse.analyse(plan, task, beat, clock)

    def again(row: Any, task: Any) -> Iterator[Any]:
        with clock.step("samples"):
            samplings = analyse.pooled_samplings(plan, task.facts.type)
            packed = encode_samples(analyse.sample_again(plan, row, task, samplings, beat))
        yield packed

    def cut(row: Any, task: Any, sampling: Any) -> Iterator[Any]:
        with clock.step("cut"):
            done = cut_clip(plan, row, task, sampling, beat)
        yield done

    return {"probe": probe, "analyse": segment, "sample": again, "cut": cut}


class _Beat:
    """Collects seconds of footage and reports them now and then."""

    def __init__(self, connection: Connection):
        self._connection, self._seconds, self._last = connection, 0.0, time.monotonic()

    def __call__(self, seconds: float) -> None:
        self._seconds += seconds
        if time.monotonic() - self._last > BEAT_EVERY_S:
            self.flush()

    def flush(self) -> None:
        self._connection.send(("beat", self._seconds))
        self._seconds, self._last = 0.0, time.monotonic()


def _limit(memory_gb: float) -> None:
    """Bound what this process may allocate, and keep libraries to one thread."""
    most = int(memory_gb * 1e9)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    cv2.setNumThreads(1)


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
    os._exit(0)
