"""A set of clips with their scores: the samples, or the training clips they are compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.schema import BY_NAME, Column

WHERE = ("clip_id", "type", "status", "source_path", "start_s", "end_s", "clip_path", "short_side_px", "caption")
"""what is shown of a clip besides its scores"""


@dataclass(frozen=True)
class Population:
    """Clips by their rows of a table, and some of them measured once more for what the table lacks.

    Attributes:
        clips: one row a clip, with the columns of WHERE and scores.
        again: likewise, of some of the clips, with the scores in `only_again`; None: nothing was measured again.
        only_again: columns to take from `again`.
    """

    clips: pa.Table
    again: pa.Table | None = None
    only_again: frozenset[str] = frozenset()

    def table_of(self, column: str) -> pa.Table | None:
        """Return the rows on which a column was measured; None: on none."""
        table = self.again if column in self.only_again else self.clips
        return table if table is not None and column in table.column_names else None


def numbers(table: pa.Table, column: str) -> np.ndarray:
    """Return a score of every row, float64 (N,): NaN where it is missing."""
    values: np.ndarray = pc.cast(table[column], pa.float64()).to_numpy(zero_copy_only=False)
    return np.where(np.isfinite(values), values, np.nan)


def applies(table: pa.Table, column: Column) -> np.ndarray:
    """Return which rows a column exists for, bool (N,); what failed has no type, and might have had every score."""
    there = pc.is_in(table["type"], pa.array(sorted(column.media), pa.string()))
    return np.asarray(pc.or_(there, pc.equal(table["status"], "failed")).to_numpy(zero_copy_only=False).astype(bool))


def score_columns(operators: Sequence[str], columns: Mapping[str, Column] = BY_NAME) -> list[Column]:
    """Return the columns of real numbers that operators write, each a property of the pictures.

    Args:
        operators: their names.
        columns: those there are, by name; of a recipe with plug-ins, `Recipe.columns`.
    """
    return [column for column in columns.values() if column.writer in operators and str(column.dtype) == "double"]
