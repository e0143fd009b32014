"""Frames taken on the way: the grid, partners, counts, what is forgotten, and the way through JPEG."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from curation.analysis.samples import Grid, SampleStore, decode_samples, encode_samples
from curation.types import Frames, Sampling
from media.frame import RgbFrame
from media.types import Span


def frame(index: int, time_s: float, size: tuple[int, int] = (8, 12)) -> RgbFrame:
    """A frame whose pixels tell its index: red = index // 256, green = index % 256."""
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = divmod(index, 256)
    return RgbFrame(pixels, index, time_s, 0.04)


def filled(samplings, times, start: int = 0, begin_s: float | None = None) -> SampleStore:
    """A store that was offered the frames from `start` on, started at `begin_s` where no frame before is known."""
    previous_s = times[start - 1] if start and begin_s is None else begin_s
    store = SampleStore(samplings, previous_s)
    for index in range(start, len(times)):
        one = frame(index, times[index])
        store.offer(one, one.coarse())
    return store


def span_of(start_s: float, end_s: float) -> Span:
    return Span(start_s, end_s, 0, 1)


def steady(count: int, fps: float) -> list[float]:
    return [round(i / fps, 6) for i in range(count)]


def indices(frames: Frames | None) -> list[int]:
    return [] if frames is None else [int(p[0, 0, 0]) * 256 + int(p[0, 0, 1]) for p in frames.pixels]


def uneven_times(longest_step_s: float) -> st.SearchStrategy[list[float]]:
    return st.lists(st.floats(0.005, longest_step_s), min_size=1, max_size=60).map(
        lambda steps: [round(float(t), 6) for t in np.concatenate([[0.0], np.cumsum(steps)])]
    )


uneven = uneven_times(0.9)


# -- grid


@pytest.mark.parametrize("fps", [23.976, 24, 25, 29.97, 30, 50, 59.94, 7])
@pytest.mark.parametrize("rate", [0.5, 1.0, 2.0, 3.0, 8.0])
def test_the_grid_takes_the_first_frame_at_or_after_each_multiple(fps, rate):
    times = steady(round(fps * 6), fps)
    grid = Grid(rate, None)
    taken = [t for t in times if grid.takes(t)]
    wanted = {min(t for t in times if t >= k / rate - 1e-5) for k in range(int(times[-1] * rate) + 1)}
    assert taken == sorted(wanted)


@settings(deadline=None)
@given(uneven, st.sampled_from([0.5, 1.0, 2.0, 4.0, 30.0]))
def test_the_grid_takes_each_frame_that_begins_a_cell_also_of_uneven_times(times, rate):
    late_s = [round(t * rate) / rate - t for t in times]
    assume(not any(1e-6 < s < 3e-6 for s in late_s))  # times are rounded to the microsecond
    grid = Grid(rate, None)
    multiples_s = [k / rate for k in range(math.floor((times[-1] + 2e-6) * rate) + 1)]
    wanted = {next(t for t in times if t >= multiple_s - 2e-6) for multiple_s in multiples_s}
    assert [t for t in times if grid.takes(t)] == sorted(wanted)


@pytest.mark.parametrize("fps", [24, 25, 30, 50, 60, 24000 / 1001, 30000 / 1001])
def test_a_grid_as_fine_as_the_frame_rate_takes_every_frame(fps):
    times = steady(500, fps)
    grid = Grid(fps, None)
    assert [t for t in times if grid.takes(t)] == times


@pytest.mark.parametrize("fps", [24, 25, 23.976])
def test_a_grid_begun_at_a_border_picks_what_one_begun_at_the_start_picks(fps):
    """Segments begin at keyframes, wherever these lie on the grid; clips must not depend on who decodes."""
    times = steady(round(fps * 8), fps)
    for first in range(1, len(times) - round(fps)):
        whole, part = Grid(2.0, None), Grid(2.0, times[first - 1])
        taken = [t for t in times if whole.takes(t)]
        assert [t for t in times[first:] if part.takes(t)] == [t for t in taken if t >= times[first]], times[first]


def test_a_grid_goes_on_after_the_frame_before_the_first_one():
    """The first frame offered is taken only if it begins a cell, unless the source begins with it."""
    assert Grid(2.0, None).takes(0.0)
    assert Grid(2.0, None).takes(0.2)
    assert not Grid(2.0, 0.16).takes(0.2)
    assert Grid(2.0, 0.48).takes(0.52)
    assert not Grid(2.0, 0.5).takes(0.54)


# -- store


def test_rgb_samples_are_the_frames_of_the_grid_inside_the_span():
    sampling = Sampling(rate_fps=2.0)
    store = filled([sampling], steady(100, 25))
    assert indices(store.take(sampling, span_of(0.52, 2.0))) == [13, 25, 38]  # 2.0 s is outside
    assert indices(store.take(sampling, span_of(0.0, 4.0))) == [0, 13, 25, 38, 50, 63, 75, 88]
    taken = store.take(sampling, span_of(0.52, 2.0))
    assert taken is not None
    assert taken.times_s.tolist() == [0.52, 1.0, 1.52]
    assert taken.pixels.shape == (3, 8, 12, 3)


def test_no_candidate_in_the_span_gives_nothing():
    sampling = Sampling(rate_fps=1.0)
    assert filled([sampling], steady(50, 25)).take(sampling, span_of(0.2, 0.8)) is None


def test_every_frame_is_served_coarse():
    sampling = Sampling(None, None, None, 96, "gray")
    taken = filled([sampling], steady(20, 25)).take(sampling, span_of(0.2, 0.4))
    assert taken is not None
    assert taken.times_s.tolist() == [0.2, 0.24, 0.28, 0.32, 0.36]
    assert taken.pixels.ndim == 3


def test_sizes_shrink_and_never_grow():
    small, large = Sampling(short_side_px=4), Sampling(short_side_px=400)
    gray = Sampling(short_side_px=4, color="gray")
    store = filled([small, large, gray], steady(50, 25))
    shapes = {s: store.take(s, span_of(0, 2)).pixels.shape for s in (small, large, gray)}
    assert shapes == {small: (4, 4, 6, 3), large: (4, 8, 12, 3), gray: (4, 4, 6)}


@settings(deadline=None)
@given(uneven, st.sampled_from([0.5, 1.0, 2.0]), st.floats(0.02, 1.2), st.data())
def test_pairs_are_a_grid_frame_and_the_first_frame_a_gap_later(times, rate, gap_s, data):
    sampling = Sampling(rate_fps=rate, gap_s=gap_s)
    start, end = sorted(data.draw(st.tuples(st.sampled_from(times), st.sampled_from(times))))
    taken = filled([sampling], times).take(sampling, span_of(start, end))
    grid, expected = Grid(rate, None), []
    for i, t in enumerate(times):
        partner = next((k for k in range(i + 1, len(times)) if times[k] >= t + gap_s - 1e-6), None)
        if grid.takes(t) and partner is not None and t >= start - 1e-6 and times[partner] < end - 1e-6:
            expected += [i, partner]
    assert indices(taken) == expected


def test_a_frame_may_be_partner_and_first_at_once():
    sampling = Sampling(rate_fps=2.0, gap_s=0.5)
    assert indices(filled([sampling], steady(40, 24)).take(sampling, span_of(0, 1.6))) == [0, 12, 12, 24, 24, 36]


def test_pairs_are_taken_at_every_grid_time_and_not_by_count():
    """A count would tear pairs apart; frames come as (2k, 2k + 1)."""
    with pytest.raises(ValueError, match="no count"):
        Sampling(rate_fps=4.0, count=2, gap_s=0.08)
    with pytest.raises(ValueError, match="rate_fps"):
        Sampling(rate_fps=None, gap_s=0.08, color="gray")
    sampling = Sampling(rate_fps=4.0, gap_s=0.08)
    taken = filled([sampling], steady(100, 25)).take(sampling, span_of(0, 4))
    assert taken is not None
    assert len(taken) == 2 * 16
    assert np.all(np.diff(taken.times_s)[::2] <= 0.13), taken.times_s


@settings(deadline=None)
@given(uneven, st.integers(1, 9), st.sampled_from([1.0, 2.0, 8.0]), st.data())
def test_a_count_takes_the_candidates_nearest_to_uniform_times(times, count, rate, data):
    every, some = Sampling(rate_fps=rate), Sampling(rate_fps=rate, count=count)
    start, end = sorted(data.draw(st.tuples(st.sampled_from(times), st.sampled_from(times))))
    store, span = filled([every, some], times), span_of(start, end)
    candidates, taken = store.take(every, span), store.take(some, span)
    assert (candidates is None) == (taken is None)
    if candidates is None or taken is None:
        return
    assert 1 <= len(taken) <= min(count, len(candidates))
    assert np.all(np.diff(taken.times_s) > 0)
    assert set(taken.times_s) <= set(candidates.times_s)
    for k in range(count):
        middle_s = start + (k + 0.5) / count * (end - start)
        nearest_s = np.abs(candidates.times_s - middle_s).min()
        assert np.abs(taken.times_s - middle_s).min() == pytest.approx(nearest_s, abs=1e-5)


@settings(deadline=None)
@given(uneven, st.data())
def test_what_is_dropped_is_gone_and_the_rest_is_as_before(times, data):
    samplings = [Sampling(2.0), Sampling(4.0, color="gray"), Sampling(None, color="gray"), Sampling(2.0, gap_s=0.1)]
    store = filled(samplings, times)
    drop_s = data.draw(st.sampled_from(times))
    later = span_of(drop_s, times[-1] + 1)
    before = [store.take(s, later) for s in samplings]
    store.drop_before(drop_s)
    for sampling, kept in zip(samplings, before, strict=True):
        assert store.take(sampling, span_of(0, drop_s)) is None
        again = store.take(sampling, later)
        assert (again is None) == (kept is None)
        if again is not None:
            assert np.array_equal(again.times_s, kept.times_s)
            assert np.array_equal(again.pixels, kept.pixels)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(2.0),
        Sampling(1.0, count=3),
        Sampling(0.5),
        Sampling(0.25, color="gray"),
        Sampling(4.0, gap_s=0.2, color="gray"),
        Sampling(None, color="gray"),
    ],
    ids=str,
)
@settings(deadline=None)
@given(times=uneven_times(3.0), data=st.data())
def test_a_store_begun_a_second_or_a_step_earlier_gives_what_one_begun_at_the_start_gives(sampling, times, data):
    """So that a clip read again alone has the samples it had in the first pass."""
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(times) - 1)] * 2)))
    span = span_of(times[first], times[last])
    begin_s = max(0.0, span.start_s - max(1.0, 1 / (sampling.rate_fps or math.inf)))
    begin = next(i for i, t in enumerate(times) if t >= begin_s)
    whole = filled([sampling], times).take(sampling, span)
    part = filled([sampling], times, begin, begin_s or None).take(sampling, span)
    assert (whole is None) == (part is None)
    if whole is not None:
        assert part.times_s.tolist() == whole.times_s.tolist()
        assert np.array_equal(part.pixels, whole.pixels)


# -- packing


def gradient(count: int, channels: int) -> np.ndarray:
    y, x = np.mgrid[0:48, 0:64]
    planes = [x * 3, y * 4, (x + y) * 2][:channels]
    pictures = np.stack([np.stack(planes, -1) + 5 * i for i in range(count)]).clip(0, 255).astype(np.uint8)
    return pictures if channels == 3 else pictures[..., 0]


@pytest.mark.parametrize("channels", [1, 3])
def test_packed_samples_come_back_in_order_with_exact_times(channels):
    times = np.array([0.1, 1 / 3, 12345.678901])
    frames = Frames(gradient(3, channels), times)
    back = decode_samples(encode_samples({"a": frames, "none": None}), "a")
    assert back is not None
    assert back.times_s.tolist() == times.tolist()
    assert back.pixels.shape == frames.pixels.shape
    assert back.pixels.dtype == np.uint8
    differences = np.abs(back.pixels.astype(int) - frames.pixels)
    assert differences.mean() < 1.5
    assert differences.max() < 16
    means = lambda p: p.reshape(3, -1, channels).mean(1)  # noqa: E731 - red stays red
    assert np.allclose(means(back.pixels), means(frames.pixels), atol=1)


def test_names_without_frames_come_back_as_nothing():
    packed = encode_samples({"a": None, "b": Frames(gradient(1, 3), np.zeros(1))})
    assert decode_samples(packed, "a") is None
    assert decode_samples(packed, "unheard of") is None
    assert decode_samples(None, "b") is None
    assert decode_samples(packed, "b") is not None


def test_frames_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="uint8"):
        Frames(np.zeros((1, 2, 2, 3), np.float32), np.zeros(1))
    with pytest.raises(ValueError, match="times"):
        Frames(np.zeros((2, 2, 2, 3), np.uint8), np.zeros(1))
