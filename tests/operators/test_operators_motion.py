"""Motion: known pans, zooms and stills, and published values."""

import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from curation.types import ClipInput, Frames
from media.types import SourceFacts, Span
from operators.motion import Motion

SHARED = Path(os.environ.get("SELECTS_SHARED", Path(__file__).parents[2] / "../shared"))
GAP_S = 4 / 24


def scene(seed=1):
    """A texture with detail at several scales, like a photo: uint8 (900, 1600)."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.random((900 // s, 1600 // s), dtype=np.float32), (1600, 900), interpolation=cv2.INTER_CUBIC)
        for s in (4, 10, 30, 90)
    ]
    return cv2.normalize(sum(layers), None, 20, 235, cv2.NORM_MINMAX).astype(np.uint8)


def window(picture, shift=(0.0, 0.0), zoom=1.0, size=(320, 180)):
    """The picture's middle half, moved by `shift` (share of the window's diagonal) and grown by `zoom`."""
    width, height = size
    step = 800 / width / zoom
    diagonal = float(np.hypot(800, 450))
    x = 800 - step * width / 2 - shift[0] * diagonal
    y = 450 - step * height / 2 - shift[1] * diagonal
    matrix = np.array([[step, 0, x], [0, step, y]])
    return cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_AREA | cv2.WARP_INVERSE_MAP)


def score(pixels, times_s, **settings):
    frames = Frames(np.stack(pixels), np.array(times_s, dtype=np.float64))
    (scores,) = Motion(**settings).load()([ClipInput(SourceFacts("video", 320, 180, "h264"), Span(0, 1, 0, 2), frames)])
    return scores


def pan(speed, angle_deg=0.0, size=(320, 180), gap_s=GAP_S):
    """Score a pan of `speed` percent of the diagonal per second towards `angle_deg` (down is positive)."""
    way = speed / 100 * gap_s * np.array([np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))])
    picture = scene()
    return score([window(picture, size=size), window(picture, way, size=size)], [0, gap_s])


@pytest.mark.parametrize("speed", [2, 10, 30, 60])
@pytest.mark.parametrize("angle_deg", [0, 35, 90])
def test_speed_of_a_pan_is_what_was_drawn(speed, angle_deg):
    scores = pan(speed, angle_deg)
    assert scores["motion"] == pytest.approx(speed, rel=0.15)
    assert scores["camera_pan_x"] == pytest.approx(speed * np.cos(np.radians(angle_deg)), abs=0.12 * speed)
    assert scores["camera_pan_y"] == pytest.approx(speed * np.sin(np.radians(angle_deg)), abs=0.12 * speed)


def test_one_pan_scores_the_same_at_every_size_and_gap():
    values = [
        pan(15, 20, size, gap)["motion"] for size in ((320, 180), (180, 320)[::-1], (480, 270)) for gap in (0.15, GAP_S)
    ]
    assert max(values) / min(values) < 1.1


def test_a_still_scores_zero_and_noise_next_to_nothing():
    picture = window(scene())
    assert score([picture, picture], [0, GAP_S])["motion"] < 0.05
    rng = np.random.default_rng(0)
    noisy = [np.clip(picture + rng.normal(0, 2, picture.shape), 0, 255).astype(np.uint8) for _ in range(2)]
    assert score(noisy, [0, GAP_S])["motion"] < 0.5


@pytest.mark.parametrize("growth_per_s", [-0.3, 0.3])
def test_zoom_has_the_sign_and_size_of_the_growth(growth_per_s):
    picture = scene()
    scores = score([window(picture), window(picture, zoom=1 + growth_per_s * GAP_S)], [0, GAP_S])
    assert scores["camera_zoom"] == pytest.approx(growth_per_s, rel=0.15)
    assert abs(scores["camera_pan_x"]) < 1


def test_a_thing_that_moves_is_not_the_camera():
    picture = window(scene())
    later = picture.copy()
    later[60:120, 110:190] = picture[60:120, 100:180]
    scores = score([picture, later], [0, GAP_S])
    assert scores["motion"] > 0.3
    assert abs(scores["camera_pan_x"]) < 0.1 and abs(scores["camera_zoom"]) < 0.02


def test_one_frame_is_not_measured():
    assert set(score([window(scene())], [0]).values()) == {None}


def test_settings_are_checked():
    with pytest.raises(ValueError, match="above 0"):
        Motion(rate_fps=0)


# px per step of half a second, published in the comments of Data-Juicer's tests; 24 fps, whole file one clip
@pytest.mark.parametrize(("name", "published_px", "size"), [("data-juicer__video1.mp4", 1.869317, (640, 360))])
def test_farneback_repeats_the_published_scores(name, published_px, size):
    path = SHARED / "videos" / name
    if not path.exists():
        pytest.skip(f"{path} is absent (set SELECTS_SHARED)")
    av = pytest.importorskip("av")
    pixels, times = [], []
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index % 12 == 0:
                pixels.append(frame.to_ndarray(format="gray"))
                times.append(index / 24)
    published = published_px / np.hypot(*size) / 0.5 * 100
    got = score(pixels, times, engine="farneback", gap_s=None, short_side_px=None)["motion"]
    assert got == pytest.approx(published, rel=0.05)


def test_a_ribbon_costs_little_more_than_its_pixels():
    """Width times height is within every limit; what grows with the square of the longer side is not."""
    ribbon = np.tile(window(scene())[:48], (1, 100))
    assert ribbon.shape == (48, 32_000)
    begin_s = time.process_time()
    scores = score([ribbon, np.roll(ribbon, 4, axis=1)], [0, GAP_S])
    assert time.process_time() - begin_s < 3
    assert scores["camera_pan_x"] > 0
