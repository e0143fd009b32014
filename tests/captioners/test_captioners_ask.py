"""What a model is told of a video's times is what the frames' times are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioners.ask import GRID_FPS, frame_times_s, video_metadata
from curation.types import Frames


def uniform(count: int, start_s: float, duration_s: float) -> Frames:
    times = start_s + (np.arange(count) + 0.5) / count * duration_s
    return Frames(np.zeros((count, 4, 4, 3), np.uint8), times)


@given(st.integers(2, 32), st.floats(0, 7200), st.floats(1, 20))
def test_times_are_counted_from_the_start_of_the_clip(count: int, start_s: float, duration_s: float) -> None:
    told = frame_times_s(uniform(count, start_s, duration_s))
    assert told == pytest.approx((np.arange(count) + 0.5) / count * duration_s, abs=2e-3)


@given(st.integers(2, 32), st.floats(0, 7200), st.floats(2, 20))
def test_index_by_rate_is_the_time_and_count_by_duration_the_sampled_rate(
    count: int, start_s: float, duration_s: float
) -> None:
    frames = uniform(count, start_s, duration_s)
    told = video_metadata(frames)
    times = np.array(told["frames_indices"]) / told["fps"]
    assert times == pytest.approx(frame_times_s(frames), abs=0.6 / GRID_FPS)
    assert told["duration"] == pytest.approx(duration_s, abs=0.6 / GRID_FPS)
    assert told["total_num_frames"] == round(told["duration"] * told["fps"])
    sampled_fps = len(told["frames_indices"]) / told["total_num_frames"] * told["fps"]  # as transformers computes it
    assert sampled_fps == pytest.approx(count / duration_s, rel=0.02)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_frames_however_close_keep_numbers_of_their_own_within_the_video(steps: list[float]) -> None:
    times = np.cumsum(steps)
    told = video_metadata(Frames(np.zeros((len(steps), 2, 2, 3), np.uint8), times))
    indices = told["frames_indices"]
    assert all(a < b for a, b in zip(indices, indices[1:], strict=False))
    assert indices[0] >= 0 and indices[-1] < told["total_num_frames"]


def test_a_single_frame_is_a_video_of_a_second() -> None:
    assert video_metadata(uniform(1, 5.0, 3.0))["duration"] == pytest.approx(1.0, abs=0.05)
