"""Likeness of texts by their runs of characters, and what hangs together by it among many."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.dedup.shingles import alike_groups, likeness, shingles

CAPTION = "A woman in a green coat walks slowly along a wet street at night while cars with bright lights pass by."


def alike(one: str, other: str) -> float:
    return likeness(shingles(one), shingles(other))


def test_case_punctuation_and_spaces_say_nothing():
    assert alike("A dog, in the snow!", "a dog in  the snow") == 1.0
    assert alike("一只狗在雪地里奔跑。", "一只狗在雪地里奔跑") == 1.0


def test_a_word_changed_is_near_and_another_scene_is_far():
    assert alike(CAPTION, CAPTION.replace("green", "grey")) > 0.8
    assert alike(CAPTION, "Two dogs play with a ball in deep snow near a cabin.") < 0.1
    assert alike("一位女士在厨房里切菜，镜头缓慢推进", "一位女士在厨房里切菜，镜头缓慢拉远") > 0.4


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=20), st.text(max_size=20))
def test_likeness_is_a_share_and_even(one, other):
    assert 0 <= alike(one, other) == alike(other, one) <= 1
    assert alike(one, one) in (0.0, 1.0)


def test_texts_without_words_are_alone():
    assert alike_groups(["", "...", "ok", "ok!"], 0.7).tolist() == [0, 1, 2, 2]
    assert alike_groups([], 0.7).shape == (0,)


def test_a_chain_hangs_together():
    other = CAPTION.replace("green", "grey")
    third = other.replace("slowly", "quickly")
    groups = alike_groups(["Something else happens here, in a field of corn.", CAPTION, third, other], 0.75)
    assert groups.tolist() == [0, 1, 1, 1]


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(12)))
def test_the_order_of_the_texts_does_not_matter(order):
    texts = [CAPTION.replace("green", colour) + end for colour in ("green", "grey", "red") for end in ("", "!", " x")]
    texts += ["A plane lands.", "A train leaves the station in the rain.", "A train leaves the station in the snow."]
    names = alike_groups([texts[place] for place in order], 0.7)
    found = {}
    for group, place in zip(names, order, strict=True):
        found.setdefault(int(group), set()).add(place)
    straight = {}
    for place, group in enumerate(alike_groups(texts, 0.7)):
        straight.setdefault(int(group), set()).add(place)
    assert sorted(map(sorted, found.values())) == sorted(map(sorted, straight.values()))


@pytest.mark.parametrize("seed", range(3))
def test_among_many_every_near_copy_is_found(seed):
    rng = np.random.default_rng(seed)
    words = [f"word{k}" for k in range(500)]
    texts = [" ".join(rng.choice(words, 30)) for _ in range(150)]
    copies = [" ".join([*text.split()[:-1], "other"]) for text in texts]
    groups = alike_groups(texts + copies, 0.8)
    assert groups.tolist() == [*range(150), *range(150)]
