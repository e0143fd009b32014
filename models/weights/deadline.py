"""Calls of libraries that may wait for ever on the network, with an end."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

SLOWEST_BYTES_PER_S = 50_000
"""a download that is slower on the whole is given up: a gigabyte then takes six hours"""
START_S = 300.0
"""for names, connections, redirects and what the hub looks up, beside the bytes themselves"""
LONGEST_S = 48 * 3600.0
"""of a download whose size is not known beforehand"""


def longest_s(size_bytes: int) -> float:
    """Return the seconds that a download of this size may take."""
    return START_S + size_bytes / SLOWEST_BYTES_PER_S


def within(seconds: float, call: Callable[[], T]) -> T:
    """Call a function and wait for so long; one that takes longer is left to itself, and ends with the process.

    The waits of HTTP libraries begin anew with every byte: a server that sends one now and then holds them for ever.

    Raises:
        TimeoutError: it took longer.
    """
    done, outcome = threading.Event(), list[Any]()

    def act() -> None:
        try:
            outcome.append((True, call()))
        except BaseException as error:  # raised again below
            outcome.append((False, error))
        done.set()

    threading.Thread(target=act, name="download", daemon=True).start()
    if not done.wait(seconds):
        raise TimeoutError(f"not whole after {seconds:.0f} s")
    is_fine, value = outcome[0]
    if not is_fine:
        raise value
    return value  # type: ignore[no-any-return]


class Limited:
    """A file to write into, at most so many bytes; all else is the file's own."""

    def __init__(self, file: Any, most_bytes: int):
        """Wrap an open file."""
        self._file, self._most_bytes = file, most_bytes

    def write(self, content: bytes) -> int:
        """Write, or raise OSError where more would come."""
        if self._file.tell() + len(content) > self._most_bytes:
            raise OSError(f"the server sends more than {self._most_bytes} bytes, far more than were published")
        return int(self._file.write(content))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
