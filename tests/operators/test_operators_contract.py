"""What every operator promises, whatever it measures."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from curation import schema
from curation.recipe import LATE
from curation.types import ClipInput, Frames, Operator, TableOperator, WritesVectors
from media.types import SourceFacts, Span
from operators import OPERATORS
from operators.clip_frames import Clip


def clip_for(operator, count=1, side=8, value=90, kind="video"):
    """A flat clip with the frames that the operator asks for."""
    gray = operator.sampling is not None and operator.sampling.color == "gray"
    pixels = np.full((count, side, side) if gray else (count, side, side, 3), value, dtype=np.uint8)
    facts = SourceFacts(kind, side, side, "h264", fps=24.0)
    return ClipInput(facts, Span(0, 1, 0, count), Frames(pixels, np.arange(count) / 24))


@pytest.fixture(scope="session")
def on_tiny_clip(tmp_path_factory):
    """Settings that let an operator look through a tiny CLIP."""
    from safetensors.torch import save_file
    from tiny_clip import DIM, build_tiny_clip

    folder = tmp_path_factory.mktemp("clip")
    head = {"layers.0.weight": torch.full((1, DIM), 0.5), "layers.0.bias": torch.ones(1)}
    save_file(head, folder / "head.safetensors")
    clip = Clip(str(build_tiny_clip(folder / "tower")), device="cpu")
    return {
        "aesthetic": {"clip": clip, "head": str(folder / "head.safetensors")},
        "frame_consistency": {"clip": clip},
        "embedding": {"clip": clip},
    }


@pytest.fixture(scope="module")
def in_tiny_packages(tmp_path_factory):
    """Tiny networks in the place of those that lie in packages."""
    import tiny_onnx

    with pytest.MonkeyPatch.context() as patch:
        tiny_onnx.install(tmp_path_factory.mktemp("packages"), patch)
        yield


@pytest.fixture(scope="module", params=sorted(OPERATORS.keys() - LATE))
def named(request, on_tiny_clip, in_tiny_packages):
    """One operator that scores clips with default settings, its name and its loaded function."""
    operator = OPERATORS[request.param](**on_tiny_clip.get(request.param, {}))
    return request.param, operator, operator.load()


def test_is_a_documented_frozen_dataclass(named):
    name, operator, _ = named
    assert isinstance(operator, Operator)
    with pytest.raises(dataclasses.FrozenInstanceError):
        operator.writes = ()
    assert all(field.metadata.get("meaning") for field in dataclasses.fields(operator))
    assert operator.media <= {"video", "image"}


def test_what_is_no_operator_of_clips_has_a_contract_of_its_own():
    compare_rows = {name for name, kind in OPERATORS.items() if isinstance(kind(), TableOperator)}
    assert compare_rows == LATE - {"caption_alignment"}
    for name in LATE:
        assert not isinstance(OPERATORS[name](), Operator)
    for name in compare_rows:
        operator = OPERATORS[name]()
        (column,) = operator.writes
        assert schema.BY_NAME[column].writer == name
        names = [field.name for field in schema.table_schema(OPERATORS)]
        assert set(operator.reads(names)) <= set(names) and operator.reads(["clip_id"]) == ["clip_id"]


def test_vectors_have_the_length_that_their_operator_states(on_tiny_clip):
    for name, kind in OPERATORS.items():
        operator = kind(**on_tiny_clip.get(name, {}))
        lists = [c for c in schema.COLUMNS if c.name in operator.writes and str(c.dtype).startswith("list")]
        if isinstance(operator, WritesVectors):
            table = schema.table_schema([schema.VectorWriter(name, operator.dim)])
            assert [table.field(c.name).type.list_size for c in lists] == [operator.dim]


def test_writes_the_columns_the_schema_gives_it(named):
    name, operator, _ = named
    assert set(operator.writes) == {c.name for c in schema.COLUMNS if c.writer == name}


@pytest.mark.parametrize(("count", "side"), [(1, 8), (2, 8), (4, 64), (1, 1), (3, 17)])
def test_small_and_short_clips_give_plain_values(named, count, side):
    _, operator, score = named
    (scores,) = score([clip_for(operator, count, side)])
    assert set(scores) == set(operator.writes)
    json.dumps(scores, allow_nan=False)
    for column, value in scores.items():
        assert type(value) in (float, int, bool, str, list, type(None)), column
        assert not (isinstance(value, float) and math.isnan(value))


def test_no_frames_is_not_measured(named):
    _, operator, score = named
    if operator.sampling is None:
        return
    (scores,) = score([clip_for(operator, 0)])
    assert scores == dict.fromkeys(operator.writes)


def test_order_of_the_batch_is_kept(named):
    _, operator, score = named
    rng = np.random.default_rng(3)
    clips = [clip_for(operator, 4, side) for side in (64, 40, 64, 96)]
    for clip in clips:
        clip.frames.pixels[:] = rng.integers(0, 255, clip.frames.pixels.shape)
    assert score(clips) == [score([clip])[0] for clip in clips]
    assert score([]) == []


def test_video_only_facts_are_null_for_images():
    facts = OPERATORS["facts"]()
    (image,) = facts.load()([clip_for(facts, kind="image")])
    assert image["is_vfr"] is image["has_audio"] is image["bit_rate_bps"] is None
    assert image["aspect_ratio"] == 1.0
