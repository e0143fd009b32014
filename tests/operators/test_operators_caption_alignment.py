"""Caption alignment: CLIP's mean cosine of a whole caption and the frames it was written for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")
pytest.importorskip("open_clip")

from tiny_clip import build_tiny_clip  # noqa: E402

from curation.types import Frames  # noqa: E402
from models.scorers.clip import load_tower  # noqa: E402
from operators.caption_alignment import CaptionAlignment  # noqa: E402
from operators.clip_frames import Clip  # noqa: E402

LONG = "A red house stands on a hill above the sea, and two gulls fly over its roof. " * 8 + "A dog barks."
TEXTS = ["a cat", "A blue boat. It sails.", LONG, "", None, "   ", "一只猫坐在屋顶上。"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def align(folder):
    return CaptionAlignment(clip=Clip(str(folder), "cpu", batch_frames=3)).load()


def frames(seed, count=4):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 36, 50, 3), dtype=np.uint8)
    return Frames(pixels, np.arange(count) / 2)


def test_it_is_the_mean_cosine_of_frames_and_text(folder, align):
    tower = load_tower(str(folder), device="cpu")
    wanted = (tower.encode_images(list(frames(0).pixels)) @ tower.encode_texts(["a cat"])[0]).mean()
    assert align([("a cat", frames(0))]) == [pytest.approx(wanted, abs=1e-6)]
    assert abs(wanted - align([("a dog", frames(0))])[0]) > 1e-3


def test_the_end_of_a_long_caption_counts(folder, align):
    changed = LONG.replace("A dog barks.", "Snow falls on the mountains at night.")
    tower = load_tower(str(folder), device="cpu")
    assert (tower.encode_texts([LONG]) == tower.encode_texts([changed])).all(), "alone the tower does not see it"
    assert align([(LONG, frames(0))])[0] != pytest.approx(align([(changed, frames(0))])[0], abs=1e-4)
    parts = tower.split_text(LONG)
    assert align([(LONG, frames(0))])[0] == pytest.approx(
        np.mean([align([(p, frames(0))])[0] for p in parts]), abs=1e-6
    )


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(len(TEXTS))))
def test_each_caption_is_compared_with_its_own_frames_whatever_lies_beside_it(align, order):
    alone = [align([(text, frames(i))])[0] for i, text in enumerate(TEXTS)]
    together = align([(TEXTS[i], frames(i)) for i in order])
    assert together == [None if alone[i] is None else pytest.approx(alone[i], abs=1e-5) for i in order]


def test_without_caption_or_frames_nothing_is_measured(align):
    assert align([(None, frames(0)), ("", frames(0)), ("a cat", None), ("a cat", frames(0, 0))]) == [None] * 4
    assert align([]) == []


def test_lost_numbers_are_missing(align, monkeypatch):
    monkeypatch.setattr("operators.caption_alignment.embed_frames", lambda *_: [np.full((4, 16), np.nan)])
    assert align([("a cat", frames(0))]) == [None]


def test_settings_that_compare_nothing_are_refused():
    for wrong in ({"frames": 0}, {"min_score": 1.5}):
        with pytest.raises(ValueError, match="must be"):
            CaptionAlignment(**wrong)
    assert CaptionAlignment().needs == ("clip-vit-l-14",)
