"""Planned rows in blocks, the units in which they are handed to workers."""

from collections.abc import Collection, Iterator

from curation.types import Row

MOST_BLOCKS = 10_000
BLOCK_ROWS = 8
BLOCK_BYTES = 64_000_000
"""Of sources that are probed one after another; a larger one is alone in its block."""


def blocks_of(rows: Collection[Row], workers: int) -> Iterator[list[Row]]:
    """Divide the planned rows into blocks: small files share one where there are many of them."""
    most = max(min(BLOCK_ROWS, len(rows) // (4 * workers)), -(-len(rows) // MOST_BLOCKS), 1)
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
