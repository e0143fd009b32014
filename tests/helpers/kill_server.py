"""Runs of the command line that die at their k-th file operation; imports everything once and forks for each.

`python kill_server.py` reads jobs from its input, one JSON object a line, and answers each with one:
{"words": [...], "root": folder, "kill_at": k or null, "log": file}  ->  {"code": exit code or -9, "operations": n}

What counts as an operation is what Python tells its audit hooks and what `os.fsync` is asked, on files under `root`:
files opened to be written, renames, links, removals, folders made and removed, exchanges. The run dies before the
k-th of them, with the process in which its media is decoded, which is forked here, too, and counts along.
"""

import importlib
import json
import mmap
import os
import signal
import struct
import subprocess
import sys
from typing import Any

MODULES = (
    "run_pipeline",
    "curation.analysis.tasks",
    "train_bridge.run",
    "train_bridge.loop.launch",
    "sampling.command",
)
NAMED = frozenset({
    *("os.rename", "os.link", "os.symlink", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod"),
})
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Points:
    """The operations of one run, counted in memory that its processes share."""

    def __init__(self, root: str, kill_at: int | None):
        self._root, self._kill_at = os.fsencode(os.path.realpath(root)), kill_at
        self._shared = mmap.mmap(-1, 16)
        self._is_inside = False

    @property
    def count(self) -> int:
        return int(struct.unpack_from("q", self._shared, 0)[0])

    def watch(self) -> None:
        """Count from here on, in this process and those forked from it."""
        struct.pack_into("q", self._shared, 8, os.getpid())
        sync = os.fsync

        def fsync(descriptor: int) -> None:
            self._pass(os.readlink(f"/proc/self/fd/{descriptor}"))
            sync(descriptor)

        os.fsync = fsync
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._is_inside:
            return
        if event == "open" and arguments[2] & WRITES:
            self._pass(arguments[0])
        elif event in NAMED:
            # Names relative to open folders are those of clips that are moved, and of trees that are removed.
            is_relative = any(isinstance(a, int) and a >= 0 for a in arguments[1:]) and event != "os.truncate"
            self._pass(arguments[0] if not is_relative or event in ("os.mkdir", "os.chmod") else None)
        elif event == "ctypes.dlsym" and arguments[1] == "renameat2":
            self._pass(None)

    def _pass(self, path: Any) -> None:
        """Count one operation, or die; a path of None is one of the run's for sure."""
        if path is not None:
            if isinstance(path, int):
                return
            self._is_inside = True
            try:
                whole = os.path.abspath(os.fsencode(path))
            finally:
                self._is_inside = False
            if not whole.startswith(self._root):
                return
        count = self.count + 1
        if self._kill_at is not None and count >= self._kill_at:
            driver = struct.unpack_from("q", self._shared, 8)[0]
            os.kill(driver, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        struct.pack_into("q", self._shared, 0, count)


class ForkedChild:
    """Stands for `subprocess.Popen` where a media process is started."""

    def __init__(self, command: list[str], pass_fds: list[int], **_: object):
        assert command[1:3] == ["-m", "curation.analysis.tasks"], command
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            try:
                os.setsid()
                last = 3
                for descriptor in sorted(pass_fds):
                    os.closerange(last, descriptor)
                    last = descriptor + 1
                os.closerange(last, 4096)
                _become_child(command[3:])
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(1)

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def poll(self) -> int | None:
        return self.returncode

    def kill(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)


def start_child(command: list[str], **words: Any) -> "ForkedChild | subprocess.Popen[bytes]":
    """Fork curation's media process, which has all it imports already; start the trainer's as it is."""
    start = ForkedChild if command[1:3] == ["-m", "curation.analysis.tasks"] else subprocess.Popen
    return start(command, **words)


def _become_child(words: list[str]) -> None:
    from multiprocessing.connection import Connection

    from curation.analysis.tasks import media_tasks
    from media import sandbox_child as child

    child.end_with(int(words[1]))
    child.serve(Connection(int(words[0])), media_tasks)
    os._exit(0)


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Fork, run the command line in the fork, and wait for its end."""
    points = Points(job["root"], job["kill_at"])
    pid = os.fork()
    if not pid:
        code = 70
        try:
            os.setsid()
            log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            import run_pipeline
            from media import sandbox as isolate

            isolate.subprocess = type("Forking", (), {**vars(subprocess), "Popen": start_child})
            sys.argv = ["run_pipeline.py", *job["words"]]
            points.watch()
            code = run_pipeline.main(job["words"])
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {"code": code, "operations": points.count}


def main() -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no reply
    for name in MODULES:
        importlib.import_module(name)
    print(json.dumps({"ready": True}), file=replies, flush=True)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    main()
