"""A persistent child process for media, watched over: killed when silent, replaced when dead."""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from core.errors import MediaError, OutputError
from core.limits import Limits
from core.packages import HOME
from core.retry import pauses_s
from media.types import Heartbeat

ENOUGH_TIME = 0.9
"""of the silence that is allowed: a decoder that has computed for so long hangs, however long that took"""
MOST_STARVED = 20.0
"""times the silence that is allowed, after which a decoder is given up, however little time it got"""
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")}


@dataclass(frozen=True)
class Sandbox:
    """What a media process runs, and what it may cost.

    Attributes:
        module: run as `python -m module`; ends with `media.sandbox_child.run_child`.
        payload: what its tasks are built from; pickled.
        limits: bounds on silence, time, memory and tries.
        shared: descriptors of files that the process has under the same numbers.
        setting: where the limits can be set, for messages; null: nowhere.
    """

    module: str
    payload: Any
    limits: Limits
    shared: tuple[int, ...] = ()
    setting: str | None = "limits"

    def bound(self, amount: str, name: str) -> str:
        """Return a bound in words: `4 GB of limits.memory_gb`."""
        return amount if self.setting is None else f"{amount} of {self.setting}.{name}"


class InternalError(Exception):
    """A bug of ours that a source brought to light: its row fails with the place, the run goes on."""


class _Died(Exception):
    """The child is gone, or had to be killed.

    Attributes:
        by_others: somebody else killed it, such as the system for want of memory; the source need not be at fault.
    """

    def __init__(self, message: str, *, by_others: bool = False):
        super().__init__(message)
        self.by_others = by_others


class MediaProcess:
    """Runs media tasks in a child process.

    A child that dies or says nothing for `limits.silence_s` (not counting time for which the machine did not let it
    run) is replaced and the task tried again, up to
    `limits.tries` times (`limits.kills` where others killed it); so is a task to which the storage failed, up
    to `limits.storage_tries` times with growing pauses. Results that were already handed out are not handed
    out twice, since tasks are deterministic.
    """

    def __init__(self, sandbox: Sandbox):
        """Keep what to run; the child starts with the first task."""
        self._sandbox = sandbox
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self.cpu_s: dict[str, float] = {}

    def run(self, on_beat: Heartbeat, name: str, *arguments: Any) -> Iterator[Any]:
        """Run a task of the sandbox and yield its results as they come.

        Args:
            on_beat: called with the seconds of footage dealt with since the last call.
            name: the task.
            arguments: what it takes.

        Raises:
            MediaError: the source cannot be read, or its decoder crashed, hung or ran out of memory or time on
                every try.
            OutputError: what the task makes cannot be written.
            InternalError: a bug of ours.
        """
        given = 0
        limits = self._sandbox.limits
        left = {True: limits.kills, False: limits.tries}  # by whether others killed it
        pauses = pauses_s(limits)
        while True:
            try:
                for number, item in enumerate(self._once(on_beat, name, arguments), 1):
                    if number > given:
                        given = number
                        yield item
                return
            except _Died as died:
                self.close()
                left[died.by_others] -= 1
                if not left[died.by_others]:
                    tries = limits.kills if died.by_others else limits.tries
                    raise MediaError(f"{died}" + (f" ({tries} tries)" if tries > 1 else "")) from None
            except (MediaError, OutputError) as error:
                pause_s = next(pauses, None) if error.is_transient else None
                if pause_s is None:
                    raise
                time.sleep(pause_s)
            except InternalError:
                raise
            except BaseException:  # the caller gave up midway: the rest of the answer must not reach the next
                self.close()
                raise

    @property
    def pid(self) -> int | None:
        """Of the child; None while there is none."""
        return None if self._process is None else self._process.pid

    def close(self) -> None:
        """End the child."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # a dead disk can hold even a killed process
                self._process.wait(timeout=10)
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None

    def _once(self, on_beat: Heartbeat, name: str, arguments: tuple[Any, ...]) -> Iterator[Any]:
        connection = self._connection or self._start()
        limits = self._sandbox.limits
        silence_s, waited_s = limits.silence_s, 0.0
        _bound_waiting(connection, silence_s)
        self._guarded(lambda: connection.send((name, arguments)), silence_s)
        while True:
            begin = time.monotonic()
            self._await_sign(connection, silence_s)
            kind, *values = self._guarded(connection.recv, silence_s)
            waited_s += time.monotonic() - begin
            # Reading a source's facts takes as long as its size, which has a limit of its own.
            if waited_s > limits.task_s and name != "probe" and kind in ("beat", "item"):
                self.close()
                raise MediaError(f"took more than the {self._sandbox.bound(f'{limits.task_s:g} s', 'task_s')}")
            if kind == "beat":
                on_beat(values[0])
            elif kind == "item":
                yield values[0]
            else:
                break
        self._count(values[-1])
        if kind == "media":
            message, time_s, is_transient, end_s = values[:4]
            raise MediaError(message, time_s, end_s, is_transient=is_transient)
        if kind == "memory":
            raise MediaError(f"needs more than the {self._sandbox.bound(f'{limits.memory_gb:g} GB', 'memory_gb')}")
        if kind == "output":
            raise OutputError(values[0], is_transient=values[1])
        if kind == "bug":
            raise InternalError(values[0])

    def _await_sign(self, connection: Connection, silence_s: float) -> None:
        """Wait until the child says something or ends; one that the machine gave no time is not silent."""
        assert self._process is not None
        pid = self._process.pid
        begin, used_s, wait_s = time.monotonic(), _cpu_s(pid), silence_s
        while not connection.poll(wait_s):
            has_had_time = _cpu_s(pid) - used_s >= ENOUGH_TIME * silence_s
            if has_had_time or not _wants_cpu(pid) or time.monotonic() - begin >= MOST_STARVED * silence_s:
                raise _Died(f"the decoder gave no sign of life for {silence_s:g} s")
            wait_s = silence_s / 4

    def _guarded(self, exchange: Callable[[], Any], silence_s: float) -> Any:
        """Send or receive; the socket itself gives up after `limits.silence_s`, also within a message."""
        try:
            return exchange()
        except BlockingIOError:
            raise _Died(f"the decoder gave no sign of life for {silence_s:g} s") from None
        except (EOFError, OSError):
            raise self._death() from None

    def _start(self) -> Connection:
        ours, theirs = socket.socketpair()
        environment = os.environ | ONE_THREAD
        # What this worker can import, the child must: on a cluster each package lies in a folder of its own.
        environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(HOME), *filter(None, sys.path)]))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._sandbox.module, str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno(), *self._sandbox.shared],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # Ctrl-C is the run's business, not the decoder's
            )
        self._connection = Connection(ours.detach())
        self._connection.send((self._sandbox.payload, self._sandbox.limits.memory_gb))
        return self._connection

    def _death(self) -> _Died:
        assert self._process is not None
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return _Died("the decoder hung up")
        if code == -signal.SIGKILL:
            return _Died("the decoder was killed, as the system does when memory runs out", by_others=True)
        if code < 0:
            with contextlib.suppress(ValueError):
                return _Died(f"the decoder crashed ({signal.Signals(-code).name})")
        return _Died(f"the decoder ended by itself (exit {code})")

    def _count(self, spent: dict[str, float]) -> None:
        for step, seconds in spent.items():
            self.cpu_s[step] = self.cpu_s.get(step, 0.0) + seconds


def _cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used; 0 where that cannot be known."""
    try:
        spent = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(spent.user + spent.system)


def _wants_cpu(pid: int) -> bool:
    """Return whether a thread of a process runs or waits for a CPU, rather than sleeps; False where nobody knows."""
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # it has just ended
                if (thread / "stat").read_bytes().rpartition(b")")[2].split()[0] == b"R":
                    return True
    return False


def _bound_waiting(connection: Connection, seconds: float) -> None:
    """Let the connection's socket give up after a while, also in the middle of a message."""
    whole, fraction = divmod(seconds, 1)
    timeout = struct.pack("ll", int(whole), int(fraction * 1e6))  # a timeval
    with socket.fromfd(connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as same:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            same.setsockopt(socket.SOL_SOCKET, option, timeout)
