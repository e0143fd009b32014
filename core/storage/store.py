"""What a storage does, whatever it is: list, stat, read, put, put if absent, delete, lease."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from core.errors import UserError


class StoreError(UserError):
    """A storage that refuses: one line that says what, where and the fix.

    Attributes:
        is_transient: it may well answer the same request in a moment.
    """

    def __init__(self, message: str, *, is_transient: bool = False):
        """Keep one line of text and whether to try again."""
        super().__init__(message)
        self.is_transient = is_transient

    def __reduce__(self) -> tuple[Callable[..., "StoreError"], tuple[str]]:
        """Let it survive the way between processes."""
        return partial(type(self), is_transient=self.is_transient), (str(self),)


class MissingError(StoreError):
    """There is no such object, or not of that version any more."""


class LostError(StoreError):
    """A lease that another process has taken."""


@dataclass(frozen=True)
class Entry:
    """One object, as a listing tells of it.

    Attributes:
        key: its name below the store's root, with `/` between parts.
        size_bytes: its length.
        version: changes whenever the content does: an ETag, or size and time of change of a local file.
    """

    key: str
    size_bytes: int
    version: str


class Lease(Protocol):
    """A name that one process holds at a time."""

    def check(self) -> None:
        """Return if it is still held.

        Raises:
            LostError: another process has taken it.
            StoreError: it could not be renewed for too long; it may be again in a moment.
        """
        ...


class Store(Protocol):
    """A folder of objects. Keys are relative, with `/` between parts; none begins with `/` or holds `..`.

    Every method raises `StoreError` where the storage refuses; what may succeed in a moment has been tried again.
    """

    @property
    def url(self) -> str:
        """Its root, without a slash at the end; holds no secret."""
        ...

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Yield all objects whose keys begin with `prefix`, sorted by key; each once, hidden ones left out."""
        ...

    def stat(self, key: str) -> Entry:
        """Return one object's size and version.

        Raises:
            MissingError: there is none.
        """
        ...

    def read(self, key: str, start: int = 0, length: int | None = None, version: str | None = None) -> bytes:
        """Return bytes from `start` on: `length` of them, fewer at the end; None: all.

        Args:
            key: the object.
            start: first byte.
            length: most bytes.
            version: as `stat` or `list` gave it; the bytes are of this version or there are none.

        Raises:
            MissingError: there is no such object, or it has changed.
        """
        ...

    def put(self, key: str, content: bytes | Path) -> str:
        """Write an object whole or not at all: readers see the old content or the new one.

        Args:
            key: the object.
            content: its bytes, or a local file that holds them.

        Returns:
            Its version.
        """
        ...

    def put_if_absent(self, key: str, content: bytes) -> bool:
        """Write an object unless there is one; return whether it was written. One writer of several succeeds."""
        ...

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is left alone."""
        ...

    def copy(self, key: str, to: str) -> str:
        """Write an object with another one's content, without reading it here; return its version.

        Raises:
            MissingError: there is nothing to copy.
        """
        ...

    def lease(self, key: str, token: str = "") -> AbstractContextManager[Lease]:
        """Hold a name while the block runs; a dead holder's becomes free by itself.

        Args:
            key: the name.
            token: by which the caller's own lease is known; it is taken over at once, so that whoever gives a token
                must know that its last holder is dead.

        Raises:
            UserError: another process holds it; the message says which, and for how long.
        """
        ...


def checked_key(key: str) -> str:
    """Return a key that stays below its root.

    Raises:
        StoreError: it is empty, absolute, or leads elsewhere.
    """
    parts = key.split("/")
    if not key or "\0" in key or any(part in ("", ".", "..") for part in parts):
        raise StoreError(f"{key!r}: not a name below a folder; give a relative one without '..'")
    return key
