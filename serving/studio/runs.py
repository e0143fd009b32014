"""One command at a time as a process of its own, with its lines as they come."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core.packages import HOME
from core.sanitize import printable, without_secrets

MOST_LINES = 500
LONGEST_LINE = 2000
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass
class Run:
    """A command that runs or has ended.

    Attributes:
        name: for people.
        process: the command.
        lines: the last that it printed.
        changed: told with every line, and at the end.
        seen: lines so far.
        code: exit code; None while it runs.
    """

    name: str
    process: subprocess.Popen[str]
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=MOST_LINES))
    changed: threading.Condition = field(default_factory=threading.Condition)
    seen: int = 0
    code: int | None = None

    def text(self) -> str:
        """Return the last lines."""
        with self.changed:
            return "\n".join(self.lines)

    def wait(self, seen: int, timeout_s: float) -> tuple[int, int | None]:
        """Wait for a line after so many, for the end, or a while; return the lines so far and the exit code."""
        with self.changed:
            self.changed.wait_for(lambda: self.seen > seen or self.code is not None, timeout_s)
            return self.seen, self.code

    def stop(self) -> None:
        """Interrupt it as Ctrl-C does; it ends in order, and the same command resumes."""
        if self.code is None:
            os.killpg(self.process.pid, signal.SIGINT)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            told = printable(without_secrets(ANSI.sub("", line.rstrip("\n").rpartition("\r")[2])), LONGEST_LINE)
            with self.changed:
                self.lines.append(told)
                self.seen += 1
                self.changed.notify_all()
        code = self.process.wait()
        with self.changed:
            self.code = code
            self.changed.notify_all()


class Runs:
    """The run that goes on, if any: a machine has room for one."""

    def __init__(self) -> None:
        """Begin with none."""
        self._lock = threading.Lock()
        self.current: Run | None = None

    @property
    def is_busy(self) -> bool:
        """Whether one goes on."""
        return self.current is not None and self.current.code is None

    def start(self, name: str, words: Sequence[str], folder: Path) -> Run | None:
        """Start a command of `run_pipeline.py`; None where another one goes on.

        Args:
            name: for people.
            words: the command and its arguments.
            folder: where it runs.
        """
        with self._lock:
            if self.is_busy:
                return None
            paths = os.pathsep.join(filter(None, [str(HOME), os.environ.get("PYTHONPATH", "")]))
            process = subprocess.Popen(
                [sys.executable, "-u", "-m", "run_pipeline", *words],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                errors="replace", cwd=folder, env=os.environ | {"PYTHONPATH": paths}, start_new_session=True,
            )  # fmt: skip
            run = self.current = Run(name, process)
            threading.Thread(target=run._read, name=f"lines of {name}", daemon=True).start()
            return run

    def stop(self, timeout_s: float = 30.0) -> None:
        """Interrupt the run that goes on and wait for its end; one that does not end is killed."""
        run = self.current
        if run is None or run.code is not None:
            return
        run.stop()
        try:
            run.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(run.process.pid, signal.SIGKILL)
            run.process.wait()
