"""Flicker: drawn lamps and random exposure come out as drawn; motion, fades, flashes and cuts do not count."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.types import Frames
from demo.drawing import noise
from operators.flicker import Flicker, brightness_curve

FPS = 24


@cache
def scene(seed=1):
    return (noise(np.random.default_rng(seed), (72, 900), (3, 30), 6) * 150 + 40).astype(np.float32)


def lit(light, seconds=4.0, speed_px=0, fps=FPS, seed=1):
    """Frames of a scene whose light is a function of frame number and time; the view moves so many pixels a frame."""
    times_s = np.arange(round(seconds * fps)) / fps
    views = [scene(seed)[:, speed_px * i % 700 :][:, :128] * light(i, t) for i, t in enumerate(times_s)]
    return Frames(np.clip(np.stack(views) + 0.5, 0, 255).astype(np.uint8), times_s)


def score(frames, **changes):
    return Flicker(**changes).score_frames(frames)


@pytest.mark.parametrize("hertz", [4, 6, 10])
@pytest.mark.parametrize("speed_px", [0, 3])
def test_a_lamp_is_measured_by_strength_and_frequency(hertz, speed_px):
    scores = score(lit(lambda i, t: 1 + 0.06 * np.sin(2 * np.pi * hertz * t), speed_px=speed_px))
    assert scores["flicker"] == pytest.approx(6 / np.sqrt(2), rel=0.1)
    assert scores["flicker_hz"] == pytest.approx(hertz, rel=0.05)


def test_random_flicker_has_no_frequency():
    light = 1 + np.random.default_rng(2).normal(0, 0.03, 200)
    scores = score(lit(lambda i, t: light[i]))
    assert scores["flicker"] == pytest.approx(3, rel=0.3)
    assert scores["flicker_hz"] is None


@pytest.mark.parametrize(
    "light",
    [
        lambda i, t: 1.0,
        lambda i, t: 0.2 + 0.2 * t,  # a fade
        lambda i, t: 1 + 0.2 * np.sin(2 * np.pi * 0.3 * t),  # clouds
        lambda i, t: 1.4 if 40 <= i < 42 else 1.0,  # a flash
        lambda i, t: 1.3 if i >= 50 else 1.0,  # a cut
    ],
)
@pytest.mark.parametrize("speed_px", [0, 4])
def test_what_is_slow_or_happens_once_is_no_flicker(light, speed_px):
    assert score(lit(light, speed_px=speed_px))["flicker"] < 0.7


def test_a_thing_that_blinks_is_no_flicker():
    frames = lit(lambda i, t: 1.0)
    frames.pixels[::2, 10:50, 20:60] = 255
    assert score(frames)["flicker"] < 0.3


def test_rate_and_light_of_the_scene_do_not_matter():
    values = [
        score(lit(lambda i, t, k=k: k * (1 + 0.05 * np.sin(2 * np.pi * 5 * t)), fps=fps))["flicker"]
        for k in (0.5, 1.0)
        for fps in (24, 30, 60)
    ]
    assert max(values) / min(values) < 1.15


def test_too_short_to_tell():
    assert score(lit(lambda i, t: 1.0, 0.6)) == {"flicker": None, "flicker_hz": None}


@settings(max_examples=20, deadline=None)
@given(st.floats(0.5, 1.3))
def test_the_curve_ends_at_the_light_that_was_reached(factor):
    frames = lit(lambda i, t: 1 + (factor - 1) * min(t, 1), 1.2)
    assert brightness_curve(frames.pixels, 8)[-1] == pytest.approx(np.log(factor), abs=0.05)
