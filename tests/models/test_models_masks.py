"""Masks hide what their kind says, for every size, and are drawn as often as they are asked for."""

import time
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.conditions.masks import MASKS, V5_PROBABILITIES, check_probabilities, draw_mask
from models.errors import ModelError

torch.set_num_threads(1)

SIZES = st.tuples(st.sampled_from([1, 2, 5, 9, 17]), st.sampled_from([8, 16, 40]), st.sampled_from([8, 24, 64]))
VIDEOS = st.tuples(st.sampled_from([5, 9, 49]), st.sampled_from([16, 40]), st.sampled_from([24, 64]))
SEEDS = st.integers(0, 2**40)


def of_kind(kind: str, size: tuple[int, int, int], seed: int) -> torch.Tensor:
    drawn, mask = draw_mask({kind: 1.0}, size, torch.Generator().manual_seed(seed))
    assert drawn == kind
    return mask


def hidden_frames(mask: torch.Tensor) -> list[int]:
    """Frames in which something is hidden."""
    return mask.flatten(1).any(1).nonzero().flatten().tolist()


def is_whole(mask: torch.Tensor) -> bool:
    """Return whether each frame is hidden wholly or not at all."""
    return torch.equal(mask.flatten(1).any(1), mask.flatten(1).all(1))


@given(size=SIZES, seed=SEEDS)
@settings(max_examples=100, deadline=None)
def test_any_mask_has_the_size_hides_something_and_follows_from_the_generator(
    size: tuple[int, int, int], seed: int
) -> None:
    kind, mask = draw_mask(V5_PROBABILITIES, size, torch.Generator().manual_seed(seed))
    assert mask.shape == size
    assert mask.dtype == torch.bool
    assert bool(mask.any())
    assert MASKS[kind].frames <= size[0]
    again = draw_mask(V5_PROBABILITIES, size, torch.Generator().manual_seed(seed))
    assert again[0] == kind
    assert torch.equal(again[1], mask)


@given(size=VIDEOS, seed=SEEDS)
@settings(max_examples=40, deadline=None)
def test_kept_frames_are_one_to_four_at_the_start_or_equally_many_at_both_ends(
    size: tuple[int, int, int], seed: int
) -> None:
    first, both = of_kind("first_frames", size, seed), of_kind("both_ends", size, seed)
    assert is_whole(first)
    assert is_whole(both)
    kept = hidden_frames(first)[0]
    assert 1 <= kept <= 4
    assert hidden_frames(first) == list(range(kept, size[0]))
    kept = hidden_frames(both)[0]
    assert 1 <= kept <= 4
    assert hidden_frames(both) == list(range(kept, size[0] - kept))


@given(size=VIDEOS, seed=SEEDS)
@settings(max_examples=40, deadline=None)
def test_a_box_is_one_rectangle_in_all_frames_or_in_one_stretch_of_them(size: tuple[int, int, int], seed: int) -> None:
    for kind in ("box", "timed_box"):
        mask = of_kind(kind, size, seed)
        found = hidden_frames(mask)
        assert found == list(range(found[0], found[-1] + 1))
        if kind == "box":
            assert len(found) == size[0]
        frame = mask[found[0]]
        assert all(torch.equal(mask[place], frame) for place in found)
        rows, columns = frame.any(1), frame.any(0)
        assert torch.equal(frame, rows[:, None] & columns[None])
        for side, length in ((rows, size[1]), (columns, size[2])):
            places = side.nonzero().flatten()
            assert int(places[-1] - places[0]) + 1 == len(places) <= 3 * length // 4


@given(size=VIDEOS, seed=SEEDS)
@settings(max_examples=40, deadline=None)
def test_patches_are_small_rectangles_each_frame_its_own_in_half_of_them_at_most(
    size: tuple[int, int, int], seed: int
) -> None:
    mask = of_kind("patches", size, seed)
    found = hidden_frames(mask)
    assert 1 <= len(found) <= size[0] // 2
    for place in found:
        rows, columns = mask[place].any(1), mask[place].any(0)
        assert torch.equal(mask[place], rows[:, None] & columns[None])
        assert int(rows.sum()) <= size[1] // 4
        assert int(columns.sum()) <= size[2] // 4


@given(size=VIDEOS, seed=SEEDS)
@settings(max_examples=40, deadline=None)
def test_ellipses_are_convex_and_the_same_in_all_frames_and_circles_are_round(
    size: tuple[int, int, int], seed: int
) -> None:
    for kind in ("ellipse", "circle"):
        mask = of_kind(kind, size, seed)
        assert bool((mask == mask[:1]).all())
        for axis in (0, 1):
            lines = mask[0].movedim(axis, 0).int()
            assert int((lines.diff(dim=1) == 1).sum(1).max()) <= 1  # each line goes in at most once
    whole = [of_kind("circle", (1, 64, 64), seed + place)[0] for place in range(6)]
    inner = [m for m in whole if not (m[0].any() or m[-1].any() or m[:, 0].any() or m[:, -1].any())]
    assert all(int(m.any(0).sum()) == int(m.any(1).sum()) for m in inner)


@given(size=VIDEOS, seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_dropped_frames_are_whole_and_all_hides_all(size: tuple[int, int, int], seed: int) -> None:
    assert is_whole(of_kind("frame_drop", size, seed))
    assert bool(of_kind("all", size, seed).all())


def test_noise_hides_half_of_the_pixels_and_frame_drop_half_of_the_frames() -> None:
    assert float(of_kind("noise", (9, 64, 64), 0).float().mean()) == pytest.approx(0.5, abs=0.02)
    shares = [float(of_kind("frame_drop", (49, 8, 8), seed).float().mean()) for seed in range(50)]
    assert sum(shares) / 50 == pytest.approx(0.5, abs=0.05)


def test_kinds_are_drawn_as_often_as_v5_draws_them() -> None:
    assert sum(V5_PROBABILITIES.values()) == pytest.approx(1.0)
    generator, draws = torch.Generator().manual_seed(0), 4000
    found = Counter(draw_mask(V5_PROBABILITIES, (5, 8, 8), generator)[0] for _ in range(draws))
    for kind, probability in V5_PROBABILITIES.items():
        assert found[kind] / draws == pytest.approx(probability, abs=4 * (probability / draws) ** 0.5)


def test_an_image_draws_kinds_that_need_no_time_and_without_any_hides_all() -> None:
    generator = torch.Generator().manual_seed(0)
    found = Counter(draw_mask(V5_PROBABILITIES, (1, 16, 16), generator)[0] for _ in range(2000))
    assert found.keys() == {"all", "box", "noise", "patches", "ellipse", "circle"}
    assert found["all"] / 2000 == pytest.approx(0.4, abs=0.05)
    kind, mask = draw_mask({"first_frames": 1.0}, (1, 16, 16), generator)
    assert kind == "all"
    assert bool(mask.all())


@pytest.mark.parametrize(
    ("probabilities", "said"),
    [
        ({"boxes": 1.0}, "mask kind 'boxes': there is none; take some of box, all, first_frames"),
        ({"box": -0.1, "all": 1.0}, "mask kind box: share -0.1 must be"),
        ({"box": float("inf")}, "mask kind box: share inf"),
        ({"box": 0.0}, "none has a share above 0"),
        ({}, "none has a share above 0"),
    ],
)
def test_shares_that_cannot_be_are_refused(probabilities: dict[str, float], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        check_probabilities(probabilities)


def test_a_large_mask_of_every_kind_costs_less_than_a_second_or_two() -> None:
    for kind in MASKS:
        began = time.thread_time()
        of_kind(kind, (49, 256, 256), 0)
        assert time.thread_time() - began < 2.0, kind
