"""CPU-seconds and wall seconds of a command with all that it starts, also what outlives it or nobody waits for.

    python benchmarks/meter.py CORES COMMAND …

Runs the command on some cores (numbers with commas between them) and prints seconds of the CPU, user and system, niced
ones too; seconds by the clock; and its exit status. What the command prints goes to stderr.
"""

import ctypes
import os
import resource
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

import psutil

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
_SIGCHLD_BIT = 1 << 16
_POLL_S = 0.25
_PATIENCE_S = 30.0
"""How long what a command left behind may take to end."""


def supervise(command: Sequence[str], cores: Collection[int]) -> tuple[float, float, int]:
    """Run a command on some cores, in this process, which must have no other children.

    Gives its CPU-seconds, wall seconds and exit status.

    Orphans become this process's children, so that they are waited for and counted. Some programs (Ray's raylet)
    have their children's ends ignored, which takes them out of everybody's account: those count as last seen.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, 1, 0, 0, 0):
        raise SystemExit("prctl: this kernel knows no subreaper; needs Linux 3.4 or newer")
    begin, wall_s, status = time.monotonic(), 0.0, None
    unwaited: dict[int, float] = {}
    root = subprocess.Popen(command, stdout=sys.stderr, preexec_fn=lambda: os.sched_setaffinity(0, cores))
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
    return _children_s() + sum(unwaited.values()), wall_s, status or 0


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


if __name__ == "__main__":
    print(*supervise(sys.argv[2:], [int(core) for core in sys.argv[1].split(",")]))
