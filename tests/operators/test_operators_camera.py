"""Camera: drawn pans, tilts, zooms, rolls and shakes come out as drawn, and what is no camera is not measured."""

from functools import cache

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.types import Frames
from demo.drawing import noise, write_video
from operators.camera import Camera
from operators.camera_path import steady

RATE = 12
COLUMNS = Camera.writes


@cache
def scene(seed=1):
    """A texture with detail at several scales: uint8 (1000, 1800)."""
    return (noise(np.random.default_rng(seed), (1000, 1800), (7, 12), 8) * 215 + 20).astype(np.uint8)


def seen(x=0.0, y=0.0, zoom=0.0, roll=0.0, size=(320, 180)):
    """The scene through a camera that was moved right and up (percent of the diagonal), zoomed in (ln) and rolled."""
    (width, height), reduced = size, 800 / max(size)
    diagonal = np.hypot(width, height) * reduced
    angle, step = np.radians(roll), reduced / np.exp(zoom)
    turn = step * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array([900 + x / 100 * diagonal, 500 - y / 100 * diagonal])
    shift = middle - turn @ np.array([(width - 1) / 2, (height - 1) / 2])
    flags = cv2.INTER_AREA | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(
        scene(), np.hstack([turn, shift[:, None]]), size, flags=flags, borderMode=cv2.BORDER_REFLECT_101
    )


def shot(at, seconds=3.0, rate=RATE, size=(320, 180)):
    """Frames of a camera whose place is a function of time."""
    times_s = np.arange(round(seconds * rate)) / rate
    return Frames(np.stack([seen(**at(t), size=size) for t in times_s]), times_s)


def score(frames, **changes):
    return Camera(**changes).score_frames(frames)


@pytest.mark.parametrize(
    ("at", "column", "truth", "move"),
    [
        (lambda t: {"x": 2 * t}, "pan", 2, "pan_right"),
        (lambda t: {"x": -25 * t}, "pan", -25, "pan_left"),
        (lambda t: {"y": 10 * t}, "tilt", 10, "tilt_up"),
        (lambda t: {"y": -4 * t}, "tilt", -4, "tilt_down"),
        (lambda t: {"zoom": 0.05 * t}, "zoom", 5, "zoom_in"),
        (lambda t: {"zoom": -0.2 * t}, "zoom", -20, "zoom_out"),
        (lambda t: {"roll": 3 * t}, "roll", 3, "roll"),
        (lambda t: {"roll": -20 * t}, "roll", -20, "roll"),
    ],
)
def test_a_steady_move_is_measured_within_five_percent(at, column, truth, move):
    scores = score(shot(at))
    assert scores[column] == pytest.approx(truth, rel=0.05)
    assert scores["camera_move"] == move and scores["camera_confidence"] > 0.8
    assert scores["shake"] < 0.05
    assert all(abs(scores[other]) < 0.1 for other in {"pan", "tilt", "zoom", "roll"} - {column})


@pytest.mark.parametrize("hertz", [2, 3, 4])
def test_shake_is_the_root_mean_square_of_what_is_fast(hertz):
    scores = score(shot(lambda t: {"x": 0.5 * np.sin(2 * np.pi * hertz * t), "y": 0.2}, 4))
    assert scores["shake"] == pytest.approx(0.5 / np.sqrt(2), rel=0.08 if hertz == 2 else 0.05)
    assert scores["camera_move"] == "handheld"


def test_shake_on_a_pan_changes_neither():
    scores = score(shot(lambda t: {"x": 12 * t, "y": 0.3 * np.sin(2 * np.pi * 3 * t)}, 4))
    assert scores["pan"] == pytest.approx(12, rel=0.05)
    assert scores["shake"] == pytest.approx(0.3 / np.sqrt(2), rel=0.05)
    assert scores["camera_move"] == "pan_right"


def test_a_pan_that_speeds_up_does_not_shake():
    scores = score(shot(lambda t: {"x": 4 * t * t}))
    assert scores["shake"] < 0.05 and scores["camera_move"] == "pan_right"


def test_there_and_back_is_mixed_and_slanting_is_named_by_the_larger_part():
    there_and_back = score(shot(lambda t: {"x": 4 * np.sin(2 * np.pi * t / 4)}, 4))
    assert there_and_back["camera_move"] == "mixed"
    slanting = score(shot(lambda t: {"x": 6 * t, "y": 3 * t}))
    assert slanting["camera_move"] == "pan_right"
    assert slanting["camera_confidence"] < score(shot(lambda t: {"x": 6 * t}))["camera_confidence"] - 0.05


def test_uneven_times_and_other_sizes_measure_the_same():
    times_s = np.cumsum(np.random.default_rng(3).uniform(0.04, 0.13, 36))
    uneven = Frames(np.stack([seen(x=8 * t) for t in times_s]), times_s)
    assert score(uneven)["pan"] == pytest.approx(8, rel=0.05)
    assert score(shot(lambda t: {"x": 8 * t}, size=(180, 320)))["pan"] == pytest.approx(8, rel=0.05)


def test_a_thing_that_moves_by_itself_is_not_the_camera():
    pixels = np.stack([seen()] * 36)
    for i, picture in enumerate(pixels):
        picture[60:120, 20 + 5 * i : 100 + 5 * i] = scene(2)[:60, :80]
    scores = score(Frames(pixels, np.arange(36) / RATE))
    assert scores["camera_move"] == "static" and abs(scores["pan"]) < 0.1 and scores["shake"] < 0.05


def test_a_foreground_before_a_plain_ground_is_not_measured():
    pixels = np.full((36, 180, 320), 90, np.uint8)
    for i, picture in enumerate(pixels):
        picture[50:130, 60 + 3 * i : 200 + 3 * i] = scene(2)[:80, :140]
    assert score(Frames(pixels, np.arange(36) / RATE)) == dict.fromkeys(COLUMNS)


def test_a_foreground_that_hides_most_of_a_standing_ground_is_not_measured():
    pixels = np.stack([seen()] * 24)
    for i, picture in enumerate(pixels):
        picture[24:156, 10 + 2 * i : 250 + 2 * i] = scene(2)[:132, :240]
    scores = score(Frames(pixels, np.arange(24) / RATE))
    assert scores["camera_move"] in (None, "static")


@pytest.mark.parametrize("kind", ["noise", "plain", "cut up"])
def test_what_no_camera_explains_is_null(kind):
    rng = np.random.default_rng(0)
    if kind == "plain":
        pixels = np.full((24, 180, 320), 120, np.uint8)
    elif kind == "noise":
        pixels = rng.integers(0, 255, (24, 180, 320), dtype=np.uint8)
    else:  # every frame shows another place
        pixels = np.stack([scene()[y : y + 180, x : x + 320] for y, x in rng.integers(0, 800, (24, 2))])
    assert score(Frames(pixels, np.arange(24) / RATE)) == dict.fromkeys(COLUMNS)


def test_coding_leaves_a_still_shot_static_and_a_pan_as_it_was(tmp_path):
    for speed, move in ((0, "static"), (6, "pan_right")):
        frames = shot(lambda t, speed=speed: {"x": speed * t}, 2)
        write_video(
            tmp_path / "a.mp4",
            (np.repeat(gray[..., None], 3, axis=2) for gray in frames.pixels),
            RATE,
            options={"preset": "veryfast", "crf": "28"},
        )
        with av.open(str(tmp_path / "a.mp4")) as container:
            pixels = np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)])
        scores = score(Frames(pixels, frames.times_s))
        assert scores["camera_move"] == move and scores["pan"] == pytest.approx(speed, rel=0.05, abs=0.05)


def test_too_short_to_tell():
    assert score(shot(lambda t: {"x": 8 * t}, 0.3)) == dict.fromkeys(COLUMNS)
    short = score(shot(lambda t: {"x": 8 * t}, 0.6))
    assert short["shake"] is None and short["camera_move"] == "pan_right"


@settings(max_examples=30, deadline=None)
@given(st.floats(-50, 50), st.floats(-50, 50), st.integers(2, 60))
def test_a_straight_line_is_all_slow(start, slope, count):
    times_s = np.arange(count) / RATE
    line = (start + slope * times_s)[:, None]
    np.testing.assert_allclose(steady(times_s, line, 1.0), line, atol=1e-6)


def test_settings_are_checked():
    with pytest.raises(ValueError, match="above 0"):
        Camera(rate_fps=0)
