"""Films edited for the benchmark say the truth about themselves, and boundaries are matched with it one to one."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.edits.decoys import DECOYS
from benchmarks.edits.film import Event, Film, draw_film
from benchmarks.edits.footage import HEIGHT_PX, MARGIN_FRAMES, WIDTH_PX, Stretch, left_out
from benchmarks.edits.joins import JOINS
from benchmarks.edits.score import Score, add
from curation.shots.types import Boundary
from demo.landscapes import scene


def _stretch(seed: int, count: int = 150) -> Stretch:
    wide = scene(seed, 2 * WIDTH_PX, HEIGHT_PX)
    frames = [np.ascontiguousarray(wide[:HEIGHT_PX, k : k + WIDTH_PX]) for k in range(count)]
    return Stretch(f"{seed}", frames, 25.0)


def _score(transitions: list[Event], found: list[Boundary], decoys: list[Event] | None = None) -> Score:
    score = Score()
    add(score, Film(25.0, [], transitions, decoys or []), found, 0.0)
    return score


def test_a_film_changes_at_its_hard_cuts_and_equal_seeds_give_equal_films() -> None:
    stretches = [_stretch(seed) for seed in (3, 7)]
    film, again = (draw_film(stretches, np.random.default_rng(4), 4) for _ in range(2))
    assert film.transitions == again.transitions and len(film.transitions) == 4
    assert all(np.array_equal(a.luma, b.luma) for a, b in zip(film.frames, again.frames, strict=True))
    changes = [float(cv2.absdiff(a.luma, b.luma).mean()) for a, b in zip(film.frames, film.frames[1:], strict=False)]
    for event in film.transitions:
        assert 0 < event.start <= event.end < len(film.frames)
        if event.kind == "hard":
            assert changes[event.start - 1] > 4 * np.median(changes)


@pytest.mark.parametrize("kind", JOINS)
def test_a_join_begins_with_the_first_shot_and_ends_with_the_second(kind: str) -> None:
    one, other = np.full((36, 64, 3), 60, np.uint8), np.full((36, 64, 3), 180, np.uint8)
    for direction in range(4):
        first, last = (JOINS[kind][0](one, other, way, direction) for way in (0.0, 1.0))
        assert np.abs(first.astype(int) - one).max() <= 1 and np.abs(last.astype(int) - other).max() <= 1


@pytest.mark.parametrize("kind", DECOYS)
def test_a_decoy_changes_frames_from_its_first_one_on(kind: str) -> None:
    shot, other = (_stretch(seed, 100).frames for seed in (3, 7))
    changed, end = DECOYS[kind](list(shot), 30, 15, np.random.default_rng(1), other)
    assert 30 < end <= 45 and len(changed) >= 60
    assert any(not np.array_equal(a, b) for a, b in zip(changed[30:], shot[30:], strict=False))
    if kind != "whip_pan":  # whose picture is enlarged from the beginning
        assert all(np.array_equal(a, b) for a, b in zip(changed[:30], shot[:30], strict=True))


def test_marks_are_left_out_where_their_frames_lie_in_the_stream_decoded() -> None:
    marks = {"hard": [202], "ignore": [[124, 150]], "note": "stream 0"}
    near = MARGIN_FRAMES
    assert left_out(marks, lambda frame: frame // 2) == [(101 - near, 101 + near), (62 - near, 75 + near)]


def test_boundaries_are_matched_one_to_one() -> None:
    truth = [Event("hard", 50, 50), Event("dissolve", 100, 120)]
    score = _score(truth, [Boundary(51, 51), Boundary(104, 116), Boundary(118, 118), Boundary(200, 200)])
    assert score.hits == {"hard": 1, "dissolve": 1}
    assert score.false == {"transition": 1, "shot": 1} and score.false_points == 2
    assert score.overlaps == [12 / 20]
    assert score.f1() == pytest.approx(2 * 2 / (4 + 2))
    assert score.recall(["dissolve"]) == 1


def test_what_is_found_in_a_decoy_is_counted_there() -> None:
    score = _score([], [Boundary(40, 40)], [Event("flash", 38, 41)])
    assert score.false == {"flash": 1} and score.f1() == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(20, 60)), max_size=8))
def test_the_truth_itself_is_found_whole(parts: list[tuple[int, int]]) -> None:
    ends, events = 0, []
    for length, gap in parts:
        events.append(Event("dissolve" if length else "hard", ends + gap, ends + gap + length))
        ends += gap + length
    score = _score(events, [Boundary(event.start, event.end) for event in events])
    assert not score.wrong and sum(score.hits.values()) == len(events)


def test_scores_of_seeds_are_pooled_by_their_counts() -> None:
    one = _score([Event("hard", 50, 50), Event("wipe", 90, 100)], [Boundary(50, 50, "hard")])
    other = _score([Event("hard", 20, 20)], [Boundary(20, 20, "jump"), Boundary(70, 70, "hard")])
    both = sum([one, other], Score())
    assert both.drawn == {"hard": 2, "wipe": 1} and both.hits == {"hard": 2} and both.false_points == 1
    assert both.f1() == pytest.approx(2 * 2 / (2 + 1 + 3)) and both.wrong == one.wrong + other.wrong
