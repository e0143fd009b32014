"""Ranking clips by words, pictures and courses, and keeping what was found as a selection."""

import math
import re
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UserError
from curation.dedup.hamming import picture_distances
from curation.find.question import Question, like_clip
from curation.find.rank import find
from curation.find.selection import read_selection, write_selection
from curation.find.words import K1, B, bm25, text_of, words_of

SCHEMA = pa.schema([
    *((name, pa.string()) for name in ("clip_id", "source_path", "type", "status", "caption", "caption_by_hand")),
    ("start_s", pa.float64()), ("end_s", pa.float64()), ("review_tags", pa.list_(pa.string())),
    ("embedding", pa.list_(pa.float16(), 4)), ("temporal_hash", pa.list_(pa.int64())),
])  # fmt: skip


def table_of(*rows: dict) -> pa.Table:
    usual = {"source_path": "a.mp4", "type": "video", "status": "accepted", "start_s": 0.0, "end_s": 5.0}
    return pa.Table.from_pylist([usual | row for row in rows], schema=SCHEMA)


def found(table: pa.Table, question: Question, **how) -> list[str]:
    return [clip.clip_id for clip in find(table, question, how.pop("limit", 10), **how).clips]


CARS = table_of(
    {"clip_id": "a", "caption": "A red car drives through the city at night."},
    {"clip_id": "b", "caption": "A red balloon rises over a field in the morning."},
    {"clip_id": "c", "caption": "A blue car is parked in front of a house."},
    {
        "clip_id": "d",
        "caption": "Fish swim around a reef.",
        "caption_by_hand": "Night falls; a red car, then a car",
    },
    {"clip_id": "e", "caption": "Boats.", "review_tags": ["night", "car"], "source_path": "film/Red_Harbour-2.mp4"},
    {"clip_id": "f", "caption": None, "source_path": "birds.mp4"},
)


def test_the_rarest_words_decide_and_captions_by_hand_take_the_place_of_the_captioners() -> None:
    names = found(CARS, Question("a red CAR at night"))
    assert set(names[:3]) == {"a", "d", "e"}, "three words that matter, in caption, by hand, and in tags and path"
    assert set(names[3:]) == {"b", "c"}
    assert found(CARS, Question("fish reef")) == [], "the captioner's text no longer holds"
    assert found(CARS, Question("harbour")) == ["e"]
    assert found(CARS, Question("birds")) == ["f"]
    assert found(CARS, Question("cars")) == [], "words are compared as they are"


def plain_bm25(texts: list[str], words: list[str]) -> list[float]:
    """The published formula, one text after another."""
    documents = [re.findall(r"\w+", unicodedata.normalize("NFKC", text).lower().replace("_", " ")) for text in texts]
    mean = max(1.0, sum(map(len, documents)) / max(1, len(documents)))
    scores = []
    for document in documents:
        total = 0.0
        for word in words:
            having = sum(word in other for other in documents)
            weight = math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
            times = document.count(word)
            total += weight * times * (K1 + 1) / (times + K1 * (1 - B + B * len(document) / mean))
        scores.append(total)
    return scores


TEXTS = st.lists(st.sampled_from(["red", "car", "Car", "night,", "a", "red-car", "\u00e9t\u00e9", "_x_", "12", "."]))


@given(st.lists(TEXTS.map(" ".join), min_size=1, max_size=8), TEXTS.map(" ".join))
@settings(max_examples=60, deadline=None)
def test_bm25_is_the_published_formula(texts: list[str], question: str) -> None:
    words = words_of(question)
    assert bm25(pa.array(texts), words) == pytest.approx(plain_bm25(texts, words))


def test_each_chinese_character_is_a_word_and_any_text_can_be_asked() -> None:
    assert words_of("红色的car，car 夜") == ["红", "色", "的", "car", "夜"]  # noqa: RUF001
    assert words_of("... \u2028 ! ") == []
    with pytest.raises(UserError, match="no word to look for"):
        find(CARS, Question("..."), 5, "words")


@given(st.text(max_size=30), st.text(max_size=30))
@settings(max_examples=60, deadline=None)
def test_a_text_is_found_by_any_word_of_its_own(text: str, other: str) -> None:
    table = table_of({"clip_id": "a", "caption": text}, {"clip_id": "b", "caption": other})
    for word in words_of(text):
        assert bm25(text_of(table), [word])[0] > 0


def test_embeddings_are_ranked_by_angle_and_rows_without_one_are_passed_over() -> None:
    vectors = {"a": [1, 0, 0, 0], "b": [0.9, 0.3, 0, 0], "c": [0, 1, 0, 0], "d": None, "e": [-1, 0, 0, 0]}
    table = table_of(*({"clip_id": name, "embedding": vector} for name, vector in vectors.items()))
    answer = find(table, Question(vector=np.array([2, 0, 0, 0], np.float32)), 10)
    assert (answer.by, answer.compared, answer.rows) == ("embedding", 4, 5)
    assert [clip.clip_id for clip in answer.clips] == ["a", "b", "c", "e"]
    assert [clip.score for clip in answer.clips] == pytest.approx([1, 0.9 / math.hypot(0.9, 0.3), 0, -1], abs=1e-3)
    assert found(table, Question(vector=np.array([2, 0, 0, 0], np.float32)), least=0.5) == ["a", "b"]
    assert found(table, like_clip(table, "a"), limit=2) == ["b", "c"], "the clip itself is no answer"
    with pytest.raises(UserError, match="4 numbers, the question's 3"):
        find(table, Question(vector=np.ones(3, np.float32)), 1)


@given(st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=12, max_size=12), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_hashes_are_ranked_by_the_share_of_equal_picture_bits(hashes: list[list[int]]) -> None:
    table = table_of(*({"clip_id": str(n), "temporal_hash": words} for n, words in enumerate(hashes)))
    answer = find(table, Question(hash=hashes[0]), 10)
    words = np.array(hashes, np.int64)[:, :8].view(np.uint64)
    share = 1 - picture_distances(words[0], np.ascontiguousarray(words.T)) / 512
    assert sorted((clip.score for clip in answer.clips), reverse=True) == [clip.score for clip in answer.clips]
    assert {clip.clip_id: clip.score for clip in answer.clips} == {str(n): s for n, s in enumerate(share.tolist())}


def test_what_cannot_be_compared_is_said() -> None:
    with pytest.raises(UserError, match="no clip 'z'"):
        like_clip(CARS, "z")
    with pytest.raises(UserError, match="neither an embedding nor a temporal hash"):
        like_clip(CARS, "a")
    with pytest.raises(UserError, match=r"operators\.embedding"):
        find(CARS, Question("car"), 5, "embedding")
    assert find(CARS.slice(0, 0), Question("car"), 5).clips == ()


def test_equal_scores_stand_in_the_order_of_their_ids() -> None:
    table = table_of(*({"clip_id": name, "caption": "a car"} for name in "cab"))
    assert found(table, Question("car"), limit=2) == ["a", "b"]


def test_a_selection_comes_back_as_it_was_written_and_can_be_edited(tmp_path) -> None:
    file = tmp_path / "picked.txt"
    write_selection(file, ["b", "a"], "2 clips for:\nred # car")
    assert read_selection(file, "clips") == ("b", "a")
    assert file.read_text().splitlines()[0] == "# 2 clips for: red # car"
    file.write_bytes(b"\xef\xbb\xbfb\r\n\r\n  a \r\n# c\r\nb\r\n")
    assert read_selection(file, "clips") == ("b", "a")
    file.write_text("# nothing\n")
    with pytest.raises(UserError, match="names no clip"):
        read_selection(file, "clips")
    with pytest.raises(UserError, match="cannot be read"):
        read_selection(tmp_path / "none", "clips")
    with pytest.raises(UserError, match="cannot be written"):
        write_selection(tmp_path / "no" / "folder", ["a"], "x")
