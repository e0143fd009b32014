"""Ends the processes that an engine leaves behind when its owner is killed; nothing else of the machine.

vLLM computes in processes of its own. They end when their owner shuts down, but not when it is killed (by Ray, by
the kernel for want of memory): they would keep the GPU, and the worker that replaces it could not start. So a small
process watches the owner, and knows what it started by a mark in the environment.
"""

import contextlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

MARK = "SELECTS_ENGINE"
"""Environment variable that what an engine starts inherits."""
LOOK_S = 0.5
SCANS = 6
"""After the owner's end, as many looks: what was just starting shows up in one of the next."""


@contextlib.contextmanager
def marked() -> Iterator[subprocess.Popen[bytes]]:
    """Mark the processes that are started inside, and watch over them until this process ends.

    Yields:
        The watcher: kill it when the marked processes have been ended properly.
    """
    mark = uuid.uuid4().hex
    command = [sys.executable, "-I", __file__, str(os.getpid()), mark]
    quiet = subprocess.DEVNULL
    watcher = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
    # Engines write their titles over their environment, where nothing would be found, unless told not to.
    ours = {MARK: mark, "SPT_NOENV": "1"}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield watcher
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def watch(owner: int, mark: str) -> None:
    """Wait for the parent's end, then kill what bears the mark."""
    import psutil

    while os.getppid() == owner:
        time.sleep(LOOK_S)
    for _ in range(SCANS):
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):  # ended meanwhile, or another user's
                if process.environ().get(MARK) == mark:
                    process.kill()
        time.sleep(LOOK_S)


if __name__ == "__main__":
    watch(int(sys.argv[1]), sys.argv[2])
