"""Copies of objects on this node's own disk, for work that reads all of them: whole, of one version, bounded in size.

A copy stays for whoever needs it next; the longest unused go when there is no room. Processes of a node share them:
each is fetched once, and none goes while somebody reads it. SELECTS_STAGE names the folder, SELECTS_STAGE_GB its bound.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from core.files import atomic_path, make_folder, remove_leftovers, temporary_path
from core.storage.object_store import PART_BYTES, object_at
from core.storage.store import Entry, MissingError, Store

FOLDER_VARIABLE = "SELECTS_STAGE"
BOUND_VARIABLE = "SELECTS_STAGE_GB"
USUAL_GB = 64.0
AT_ONCE = 4
"""parts under way at a time, so that a slow answer keeps none waiting"""
_LOCK = ".lock"


def version_number(version: str) -> int:
    """Return a version (an ETag) as a number that a table's column of 64 bits holds: 1 to 2^62."""
    return 1 + (int.from_bytes(hashlib.blake2b(version.encode(), digest_size=8).digest()) >> 2)


def stage_folder() -> Path:
    """Return where copies lie on this node."""
    return Path(os.environ.get(FOLDER_VARIABLE) or Path(tempfile.gettempdir()) / f"selects-stage-{os.getuid()}")


def staged_path(url: str, number: int) -> Path:
    """Return where the copy of an object of a version lies, or would lie; it has the object's suffix."""
    name = hashlib.blake2b(f"{number} {url}".encode(), digest_size=16).hexdigest()
    return stage_folder() / f"{name}{Path(url).suffix}"


@contextlib.contextmanager
def staged(url: str, number: int, on_bytes: Callable[[int], None]) -> Iterator[Path]:
    """Have a copy of an object while the block runs.

    Args:
        url: the object.
        number: `version_number` of the version that is wanted.
        on_bytes: called with the bytes of each part that was read from the storage; what it raises ends the fetching.

    Yields:
        `staged_path`.

    Raises:
        MissingError: the object is gone, or of another version.
        StoreError: the storage refuses.
        OutputError: this node's disk refuses.
    """
    path = staged_path(url, number)
    make_folder(path.parent)
    with shared(path) as lock:
        while not path.is_file():
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.is_file():
                _fetch(url, number, path, on_bytes)
            fcntl.flock(lock, fcntl.LOCK_SH)  # not one step: somebody may have made room in between
        os.utime(path)
        yield path


def _fetch(url: str, number: int, path: Path, on_bytes: Callable[[int], None]) -> None:
    store, name = object_at(url)
    entry, first = store.begin(name, PART_BYTES)
    if version_number(entry.version) != number:
        raise MissingError(f"{url}: has changed since it was planned; curate again")
    remove_leftovers(path.parent)
    make_room(path.parent, entry.size_bytes)
    with atomic_path(path, to_disk=False) as temporary:
        download(store, entry, temporary, on_bytes, first)


def download(
    store: Store,
    entry: Entry,
    path: Path,
    on_bytes: Callable[[int], None] = lambda count: None,
    first: bytes = b"",
) -> None:
    """Write an object's content to a file, several parts under way at a time, all of one version.

    Args:
        store: where it lies.
        entry: its key, size and version.
        path: the file, which is half there if this breaks.
        on_bytes: called with the bytes of each part; what it raises ends the fetching.
        first: what was read of its beginning.

    Raises:
        MissingError: it is gone, or of another version.
        StoreError: the storage refuses.
    """
    starts = range(len(first), entry.size_bytes, PART_BYTES)
    with path.open("wb") as file, ThreadPoolExecutor(AT_ONCE) as pool:
        file.write(first)
        on_bytes(len(first))
        waiting = [pool.submit(store.read, entry.key, start, PART_BYTES, entry.version) for start in starts[:AT_ONCE]]
        for place in range(len(starts)):
            part = waiting.pop(0).result()
            if place + AT_ONCE < len(starts):
                begin = starts[place + AT_ONCE]
                waiting.append(pool.submit(store.read, entry.key, begin, PART_BYTES, entry.version))
            file.write(part)
            on_bytes(len(part))


def bound_bytes() -> float:
    """Return how much of this node's disk copies may take."""
    return float(os.environ.get(BOUND_VARIABLE) or USUAL_GB) * 1e9


def make_room(folder: Path, size_bytes: int) -> None:
    """Delete the copies that were not used for longest, and are not in use, until so many bytes more fit the bound."""
    bound = bound_bytes()
    copies = []
    for path in folder.iterdir():
        if not path.name.startswith(".") and path.suffix != _LOCK:
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                if stat.S_ISREG(status.st_mode):  # outputs lie in folders beside the copies
                    copies.append((status.st_mtime_ns, status.st_size, path))
    used = sum(size for _, size, _ in copies)
    for _, size, path in sorted(copies):
        if used + size_bytes <= bound:
            return
        if deleted(path):
            used -= size


def deleted(path: Path) -> bool:
    """Delete a copy, a file or folder, that nobody reads; return whether it is gone."""
    with open(f"{path}{_LOCK}", "a", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        if path.is_dir():
            going = temporary_path(path)  # whole under its name or not at all, wherever this is killed
            os.rename(path, going)
            shutil.rmtree(going, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        Path(lock.name).unlink(missing_ok=True)
    return True


@contextlib.contextmanager
def shared(path: Path) -> Iterator[int]:
    """Hold a copy's lock together with other readers; yields the lock's descriptor."""
    name = f"{path}{_LOCK}"
    while True:
        with open(name, "a", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            try:
                is_same = os.path.samestat(os.fstat(lock.fileno()), os.stat(name))
            except FileNotFoundError:
                is_same = False
            if is_same:  # else it was deleted with its copy before it was held
                yield lock.fileno()
                return
