"""Sources as columns: of a million, what is in them and no more."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import pyarrow as pa
import pyarrow.compute as pc

from core.storage.urls import is_url
from curation.types import Source

SCHEMA = pa.schema({
    "source_root": pa.string(),
    "source_path": pa.string(),
    "source_size_bytes": pa.int64(),
    "source_mtime_ns": pa.int64(),
})
SOURCE_KEY = ("source_path", "source_size_bytes", "source_mtime_ns")
AT_ONCE = 4096
"""objects that there are at a time"""

Key = tuple[str, int, int]
"""path, size and time of change, by which a source is known"""


class Sources(Sequence[Source]):
    """A sequence of sources that is columns; an object is made of each only while it is looked at."""

    def __init__(self, table: pa.Table):
        """Take a table with the columns of `SCHEMA`."""
        self.table = table

    @classmethod
    def of(cls, sources: Iterable[Source]) -> "Sources":
        """Return sources as columns; those that are so already stay as they are."""
        if isinstance(sources, Sources):
            return sources
        gathered = GatheredSources()
        for source in sources:
            gathered.add(source)
        return gathered.result()

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.table)

    def __iter__(self) -> Iterator[Source]:
        """Yield them one after another."""
        for batch in self.table.to_batches(AT_ONCE):
            for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield Source(*values)

    @overload
    def __getitem__(self, place: int) -> Source: ...
    @overload
    def __getitem__(self, place: slice) -> "Sources": ...
    def __getitem__(self, place: int | slice) -> "Source | Sources":
        """Return one of them, or some."""
        if isinstance(place, slice):
            return Sources(self.table.take(pa.array(range(len(self))[place], pa.int64())))
        number = range(len(self))[place]
        return Source(*(column[number].as_py() for column in self.table.columns))

    def filter(self, mask: pa.Array | pa.ChunkedArray) -> "Sources":
        """Return those for which a mask holds."""
        return Sources(self.table.filter(mask))

    @property
    def size_bytes(self) -> int:
        """Their size, together."""
        return pc.sum(self.table["source_size_bytes"]).as_py() or 0

    @property
    def remote_bytes(self) -> int:
        """The size of those in buckets and on web servers."""
        roots = [root for root in pc.unique(self.table["source_root"]).to_pylist() if is_url(root)]
        return self.filter(pc.is_in(self.table["source_root"], pa.array(roots, pa.string()))).size_bytes


class GatheredSources:
    """Sources that are found one after another, to become columns."""

    def __init__(self) -> None:
        """Begin with none."""
        self._last: list[Source] = []
        self._batches: list[pa.RecordBatch] = []

    def add(self, source: Source) -> None:
        """Take one more."""
        self._last.append(source)
        if len(self._last) == AT_ONCE:
            self._pack()

    def result(self) -> Sources:
        """Return all of them in order."""
        if self._last:
            self._pack()
        return Sources(pa.Table.from_batches(self._batches, SCHEMA))

    def _pack(self) -> None:
        columns = zip(*((s.root, s.path, s.size_bytes, s.mtime_ns) for s in self._last), strict=True)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
        self._batches.append(pa.record_batch(arrays, SCHEMA))
        self._last = []


@dataclass(frozen=True, eq=False)
class PlannedSources:
    """Sources that a run has to do.

    Attributes:
        sources: all of them.
        segments: of the few that an earlier run has started, the numbers of those segments that are done.
    """

    sources: Sources
    segments: Mapping[Key, Sequence[int]]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.sources)

    def __iter__(self) -> Iterator[tuple[Source, Sequence[int]]]:
        """Yield each with its segments that are done."""
        for source in self.sources:
            yield source, self.segments.get((source.path, source.size_bytes, source.mtime_ns), ())

    def started(self) -> set[Key]:
        """Return which of them an earlier run has started."""
        paths = pa.array(sorted({path for path, _, _ in self.segments}), pa.string())
        named = self.sources.filter(pc.is_in(self.sources.table["source_path"], paths))
        return {(source.path, source.size_bytes, source.mtime_ns) for source in named}


def no_sources() -> PlannedSources:
    """Return none. Not a constant: Arrow imports pandas for its first table, which media processes have no room for."""
    return PlannedSources(Sources(SCHEMA.empty_table()), {})


def keys_of(table: pa.Table) -> pa.ChunkedArray:
    """Return path, size and time of change of a table's rows as one text each."""
    words = [table[name].cast(pa.string()) for name in SOURCE_KEY]
    return pc.binary_join_element_wise(*words, "\0")
