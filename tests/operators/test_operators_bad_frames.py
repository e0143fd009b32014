"""Bad frames: known shares of black, burnt-out, blank and grey frames."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.types import ClipInput, Frames
from media.types import SourceFacts, Span
from operators.bad_frames import BadFrames, channel_variance, spatial_variance


def good(seed=0):
    return np.random.default_rng(seed).integers(20, 230, (36, 64, 3), dtype=np.uint8)


def black():
    return np.where(good() < 125, np.uint8(0), np.uint8(5))


def burnt(share):
    picture = good()
    picture[:, : round(64 * share)] = 255
    return picture


def blank(color=(30, 90, 200)):
    return np.full((36, 64, 3), color, np.uint8)


def grey():
    return np.repeat(good()[..., :1], 3, axis=2)


def measure(pictures, **settings):
    pixels = np.stack(pictures)
    frames = Frames(pixels, np.arange(len(pixels)) / 2)
    clip = ClipInput(SourceFacts("video", 64, 36, "h264"), Span(0, len(pixels) / 2, 0, len(pixels)), frames)
    return BadFrames(**settings).load()([clip])[0]


def test_each_fault_counts_as_its_share_and_bad_is_any_of_them():
    scores = measure([good(), black(), burnt(0.2), burnt(0.2), blank(), grey(), good(1), good(2)])
    assert scores == {
        "bad_frames": 0.5,
        "dark_frames": 0.125,
        "overexposed_frames": 0.25,
        "flat_frames": 0.125,
        "grey_frames": 0.125,
    }


def test_a_frame_with_two_faults_counts_once():
    scores = measure([blank((0, 0, 0)), good()])
    assert scores["dark_frames"] == scores["flat_frames"] == scores["bad_frames"] == 0.5


@pytest.mark.parametrize(("share", "bad"), [(0.10, 0.0), (0.15, 1.0)])
def test_a_bright_spot_is_not_over_exposed(share, bad):
    assert measure([burnt(share)])["overexposed_frames"] == bad


def test_black_and_white_footage_is_not_bad():
    scores = measure([grey(), grey()])
    assert scores["grey_frames"] == 1.0 and scores["bad_frames"] == 0.0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([good, black, blank, grey]), min_size=1, max_size=8), st.randoms())
def test_the_order_of_frames_does_not_matter_and_the_sum_bounds_the_whole(makers, random):
    pictures = [make() for make in makers]
    scores = measure(pictures)
    random.shuffle(pictures)
    assert measure(pictures) == pytest.approx(scores)
    each = [scores[name] for name in ("dark_frames", "overexposed_frames", "flat_frames")]
    assert max(each) - 1e-9 <= scores["bad_frames"] <= min(1.0, sum(each)) + 1e-9


def test_variances_are_those_of_numpy():
    picture = good(5)
    wide = picture.astype(np.float64)
    assert spatial_variance(picture) == pytest.approx(wide.reshape(-1, 3).var(axis=0).mean())
    assert channel_variance(picture) == pytest.approx(wide.var(axis=2).mean())
