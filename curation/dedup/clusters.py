"""Groups of clips that look alike, over a whole table: a name for each, by which quotas can be set.

A cluster is what hangs together by likeness (single linkage): each clip is like some other one of it, not like all.
So it follows from the rows alone, whatever their order; a new clip leaves the clusters as they are, or joins some.
The bounds are wider than those of copies (`duplicates`), and no clip is rejected.

Up to 4096 different values are compared each with each. Of more, pairs are found by their bits (`hamming`), which
misses some of those that differ most: a cluster may then come to two.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.settings import key
from curation.dedup.duplicates import SMALL, Likeness, like_embedding, like_hash
from curation.dedup.hamming import Pairs, sharing_a_block

ROWS_AT_ONCE = 256
ALL_MOTION_BITS = 256


@dataclass(frozen=True)
class Clusters:
    """Names of groups of clips that look alike; nothing is rejected by them."""

    by: Literal["temporal_hash", "embedding"] = key(
        "temporal_hash", "temporal_hash: the same scene; embedding: the same kind of picture"
    )
    picture_bits: int = key(96, "by temporal_hash: alike up to so many different bits of the 512 of its pictures")
    cosine: float = key(0.85, "by embedding: alike from this cosine on")

    writes: ClassVar[tuple[str, ...]] = ("cluster",)

    def __post_init__(self) -> None:
        """Refuse bounds that no pair or every pair meets."""
        if not 0 <= self.picture_bits <= 128:
            raise ValueError("picture_bits must be 0 to 128: unrelated clips differ in 163 or more")
        if not 0.5 <= self.cosine <= 1:
            raise ValueError(f"cosine {self.cosine} is outside 0.5..1")

    def reads(self, there: Sequence[str]) -> list[str]:
        """Return the columns that it looks at, of those that a table has."""
        return [name for name in ("clip_id", "kind", self.by) if name in there]

    def find(self, table: pa.Table, standing: np.ndarray) -> pa.Array:
        """Return the cluster of every row, whatever its verdict, so that rules leave it as it is: `find_clusters`."""
        return find_clusters(table, self)


def find_clusters(table: pa.Table, settings: Clusters) -> pa.Array:
    """Return the cluster of every row.

    Args:
        table: columns `clip_id`, `kind` and the one that `settings.by` names; rows in any order.
        settings: what counts as alike.

    Returns:
        string (N,): the smallest clip_id of the row's cluster, its own where it is alone; null where the row's hash or
        embedding is not known, and for transitions, which would join what they lead from and into.
    """
    clips = np.flatnonzero(~pc.fill_null(pc.equal(table["kind"], "transition"), False).to_numpy().astype(bool))
    column = table[settings.by].take(pa.array(clips))
    by_hash = settings.by == "temporal_hash"
    way = (
        like_hash(column, settings.picture_bits, ALL_MOTION_BITS)
        if by_hash
        else like_embedding(column, settings.cosine)
    )
    groups = connected(way)
    known = way.codes >= 0
    return names_of(table["clip_id"], clips[known], groups[way.codes[known]])


def names_of(ids: pa.ChunkedArray, rows: np.ndarray, groups: np.ndarray) -> pa.Array:
    """Return the names of groups: of each row the smallest clip_id of its group.

    Args:
        ids: the clip_id of each of N rows.
        rows: int64 (P,), the rows that are in a group.
        groups: int64 (P,), the group of each of these, counted from 0.

    Returns:
        string (N,); null for the other rows.
    """
    ranks = np.empty(len(ids), np.int64)
    by_name = pc.sort_indices(ids).to_numpy().astype(np.int64)
    ranks[by_name] = np.arange(len(ids))
    first = np.full(int(groups.max(initial=-1)) + 1, len(ids))
    np.minimum.at(first, groups, ranks[rows])
    named = np.full(len(ids), -1)
    named[rows] = by_name[first[groups]]
    return ids.combine_chunks().take(pa.array(named, mask=named < 0))


def connected(way: Likeness) -> np.ndarray:
    """Return for each of C different values the smallest value that it hangs together with: int64 (C,)."""
    count = int(way.codes.max(initial=-1)) + 1
    groups = np.arange(count)
    for one, other in _pairs(way, count):
        apart = groups[one] != groups[other]  # most of a crowd hang together already, and need not be measured
        one, other = one[apart], other[apart]
        near = way.near(one, other)
        groups = joined(groups, one[near], other[near])
    return groups


def _pairs(way: Likeness, count: int) -> Iterator[Pairs]:
    """Yield the pairs of C values that may be alike, some of them repeatedly."""
    if count > SMALL and way.words is not None:
        for one, other in sharing_a_block(way.words, way.words, count):
            rising = one < other
            yield one[rising], other[rising]
        return
    for begin in range(0, count, ROWS_AT_ONCE):
        one, other = np.nonzero(np.arange(begin, min(begin + ROWS_AT_ONCE, count))[:, None] < np.arange(count))
        yield one + begin, other


def joined(groups: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Join groups by pairs of their members: the larger name gives way to the smaller one until no pair is apart.

    Args:
        groups: int64 (C,), the name of each one's group: the smallest member.
        one: int64 (P,), members.
        other: int64 (P,), those they hang together with.
    """
    groups = groups.copy()
    while True:
        low, high = np.minimum(groups[one], groups[other]), np.maximum(groups[one], groups[other])
        apart = low < high
        if not apart.any():
            return groups
        one, other = one[apart], other[apart]
        np.minimum.at(groups, high[apart], low[apart])
        while (shorter := groups[groups]).tobytes() != groups.tobytes():
            groups = shorter
