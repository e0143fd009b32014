"""Copies across a whole table: which rows duplicate which, so that the best of them is kept.

Two rows are copies if they are the same span of the same content under two paths, if their temporal hashes differ
in few bits, or if their embeddings point almost the same way. Copies of copies drift apart, so groups are stars:
from the best row down, a row is kept unless it is a copy of a kept row itself.

Pairs that may be near are found by their bits (`hamming`) and measured exactly. Embeddings come to 512 bits by random
planes through their mean (Charikar, Similarity Estimation Techniques from Rounding Algorithms, STOC 2002).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.settings import key
from curation.dedup.hamming import Pairs, blocks, sharing_a_block

PICTURE_WORDS, MOTION_WORDS = 8, 4
"""64-bit words of a temporal hash that tell of its pictures and of its motion."""
PLANES = 8 * 64
FAR_BITS = 192
"""Embeddings whose planes differ in more bits (67 degrees about the mean) are not measured: near ones never do."""
SMALL = 1 << 12
"""So many embeddings are compared each with each; rows of a crowded table are settled so many at a time."""
CROWDED = 100
"""Pairs with a block in common, per row, above which a table is crowded: the best rows take most others first."""
COMMON = 512
"""A block that more kept rows have, which are no copies of one another, tells nothing."""

NO_PAIRS: Pairs = (np.zeros(0, np.int64), np.zeros(0, np.int64))


@dataclass(frozen=True)
class Duplicates:
    """What counts as a copy, and which of several copies is kept."""

    best: str | None = key(
        None, "column whose highest value is kept, e.g. aesthetic; then the larger picture, the longer clip"
    )
    picture_bits: int = key(64, "copies may differ in so many of the 512 picture bits of temporal_hash")
    motion_bits: int = key(36, "and in so many of its 256 motion bits")
    cosine: float | None = key(None, "embeddings at least this alike are copies, e.g. 0.99; null: not compared")

    writes: ClassVar[tuple[str, ...]] = ("duplicate_of",)

    def reads(self, there: Sequence[str]) -> list[str]:
        """Return the columns that it looks at, of those that a table has."""
        return columns_of(self, there)

    def find(self, table: pa.Table, standing: np.ndarray) -> pa.Array:
        """Return for every row which kept row it is a copy of: `find_duplicates`."""
        return find_duplicates(table, standing, self)

    def __post_init__(self) -> None:
        """Refuse bounds that no pair or every pair meets."""
        if not 0 <= self.picture_bits <= 128 or not 0 <= self.motion_bits <= 128:
            raise ValueError("picture_bits and motion_bits must be 0 to 128: unrelated clips differ in about half")
        if self.cosine is not None and not 0.5 <= self.cosine <= 1:
            raise ValueError(f"cosine {self.cosine} is outside 0.5..1")


def columns_of(settings: Duplicates, there: Sequence[str]) -> list[str]:
    """Return the columns that `find_duplicates` reads, of those that are there."""
    wanted = ["clip_id", "type", "source_id", "start_s", "end_s", "area_px", "duration_s", "temporal_hash"]
    wanted += ["embedding"] if settings.cosine is not None else []
    wanted += [settings.best] if settings.best is not None else []
    return [name for name in dict.fromkeys(wanted) if name in there]


def find_duplicates(table: pa.Table, standing: np.ndarray, settings: Duplicates) -> pa.Array:
    """Return for every row which kept row it is a copy of.

    Args:
        table: the columns of `columns_of`: `temporal_hash` list of 12 int64, `embedding` list of equally many
            floats, either null where nothing is known; rows in any order.
        standing: bool (N,), rows that nothing else rejects; the others neither are kept nor have copies.
        settings: what counts as a copy.

    Returns:
        string (N,): clip_id of the best kept row that the row is a copy of; null for kept and fallen rows.
    """
    order = _best_first(table, settings.best)
    order = order[standing[order]]
    kinds = table["type"].to_numpy()[order]
    kept = np.full(len(table), -1)
    for kind in ("video", "image"):  # a still is no copy of a film
        rows = order[kinds == kind]
        owner = _settle(_ways(table, rows, settings), len(rows))
        kept[rows[owner >= 0]] = rows[owner[owner >= 0]]
    return table["clip_id"].combine_chunks().take(pa.array(kept, mask=kept < 0))


def _best_first(table: pa.Table, best: str | None) -> np.ndarray:
    """Return the rows' places by what is worth keeping; missing values last, the clip_id decides between equals."""
    keys = [(name, "descending") for name in (best, "area_px", "duration_s") if name is not None]
    table = table.select([*dict.fromkeys(name for name, _ in keys), "clip_id"])
    if best is not None and pa.types.is_floating(table.schema.field(best).type):
        score = pc.if_else(pc.is_nan(table[best]), None, table[best])
        table = table.set_column(table.schema.get_field_index(best), best, score)
    return np.asarray(pc.sort_indices(table, sort_keys=[*keys, ("clip_id", "ascending")]).to_numpy().astype(np.int64))


# -- in what rows can be alike


@dataclass(frozen=True, eq=False)
class Likeness:
    """One way in which rows can be copies.

    Attributes:
        codes: int64 (N,), which of C different values each row has; -1: none. Equal values are copies.
        words: uint64 (C, 8) by which near values are found; None: only equal ones are copies.
        near: of pairs of values, those that are copies: bool (P,).
        each_with_each: of S times T values, the pairs that are copies: bool (S, T); used while they are few.
    """

    codes: np.ndarray
    words: np.ndarray | None = None
    near: Callable[[np.ndarray, np.ndarray], np.ndarray] = np.equal
    each_with_each: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None

    def pairs(self, some: np.ndarray, others: np.ndarray) -> Pairs:
        """Return the pairs of unequal values that are copies, as places in two sets of different values."""
        if self.words is None or not len(some) or not len(others):
            return NO_PAIRS
        if self.each_with_each is not None and max(len(some), len(others)) <= SMALL:
            one, other = np.nonzero(self.each_with_each(some, others))
            unequal = some[one] != others[other]
            return one[unequal], other[unequal]
        found, is_same = [], some is others
        for one, other in sharing_a_block(self.words[some], self.words[others], len(others) if is_same else COMMON):
            unequal = some[one] < others[other] if is_same else some[one] != others[other]
            one, other = one[unequal], other[unequal]
            near = self.near(some[one], others[other])
            found.append(one[near] * len(others) + other[near])
        one, other = np.divmod(np.unique(np.concatenate([NO_PAIRS[0], *found])), len(others))
        return (np.concatenate([one, other]), np.concatenate([other, one])) if is_same else (one, other)

    def crowding(self) -> int:
        """Count the pairs of values that have a block in common."""
        total = 0
        for block in blocks(self.words) if self.words is not None else ():
            _, counts = np.unique(block[block != 0], return_counts=True)
            total += int((counts * (counts - 1)).sum()) // 2
        return total


def _ways(table: pa.Table, rows: np.ndarray, settings: Duplicates) -> list[Likeness]:
    """Return the ways in which some rows of a table can be copies, as far as its columns tell."""
    found = [_same_content(table.select(["source_id", "start_s", "end_s"]).take(rows))]
    if "temporal_hash" in table.column_names:
        found.append(like_hash(table["temporal_hash"].take(rows), settings.picture_bits, settings.motion_bits))
    if settings.cosine is not None and "embedding" in table.column_names:
        found.append(like_embedding(table["embedding"].take(rows), settings.cosine))
    return found


def _same_content(rows: pa.Table) -> Likeness:
    """Equal bytes and equal span, whatever the path."""
    content = rows["source_id"].combine_chunks().dictionary_encode().indices
    span_us = [pc.round(pc.multiply(rows[name], 1e6)) for name in ("start_s", "end_s")]
    columns = [pc.fill_null(column, -1).to_numpy(zero_copy_only=False) for column in (content, *span_us)]
    values = np.stack([column.astype(np.int64) for column in columns], axis=1)
    return Likeness(_distinct(values, content.is_valid().to_numpy(zero_copy_only=False))[0])


def like_hash(column: pa.ChunkedArray, picture_bits: int, motion_bits: int) -> Likeness:
    """Return how rows are alike by their temporal hashes, which may differ in so many bits."""
    values, known = _vectors(column)
    codes, first = _distinct(values, known)
    words = values[first].view(np.uint64)

    def near(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        apart = np.bitwise_count(words[one] ^ words[other])
        pictures, motion = apart[:, :PICTURE_WORDS].sum(axis=1), apart[:, PICTURE_WORDS:].sum(axis=1)
        return np.asarray((pictures <= picture_bits) & (motion <= motion_bits))

    return Likeness(codes, np.ascontiguousarray(words[:, :PICTURE_WORDS]), near)


def like_embedding(column: pa.ChunkedArray, cosine: float) -> Likeness:
    """Return how rows are alike by their embeddings, whose cosine is at least so much."""
    values, known = _vectors(column)
    length = np.concatenate([np.linalg.norm(part.astype(np.float32), axis=1) for part in _parts(values)])
    known &= np.isfinite(length) & (length > 0)
    codes, first = _distinct(values, known)
    values, length = values[first], length[first, None]

    def unit(some: np.ndarray | slice) -> np.ndarray:
        return np.asarray(values[some].astype(np.float32) / length[some])

    slices = [slice(begin, begin + SMALL) for begin in range(0, len(values), SMALL)]
    mean = sum((unit(part).sum(axis=0) for part in slices), np.zeros(values.shape[1])) / max(1, len(values))
    planes = np.random.default_rng(0).standard_normal((values.shape[1], PLANES), np.float32)
    sides = [np.packbits((unit(part) - mean) @ planes > 0, axis=1, bitorder="little") for part in slices]
    words = np.concatenate([np.zeros((0, PLANES // 8), np.uint8), *sides]).view(np.uint64)

    def near(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        alike = np.bitwise_count(words[one] ^ words[other]).sum(axis=1) <= FAR_BITS
        for part in _parts(np.flatnonzero(alike)):
            alike[part] = np.einsum("pd,pd->p", unit(one[part]), unit(other[part])) >= cosine
        return np.asarray(alike)

    def each_with_each(some: np.ndarray, others: np.ndarray) -> np.ndarray:
        return np.asarray(unit(some) @ unit(others).T >= cosine)

    return Likeness(codes, words, near, each_with_each)


def _parts(values: np.ndarray) -> list[np.ndarray]:
    """Cut an array into parts of bounded length, at least one."""
    return [values[begin : begin + SMALL] for begin in range(0, max(1, len(values)), SMALL)]


def _vectors(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Return a column of equally long lists as (N, D), zeros where it is null, and which rows are not null."""
    known = pc.is_valid(column).to_numpy().astype(bool)
    flat = pc.list_flatten(column).to_numpy()
    values = np.zeros((len(known), len(flat) // max(1, int(known.sum()))), flat.dtype)
    values[known] = flat.reshape(values[known].shape)
    return values, known


def _distinct(values: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a number for each of the different rows of (N, D): codes (N,), -1 where unknown; and their first rows."""
    chosen = np.flatnonzero(known)
    codes = np.full(len(values), -1)
    if not len(chosen):
        return codes, chosen
    rows = np.ascontiguousarray(values[chosen])
    as_bytes = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, first, inverse = np.unique(as_bytes, return_index=True, return_inverse=True)
    codes[chosen] = inverse
    return codes, chosen[first]


# -- who stays


def _settle(ways: Sequence[Likeness], count: int) -> np.ndarray:
    """Return for each of `count` rows, best first, the first kept row it is a copy of: int64 (N,), -1 for kept rows."""
    kept = [np.full(int(way.codes.max(initial=-1)) + 1, -1) for way in ways]
    owner = np.full(count, count)
    crowded = any(way.crowding() > CROWDED * count for way in ways)
    for batch in np.array_split(np.arange(count), count // SMALL + 1 if crowded else 1):
        for way, keeper in zip(ways, kept, strict=True):
            values, rows = _values(way, batch)
            held = np.flatnonzero(keeper >= 0)
            first = np.where(keeper[values] >= 0, keeper[values], count)
            place, other = way.pairs(values, held)
            np.minimum.at(first, place, keeper[held[other]])
            owner[rows] = np.minimum(owner[rows], first[np.searchsorted(values, way.codes[rows])])
        _settle_batch(ways, kept, owner, batch[owner[batch] == count])
    return np.where(owner == np.arange(count), -1, owner)


def _settle_batch(ways: Sequence[Likeness], kept: list[np.ndarray], owner: np.ndarray, rows: np.ndarray) -> None:
    """Settle rows, best first, that are no copies of rows kept before.

    Args:
        ways: in which rows can be copies.
        kept: for each way and value the row kept of it, or -1; changed here.
        owner: int64 (N,), of each settled row the kept row it is a copy of, itself if it is kept; changed here.
        rows: places, rising.
    """
    rivals = [_rivals(way, rows) for way in ways]
    has_rival = np.any([is_rival for is_rival, _ in rivals], axis=0)
    owner[rows] = rows
    for row in rows[has_rival]:
        own = [(keeper, way.codes[row], near) for way, keeper, (_, near) in zip(ways, kept, rivals, strict=True)]
        own = [(keeper, code, near) for keeper, code, near in own if code >= 0]
        owner[row] = min((k for keeper, code, near in own for k in keeper[[code, *near(code)]] if k >= 0), default=row)
        if owner[row] == row:
            for keeper, code, _ in own:
                keeper[code] = row
    for way, keeper in zip(ways, kept, strict=True):
        _, known = _values(way, rows[~has_rival])
        keeper[way.codes[known]] = known


def _rivals(way: Likeness, rows: np.ndarray) -> tuple[np.ndarray, Callable[[int], np.ndarray]]:
    """Return which rows are copies of others among them, and give the function from a value to those near it."""
    values, known = _values(way, rows)
    one, other = way.pairs(values, values)
    order = np.argsort(one, kind="stable")
    one, near = one[order], values[other[order]]
    starts = np.searchsorted(one, np.arange(len(values) + 1))
    places = np.searchsorted(values, way.codes[known])
    has = (np.bincount(places, minlength=len(values)) > 1) | (np.diff(starts) > 0)
    is_rival = np.isin(rows, known[has[places]])

    def near_to(code: int) -> np.ndarray:
        place = np.searchsorted(values, code)
        return near[starts[place] : starts[place + 1]]

    return is_rival, near_to


def _values(way: Likeness, rows: np.ndarray) -> Pairs:
    """Return the different values that rows have, and the rows that have one."""
    known = rows[way.codes[rows] >= 0]
    return np.unique(way.codes[known]), known
