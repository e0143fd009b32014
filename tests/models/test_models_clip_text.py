"""Chunks of long captions: nothing lost, nothing too long, whole sentences where they fit."""

from hypothesis import given
from hypothesis import strategies as st

from models.scorers.clip_text import chunks

TEXTS = st.text(st.sampled_from("ab cd.!?,;: \n。！，"), max_size=200)  # noqa: RUF001


def words(text):
    return len(text.split())


@given(TEXTS, st.integers(1, 12), st.sampled_from([len, words]))
def test_no_letter_is_lost_or_moved(text, most, count):
    assert "".join("".join(chunks(text, most, count)).split()) == "".join(text.split())


@given(TEXTS, st.integers(1, 12))
def test_no_chunk_is_longer_than_the_window(text, most):
    assert all(0 < len(chunk) <= most for chunk in chunks(text, most, len))


def test_sentences_stay_whole_and_fill_the_window():
    text = "One two three. Four five. Six seven eight nine ten. Eleven, twelve thirteen; fourteen"
    assert chunks(text, 5, words) == [
        "One two three. Four five.",
        "Six seven eight nine ten.",
        "Eleven, twelve thirteen; fourteen",
    ]
    assert chunks(text, 3, words) == [
        "One two three.",
        "Four five.",
        "Six seven eight",
        "nine ten.",
        "Eleven, twelve thirteen;",
        "fourteen",
    ]


def test_a_decimal_point_ends_no_sentence():
    assert chunks("It is 3.5 m high. It is red.", 5, words) == ["It is 3.5 m high.", "It is red."]


def test_chinese_is_cut_at_its_full_stops():
    assert chunks("猫坐在屋顶上。狗在花园里跑。", 8, len) == ["猫坐在屋顶上。", "狗在花园里跑。"]


def test_a_short_text_passes_and_an_empty_one_has_no_chunks():
    assert chunks(" A cat. ", 75, words) == ["A cat."]
    assert chunks(" \n", 75, words) == []
