"""Runs checks in a process of their own, which is stopped when one takes too long and replaced when one ends it.

The process tells of each check in a line of JSON: `{"started": name, "limit_s": seconds}`, then `{"result": …}`; at the
end `{"finished": true}`. A check that hangs, crashes or spoils the device fails alone: those after it are run in a new
process.
"""

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["passed", "failed", "skipped"]
START_S = 120.0
"""for a process to begin with its first check"""


@dataclass(frozen=True)
class Result:
    """What became of a check.

    Attributes:
        name: of the check.
        status: `skipped` where it cannot run here or did not fit the time.
        seconds: that it took.
        words: a line for people.
        figures: what was measured.
        detail: the traceback of an error.
    """

    name: str
    status: Status
    seconds: float
    words: str
    figures: Mapping[str, float] = field(default_factory=dict)
    detail: str = ""

    def line(self) -> str:
        """Return it as a line of JSON."""
        return json.dumps({"result": asdict(self)})


def run_all(command: Sequence[str], deadline_s: float, told: Callable[[Result], None]) -> dict[str, Any]:
    """Run all checks.

    Args:
        command: starts a process; it is given `--done` with the names of the checks that are over, as JSON.
        deadline_s: on `time.monotonic`, when all is to be over.
        told: is called with each result as it comes.

    Returns:
        What the last process said of itself and of the machine.

    Raises:
        SystemExit: a process ended before its first check began.
    """
    done: list[str] = []
    facts: dict[str, Any] = {}
    while not _run_one(command, deadline_s, done, told, facts):
        pass
    return facts


def _run_one(
    command: Sequence[str],
    deadline_s: float,
    done: list[str],
    told: Callable[[Result], None],
    facts: dict[str, Any],
) -> bool:
    """Run one process; return whether all checks are over."""
    before = len(done)

    def over(result: Result) -> None:
        done.append(result.name)
        told(result)

    process = subprocess.Popen([*command, "--done", json.dumps(done)], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    running, began, until = "", time.monotonic(), time.monotonic() + START_S
    lines = _Lines(process.stdout.fileno())
    try:
        while True:
            message = lines.next(until)
            if message is None:
                break
            if "started" in message:
                running, began = message["started"], time.monotonic()
                until = min(began + message["limit_s"], max(deadline_s, began + 1))
            elif "result" in message:
                over(Result(**message["result"]))
                running, until = "", time.monotonic() + START_S
            elif "finished" in message:
                return True
            else:
                facts |= message
        seconds = time.monotonic() - began
        if not lines.ended and running:
            in_time = until >= deadline_s
            words = "time: stopped at the end of all" if in_time else f"took over {until - began:.0f} s"
            over(Result(running, "skipped" if in_time else "failed", seconds, words))
        elif running:
            over(Result(running, "failed", seconds, f"its process ended with {_cause(process)}"))
        elif len(done) == before:
            raise SystemExit(f"the process with the checks ended with {_cause(process)} before the first one")
        return False
    finally:
        _end(process)


class _Lines:
    """Messages from a pipe, with a bound on the time to wait."""

    def __init__(self, file: int):
        self._file, self._waiting, self.ended = file, b"", False

    def next(self, until_s: float) -> dict[str, Any] | None:
        """Return the next message; None at the end of the pipe, or where none came in time."""
        for line in self._lines(until_s):
            with suppress(ValueError):  # what a library has printed
                message = json.loads(line)
                if isinstance(message, dict):
                    return message
        return None

    def _lines(self, until_s: float) -> Iterator[bytes]:
        while True:
            line, found, rest = self._waiting.partition(b"\n")
            if found:
                self._waiting = rest
                yield line
                continue
            if not select.select([self._file], [], [], max(0.0, until_s - time.monotonic()))[0]:
                return
            if not (more := os.read(self._file, 1 << 16)):
                self.ended = True
                return
            self._waiting += more


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process and all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _cause(process: "subprocess.Popen[bytes]") -> str:
    with suppress(subprocess.TimeoutExpired):
        code = process.wait(10)
        return signal.Signals(-code).name if code < 0 else f"status {code}"
    return "its pipe closed"
