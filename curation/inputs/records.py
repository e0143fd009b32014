"""Text read line by line with bounds: on one record, and on the whole file, which may have no end."""

import csv
from collections.abc import Iterable, Iterator
from typing import IO, AnyStr, Generic

MOST_BYTES = 4 << 30
"""of a list, characters where it is read as text; a hundred million names have about as many"""
MOST_RECORD = 16 << 20
"""bytes or characters of one line or row: of metadata with pictures spelt out in it, too"""
MOST_DOCUMENT = 1 << 30
"""characters of a JSON array, which is read as a whole"""
MOST_NESTED = 20_000_000
"""arrays and objects of a JSON text; each takes Python a hundred bytes, though it is written in three"""


class Lines(Generic[AnyStr]):
    """The lines of an open file; `begin` says that another record starts."""

    def __init__(self, file: IO[AnyStr]):
        """Read from where the file stands."""
        self._file: IO[AnyStr] = file
        self._total, self._record = 0, 0

    def begin(self) -> None:
        """Count from here for the next record."""
        self._record = 0

    def __iter__(self) -> Iterator[AnyStr]:
        """Return itself, as iterators do."""
        return self

    def __next__(self) -> AnyStr:
        """Return the next line with its end.

        Raises:
            ValueError: the record or the file is longer than any of its kind.
        """
        line = self._file.readline(MOST_RECORD + 1)
        if not line:
            raise StopIteration
        self._record += len(line)
        self._total += len(line)
        if self._record > MOST_RECORD:
            raise ValueError(f"a line or row of more than {MOST_RECORD >> 20} MB; is it a list of files?")
        if self._total > MOST_BYTES:
            raise ValueError(f"larger than {MOST_BYTES >> 20} MB; divide it")
        return line


def records(lines: Lines[AnyStr]) -> Iterator[AnyStr]:
    """Yield lines, each a record of its own."""
    for line in lines:
        lines.begin()
        yield line


def rows(first: str, lines: Lines[str], delimiter: str) -> Iterator[list[str]]:
    """Yield the rows of comma-separated values; cells may go over several lines."""
    for row in csv.reader(_with_first(first, lines), delimiter=delimiter):
        lines.begin()
        yield row


def _with_first(first: str, rest: Iterable[str]) -> Iterator[str]:
    yield first
    yield from rest


def read_document(file: IO[str]) -> str:
    """Read a JSON text as a whole.

    Raises:
        ValueError: it is larger, or holds more, than can be read at once.
    """
    text = file.read(MOST_DOCUMENT + 1)
    if len(text) > MOST_DOCUMENT:
        raise ValueError(f"an array of more than {MOST_DOCUMENT >> 20} MB; write one entry a line, as .jsonl")
    if text.count("[") + text.count("{") > MOST_NESTED:
        raise ValueError(f"an array of more than {MOST_NESTED} entries; write one entry a line, as .jsonl")
    return text
