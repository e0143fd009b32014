"""Split screens: drawn ones are told with the length of their edges, and edges of a scene are none."""

from functools import cache

import cv2
import numpy as np
import pytest

from demo.drawing import noise
from operators.split_screen import SplitScreen

WIDTH, HEIGHT = 320, 180
FRAMES, RATE = 20, 4
SEEDS = (0, 1, 2)


@cache
def wall(seed):
    """A texture with detail at several scales: uint8 (700, 1300)."""
    rng = np.random.default_rng(seed)
    cells = (int(rng.integers(8, 16)), int(rng.integers(14, 30)))
    return (noise(rng, (700, 1300), cells, 6) * rng.integers(140, 220) + rng.integers(5, 35)).astype(np.uint8)


def film(seed, size=(WIDTH, HEIGHT), speed=(12.0, 3.0), zoom=0.0, picture=None):
    """A camera that moves over a wall by about so many pixels from one frame to the next: uint8 (T, H, W)."""
    rng = np.random.default_rng(seed + 100)
    picture = wall(seed) if picture is None else picture
    velocity = np.array(speed) * rng.choice([-1, 1], 2) * rng.uniform(0.7, 1.3)
    frames = []
    for k in range(FRAMES):
        step = np.exp(-zoom * k / RATE)
        corner = np.array([650.0, 350.0]) + velocity * (k - FRAMES / 2) - step * np.array(size) / 2
        window = np.array([[step, 0, corner[0]], [0, step, corner[1]]])
        frames.append(cv2.warpAffine(picture, window, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP))
    return np.stack(frames)


def measure(frames):
    """Return the columns of frames with a camera's noise."""
    shaken = frames + np.random.default_rng(0).normal(0, 1.5, frames.shape)
    scores = SplitScreen().measure(np.clip(shaken, 0, 255).astype(np.uint8))
    return scores["standing_edges"], scores["split"]


def side_by_side(seed, line_px=0, at=WIDTH // 2):
    frames = np.concatenate(
        [film(2 * seed, (at, HEIGHT), (9, 3)), film(2 * seed + 1, (WIDTH - at, HEIGHT), (3, 6))], axis=2
    )
    if line_px:
        frames[:, :, at - line_px // 2 : at + line_px // 2] = 240 if seed % 2 else 0
    return frames


def inset(seed, line_px, main=(9.0, 3.0), box=(180, 100, 290, 164)):
    """A film with another one in it, in a box (left, top, right, bottom) with a line around it."""
    left, top, right, bottom = box
    frames = film(2 * seed, speed=main)
    if line_px:
        frames[:, top - line_px : bottom + line_px, left - line_px : right + line_px] = 230
    frames[:, top:bottom, left:right] = film(2 * seed + 1, (right - left, bottom - top), (5, 4))
    return frames


def windows(seed):
    """A wall with white window frames."""
    picture = wall(seed).copy()
    for left in range(20, 1250, 170):
        for top in range(10, 650, 140):
            cv2.rectangle(picture, (left, top), (left + 106, top + 104), 235, 8)
    return picture


def door(seed, walker=False, light=False):
    """A shot from a tripod: a dark door with a white frame, before which somebody walks, or the light goes on."""
    rest = wall(seed)[:HEIGHT, :WIDTH].copy()
    rest[30:, 120:200] = wall(seed + 9)[:150, :80] // 2
    rest[30:, 118:122] = rest[30:, 198:202] = 230
    frames = np.repeat(rest[None], FRAMES, axis=0)
    for k in range(FRAMES):
        if walker:
            frames[k, 60:, 20 + 13 * k : 50 + 13 * k] = wall(seed + 7)[:120, :30]
        if light:
            frames[k] = cv2.convertScaleAbs(frames[k], alpha=0.5 + 0.5 * k / FRAMES)
    return frames


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("line_px", "at"), [(0, 160), (4, 160), (2, 110)])
def test_two_films_side_by_side_are_told_with_and_without_a_line_between(seed, line_px, at):
    edges, pictures = measure(side_by_side(seed, line_px, at))
    assert edges == pytest.approx(1.0, abs=0.06) and pictures == 2


@pytest.mark.parametrize("seed", SEEDS)
def test_two_films_one_above_the_other_are_told(seed):
    edges, pictures = measure(np.concatenate([film(seed, (WIDTH, 90)), film(seed + 5, (WIDTH, 90), (4, 7))], axis=1))
    assert edges == pytest.approx(1.0, abs=0.06) and pictures == 2


def test_four_films_are_told():
    speeds = ((12, 3), (4, 6), (6, 2), (2, 5))
    one, two, three, four = (film(k, (160, 90), speed) for k, speed in enumerate(speeds))
    frames = np.concatenate([np.concatenate([one, two], axis=2), np.concatenate([three, four], axis=2)], axis=1)
    edges, pictures = measure(frames)
    assert edges == pytest.approx(2.0, abs=0.1) and pictures == 4


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("line_px", "main", "box", "sides"),
    [
        (0, (9, 3), (180, 100, 290, 164), 4),
        (2, (9, 3), (180, 100, 290, 164), 4),
        (0, (8, 0), (180, 100, 290, 164), 4),  # the film around it moves along two of the edges
        (0, (9, 3), (210, 116, 320, 180), 2),  # in the corner
    ],
)
def test_a_film_within_another_is_told(seed, line_px, main, box, sides):
    edges, pictures = measure(inset(seed, line_px, main, box))
    around = ((box[2] - box[0]) / WIDTH + (box[3] - box[1]) / HEIGHT) * sides / 2
    assert edges == pytest.approx(around, abs=0.12) and pictures == 2


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("speed", "zoom"), [((6, 0), 0), ((0, 6), 0), ((4, 2), 0), ((0.7, 0.2), 0), ((0, 0), 0.1)])
def test_window_frames_that_a_camera_passes_are_no_edges(seed, speed, zoom):
    assert measure(film(seed, speed=speed, zoom=zoom, picture=windows(seed))) == (0.0, 1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("speed", [6.0, 1.0])
def test_columns_along_which_a_camera_tilts_are_no_edges(seed, speed):
    """They stand still, and both sides change; but one movement carries both sides along them."""
    picture = wall(seed).copy()
    for number, left in enumerate(range(20, 1250, 130)):
        picture[:, left : left + 60] = wall(seed + 50)[:, left : left + 60] // 2 + number % 2 * 100
    assert measure(film(seed, speed=(0.0, speed), picture=picture)) == (0.0, 1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("happens", [{}, {"walker": True}, {"light": True}])
def test_a_door_in_a_shot_from_a_tripod_is_no_edge(seed, happens):
    assert measure(door(seed, **happens)) == (0.0, 1)


@pytest.mark.parametrize("level", [0, 120])
def test_bars_have_no_edges(level):
    frames = film(1)
    frames[:, :24] = frames[:, -24:] = level
    assert measure(frames) == (0.0, 1)


def test_a_split_screen_within_bars_is_told():
    frames = side_by_side(1, 4)
    frames[:, :24] = frames[:, -24:] = 0
    edges, pictures = measure(frames)
    assert edges == pytest.approx(132 / 180, abs=0.08) and pictures == 2


def test_what_cannot_be_told_is_null():
    assert measure(side_by_side(1)[:3]) == (None, None)
    assert SplitScreen().measure(np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)) == {
        "standing_edges": None,
        "split": None,
    }


def test_settings_that_look_at_nothing_are_refused():
    with pytest.raises(ValueError, match="above 0"):
        SplitScreen(rate_fps=0)
