"""Whole copies on this machine of files that a command reads from buckets.

    STAGE/inputs/<name of the URL>/<name of its state>/    the files under their own names; `.place` holds the URL

Each state (each set of versions) has a folder of its own that never changes, so that whoever reads has one state whole.
The one before goes when a later one is there, unless somebody reads it.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from core.digest import digest, file_sha256
from core.files import atomic_folder, make_folder, remove_leftovers
from core.storage.place import record_place
from core.storage.staging import deleted, download, shared, stage_folder, version_number
from core.storage.store import Entry, Store, StoreError

FILES_AT_ONCE = 8
MOST_NS = 10**18
"""times of change of copies lie below, which every file system can hold"""


@dataclass(frozen=True)
class Wanted:
    """One file to copy.

    Attributes:
        store: where it lies.
        entry: key, size and version of what holds its content.
        sha256: of the content; null: not known.
    """

    store: Store
    entry: Entry
    sha256: str | None = None

    @property
    def state(self) -> str:
        """What changes whenever the content does; the same on all machines."""
        return self.sha256 or self.entry.version


@contextmanager
def copied(name: str, place: str, files: Mapping[str, Wanted]) -> Iterator[Path]:
    """Have copies of files while the block runs.

    A file's time of change is made of its version, so that programs that compare times see the same everywhere.

    Args:
        name: what the copy is of: its earlier states are removed.
        place: URL that the files' paths begin at.
        files: by path.

    Yields:
        The folder that holds them.

    Raises:
        MissingError: one is gone or has changed.
        StoreError: the storage refuses.
        OutputError: this machine's disk refuses.
    """
    above = stage_folder() / "inputs" / hashlib.blake2b(name.encode(), digest_size=12).hexdigest()
    folder = above / digest(place, *([path, files[path].state] for path in sorted(files)))
    make_folder(above)
    remove_leftovers(above)
    with shared(folder) as lock:
        while not folder.is_dir():
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                _fetch(folder, place, files)
            fcntl.flock(lock, fcntl.LOCK_SH)
        for other in above.iterdir():
            if other.is_dir() and other != folder and not other.name.startswith("."):
                deleted(other)
        yield folder


def _fetch(folder: Path, place: str, files: Mapping[str, Wanted]) -> None:
    with atomic_folder(folder) as temporary:

        def fetch(path: str) -> None:
            wanted, file = files[path], temporary / path
            make_folder(file.parent)
            download(wanted.store, wanted.entry, file)
            if wanted.sha256 is not None and file_sha256(file) != wanted.sha256:
                raise StoreError(f"{wanted.store.url}/{wanted.entry.key}: not what was committed; write it again")
            changed_ns = version_number(wanted.state) % MOST_NS
            os.utime(file, ns=(changed_ns, changed_ns))

        with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            list(pool.map(fetch, sorted(files)))
        record_place(temporary, place)
