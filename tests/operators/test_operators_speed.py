"""Speed: drawn ramps come out as drawn, steady cameras as 1, and what stands still is not measured."""

from functools import cache

import cv2
import numpy as np
import pytest

from curation.types import Frames
from demo.drawing import noise
from operators.speed import Speed

RATE = 8


@cache
def scene():
    """A texture with detail at several scales: uint8 (600, 2000)."""
    return (noise(np.random.default_rng(1), (600, 2000), (9, 30), 7) * 215 + 20).astype(np.uint8)


def change(at, seconds=4.0, zoom=None):
    """Return the column of a camera that is `at(t)` percent of the diagonal to the right, and enlarges by `zoom(t)`."""
    pictures, times_s = [], np.arange(round(seconds * RATE)) / RATE
    for time_s in times_s:
        step = np.exp(-zoom(time_s)) if zoom else 1.0
        middle = 500 + at(time_s) / 100 * np.hypot(320, 180), 300
        window = np.array([[step, 0, middle[0] - 160 * step], [0, step, middle[1] - 90 * step]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        pictures.append(cv2.warpAffine(scene(), window, (320, 180), flags=flags, borderMode=cv2.BORDER_REFLECT_101))
    return Speed().change_of(Frames(np.stack(pictures), times_s))


def ramp(time_s, factor, at_s=2.0, until_s=99.0):
    """Return the film's time at a time of the ramped one: `factor` times as fast between two times."""
    return time_s + (factor - 1) * (min(max(time_s, at_s), until_s) - at_s)


@pytest.mark.parametrize(("speed", "within"), [(4, 0.2), (12, 0.06), (30, 0.06)])
def test_a_steady_pan_changes_nothing(speed, within):
    """A slow one moves less than two pixels from frame to frame."""
    assert change(lambda t: speed * t) == pytest.approx(1, abs=within)


@pytest.mark.parametrize("factor", [0.25, 0.5, 2, 4])
def test_a_ramp_comes_out_as_its_factor(factor):
    assert change(lambda t: 8 * ramp(t, factor)) == pytest.approx(max(factor, 1 / factor), rel=0.05)


def test_a_ramp_and_back_is_seen_as_well():
    assert change(lambda t: 6 * ramp(t, 3, 1.5, 2.7)) == pytest.approx(3, rel=0.05)


def test_a_ramp_of_a_zoom_is_seen():
    steady = change(lambda t: 0, zoom=lambda t: 0.1 * t)
    ramped = change(lambda t: 0, zoom=lambda t: 0.1 * ramp(t, 3))
    assert steady < 1.25 and ramped == pytest.approx(3, rel=0.15)


def test_a_camera_that_starts_or_stops_is_no_ramp():
    assert change(lambda t: 10 * max(0.0, t - 1.5)) == pytest.approx(1, abs=0.1)
    assert change(lambda t: 10 * min(t, 2.5)) == pytest.approx(1, abs=0.1)


def test_a_repeated_frame_is_no_change():
    assert change(lambda t: 10 * (1.875 if t == 2.0 else t)) == pytest.approx(1, abs=0.05)


def test_what_stands_still_or_cannot_be_followed_is_null():
    assert change(lambda t: 0) is None
    assert change(lambda t: 10 * min(t, 0.5)) is None
    rng = np.random.default_rng(0)
    noisy = rng.integers(0, 255, (24, 90, 160), np.uint8)
    assert Speed().change_of(Frames(noisy, np.arange(24) / RATE)) is None
    assert Speed().change_of(Frames(np.full((24, 90, 160), 90, np.uint8), np.arange(24) / RATE)) is None


def test_settings_that_measure_nothing_are_refused():
    with pytest.raises(ValueError, match="above 0"):
        Speed(rate_fps=0)
