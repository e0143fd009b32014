"""What is looked for: words, a picture or a clip of the table, in the forms in which rows can be compared with it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import UserError


@dataclass(frozen=True, eq=False)
class Question:
    """What is looked for; at least one of text, vector and words of a hash.

    Attributes:
        text: words to be found in captions, tags and paths.
        vector: float32 (D,), a direction in the space of the table's `embedding`.
        hash: 12 words of a `temporal_hash`.
        clip_id: the clip that it is about, which is no answer itself.
    """

    text: str | None = None
    vector: np.ndarray | None = None
    hash: Sequence[int] | None = None
    clip_id: str | None = None


def like_clip(table: pa.Table, clip_id: str) -> Question:
    """Return the question for clips like one of a table, by its embedding and temporal hash where it has them.

    Raises:
        UserError: no such clip, or one that has neither.
    """
    row = row_of(table, clip_id)
    if row < 0:
        raise UserError(f"find: there is no clip '{clip_id[:60]}'")
    vector, words = (
        table[name][row].as_py() if name in table.column_names else None for name in ("embedding", "temporal_hash")
    )
    if vector is None and words is None:
        raise UserError(
            f"find: clip '{clip_id}' has neither an embedding nor a temporal hash to compare others with; curate with "
            "operators.temporal_hash, or look for words"
        )
    return Question(vector=None if vector is None else np.array(vector, np.float32), hash=words, clip_id=clip_id)


def row_of(table: pa.Table, clip_id: str) -> int:
    """Return the place of a clip in a table; -1 where it is not there."""
    return int(pc.index(table["clip_id"], clip_id).as_py())


def has_embeddings(table: pa.Table) -> bool:
    """Return whether some row of a table has a CLIP embedding."""
    return "embedding" in table.column_names and table["embedding"].null_count < len(table)
