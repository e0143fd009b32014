"""Fast pans and pictures in pictures are told from transitions by how the whole picture moves and by straight sides."""

from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from benchmarks.edits.joins import JOINS
from curation.shots import evidence, insets, pans
from curation.shots.evidence import View
from curation.shots.movement import follow
from curation.shots.types import Boundary
from demo.landscapes import scene
from media.coarse import CoarseFrame

WIDTH, HEIGHT = 128, 72


def _views(pictures: Sequence[np.ndarray]) -> list[View]:
    """Prepare uint8 (HEIGHT, WIDTH, 3) pictures as the detector does."""
    grey = np.full((2, HEIGHT // 2, WIDTH // 2), 128, np.uint8)
    frames = [CoarseFrame(k, k / 24, cv2.cvtColor(each, cv2.COLOR_RGB2GRAY), grey) for k, each in enumerate(pictures)]
    return evidence.views(frames)[0]


def _seen(wide: np.ndarray, x: float) -> np.ndarray:
    return cv2.getRectSubPix(wide, (WIDTH, HEIGHT), (x + WIDTH / 2, HEIGHT / 2))


def _pan(wide: np.ndarray, far: float, count: int = 10) -> list[np.ndarray]:
    """Stand, pan so many widths of the picture to the right with blur, and stand again: `count` frames of movement."""
    ways = np.concatenate([np.zeros(8), np.linspace(0, 1, count + 2), np.ones(8)])
    places = far * WIDTH * ways * ways * (3 - 2 * ways)
    steps = np.abs(np.gradient(places))
    return [cv2.blur(_seen(wide, x), (max(1, round(step)), 1)) for x, step in zip(places.tolist(), steps, strict=True)]


@pytest.mark.parametrize("right", [-27, -9, 0, 4, 20])
def test_a_movement_to_the_side_is_followed_to_the_pixel(right: int) -> None:
    wide = cv2.cvtColor(scene(5, 160, 36), cv2.COLOR_RGB2GRAY)
    step = follow(wide[:, 48:112], np.ascontiguousarray(wide[:, 48 - right : 112 - right]))
    assert step.right == right and step.match > 0.99 and step.is_clear == (right != 0)


def test_unrelated_pictures_do_not_match_and_flat_ones_do_not_move() -> None:
    one, other = (cv2.cvtColor(scene(seed, 64, 36), cv2.COLOR_RGB2GRAY) for seed in (3, 7))
    assert follow(one, other[::-1].copy()).match < pans.MIN_MATCH
    flat = np.full((36, 64), 90, np.uint8)
    assert not follow(flat, flat).is_clear and follow(flat, flat).match == pytest.approx(1)


@pytest.mark.parametrize("seed", [3, 5, 7, 11])
@pytest.mark.parametrize("kind", ["push", "slide", "wipe", "dissolve"])
def test_a_fast_pan_is_one_whatever_it_was_taken_for(kind: str, seed: int) -> None:
    views = _views(_pan(scene(seed, 3 * WIDTH, HEIGHT), 1.4))
    assert pans.is_pan(views, Boundary(9, 19, kind))


def test_a_pan_through_a_flat_wall_is_no_fade() -> None:
    wide = scene(5, 3 * WIDTH, HEIGHT)
    wide[:, WIDTH - 8 : WIDTH + 40] = 130
    assert pans.is_pan(_views(_pan(wide, 1.3)), Boundary(12, 17, "fade_white"))


@pytest.mark.parametrize("kind", JOINS)
def test_no_drawn_transition_is_a_pan(kind: str) -> None:
    one, other = scene(3, WIDTH, HEIGHT), scene(7, WIDTH, HEIGHT)
    for direction in range(4):
        mixed = [JOINS[kind][0](one, other, k / 13, direction) for k in range(1, 13)]
        views = _views([one] * 8 + mixed + [other] * 8)
        assert not pans.is_pan(views, Boundary(8, 20, "zoom" if kind == "whip" else kind)), direction


def test_a_dissolve_before_a_pan_stays() -> None:
    after = _pan(scene(7, 3 * WIDTH, HEIGHT), 1.4)
    one = scene(3, WIDTH, HEIGHT)
    mixed = [cv2.addWeighted(one, 1 - k / 16, after[0], k / 16, 0) for k in range(1, 16)]
    assert not pans.is_pan(_views([one] * 5 + mixed + after), Boundary(5, 38, "dissolve"))


@pytest.mark.parametrize("corner", [(4, 4), (40, 4), (4, 80), (38, 78)])
@pytest.mark.parametrize("drift", [0.0, 2.0])
def test_a_rectangle_that_appears_or_goes_is_an_inset(corner: tuple[int, int], drift: float) -> None:
    wide = scene(3, 2 * WIDTH, HEIGHT)
    before, after = _seen(wide, 40.0), _seen(wide, 40.0 + drift)
    top, left = corner
    inset = cv2.resize(scene(7, 256, 144), (44, 28), interpolation=cv2.INTER_AREA)
    after[top : top + 28, left : left + 44] = inset // 3
    old, new = _views([before, after])
    assert insets.is_inset(old, new) and insets.is_inset(new, old)


def test_figures_lines_of_text_and_whole_pictures_are_no_insets() -> None:
    before = scene(3, WIDTH, HEIGHT)
    figure, line = before.copy(), before.copy()
    cv2.ellipse(figure, (90, 36), (14, 30), 20, 0, 360, (20, 20, 30), -1)
    line[60:68, 10:118] = 250
    for after in (before, figure, line, scene(7, WIDTH, HEIGHT)):
        assert not insets.is_inset(*_views([before, after]))
