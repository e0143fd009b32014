"""An output as reviewers see it: its table, what has been said of it, and both together."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import UserError
from curation.analysis.previews import preview_path
from curation.expressions import parse
from curation.judge import judge_table, rules_of
from curation.output.place import name_of_output
from curation.output.stash import read_stashed, restored, stashed_columns
from curation.output.table import clips_folder, read_table
from curation.recipe import Recipe
from curation.report.agreement import Agreement, agreements
from curation.reviews import NAME, Change, Reviews, add_changes, checked, read_reviews, with_reviews
from curation.schema import FILE_COLUMNS

Show = Literal["all", "undecided", "accepted", "rejected", "kept", "dropped", "captioned"]
SHOWN = ("source_path", "type", "kind", "start_s", "end_s", "status", "reasons", "caption", "caption_by_hand")
REVIEWED = ("review", "review_by", "review_at", "review_tags")
PREVIEWS = 4


@dataclass(frozen=True)
class Query:
    """Which clips are asked for.

    Attributes:
        show: by verdict; `undecided`: nobody has said keep or drop.
        where: an expression over the table's columns, as `train --where` takes it; empty: all.
        words: parts of captions, paths or tags that a clip must have, each of them.
        clips: ids in the order in which they are wanted, from a search; None: the table's order.
    """

    show: Show = "all"
    where: str = ""
    words: str = ""
    clips: Sequence[str] | None = None


class ReviewStore:
    """An output's table with what people say of it; safe to be asked by several threads.

    The table is read again when a run has replaced it, the journal when somebody else has added to it.
    """

    def __init__(self, out: Path, recipe: Recipe, whole: Callable[[Path], Path] = lambda path: path):
        """Read the output.

        Args:
            out: the output.
            recipe: its recipe.
            whole: returns the file to show for a clip's file, which may lie elsewhere.
        """
        self._out, self._recipe, self._whole_file = out, recipe, whole
        self._lock = threading.RLock()
        self._bare = self._whole = read_table(out, recipe.writers, [])
        self._reviews, self._seen = Reviews({}), (0, 0, -1)
        self._refresh()

    @property
    def name(self) -> str:
        """What the output is called, without the folders above it."""
        return name_of_output(self._out)

    @property
    def table(self) -> pa.Table:
        """Every row, judged with what people have said."""
        with self._lock:
            self._refresh()
            return self._whole

    def say(self, clip_id: str, values: Mapping[str, Any], by: str) -> dict[str, Any]:
        """Note what somebody says of a clip, and return the clip; once this returns it is on disk.

        Raises:
            UserError: no such clip, or a value that cannot be.
            OutputError: the journal cannot be written.
        """
        values = checked(values)
        with self._lock:
            if not self._rows([clip_id]):
                raise UserError(f"clip_id: {clip_id[:60]}: there is no such clip in {self._out}")
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            add_changes(self._out, [Change(clip_id, values, by, now)])
            return self.clip(clip_id)

    def clip(self, clip_id: str) -> dict[str, Any]:
        """Return a clip as the page shows it.

        Raises:
            UserError: no such clip.
        """
        rows = self._rows([clip_id])
        if not rows:
            raise UserError(f"clip_id: {clip_id[:60]}: there is no such clip in {self._out}")
        return rows[0]

    def page(self, query: Query, offset: int, limit: int) -> tuple[int, list[dict[str, Any]]]:
        """Return how many clips a query finds, and some of them.

        Raises:
            UserError: an expression that cannot be.
        """
        table = self.table
        chosen = np.flatnonzero(self._mask(table, query))
        if query.clips is not None:
            place = {clip_id: number for number, clip_id in enumerate(query.clips)}
            ids = table["clip_id"].take(pa.array(chosen)).to_pylist()
            found = [(place[clip_id], row) for clip_id, row in zip(ids, chosen, strict=True) if clip_id in place]
            chosen = np.array([row for _, row in sorted(found)], np.int64)
        some = table.take(pa.array(chosen[offset : offset + limit], pa.int64()))
        return len(chosen), [self._shown(row) for row in some.to_pylist()]

    def counts(self) -> dict[str, int]:
        """Return clips by verdict, and how many people have judged."""
        table = self.table
        by_status = {row["values"]: row["counts"] for row in pc.value_counts(table["status"]).to_pylist()}
        by_review = {row["values"]: row["counts"] for row in pc.value_counts(table["review"]).to_pylist()}
        by_hand = len(table) - table["caption_by_hand"].null_count
        statuses = {name: by_status.get(name, 0) for name in ("accepted", "rejected", "failed")}
        return statuses | {"kept": by_review.get("keep", 0), "dropped": by_review.get("drop", 0), "captioned": by_hand}

    def agreements(self) -> list[Agreement]:
        """Return how well the rules agree with people."""
        return agreements(self.table, rules_of(self._recipe))

    def file_of(self, clip_id: str) -> Path | None:
        """Return a clip's file; None where it has none, or it is gone."""
        named = self._column(clip_id, "clip_path")
        path = self._out / named if isinstance(named, str) else None
        if path is None or not path.is_file() or self._out.resolve() not in path.resolve().parents:
            return None
        return self._whole_file(path)

    def picture_of(self, clip_id: str, number: int) -> Path | None:
        """Return one of a clip's previews; None where there is none."""
        known = self._column(clip_id, "clip_id")
        path = preview_path(self._out, known, number) if isinstance(known, str) else None
        return path if path is not None and path.is_file() else None

    def _column(self, clip_id: str, name: str) -> Any:
        table = self.table
        place = pc.index(table["clip_id"], clip_id).as_py()
        return None if place < 0 else table[name][place].as_py()

    def _rows(self, clip_ids: Sequence[str]) -> list[dict[str, Any]]:
        table = self.table
        some = table.filter(pc.is_in(table["clip_id"], pa.array(list(clip_ids), pa.string())))
        return [self._shown(row) for row in some.to_pylist()]

    def _shown(self, row: Mapping[str, Any]) -> dict[str, Any]:
        measured = [c for name in self._recipe.operators for c in self._recipe.columns.values() if c.writer == name]
        scores = {c.name: row[c.name] for c in measured if isinstance(row[c.name], int | float | str)}
        clip_id = row["clip_id"]
        pictures = [n for n in range(PREVIEWS) if preview_path(self._out, clip_id, n).is_file()]
        facts = {name: row[name] for name in (*SHOWN, *REVIEWED)}
        return {"clip_id": clip_id, **facts, "pictures": pictures, "has_file": row["clip_path"] is not None} | {
            "scores": scores
        }

    def _mask(self, table: pa.Table, query: Query) -> np.ndarray:
        wanted = np.ones(len(table), bool)
        for column, value, show in (
            ("status", "accepted", "accepted"), ("status", "rejected", "rejected"),
            ("review", "keep", "kept"), ("review", "drop", "dropped"),
        ):  # fmt: skip
            if query.show == show:
                wanted &= _flags(pc.equal(table[column], value))
        if query.show == "undecided":
            wanted &= _flags(pc.is_null(table["review"])) & _flags(pc.not_equal(table["status"], "failed"))
        if query.show == "captioned":
            wanted &= _flags(pc.is_valid(table["caption_by_hand"]))
        if query.where.strip():
            values = parse(query.where, "where").evaluate(table)
            if not pa.types.is_boolean(values.type):
                raise UserError("where: is no condition; compare something, such as motion > 2")
            wanted &= _flags(values)
        for word in query.words.lower().split():
            tags = pc.binary_join(pc.fill_null(table["review_tags"], pa.scalar([], pa.list_(pa.string()))), " ")
            texts = (table["caption"], table["caption_by_hand"], table["source_path"], table["clip_id"], tags)
            found = [_flags(pc.match_substring(pc.utf8_lower(text), word)) for text in texts]
            wanted &= np.any(found, axis=0)
        return wanted

    def _with_stashed(self, table: pa.Table) -> pa.Table:
        """Return a table with captions and scores that its rules stashed in their places, to look at; files stay."""
        columns = [name for name in stashed_columns(self._recipe) if name not in FILE_COLUMNS]
        return restored(table, read_stashed(self._out, table, columns))

    def _refresh(self) -> None:
        """Read what has changed on disk since the last time."""
        journal = self._out / NAME
        stat = journal.stat() if journal.exists() else None
        table_s = clips_folder(self._out).stat().st_mtime_ns if clips_folder(self._out).exists() else 0
        seen = (table_s, stat.st_mtime_ns if stat else 0, stat.st_size if stat else 0)
        if seen == self._seen:
            return
        if seen[0] != self._seen[0]:
            self._bare = self._with_stashed(read_table(self._out, self._recipe.writers))
        self._reviews, self._seen = read_reviews(self._out), seen
        self._whole = judge_table(with_reviews(self._bare, self._reviews), rules_of(self._recipe))


def _flags(mark: Any) -> np.ndarray:
    flags: np.ndarray = pc.fill_null(mark, False).to_numpy(zero_copy_only=False).astype(bool)
    return flags
