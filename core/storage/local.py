"""A local folder as a store: what `core.files` and `core.lock` promise, behind the interface of stores."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.errors import OutputError
from core.files import atomic_path, atomic_write, make_folder, sync_file, temporary_path, writing
from core.lock import locked
from core.storage.store import Entry, Lease, MissingError, StoreError, checked_key


@dataclass(frozen=True)
class LocalStore:
    """Objects are files below a folder.

    Attributes:
        folder: the root; made when something is written.
    """

    folder: Path

    @property
    def url(self) -> str:
        """The folder."""
        return str(self.folder)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Yield the files below, sorted by key; hidden ones and what is half written are left out."""
        found = []
        for place, folders, names in os.walk(self.folder, onerror=self._refuse):
            folders[:] = [name for name in folders if not name.startswith(".")]
            found += [
                Path(place, name).relative_to(self.folder).as_posix() for name in names if not name.startswith(".")
            ]
        for key in sorted(found):
            if key.startswith(prefix):
                with contextlib.suppress(MissingError):  # deleted meanwhile
                    yield self.stat(key)

    def stat(self, key: str) -> Entry:
        """Return a file's size and version."""
        with self._reading(key) as path:
            if not path.is_file():
                raise FileNotFoundError
            return _entry(key, path.stat())

    def read(self, key: str, start: int = 0, length: int | None = None, version: str | None = None) -> bytes:
        """Return bytes of a file."""
        with self._reading(key) as path, path.open("rb") as file:
            if version is not None and _entry(key, os.fstat(file.fileno())).version != version:
                raise MissingError(f"{path}: has changed since it was looked at; run the same command again")
            file.seek(start)
            return file.read(-1 if length is None else length)

    def put(self, key: str, content: bytes | Path) -> str:
        """Write a file whole or not at all."""
        with self._written(key) as path:
            if isinstance(content, bytes):
                atomic_write(path, content)
            else:
                with atomic_path(path) as temporary:
                    shutil.copyfile(content, temporary)
            return _entry(key, path.stat()).version

    def put_if_absent(self, key: str, content: bytes) -> bool:
        """Write a file unless there is one: linked whole under its name, which fails where the name is taken."""
        with self._written(key) as path:
            temporary = temporary_path(path)
            with writing(path):
                try:
                    temporary.write_bytes(content)
                    sync_file(temporary)
                    os.link(temporary, path)
                except FileExistsError:
                    return False
                finally:
                    temporary.unlink(missing_ok=True)
                sync_file(path.parent)
        return True

    def delete(self, key: str) -> None:
        """Delete a file."""
        with self._written(key) as path, writing(path):
            path.unlink(missing_ok=True)

    def copy(self, key: str, to: str) -> str:
        """Copy a file, whole or not at all."""
        with self._reading(key) as path, self._written(to) as target:
            with atomic_path(target) as temporary:
                shutil.copyfile(path, temporary)
            return _entry(to, target.stat()).version

    @contextlib.contextmanager
    def lease(self, key: str, token: str = "") -> Iterator[Lease]:
        """Hold a folder of that name by a lock of the system, which a dead process loses at once."""
        with self._written(f"{key}/.lock") as path, locked(path.parent):
            yield _Held()

    @contextlib.contextmanager
    def _reading(self, key: str) -> Iterator[Path]:
        path = self.folder / checked_key(key)
        try:
            yield path
        except (FileNotFoundError, NotADirectoryError):
            raise MissingError(f"{path}: no such file") from None
        except OSError as error:
            raise StoreError(f"{path}: cannot be read ({error.strerror}); grant access, or fix the storage") from None

    @contextlib.contextmanager
    def _written(self, key: str) -> Iterator[Path]:
        path = self.folder / checked_key(key)
        try:
            make_folder(path.parent)
            yield path
        except OutputError as error:
            raise StoreError(str(error), is_transient=error.is_transient) from None

    def _refuse(self, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise StoreError(f"{error.filename}: cannot be read ({error.strerror}); grant access") from None


class _Held:
    """A lock of the system: nobody takes it away."""

    def check(self) -> None:
        """Return."""


def _entry(key: str, status: os.stat_result) -> Entry:
    return Entry(key, status.st_size, f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}")
