"""The process in which media is decoded: it may crash, hang or swell without harming its worker.

Run as `python -m curation.child FD PARENT`; speaks with `curation.isolate` over the socket FD and ends with
the process PARENT.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import cv2

from curation import analyse
from curation.clock import StepClock, unclaimed
from curation.cut import cut_clip
from curation.errors import MediaError, OutputError
from curation.samples import encode_samples
from curation.work import Plan

BEAT_EVERY_S = 0.5
PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>


def serve(connection: Connection) -> None:
    """Answer requests until the other side hangs up.

    A request is `(name, arguments)`; the answers are any number of `("item", value)` and
    `("beat", seconds of footage)`, then one of `("done", CPU seconds by step)`,
    `("media", message, time_s, is_transient)`, `("output", message, is_transient)`, `("bug", traceback)`, each
    of them with the CPU seconds behind it.
    """
    plan = connection.recv()
    _limit(plan.recipe.limits.memory_gb)
    clock = StepClock()
    beat = _Beat(connection)
    tasks = _tasks(plan, beat, clock)

    def spent() -> dict[str, float]:
        return clock.take() | unclaimed()

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
            connection.send(("done", spent()))
        except MediaError as error:
            connection.send(("media", str(error), error.time_s, error.is_transient, spent()))
        except OutputError as error:
            connection.send(("output", str(error), error.is_transient, spent()))
        except (MemoryError, cv2.error) as error:
            if isinstance(error, cv2.error) and "memory" not in str(error):
                connection.send(("bug", traceback.format_exc(), spent()))
                continue
            words = f"needs more than the {plan.recipe.limits.memory_gb:g} GB of limits.memory_gb"
            connection.send(("media", words, None, False, spent()))
        except (BrokenPipeError, ConnectionResetError):
            return
        except Exception:  # a bug of ours: the parent says so, and where
            connection.send(("bug", traceback.format_exc(), spent()))


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
            analyse.expect_unchanged(task.source)
        yield packed

    def cut(row: Any, task: Any, sampling: Any) -> Iterator[Any]:
        with clock.step("cut"):
            done = cut_clip(plan, row, task, sampling, beat)
            analyse.expect_unchanged(task.source)
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
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:
        score.write("1000")  # when the machine's memory runs out, this process goes first
    cv2.setNumThreads(1)


def _end_with(parent: int) -> None:
    """Let the system kill this process when its parent ends, also in the middle of a hanging decoder."""
    with contextlib.suppress(AttributeError, OSError):  # not Linux
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


if __name__ == "__main__":
    _end_with(int(sys.argv[2]))
    serve(Connection(int(sys.argv[1])))
    os._exit(0)
