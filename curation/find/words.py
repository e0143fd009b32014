"""Ranking rows by the words of their texts: BM25 over captions, tags and paths.

Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009), with k1 = 1.2 and b = 0.75, and
the inverse document frequency ln(1 + (N - n + 0.5) / (n + 0.5)), which is never negative. A word is a run of letters
and digits, compared without regard to case; each character of Chinese, Japanese and Korean is a word. Words are
compared as they are: `cars` does not find `car`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.reviews import caption_of

K1, B = 1.2, 0.75
NO_LETTER = r"[^\p{L}\p{M}\p{N}]+"
ONE_BY_ONE = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}])"
MOST_WORDS = 64
"""of a question; later ones are not looked for"""


def words_of(text: str) -> list[str]:
    """Return the different words of a question, in order."""
    spaced = _spaced(pa.array([text], pa.string()))[0].as_py()
    return list(dict.fromkeys(spaced.split()))[:MOST_WORDS]


def text_of(table: pa.Table) -> pa.ChunkedArray:
    """Return what is searched of each row, string (N,): its caption (by hand, where there is one), tags and path."""
    parts = [caption_of(table)]
    if "review_tags" in table.column_names:
        parts.append(pc.binary_join(table["review_tags"], " "))
    parts.append(table["source_path"])
    return pc.binary_join_element_wise(*[pc.fill_null(part, "") for part in parts], " ")


def bm25(texts: Any, words: Sequence[str]) -> np.ndarray:
    """Return how well each text fits some words, float64 (N,); 0 where it has none of them.

    Args:
        texts: strings (N,), none null.
        words: different ones, from `words_of`.
    """
    spaced = _spaced(texts)
    count = len(spaced)
    score = np.zeros(count)
    if not count:
        return score
    lengths = _numbers(pc.count_substring_regex(spaced, r"\S+"))
    norm = K1 * (1 - B + B * lengths / max(1.0, lengths.mean()))
    for word in words:
        times = _numbers(pc.count_substring(spaced, f" {word} "))
        having = np.count_nonzero(times)
        score += np.log(1 + (count - having + 0.5) / (having + 0.5)) * times * (K1 + 1) / (times + norm)
    return score


def _spaced(texts: Any) -> Any:
    """Return texts in lower case with two spaces between words and one at each end, so that each word stands alone."""
    plain = pc.utf8_lower(pc.utf8_normalize(texts, "NFKC"))
    apart = pc.replace_substring_regex(plain, ONE_BY_ONE, r" \1 ")
    return pc.replace_substring_regex(pc.binary_join_element_wise("", apart, "", " "), NO_LETTER, "  ")


def _numbers(values: Any) -> np.ndarray:
    numbers: np.ndarray = values.to_numpy(zero_copy_only=False).astype(np.float64)
    return numbers
