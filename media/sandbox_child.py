"""The process in which media is decoded: it may crash, hang or swell without harming its worker.

A module that serves media tasks ends with `run_child(its function)`; it is run as `python -m MODULE FD PARENT`,
speaks with `media.sandbox` over the socket FD and ends with the process PARENT.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any

import cv2

from core.cpu_time import StepClock, unclaimed
from core.errors import MediaError, OutputError
from media.types import Heartbeat

BEAT_EVERY_S = 0.5
PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>

Tasks = Mapping[str, Callable[..., Iterator[Any]]]
BuildTasks = Callable[[Any, Heartbeat, StepClock], Tasks]
"""From what the worker sent first, a heartbeat to call and a clock to the tasks by name."""


def run_child(build_tasks: BuildTasks) -> None:
    """Serve until the worker hangs up; never returns."""
    end_with(int(sys.argv[2]))
    serve(Connection(int(sys.argv[1])), build_tasks)
    os._exit(0)


def serve(connection: Connection, build_tasks: BuildTasks) -> None:
    """Answer requests until the other side hangs up.

    The first message is `(payload, memory_gb)`. A request is `(name, arguments)`; the answers are any number of
    `("item", value)` and `("beat", seconds of footage)`, then one of `("done", CPU seconds by step)`,
    `("media", message, time_s, is_transient, end_s)`, `("memory",)` where it was not enough,
    `("output", message, is_transient)`, `("bug", traceback)`, each of them with the CPU seconds behind it.
    """
    payload, memory_gb = connection.recv()
    bound_memory(memory_gb)
    clock = StepClock()
    beat = _Heartbeat(connection)
    tasks = build_tasks(payload, beat, clock)

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
            connection.send(("media", str(error), error.time_s, error.is_transient, error.end_s, spent()))
        except OutputError as error:
            connection.send(("output", str(error), error.is_transient, spent()))
        except (MemoryError, cv2.error) as error:
            if isinstance(error, cv2.error) and "memory" not in str(error):
                connection.send(("bug", traceback.format_exc(), spent()))
                continue
            connection.send(("memory", spent()))
        except (BrokenPipeError, ConnectionResetError):
            return
        except Exception:  # a bug of ours: the parent says so, and where
            connection.send(("bug", traceback.format_exc(), spent()))


class _Heartbeat:
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


def bound_memory(memory_gb: float) -> None:
    """Limit what this process may allocate, and keep libraries to one thread."""
    most = int(memory_gb * 1e9)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:
        score.write("1000")  # when the machine's memory runs out, this process goes first
    cv2.setNumThreads(1)


def end_with(parent: int) -> None:
    """Let the system kill this process when its parent ends, also in the middle of a hanging decoder."""
    with contextlib.suppress(AttributeError, OSError):  # not Linux
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
