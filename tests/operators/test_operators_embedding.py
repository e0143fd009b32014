"""Embeddings: unit vectors exact in float16, alike for alike clips, kept by Parquet as they are."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch")
pytest.importorskip("open_clip")

from tiny_clip import DIM, build_tiny_clip  # noqa: E402

from curation.types import ClipInput, Frames  # noqa: E402
from media.types import SourceFacts, Span  # noqa: E402
from models.scorers.clip import load_tower  # noqa: E402
from operators.clip_frames import Clip  # noqa: E402
from operators.embedding import Embedding, mean_direction  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_tiny_clip(tmp_path_factory.mktemp("clip"))


def embed(folder, *clips):
    inputs = [
        ClipInput(SourceFacts("video", 1, 1, "h264"), Span(0, 1, 0, 1), Frames(pixels, np.arange(len(pixels)) / 2))
        for pixels in clips
    ]
    return [scores["embedding"] for scores in Embedding(clip=Clip(str(folder), "cpu")).load()(inputs)]


def noise(seed, count=3):
    return np.random.default_rng(seed).integers(0, 256, (count, 40, 40, 3), dtype=np.uint8)


def test_it_is_the_mean_direction_of_the_frames(folder):
    (vector,) = embed(folder, noise(0))
    mean = load_tower(str(folder), device="cpu").encode_images(list(noise(0))).mean(axis=0)
    assert vector == pytest.approx((mean / np.linalg.norm(mean)).tolist(), abs=1e-3)
    assert len(vector) == DIM and np.linalg.norm(vector) == pytest.approx(1, abs=2e-3)


def test_a_clip_is_nearest_to_its_own_brighter_copy(folder):
    clips = [noise(seed) // 2 for seed in range(5)]
    vectors = np.array(embed(folder, *clips, *(clip + 6 for clip in clips)))
    assert (vectors[:5] @ vectors[5:].T).argmax(axis=1).tolist() == [0, 1, 2, 3, 4]


def test_parquet_keeps_it_as_a_fixed_size_list_of_float16(folder, tmp_path):
    vectors = embed(folder, noise(0), noise(1))
    column = pa.array([*vectors, None], pa.list_(pa.float16(), DIM))
    pq.write_table(pa.table({"embedding": column}), tmp_path / "t.parquet")
    back = pq.read_table(tmp_path / "t.parquet")["embedding"]
    assert back.type == pa.list_(pa.float16(), DIM)
    assert [None if v is None else [float(x) for x in v] for v in back.to_pylist()] == [*vectors, None]


def test_without_a_direction_there_is_no_vector():
    vector = np.eye(2, dtype=np.float32)[:1]
    assert mean_direction(vector[:0]) is None
    assert mean_direction(np.concatenate([vector, -vector])) is None
    assert mean_direction(vector * np.nan) is None
    assert mean_direction(vector) == [1.0, 0.0]
