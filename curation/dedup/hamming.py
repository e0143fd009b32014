"""Near values among very many, by their bits: pairs of 512-bit words that share a block.

Multi-index hashing (Norouzi, Punjani and Fleet, Fast Search in Hamming Space with Multi-Index Hashing, CVPR 2012):
512 bits in 24 blocks, and a pair is looked at if some block differs in one bit at most. That misses no pair of up to
47 differing bits and, where bits differ independently, one in 1000 at 64.
"""

from collections.abc import Callable, Iterator

import numpy as np

THIRDS = ((0, 22), (22, 21), (43, 21))
"""Blocks of a word: lowest bit and length; 24 in eight words."""
CHUNK_PAIRS = 1 << 21
TABULATED = 1 << 16
"""So many keys are looked up in a table of all there can be, which is 10 times as fast as to search for them."""

Pairs = tuple[np.ndarray, np.ndarray]
"""Places (P,) in the first and in the second of two sequences."""


def sharing_a_block(some: np.ndarray, others: np.ndarray, most: int) -> Iterator[Pairs]:
    """Yield pairs of words (S, 8) and (T, 8) of which some block differs in one bit at most; some pairs repeatedly.

    A block that tells nothing is passed over: one of zeros (a picture that shows nothing has no other), and one
    that more than `most` of the others have.
    """
    lengths = [length for _ in range(some.shape[1]) for _, length in THIRDS]
    for asked, there, length in zip(blocks(some), blocks(others), lengths, strict=True):
        flips = np.concatenate([[0], 1 << np.arange(length)])
        asking, held = np.flatnonzero(asked), np.flatnonzero(there)
        if len(asking) * len(flips) < len(held):
            is_asked = np.zeros(1 << length, bool)
            is_asked[asked[asking, None] ^ flips] = True
            held = held[is_asked[there[held]]]
        held = held[np.argsort(there[held], kind="stable")]
        ranges = _ranges(there[held], length)
        for begin in range(0, len(asking), CHUNK_PAIRS // len(flips)):
            part = asking[begin : begin + CHUNK_PAIRS // len(flips)]
            starts, ends = ranges((asked[part, None] ^ flips).ravel())
            counts = np.where(ends - starts <= most, ends - starts, 0)
            for place, other in _spread(starts, counts):
                yield part[place // len(flips)], held[other]


def blocks(words: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the blocks of words (S, 8), one after another: int64 (S,)."""
    for word in words.T:
        for low, length in THIRDS:
            yield (word >> np.uint64(low) & np.uint64((1 << length) - 1)).astype(np.int64)


def _ranges(keys: np.ndarray, length: int) -> Callable[[np.ndarray], Pairs]:
    """Return the function that tells where each wanted key, of `length` bits, stands in sorted keys."""
    if len(keys) < TABULATED:
        return lambda wanted: (np.searchsorted(keys, wanted, "left"), np.searchsorted(keys, wanted, "right"))
    ends = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=1 << length))])
    return lambda wanted: (ends[wanted], ends[wanted + 1])


def _spread(starts: np.ndarray, counts: np.ndarray) -> Iterator[Pairs]:
    """Yield (i, j) for every j of the `counts[i]` places from `starts[i]` on, a bounded number at a time."""
    some = np.flatnonzero(counts)
    total = np.cumsum(counts[some])
    begin = 0
    while begin < len(some):
        done = total[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(total, done + CHUNK_PAIRS, "right")))
        part = some[begin:end]
        first = np.repeat(np.cumsum(counts[part]) - counts[part], counts[part])
        yield np.repeat(part, counts[part]), np.repeat(starts[part], counts[part]) + np.arange(len(first)) - first
        begin = end


def picture_distances(words: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return how many of 512 bits differ between the pictures of one clip and those of others, in any order.

    Args:
        words: uint64 (8,), one for each picture; 0 where a picture shows nothing, which is passed over.
        others: uint64 (8, N), likewise.

    Returns:
        float64 (N,).
    """
    shown = words[words != 0]
    total = np.zeros(others.shape[1])
    for word in shown:
        least = np.full(others.shape[1], 64, np.uint8)
        for other in others:
            np.minimum(least, np.where(other == 0, 64, np.bitwise_count(other ^ word)).astype(np.uint8), out=least)
        total += least
    return total * len(words) / max(1, len(shown))
