"""Distances of distributions: exact where it can be known, near to nothing where nothing differs."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from curation.schema import BY_NAME
from evaluation.distances import compare, farness, kolmogorov_smirnov, spread_of, wasserstein
from evaluation.population import Population, score_columns

VALUES = st.lists(st.floats(-1e3, 1e3, allow_nan=False).map(lambda x: round(x, 3)), min_size=1, max_size=30)
COLUMNS = [BY_NAME[name] for name in ("motion", "camera_zoom", "sharpness", "brightness")]


def population(count: int = 0, kind: str = "video", **scores: list[float | None] | np.ndarray) -> Population:
    count = count or len(next(iter(scores.values())))
    named = {"type": [kind] * count, "status": ["accepted"] * count}
    return Population(pa.table(named | {name: pa.array(list(v), pa.float64()) for name, v in scores.items()}))


def drawn(seed: int, count: int, shift: float = 0.0) -> Population:
    """Clips with four scores, those of one clip alike."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=count)
    return population(**{c.name: common + rng.normal(size=count) + shift for c in COLUMNS})


@given(VALUES, VALUES)
def test_distances_are_those_of_scipy_and_of_their_definition(one, other):
    a, b = np.array(one), np.array(other)
    assert wasserstein(a, b) == pytest.approx(stats.wasserstein_distance(a, b), abs=1e-9)
    largest = max(abs((a <= step).mean() - (b <= step).mean()) for step in [*one, *other])
    assert kolmogorov_smirnov(a, b) == pytest.approx(largest, abs=1e-12)


@given(VALUES, st.floats(-100, 100))
def test_a_shift_is_as_far_as_it_is_long_and_nothing_is_nearer_than_itself(values, shift):
    a = np.array(values)
    assert wasserstein(a, a) == kolmogorov_smirnov(a, a) == 0
    assert wasserstein(a, a + shift) == pytest.approx(abs(shift), abs=1e-9)


@settings(max_examples=30)
@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_farness_keeps_the_order_of_distances_within_0_and_1(one, other):
    assert 0 <= farness(one) < 1
    assert (farness(one) <= farness(other)) == (one <= other) or math.isclose(one, other, rel_tol=1e-9)


def test_the_same_clips_are_at_no_distance_and_unlike_ones_the_farther_the_more_of_them_there_are():
    reference = drawn(0, 300)
    distances = []
    for share in (0.0, 0.1, 0.3, 0.6, 1.0):
        table = reference.clips
        for column in COLUMNS:
            values = table[column.name].to_numpy().copy()
            values[: int(share * 300)] += 5
            table = table.set_column(table.schema.get_field_index(column.name), column.name, pa.array(values))
        _, overall = compare(Population(table), reference, COLUMNS)
        assert overall is not None
        distances.append(overall.distance)
    assert distances[0] == 0
    assert distances == sorted(set(distances))
    assert distances[-1] > 0.7


def test_chance_is_what_clips_of_the_same_kind_are_at_and_other_clips_are_beyond_it():
    reference = drawn(0, 800)
    fresh = [compare(drawn(seed, 25), reference, COLUMNS)[1] for seed in range(1, 25)]
    assert np.mean([one.distance <= one.by_chance_95 for one in fresh]) >= 0.85
    assert 0.25 <= np.mean([one.distance <= one.by_chance for one in fresh]) <= 0.75
    other = compare(drawn(1, 25, shift=1.0), reference, COLUMNS)[1]
    assert other.distance > other.by_chance_95
    more = compare(drawn(1, 250), reference, COLUMNS)[1]
    assert more.by_chance_95 < 0.6 * fresh[0].by_chance_95, "more samples tell smaller differences"


def test_an_operator_with_two_scores_counts_no_more_than_one_with_one():
    reference = population(motion=np.zeros(9), camera_zoom=np.zeros(9), sharpness=np.zeros(9))
    moved = population(motion=np.ones(9), camera_zoom=np.ones(9), sharpness=np.zeros(9))
    scores, overall = compare(moved, reference, COLUMNS)
    far = {score.column.name: score.farness for score in scores}
    assert far["motion"] == far["camera_zoom"] == pytest.approx(farness(1 / 0.01)) and far["sharpness"] == 0
    assert overall.distance == pytest.approx((far["motion"] + 0) / 2)


@pytest.mark.parametrize(("size", "tiny"), [(0.0, 1e-4), (1.0, 1e-4), (500.0, 0.05)])
def test_a_score_that_never_varied_makes_no_mountain_of_a_molehill(size, tiny):
    assert spread_of(np.full(5, size)) == pytest.approx(0.01 * max(1, size))
    scores, _ = compare(population(motion=np.full(5, size + tiny)), population(motion=np.full(5, size)), COLUMNS)
    assert scores[0].wasserstein <= 0.0101


def test_a_score_that_samples_lack_counts_as_far_and_one_that_training_clips_lack_too_does_not():
    reference = population(motion=[1.0, 2.0, None, None])
    half = compare(population(motion=[1.0, 2.0, None, None]), reference, COLUMNS)[0][0]
    assert (half.farness, half.samples.missing, half.samples.count) == (0, 2, 4)
    worse = compare(population(motion=[1.0, 2.0, None, None, None, None, None, None]), reference, COLUMNS)[0][0]
    assert worse.farness == pytest.approx(0.25)
    none, overall = compare(population(motion=[None, None, math.nan]), reference, COLUMNS)
    assert none[0].farness == overall.distance == 1
    assert none[0].wasserstein is None and none[0].samples.quantiles == ()


def test_samples_that_could_not_be_read_lack_every_score_and_pictures_lack_no_motion():
    reference = population(motion=[1.0, 2.0, 3.0])
    table = population(motion=[1.0, 2.0, 3.0, None]).clips
    read = pa.array(["accepted"] * 3 + ["failed"])
    failed = Population(table.set_column(1, "status", read).set_column(0, "type", pa.array(["video"] * 3 + [None])))
    picture = Population(table.set_column(0, "type", pa.array(["video"] * 3 + ["image"])))
    assert compare(failed, reference, COLUMNS)[0][0].farness == pytest.approx(0.25)
    assert compare(picture, reference, COLUMNS)[0][0].farness == 0


def test_without_training_clips_or_common_scores_samples_are_described_alone():
    samples = population(motion=[1.0, 2.0, 9.0])
    for reference in (None, population(sharpness=[1.0]), population(motion=[None])):
        scores, overall = compare(samples, reference, COLUMNS)
        assert overall is None
        assert [score.column.name for score in scores] == ["motion"]
        assert scores[0].samples.quantiles[2] == 2 and scores[0].samples.mean == 4
        assert scores[0].reference is scores[0].wasserstein is scores[0].farness is None


def test_of_very_many_training_clips_a_draw_tells_the_same(monkeypatch):
    monkeypatch.setattr("evaluation.distances.MOST_COMPARED", 2000)
    samples, reference = drawn(1, 50, shift=0.7), drawn(0, 20_000)
    few = compare(samples, reference, COLUMNS)[1].distance
    monkeypatch.setattr("evaluation.distances.MOST_COMPARED", 20_000)
    assert compare(samples, reference, COLUMNS)[1].distance == pytest.approx(few, rel=0.05)


def test_what_is_compared_are_properties_of_pictures_as_real_numbers():
    names = {c.name for c in score_columns(("facts", "motion", "temporal_hash", "embedding", "aesthetic", "letterbox"))}
    assert names >= {"motion", "camera_pan_x", "camera_pan_y", "camera_zoom", "aesthetic", "letterbox"}
    assert not names & {"temporal_hash", "embedding", "aesthetic_frames", "content_box", "bit_depth", "bit_rate_bps"}
