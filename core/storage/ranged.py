"""An object read by ranges as if it were a file: a little where a reader seeks, more the further it reads on.

Every byte is asked for once, and no more than a budget of them: a look at a file's head, index and first picture must
not become a second fetch of all of it. What was asked for stays in memory, which the budget bounds, too.
"""

import os
from bisect import bisect_right
from collections.abc import Callable

from core.storage.store import StoreError

FIRST_BYTES = 16 << 10
"""asked for at a new place"""
MOST_AHEAD_BYTES = 256 << 10


class RangedFile:
    """What a decoder needs of a file: `read`, `seek`, `tell` and `name`.

    Attributes:
        name: for readers that go by a suffix.
        fetched_bytes: asked for so far.
        is_spent: whether more was wanted than the budget allows, or the storage refused: from then on the file seems
            to end, and what a reader makes of it says nothing.
    """

    def __init__(self, read: Callable[[int, int], bytes], size_bytes: int, budget_bytes: int, name: str):
        """Begin at the first byte.

        Args:
            read: from place and length to bytes.
            size_bytes: of the whole object.
            budget_bytes: most bytes that may be asked for.
            name: of the file.
        """
        self.name, self.fetched_bytes, self.is_spent = name, 0, False
        self._read, self._size, self._budget = read, size_bytes, budget_bytes
        self._place, self._ahead = 0, FIRST_BYTES
        self._starts: list[int] = []
        self._pieces: dict[int, bytes] = {}

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go elsewhere; a place before the beginning is the beginning."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def read(self, size: int = -1) -> bytes:
        """Return some bytes from here on, none at the end or where the file is spent."""
        wanted = self._size - self._place if size < 0 else min(size, self._size - self._place)
        if wanted <= 0:
            return b""
        piece, start = self._piece_at(self._place)
        if piece is None:
            start, piece = self._place, self._fetch(self._place, wanted)
        found = piece[self._place - start : self._place - start + wanted]  # a shorter read is asked for again
        self._place += len(found)
        return found

    def _piece_at(self, place: int) -> tuple[bytes | None, int]:
        """Return what is known from a place on, and where that begins."""
        index = bisect_right(self._starts, place) - 1
        if index >= 0:
            start = self._starts[index]
            if place < start + len(self._pieces[start]):
                return self._pieces[start], start
        return None, place

    def _fetch(self, place: int, wanted: int) -> bytes:
        goes_on = self._piece_at(place - 1)[0] is not None if place else False
        self._ahead = min(2 * self._ahead, MOST_AHEAD_BYTES) if goes_on else FIRST_BYTES
        index = bisect_right(self._starts, place)
        known = self._starts[index] if index < len(self._starts) else self._size
        left = self._budget - self.fetched_bytes
        length = min(max(wanted, self._ahead), known - place, left)
        if self.is_spent or length < min(wanted, known - place):
            self.is_spent = True
            return b""
        try:
            piece = self._read(place, length)
        except StoreError:
            piece = b""
        self.fetched_bytes += len(piece)
        if not piece:
            self.is_spent = True
            return b""
        self._starts.insert(index, place)
        self._pieces[place] = piece
        return piece
