"""Bars of any even colour and blurred copies are found where they are; plain, bright and dark pictures have none."""

import cv2
import numpy as np
import pytest

from curation.types import ClipInput, Frames
from demo.landscapes import scene
from media.types import SourceFacts, Span
from operators.letterbox import Letterbox

WIDTH, HEIGHT = 640, 360


def measure(pixels):
    pixels = np.stack(pixels)
    frames = Frames(pixels, np.arange(len(pixels)) / 2)
    clip = ClipInput(SourceFacts("video", WIDTH, HEIGHT, "h264"), Span(0, len(pixels) / 2, 0, len(pixels)), frames)
    scores = Letterbox().load()([clip])[0]
    return scores["letterbox"], scores["content_box"]


def shots(width, height, count=4, seed=3):
    """Gray frames of a scene under a moving camera, with grain as of a camera and an encoder."""
    wide = cv2.cvtColor(scene(seed, 2 * width, 2 * height), cv2.COLOR_RGB2GRAY).astype(np.float32)
    rng = np.random.default_rng(seed)
    texture = cv2.resize(rng.normal(0, 14, (height, width)).astype(np.float32), (2 * width, 2 * height))
    wide += texture
    views = [wide[20 + 3 * k : 20 + 3 * k + height, 15 * k : 15 * k + width] for k in range(count)]
    return [np.clip(v + rng.normal(0, 1.5, v.shape), 0, 255).astype(np.uint8) for v in views]


def framed(level, left, top, noise=1.5):
    """A shot between bars of one level."""
    rng = np.random.default_rng(0)
    frames = []
    for shot in shots(WIDTH - 2 * left, HEIGHT - 2 * top):
        frame = np.clip(rng.normal(level, noise, (HEIGHT, WIDTH)), 0, 255).astype(np.uint8)
        frame[top : HEIGHT - top, left : WIDTH - left] = shot
        frames.append(frame)
    return frames


def filled(shot, width, height, sigma, dark=1.0, distorted=False):
    """A shot before a blurred copy of itself that fills the frame."""
    tall, wide = shot.shape
    factor = max(width / wide, height / tall)
    size = (width, height) if distorted else (max(width, round(wide * factor)), max(height, round(tall * factor)))
    copy = cv2.GaussianBlur(cv2.resize(shot, size), (0, 0), sigma).astype(np.float32) * dark
    top, left = (copy.shape[0] - height) // 2, (copy.shape[1] - width) // 2
    frame = copy[top : top + height, left : left + width].astype(np.uint8)
    top, left = (height - tall) // 2, (width - wide) // 2
    frame[top : top + tall, left : left + wide] = shot
    return frame


def box_of(left, top):
    return [left / WIDTH, top / HEIGHT, 1 - left / WIDTH, 1 - top / HEIGHT]


@pytest.mark.parametrize("level", [40, 90, 128, 180, 235, 255])
@pytest.mark.parametrize(("left", "top"), [(0, 45), (80, 0), (219, 0), (0, 20)])
def test_even_bars_of_any_level_are_found(level, left, top):
    share, box = measure(framed(level, left, top))
    assert box == pytest.approx(box_of(left, top), abs=3 / HEIGHT)
    assert share == pytest.approx(1 - (1 - 2 * left / WIDTH) * (1 - 2 * top / HEIGHT), abs=0.02)


@pytest.mark.parametrize(
    ("sigma", "dark", "distorted"), [(6, 1.0, False), (12, 0.6, False), (20, 0.8, True), (9, 1.0, True)]
)
def test_a_blurred_copy_left_and_right_is_found(sigma, dark, distorted):
    left = 219
    frames = [filled(shot, WIDTH, HEIGHT, sigma, dark, distorted) for shot in shots(WIDTH - 2 * left, HEIGHT)]
    share, box = measure(frames)
    assert box == pytest.approx(box_of(left, 0), abs=3 / WIDTH)
    assert share == pytest.approx(2 * left / WIDTH, abs=0.02)


@pytest.mark.parametrize(("sigma", "dark"), [(6, 1.0), (15, 0.7)])
def test_a_blurred_copy_above_and_below_is_found(sigma, dark):
    frames = [filled(shot, 360, 640, sigma, dark) for shot in shots(360, 204)]
    share, box = measure(frames)
    assert box == pytest.approx([0, 218 / 640, 1, 422 / 640], abs=3 / 640)
    assert share == pytest.approx(436 / 640, abs=0.02)


def test_a_caption_in_a_white_bar_does_not_end_it():
    frames = framed(250, 0, 60)
    for frame in frames:
        cv2.putText(frame, "when you see it", (190, 40), cv2.FONT_HERSHEY_SIMPLEX, 1, 10, 2)
    assert measure(frames)[1] == pytest.approx(box_of(0, 60), abs=3 / HEIGHT)


def test_bars_that_come_and_go_are_none():
    frames = framed(200, 0, 45)
    assert measure([*frames, *shots(WIDTH, HEIGHT)])[0] == 0.0


def ball(frame, x, y, radius):
    return cv2.circle(frame.copy(), (x, y), radius, 60, -1)


PLAIN = np.full((HEIGHT, WIDTH), 245, np.uint8)
COLUMNS = np.linspace(-1, 1, WIDTH)[None] * np.ones((HEIGHT, 1))
ROWS = np.linspace(0, 1, HEIGHT)[:, None] * np.ones((1, WIDTH))


def snow(k):
    """A bright sky, a bright ground, and hills between them."""
    frame = PLAIN.copy()
    hills = 150 + 25 * np.sin(np.arange(WIDTH) / 50 + k / 9) + 8 * np.sin(np.arange(WIDTH) / 11)
    for x, y in enumerate(hills.astype(int)):
        frame[y : y + 70, x] = 90
    return frame


CLEAN = {
    "a thing before a white wall": [ball(PLAIN, 200 + 30 * k, 180, 60) for k in range(4)],
    "a large thing before a grey wall": [ball(PLAIN // 2, 320, 180 + 5 * k, 170) for k in range(4)],
    "a white wall": [PLAIN] * 3,
    "a gradient": [(60 + 150 * ROWS).astype(np.uint8)] * 3,
    "a sky over ground": [
        np.where(ROWS > 0.6, shot, 230).astype(np.uint8) for shot in shots(WIDTH, HEIGHT)
    ],
    "snow and a bright sky": [snow(k) for k in range(4)],
    "footage": shots(WIDTH, HEIGHT),
    "a vignette": [
        (shot * np.clip(1.1 - 0.9 * np.hypot(*np.mgrid[-1:1:360j, -1:1:640j]) ** 2, 0, 1)).astype(np.uint8)
        for shot in shots(WIDTH, HEIGHT)
    ],
    "a thing in focus before what is not": [
        np.where(np.abs(COLUMNS) < 0.4 + 0.05 * np.sin(9 * ROWS), shot, cv2.GaussianBlur(shot, (0, 0), 9))
        for shot in shots(WIDTH, HEIGHT)
    ],
    "a dim scene": [(shot * 0.15).astype(np.uint8) for shot in shots(WIDTH, HEIGHT)],
}  # fmt: skip


@pytest.mark.parametrize("name", CLEAN)
def test_clean_pictures_have_no_bars(name):
    assert measure(CLEAN[name])[0] == 0.0
