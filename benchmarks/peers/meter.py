"""CPU-seconds and wall seconds of a command with all that it starts, also what outlives it or nobody waits for."""

import ctypes
import os
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
_SIGCHLD_BIT = 1 << 16
_POLL_S = 0.25
_PATIENCE_S = 30.0
"""How long what a command left behind may take to end."""


@dataclass(frozen=True)
class Cost:
    """User and system CPU-seconds (niced ones too), and wall seconds."""

    cpu_s: float
    wall_s: float

    def __add__(self, other: "Cost") -> "Cost":
        """Add commands that follow each other."""
        return Cost(self.cpu_s + other.cpu_s, self.wall_s + other.wall_s)


def measure(command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> Cost:
    """Run a command to its end and give what it cost.

    Orphans become this process's children, so that they are waited for and counted. Some programs (Ray's raylet)
    have their children's ends ignored, which takes them out of everybody's account: those count as last seen.

    Raises:
        SystemExit: the command failed.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, 1, 0, 0, 0):
        raise SystemExit("prctl: this kernel knows no subreaper; needs Linux 3.4 or newer")
    begin, before_s = time.monotonic(), _children_s()
    unwaited: dict[int, float] = {}
    with log.open("ab") as file:
        root = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **(env or {})})
        status, wall_s = None, 0.0
        while True:
            _look(unwaited)
            try:
                pid, ended = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid:
                unwaited.pop(pid, None)
                if pid == root.pid:
                    status, wall_s = os.waitstatus_to_exitcode(ended), time.monotonic() - begin
                    root.returncode = status
                continue
            if status is not None and time.monotonic() - begin > wall_s + _PATIENCE_S:
                for child in psutil.Process().children(recursive=True):
                    child.kill()
            time.sleep(_POLL_S)
    if status:
        raise SystemExit(f"{' '.join(command[:3])} …: ended with status {status}; its words are in {log}")
    return Cost(_children_s() - before_s + sum(unwaited.values()), wall_s)


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _look(unwaited: dict[int, float]) -> None:
    """Note what the processes have spent whose parent will not count them."""
    for process in psutil.Process().children(recursive=True):
        try:
            if _ignores_ends(process.ppid()):
                times = process.cpu_times()
                unwaited[process.pid] = times.user + times.system + times.children_user + times.children_system
            else:
                unwaited.pop(process.pid, None)
        except (psutil.Error, OSError):
            continue


def _ignores_ends(pid: int) -> bool:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigIgn:"):
            return bool(int(line.split()[1], 16) & _SIGCHLD_BIT)
    return False
