"""Ordering a table's rows by how near they are to what is looked for.

| by | score | rows that are passed over |
|---|---|---|
| embedding | cosine of the CLIP vectors, -1 to 1 | have no embedding |
| hash | share of the 512 picture bits of the temporal hash that agree, whatever the pictures' order | have no hash |
| words | BM25 (`curation.find.words`) | have none of the words |

All comparisons are exact: every row is looked at.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from core.errors import UserError
from curation.dedup.duplicates import PICTURE_WORDS
from curation.dedup.hamming import picture_distances
from curation.dedup.vectors import unit, vectors
from curation.find.question import Question, has_embeddings
from curation.find.words import bm25, text_of, words_of

By = Literal["embedding", "words", "hash"]
READS = ("clip_id", "source_path", "type", "start_s", "end_s", "status", "caption", "caption_by_hand", "review_tags")
VECTORS = {"embedding": "embedding", "hash": "temporal_hash"}
"""ways of comparing and the columns that they read"""
AT_ONCE = 1 << 16
"""vectors compared at a time"""

Scored = tuple[np.ndarray, np.ndarray]
"""places of rows (M,) and the score of each, float64 (M,)"""


@dataclass(frozen=True)
class Found:
    """A clip that was found.

    Attributes:
        score: how near it is; higher is nearer. What it measures depends on the way of comparing.
        clip_id: which.
        source_path: where it is from.
        start_s: its span in the source; null for an image.
        end_s: likewise.
        status: accepted, rejected or failed.
        caption: by hand where there is one, else the captioner's.
    """

    score: float
    clip_id: str
    source_path: str
    start_s: float | None
    end_s: float | None
    status: str
    caption: str | None


@dataclass(frozen=True)
class Findings:
    """What was found.

    Attributes:
        by: how rows were compared.
        clips: the best first; equal scores in the order of their ids.
        compared: how many rows have what is compared: an embedding, a hash, one of the words.
        rows: how many there are.
    """

    by: By
    clips: tuple[Found, ...]
    compared: int
    rows: int


def way_of(table: pa.Table, question: Question) -> By:
    """Return how a question is answered: by embedding where both have one, else by hash, else by words.

    Raises:
        UserError: the table has nothing to compare with it.
    """
    if question.vector is not None and has_embeddings(table):
        return "embedding"
    if question.hash is not None and "temporal_hash" in table.column_names:
        return "hash"
    if question.text is not None:
        return "words"
    raise UserError("find: the table has neither embeddings nor temporal hashes; curate with operators.temporal_hash")


def find(table: pa.Table, question: Question, limit: int, by: By | None = None, least: float | None = None) -> Findings:
    """Find the rows nearest to what is looked for.

    Args:
        table: the columns of `READS`, as far as it has them, with `embedding` and `temporal_hash` if they are there.
        question: what is looked for.
        limit: most clips returned.
        by: how to compare; None: `way_of`.
        least: lowest score returned; None: any.

    Raises:
        UserError: the table or the question lacks what is compared.
    """
    by = by or way_of(table, question)
    rows, scores = WAYS[by](table, question)
    others = np.ones(len(rows), bool)
    ids = np.array(table["clip_id"].take(pa.array(rows)).to_pylist(), dtype=str)
    if question.clip_id is not None:
        others &= ids != question.clip_id
    if least is not None:
        others &= scores >= least
    rows, scores, ids = rows[others], scores[others], ids[others]
    best = np.lexsort((ids, -scores))[:limit]
    some = table.take(pa.array(rows[best])).to_pylist()
    return Findings(by, tuple(map(_found, some, scores[best].tolist())), len(rows), len(table))


def _found(row: dict[str, object], score: float) -> Found:
    told = {name: row[name] for name in ("clip_id", "source_path", "start_s", "end_s", "status")}
    return Found(score, **told, caption=row.get("caption_by_hand") or row["caption"])  # type: ignore[arg-type]


def _by_embedding(table: pa.Table, question: Question) -> Scored:
    if question.vector is None or not has_embeddings(table):
        raise UserError("find: by embedding: no embeddings here; curate with operators.embedding, or look for words")
    values, rows = vectors(table, "embedding")
    if values.shape[1] != len(question.vector):
        raise UserError(
            f"find: the table's embeddings have {values.shape[1]} numbers, the question's {len(question.vector)}; take "
            "the CLIP model that the table was made with"
        )
    asked = unit(question.vector[None])[0]
    parts = [unit(values[start : start + AT_ONCE]) @ asked for start in range(0, len(values), AT_ONCE)]
    return rows, np.concatenate(parts).astype(np.float64)


def _by_hash(table: pa.Table, question: Question) -> Scored:
    if question.hash is None or "temporal_hash" not in table.column_names:
        raise UserError("find: by hash: no temporal hashes here; curate with operators.temporal_hash")
    values, rows = vectors(table, "temporal_hash")
    asked = np.array(question.hash[:PICTURE_WORDS], np.int64).view(np.uint64)
    if not len(rows):
        return rows, np.zeros(0)
    others = np.ascontiguousarray(values[:, :PICTURE_WORDS].astype(np.int64).view(np.uint64).T)
    return rows, 1 - picture_distances(asked, others) / (64 * PICTURE_WORDS)


def _by_words(table: pa.Table, question: Question) -> Scored:
    words = words_of(question.text or "")
    if not words:
        raise UserError("find: by words: there is no word to look for")
    scores = bm25(text_of(table), words)
    rows = np.flatnonzero(scores > 0)
    return rows, scores[rows]


WAYS: dict[By, Callable[[pa.Table, Question], Scored]] = {
    "embedding": _by_embedding,
    "hash": _by_hash,
    "words": _by_words,
}
