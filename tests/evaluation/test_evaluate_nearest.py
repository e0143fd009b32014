"""Neighbours of samples: found exactly, copies told, what shows nothing not taken for a copy."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.dedup.hamming import picture_distances
from evaluation import nearest
from evaluation.nearest import LIKELY_COPY_BITS, compared_with, find_nearest
from evaluation.population import WHERE, Population
from operators.temporal_hash import temporal_hash

WORD = st.one_of(st.just(0), st.integers(0, 2**64 - 1))


def population(
    hashes: list[list[int] | None], embeddings: list[list[float] | None] | None = None, failed: tuple[int, ...] = ()
) -> Population:
    count = len(hashes)
    columns = {name: pa.nulls(count, pa.string()) for name in WHERE} | {
        "clip_id": pa.array([f"clip-{i}" for i in range(count)]),
        "source_path": pa.array([f"{i}.mp4" for i in range(count)]),
        "status": pa.array(["failed" if i in failed else "accepted" for i in range(count)]),
        "start_s": pa.array(np.arange(count, dtype=float)),
        "end_s": pa.array(np.arange(count) + 1.0),
        "temporal_hash": pa.array(hashes, pa.list_(pa.int64())),
    }
    if embeddings is not None:
        values = [None if e is None else np.array(e, np.float16) for e in embeddings]
        columns["embedding"] = pa.array(values, pa.list_(pa.float16(), len(next(e for e in embeddings if e))))
    return Population(pa.table(columns))


def moving(seed: int, begin: float, end: float) -> np.ndarray:
    """Eight frames, uint8 (8, 72, 96), of a camera that goes over a drawn landscape."""
    rng = np.random.default_rng(seed)
    wide = rng.random((9, 30)).repeat(8, 0).repeat(8, 1)
    wide = np.cumsum(np.cumsum(wide - wide.mean(), 0), 1)
    wide = (255 * (wide - wide.min()) / np.ptp(wide)).astype(np.uint8)
    places = begin + (np.arange(8) + 0.5) / 8 * (end - begin)
    return np.stack([wide[:, round(place * 60) : round(place * 60) + 96] for place in places])


def hashed(seed: int, begin: float = 0.0, end: float = 1.0, noise: float = 0.0) -> list[int]:
    frames = moving(seed, begin, end) + np.random.default_rng(seed + 99).normal(0, noise, (8, 72, 96))
    found = temporal_hash(np.clip(frames, 0, 255).astype(np.uint8))
    assert found is not None
    return found


@settings(max_examples=60)
@given(st.lists(WORD, min_size=8, max_size=8), st.lists(st.lists(WORD, min_size=8, max_size=8), min_size=1, max_size=4))
def test_distances_are_those_of_the_definition(words, others):
    expected = []
    for other in others:
        least = [min([(w ^ o).bit_count() for o in other if o] or [64]) for w in words if w]
        expected.append(sum(least) * 8 / max(1, len(least)))
    found = picture_distances(np.array(words, np.uint64), np.ascontiguousarray(np.array(others, np.uint64).T))
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(("begin", "end"), [(0.0, 1.0), (0.0, 0.5), (0.3, 0.7), (0.75, 1.0), (1.0, 0.0)])
def test_a_part_of_a_clip_is_found_as_a_copy_also_backwards_and_other_clips_are_none(begin, end):
    clips = population([hashed(seed) for seed in range(12)])
    samples = population([hashed(7, begin, end, noise=4.0), hashed(50)])
    copy, other = find_nearest(samples, clips)
    assert (copy.sample, copy.by_pictures.clip_id) == ("0.mp4", "clip-7")
    assert (copy.by_pictures.start_s, copy.by_pictures.source_path) == (7.0, "7.mp4")
    assert copy.is_likely_copy and copy.by_pictures.picture_bits <= LIKELY_COPY_BITS
    assert not other.is_likely_copy and other.by_pictures.picture_bits > LIKELY_COPY_BITS


def test_what_shows_nothing_is_near_to_nothing():
    flat = [0] * 4 + hashed(1)[4:]
    samples = population([None, flat, hashed(1)], failed=(0,))
    clips = population([None, [0] * 12, hashed(1)])
    found = {one.sample: one for one in find_nearest(samples, clips)}
    assert found.keys() == {"1.mp4", "2.mp4"}, "a sample that could not be read has no neighbours"
    assert found["1.mp4"].by_pictures.clip_id == found["2.mp4"].by_pictures.clip_id == "clip-2"
    (alone,) = find_nearest(population([None]), clips)
    assert alone.by_pictures is None and not alone.is_likely_copy
    (alone,) = find_nearest(population([hashed(1)]), population([None, None]))
    assert alone.by_pictures is None and not alone.is_likely_copy
    assert compared_with(clips) == 2


def test_vectors_find_their_neighbour_in_whatever_batch_it_is(monkeypatch):
    rng = np.random.default_rng(0)
    clips = rng.normal(size=(50, 8))
    asked = clips[[3, 17, 49]] * 7 + rng.normal(size=(3, 8)) * [[0.0], [0.3], [3.0]]
    monkeypatch.setattr(nearest, "AT_ONCE", 7)
    samples = population([None] * 4, [*asked.tolist(), None])
    reference = population([None] * 51, [None, *clips.tolist()])
    found = {one.sample: one for one in find_nearest(samples, reference)}
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (asked, clips)]
    cosines = unit[0] @ unit[1].T
    for place in range(3):
        neighbour = found[f"{place}.mp4"].by_embedding
        assert neighbour.clip_id == f"clip-{1 + cosines[place].argmax()}"
        assert neighbour.cosine == pytest.approx(cosines[place].max(), abs=2e-3)
        assert found[f"{place}.mp4"].is_likely_copy == (cosines[place].max() >= 0.99)
    assert found["0.mp4"].is_likely_copy and not found["2.mp4"].is_likely_copy
    assert found["3.mp4"].by_embedding is None


def test_the_nearest_pair_comes_first():
    clips = population([hashed(seed) for seed in range(4)])
    samples = population([hashed(60), None, hashed(2, noise=3.0), hashed(3)])
    order = [one.sample for one in find_nearest(samples, clips)]
    assert order[:2] == ["3.mp4", "2.mp4"] and order[-1] == "1.mp4"
