"""Frame consistency: a clip that hides a cut scores lower than its parts; a still one scores 1."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")
pytest.importorskip("open_clip")

from tiny_clip import build_tiny_clip  # noqa: E402

from curation.types import ClipInput, Frames  # noqa: E402
from media.types import SourceFacts, Span  # noqa: E402
from operators.clip_frames import Clip  # noqa: E402
from operators.frame_consistency import FrameConsistency, lowest_likeness  # noqa: E402


@pytest.fixture(scope="module")
def consistency(tmp_path_factory):
    """The score of RGB frames, by a CLIP with random weights."""
    score = FrameConsistency(clip=Clip(str(build_tiny_clip(tmp_path_factory.mktemp("clip"))), "cpu")).load()

    def of(pixels):
        frames = Frames(np.asarray(pixels), np.arange(len(pixels)) / 2)
        clip = ClipInput(SourceFacts("video", 1, 1, "h264"), Span(0, 1, 0, len(pixels)), frames)
        return score([clip])[0]["frame_consistency"]

    return of


def scene(colour, count=6):
    """A lit surface that the camera passes over slowly."""
    y, x = np.mgrid[0:64, 0:96] / 64
    light = [20 * np.sin(4 * x + 2 * y + 0.1 * i)[..., None] for i in range(count)]
    return [np.clip(np.array(colour) + shine, 0, 255).astype(np.uint8) for shine in light]


FIRST, SECOND = scene((200, 60, 40)), scene((30, 90, 170))


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_a_hidden_cut_scores_below_both_its_shots_wherever_it_lies(consistency, cut):
    hidden = consistency(FIRST[:cut] + SECOND[cut:])
    assert hidden < min(consistency(FIRST), consistency(SECOND)) - 0.05


def test_a_still_picture_is_wholly_consistent(consistency):
    assert consistency([FIRST[0]] * 5) == pytest.approx(1.0, abs=1e-5)


def test_one_frame_is_not_measured(consistency):
    assert consistency([FIRST[0]]) is None


@given(st.lists(st.integers(0, 359), min_size=2, max_size=8))
def test_it_is_the_lowest_cosine_of_neighbours(degrees):
    angles = np.radians(degrees)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    wanted = min(np.cos(a - b) for a, b in zip(angles, angles[1:], strict=False))
    assert lowest_likeness(vectors) == pytest.approx(wanted, abs=1e-5)
    assert lowest_likeness(vectors[::-1]) == pytest.approx(wanted, abs=1e-5)


def test_a_lost_number_is_missing():
    vectors = np.ones((3, 2), np.float32)
    vectors[1] = np.nan
    assert lowest_likeness(vectors) is None


def test_settings_that_compare_nothing_are_refused():
    for settings in ({"frames": 1}, {"rate_fps": 0.0}):
        with pytest.raises(ValueError, match="must be"):
            FrameConsistency(**settings)
