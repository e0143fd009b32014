"""Detail: where the spectrum of enlarged, blurred and native pictures ends, also after encoding; bits per pixel."""

from functools import cache

import av
import cv2
import numpy as np
import pytest

from curation.types import ClipInput, Frames
from demo.drawing import noise, write_video
from media.types import SourceFacts, Span
from operators import OPERATORS
from operators.bits_per_pixel import bits_per_pixel
from operators.detail import BINS, detail_cutoff, power_spectrum

DROP_DB = 8.0
WIDTH, HEIGHT = 960, 540
WEIGHTS = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC, "lanczos": cv2.INTER_LANCZOS4}


@cache
def texture(seed=0):
    """Smooth relief, fine grain and hard edges as of a photo, averaged down from twice the size: float32 (H, W)."""
    rng = np.random.default_rng(seed)
    size = (HEIGHT * 2, WIDTH * 2)
    picture = noise(rng, size, (6, 10), 9) * 190 + (noise(rng, size, (20, 30), 4) > 0.5) * 60
    return cv2.resize(picture.astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)


def enlarged(picture, factor, weights):
    small = cv2.resize(picture, (round(WIDTH / factor), round(HEIGHT / factor)), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (WIDTH, HEIGHT), interpolation=WEIGHTS[weights])


def to_pixels(picture):
    return np.clip(picture, 0, 255).astype(np.uint8)


def encoded(gray, folder, crf="23"):
    """The third frame of a slow pan over a picture, from x264."""
    frames = [np.repeat(np.roll(gray, 2 * i, 1)[..., None], 3, axis=2) for i in range(4)]
    write_video(folder / "a.mp4", frames, options={"preset": "veryfast", "crf": crf})
    with av.open(str(folder / "a.mp4")) as container:
        return [frame.to_ndarray(format="gray") for frame in container.decode(video=0)][2]


@pytest.mark.parametrize("seed", [0, 1])
def test_native_detail_reaches_nyquist_also_encoded(seed, tmp_path):
    picture = to_pixels(texture(seed))
    assert detail_cutoff(picture, DROP_DB) == 1.0
    assert detail_cutoff(encoded(picture, tmp_path), DROP_DB) > 0.9


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(("factor", "low", "high"), [(1.5, 0.42, 0.72), (2, 0.35, 0.58), (3, 0.25, 0.42)])
def test_an_enlargement_ends_at_the_size_it_was_made_from(factor, low, high, weights, tmp_path):
    picture = to_pixels(enlarged(texture(), factor, weights))
    assert low < detail_cutoff(picture, DROP_DB) < high
    assert low < detail_cutoff(encoded(picture, tmp_path), DROP_DB) < high


@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_more_it_was_enlarged_the_lower(weights):
    values = [detail_cutoff(to_pixels(enlarged(texture(2), f, weights)), DROP_DB) for f in (1.25, 1.5, 2, 3)]
    assert values == sorted(values, reverse=True) and len(set(values)) == 4


def test_bars_and_subtitles_do_not_make_an_enlarged_picture_sharp():
    picture = to_pixels(enlarged(texture(), 2, "bicubic"))
    plain = detail_cutoff(picture, DROP_DB)
    picture[:60], picture[-60:] = 0, 0
    cv2.putText(picture, "a line of sharp white letters", (150, 440), cv2.FONT_HERSHEY_SIMPLEX, 1.2, 255, 2)
    assert detail_cutoff(picture, DROP_DB) == pytest.approx(plain, abs=0.1)


def test_a_pan_that_blurs_along_its_way_leaves_the_detail_across():
    blurred = cv2.blur(texture(), (7, 1))
    assert detail_cutoff(to_pixels(blurred), DROP_DB) > 0.9
    assert detail_cutoff(to_pixels(cv2.GaussianBlur(texture(), (0, 0), 2)), DROP_DB) < 0.5


@pytest.mark.parametrize("picture", [np.full((300, 400), 90, np.uint8), np.zeros((64, 64), np.uint8)])
def test_what_shows_nothing_is_not_measured(picture):
    assert detail_cutoff(picture, DROP_DB) is None


def test_the_operator_looks_at_full_size():
    operator = OPERATORS["detail"]()
    assert operator.sampling.short_side_px is None and operator.sampling.color == "gray"
    pixels = np.stack([to_pixels(texture()), to_pixels(enlarged(texture(), 3, "bicubic")), to_pixels(texture(1))])
    clip = ClipInput(
        SourceFacts("video", WIDTH, HEIGHT, "h264"), Span(0, 3, 0, 72), Frames(pixels, np.array([0.0, 1.0, 2.0]))
    )
    assert operator.load()([clip]) == [{"detail_cutoff": 1.0}]


def test_bits_per_pixel_is_rate_over_pixels_and_null_where_unknown():
    assert bits_per_pixel(SourceFacts("video", 1920, 1080, "h264", fps=24.0, bit_rate_bps=8_000_000)) == pytest.approx(
        0.1608, abs=1e-4
    )
    assert bits_per_pixel(SourceFacts("video", 1920, 1080, "h264", fps=24.0)) is None
    assert bits_per_pixel(SourceFacts("video", 1920, 1080, "h264", bit_rate_bps=8_000_000)) is None


def test_the_spectrum_is_that_of_numpy():
    lines = np.random.default_rng(0).normal(0, 30, (5, 256)).astype(np.float32)
    windowed = (lines - lines.mean(axis=1, keepdims=True)) * np.hanning(256)
    power = (np.abs(np.fft.rfft(windowed, axis=1)[:, 1:128]) ** 2).mean(axis=0)
    wanted = [power[np.arange(1, 128) * 2 * BINS // 256 == k].mean() for k in range(BINS)]
    assert power_spectrum(lines) == pytest.approx(np.array(wanted), rel=1e-3)
