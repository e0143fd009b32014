"""Rows in blocks, the units in which they are handed to workers: each costs Ray some hundredths of a second."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator

from curation.types import Row

MOST_BLOCKS = 10_000
BLOCK_ROWS = 8
BLOCK_BYTES = 64_000_000
"""Of sources that are probed one after another; a larger one is alone in its block."""
SHARED_ROWS = 64
SHARED_BYTES = 8_000_000
"""of small sources that are analysed one after another: a few seconds' work"""
SHARED_S = 1.0
"""for which rows that are soon done wait for others"""


def blocks_of(rows: Collection[Row], workers: int, most_rows: int = BLOCK_ROWS) -> Iterator[list[Row]]:
    """Divide the planned rows into blocks: small files share one where there are many of them."""
    most = max(min(most_rows, len(rows) // (4 * workers)), -(-len(rows) // MOST_BLOCKS), 1)
    block: list[Row] = []
    room_bytes = BLOCK_BYTES
    for row in rows:
        if block and (len(block) == most or row["source_size_bytes"] > room_bytes):
            yield block
            block, room_bytes = [], BLOCK_BYTES
        block.append(row)
        room_bytes -= row["source_size_bytes"]
    if block:
        yield block


def few_together(rows: Iterable[Row], is_alone: Callable[[Row], bool]) -> Iterator[list[Row]]:
    """Divide the rows that a step yields into blocks: what keeps a worker busy is one of its own."""
    block: list[Row] = []
    for row in rows:
        if is_alone(row):
            yield [row]
            continue
        block.append(row)
        if len(block) == BLOCK_ROWS:
            yield block
            block = []
    if block:
        yield block


def many_together(rows: Iterable[Row], is_alone: Callable[[Row], bool]) -> Iterator[list[Row]]:
    """Divide rows likewise where there are many and small ones: blocks of about a second, or of a few seconds to do."""
    block: list[Row] = []
    room_bytes, begin_s = SHARED_BYTES, time.monotonic()
    for row in rows:
        if is_alone(row):
            yield [row]
            continue
        block.append(row)
        if row["clip_id"] is None:  # a source that is to be analysed
            room_bytes -= row["source_size_bytes"]
        if len(block) == SHARED_ROWS or room_bytes <= 0 or time.monotonic() - begin_s > SHARED_S:
            yield block
            block, room_bytes, begin_s = [], SHARED_BYTES, time.monotonic()
    if block:
        yield block
