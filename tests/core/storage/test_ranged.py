"""An object as a file: the bytes are right, each is asked for once, and never more than the budget."""

import os
import random

import pytest

from core.storage.ranged import FIRST_BYTES, RangedFile
from core.storage.store import StoreError

CONTENT = random.Random(1).randbytes(1_000_000)


class Source:
    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def read(self, start: int, length: int) -> bytes:
        self.asked.append((start, length))
        return CONTENT[start : start + length]


def test_any_reading_gives_the_files_bytes_and_asks_for_each_once() -> None:
    chance, source = random.Random(2), Source()
    file = RangedFile(source.read, len(CONTENT), len(CONTENT), "x.mp4")
    for _ in range(300):
        place, length = chance.randrange(len(CONTENT) + 10), chance.choice((1, 100, 8192, 70_000))
        assert file.seek(place) == file.tell() == place
        found = b""
        while len(found) < length and (piece := file.read(length - len(found))):
            found += piece
        assert found == CONTENT[place : place + length]
    assert file.seek(-5, os.SEEK_END) == len(CONTENT) - 5
    assert file.read() == CONTENT[-5:]
    assert file.read() == b""
    asked = sorted(source.asked)
    assert all(start + length <= following for (start, length), (following, _) in zip(asked, asked[1:], strict=False))
    assert file.fetched_bytes == sum(length for _, length in asked) <= len(CONTENT)
    assert not file.is_spent


def test_little_is_read_at_a_new_place_and_more_further_on() -> None:
    source = Source()
    file = RangedFile(source.read, len(CONTENT), len(CONTENT), "x.mp4")
    for _ in range(20):
        file.read(8192)
    file.seek(900_000)
    file.read(100)
    lengths = [length for _, length in source.asked]
    assert lengths == [FIRST_BYTES, 2 * FIRST_BYTES, 4 * FIRST_BYTES, 8 * FIRST_BYTES, FIRST_BYTES]


@pytest.mark.parametrize("is_refused", [False, True], ids=["budget spent", "storage refuses"])
def test_beyond_its_budget_or_where_the_storage_refuses_it_seems_to_end(is_refused: bool) -> None:
    source = Source()

    def read(start: int, length: int) -> bytes:
        if is_refused and start > 50_000:
            raise StoreError("gone")
        return source.read(start, length)

    file = RangedFile(read, len(CONTENT), 100_000, "x.mp4")
    found = 0
    while piece := file.read(8192):
        found += len(piece)
    assert file.is_spent
    assert found <= 100_000
    assert file.fetched_bytes <= 100_000
    asked = len(source.asked)
    file.seek(0)
    assert file.read(100) == CONTENT[:100], "what is known stays"
    file.seek(500_000)
    assert file.read(100) == b""
    assert len(source.asked) == asked
