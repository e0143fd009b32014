"""One process at a time on a folder."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from curation.errors import UserError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, so that no second process works on it; the system frees the lock of one that has died.

    Raises:
        UserError: another process holds it; the message says which.
    """
    with (folder / ".lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            owner = lock.read().strip() or "another process"
            raise UserError(f"{folder} is in use by {owner}; wait for it to end, or stop it") from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield
