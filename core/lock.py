"""One process at a time on a folder."""

import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from core.errors import UserError


@contextmanager
def locked_if_free(folder: Path) -> Iterator[bool]:
    """Hold a folder if nobody does and it can be written to; yields whether it is held. For those that mostly read."""
    with ExitStack() as stack:
        is_held = True
        try:
            stack.enter_context(locked(folder))
        except (UserError, OSError):
            is_held = False
        yield is_held


@contextmanager
def locked(folder: Path, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold a folder, so that no second process works on it; the system frees the lock of one that has died.

    Args:
        folder: where the lock file lies.
        waiting: called once with the name of the process that holds it, and then it is waited for; None: that is
            an error.

    Raises:
        UserError: another process holds it; the message says which.
    """
    with (folder / ".lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            owner = lock.read().strip() or "another process"
            if waiting is None:
                raise UserError(f"{folder} is in use by {owner}; wait for it to end, or stop it") from None
            waiting(owner)
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield
