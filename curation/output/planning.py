"""What a run has to do, found from names, sizes and times alone; held as columns, however much it is."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.cut import folder_of
from curation.inputs.many import SOURCE_KEY, PlannedSources, Sources, keys_of
from curation.judge import rules_of, undecided_rows
from curation.output.folding import Unfinished
from curation.output.parquet_files import read_as
from curation.output.table import read_table, table_files
from curation.recipe import Recipe
from curation.reviews import caption_of
from curation.schema import table_schema
from curation.types import Captioner, Row

ROWS_AT_ONCE = 1000


def no_ids() -> pa.ChunkedArray:
    """Return no ids of clips; not a constant, see `no_sources`."""
    return pa.chunked_array([], pa.string())


@dataclass(frozen=True, eq=False)
class UnfinishedClips:
    """Clips of an output's table that a run has to finish; their rows are read while they are handed on.

    Attributes:
        out: the output; its table stays as it is until the last row is read.
        recipe: what it follows.
        accepted: ids of those that lack a caption or a file.
        rejected: ids of those that lack only scores.
        sources: that lie there now, maybe under another root than before.
    """

    out: Path
    recipe: Recipe
    accepted: pa.ChunkedArray
    rejected: pa.ChunkedArray
    sources: Sources

    @property
    def ids(self) -> pa.ChunkedArray:
        """Ids of all of them."""
        return pa.chunked_array([*self.accepted.chunks, *self.rejected.chunks], pa.string())

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.accepted) + len(self.rejected)

    def without(self, ids: pa.ChunkedArray) -> "UnfinishedClips":
        """Return the others than those with some ids."""
        accepted, rejected = (some.filter(pc.invert(pc.is_in(some, ids))) for some in (self.accepted, self.rejected))
        return replace(self, accepted=accepted, rejected=rejected)

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows, in the table's order."""
        if not len(self):
            return
        schema, ids = table_schema(self.recipe.writers), self.ids
        for file in table_files(self.out):
            wanted = pc.is_in(read_as(file, pa.schema([schema.field("clip_id")]))["clip_id"], ids)
            if pc.any(wanted).as_py():
                yield from self._rows_of(read_as(file, schema).filter(wanted))

    def _rows_of(self, table: pa.Table) -> Iterator[Row]:
        here = self.sources.table
        roots = here["source_root"].take(pc.index_in(table["source_path"], here["source_path"]))
        place = table.schema.get_field_index("source_root")
        table = table.set_column(place, "source_root", pc.coalesce(roots, table["source_root"]))
        for batch in table.to_batches(ROWS_AT_ONCE):
            for row in batch.to_pylist():
                files = [name for name in self.recipe.file_columns if row[name] is not None]
                if any(not (self.out / row[name]).exists() for name in files):
                    row |= dict.fromkeys(files)  # a clip's files are made together
                yield row


@dataclass(frozen=True, eq=False)
class Work:
    """What a run has to do: sources to curate, and clips to finish."""

    sources: PlannedSources
    clips: UnfinishedClips
    known: int
    """sources that need nothing more"""


def plan_work(
    out: Path, recipe: Recipe, captioner: Captioner, sources: Sources, left: Unfinished, *, retry_failed: bool
) -> Work:
    """Find what a run has to do, from names, sizes and times alone: no source is opened."""
    table = read_table(out, recipe.writers, [*SOURCE_KEY, "status"])
    per_source = table.group_by(list(SOURCE_KEY)).aggregate([]).select(SOURCE_KEY)
    asked = keys_of(sources.table)
    is_open = pc.invert(pc.is_in(asked, keys_of(per_source)))
    if retry_failed:
        failed = table.filter(pc.equal(table["status"], "failed"))
        is_open = pc.or_(is_open, pc.is_in(asked, keys_of(failed)))
    todo = sources.filter(is_open)
    clips = _unfinished_clips(out, recipe, captioner, todo, sources)
    return Work(PlannedSources(todo, left.segments), clips, len(sources) - len(todo))


def _unfinished_clips(
    out: Path, recipe: Recipe, captioner: Captioner, again: Sources, here: Sources
) -> UnfinishedClips:
    """Return accepted rows without caption or file, and rows that lack only scores not measured yet.

    Args:
        out: the output.
        recipe: what it follows.
        captioner: who writes its captions.
        again: sources that are curated anew: their rows are not looked at.
        here: all sources.
    """
    rules = rules_of(recipe)
    pooled = {c: op.media for ops in recipe.pools.values() for op in ops.values() for c in op.writes}
    files = recipe.file_columns
    needed = ["clip_id", "type", "kind", "status", "reasons", "caption", "caption_status", "caption_by_hand", *files]
    columns = list(dict.fromkeys([*needed, "source_path", *rules, *pooled]))
    table = read_table(out, recipe.writers, columns)
    accepted = pc.equal(table["status"], "accepted")
    bare = pc.is_null(caption_of(table))
    if recipe.cut.mode != "none":
        bare = pc.or_(bare, pc.is_null(table["clip_path"]))
        for name in files:
            folder = folder_of(name)
            there = pc.binary_join_element_wise(f"{folder}/".encode(), _names(out / folder), b"")
            gone = pc.and_(pc.is_valid(table[name]), pc.invert(pc.is_in(table[name].cast(pa.binary()), there)))
            bare = pc.or_(bare, gone)
    stays = pc.invert(pc.is_in(table["source_path"], again.table["source_path"]))
    wanted = table["clip_id"].filter(pc.and_(pc.and_(accepted, bare), stays))
    unscored = no_ids()
    if pooled:
        table = table.filter(pc.and_(pc.equal(table["status"], "rejected"), _any_open(table, pooled)))
        stays = pc.invert(pc.is_in(table["source_path"], again.table["source_path"]))
        open_rows = pc.and_(pa.array(undecided_rows(table, rules, pooled)), stays)
        unscored = table["clip_id"].filter(open_rows)
    return UnfinishedClips(out, recipe, wanted, unscored, here)


def _names(folder: Path) -> pa.Array:
    """Return the names in a folder, as bytes: they need not be UTF-8."""
    return pa.array(os.listdir(os.fsencode(folder)) if folder.is_dir() else [], pa.binary())


def _any_open(table: pa.Table, columns: Mapping[str, frozenset[str]]) -> pa.ChunkedArray:
    """Return which rows lack a score that their type has."""
    mark = pa.chunked_array([pa.array(np.zeros(len(table), bool))])
    for column, media in columns.items():
        applies = pc.is_in(table["type"], pa.array(sorted(media)))
        mark = pc.or_(mark, pc.and_(applies, pc.is_null(table[column])))
    return mark
