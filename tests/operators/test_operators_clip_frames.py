"""What every operator on CLIP promises: one tower, each frame once, full batches across clips, plain values."""

import dataclasses
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")

from safetensors.torch import save_file  # noqa: E402
from tiny_clip import DIM, build_tiny_clip  # noqa: E402

from core.settings import build  # noqa: E402
from curation.types import ClipInput, Frames, Operator, Sampling  # noqa: E402
from media.types import SourceFacts, Span  # noqa: E402
from models.errors import ModelError  # noqa: E402
from models.scorers import clip as towers  # noqa: E402
from operators.aesthetic import Aesthetic  # noqa: E402
from operators.clip_frames import Clip, embed_frames, number  # noqa: E402
from operators.embedding import Embedding  # noqa: E402
from operators.frame_consistency import FrameConsistency  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = build_tiny_clip(tmp_path_factory.mktemp("clip"))
    generator = torch.Generator().manual_seed(0)
    save_file(
        {"weight": torch.randn(1, DIM, generator=generator), "bias": torch.tensor([5.0])}, made / "head.safetensors"
    )
    return made


@pytest.fixture(scope="module")
def operators(folder):
    clip = Clip(str(folder), "cpu", batch_frames=4)
    return [Aesthetic(str(folder / "head.safetensors"), clip=clip), FrameConsistency(clip=clip), Embedding(clip=clip)]


def clip_of(pixels, kind="video"):
    facts = SourceFacts(kind, 8, 8, "h264", fps=24.0)
    return ClipInput(facts, Span(0, 1, 0, len(pixels)), Frames(pixels, np.arange(len(pixels)) / 2))


def noise(count, seed=0, side=40):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side + 8, 3), dtype=np.uint8)


def test_each_is_a_documented_frozen_operator_of_the_pool_clip(operators):
    for operator in operators:
        assert isinstance(operator, Operator) and operator.pool == "clip"
        assert all(field.metadata.get("meaning") for field in dataclasses.fields(operator))
        assert operator.sampling.short_side_px == 448 and operator.sampling.color == "rgb"
    assert all(field.metadata.get("meaning") for field in dataclasses.fields(Clip))


def test_all_share_one_tower_and_frames_that_several_look_at_go_through_it_once(operators, monkeypatch):
    monkeypatch.setattr(towers, "_LOADED", {})
    sizes = []
    scorers = [operator.load() for operator in operators]
    (tower,) = towers._LOADED.values()
    encode = tower._model.encode_image
    monkeypatch.setattr(tower._model, "encode_image", lambda x, **how: sizes.append(len(x)) or encode(x, **how))
    clips = [clip_of(noise(count, seed)) for seed, count in enumerate((3, 1, 5, 2))]
    for score in scorers:
        score(clips)
    assert sizes == [4, 4, 3], "11 frames of 4 clips, for three operators"


def test_frames_of_a_coarser_choice_are_among_those_of_a_finer_one():
    """So what one operator embeds on the whole grid, the ones that look at a few frames need not embed again."""
    assert FrameConsistency().sampling == dataclasses.replace(Aesthetic().sampling, count=None)
    assert Embedding().sampling == Aesthetic().sampling == Sampling(2.0, 4, None, 448, "rgb")


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_values_are_plain_and_what_cannot_be_measured_is_none(operators, count):
    for operator in operators:
        (scores,) = operator.load()([clip_of(noise(count))])
        assert set(scores) == set(operator.writes)
        json.dumps(scores, allow_nan=False)
        least = 2 if isinstance(operator, FrameConsistency) else 1
        assert all((value is None) == (count < least) for value in scores.values())


def test_a_clip_scores_the_same_in_every_batch(operators):
    clips = [
        clip_of(noise(count, seed, side)) for seed, (count, side) in enumerate([(4, 40), (2, 64), (1, 40), (3, 33)])
    ]
    for operator in operators:
        score = operator.load()
        together = score(clips)
        for clip, scores in zip(clips, together, strict=True):
            towers._LOADED[next(iter(towers._LOADED))]._known.clear()
            (alone,) = score([clip])
            for column, value in scores.items():
                assert alone[column] == (None if value is None else pytest.approx(value, rel=1e-4, abs=1e-3))
        assert score([]) == []


def test_frames_are_given_back_to_their_clips(folder):
    tower = Clip(str(folder), "cpu").load()
    clips = [clip_of(noise(count, seed)).frames for seed, count in enumerate((2, 0, 3))]
    vectors = embed_frames(tower, clips, 2)
    assert [len(v) for v in vectors] == [2, 0, 3]
    for clip, found in zip(clips, vectors, strict=True):
        assert (found == tower.encode_images(list(clip.pixels))).all()


def test_what_is_no_number_is_none():
    assert number(float("nan")) is number(np.float32("inf")) is None
    assert number(np.float32(0.5)) == 0.5


def test_the_network_is_chosen_in_the_recipe(folder):
    operator = build(
        Embedding, {"clip": {"model": str(folder), "device": "cpu", "dtype": "bfloat16"}}, "operators.embedding"
    )
    assert operator.clip == Clip(str(folder), "cpu", "bfloat16")
    assert operator.dim == DIM and Embedding().dim == 768
    with pytest.raises(Exception, match="operators.embedding.clip: .*at least 1"):
        build(Embedding, {"clip": {"batch_frames": 0}}, "operators.embedding")


def test_what_each_needs_is_known_without_loading(folder, tmp_path):
    assert Aesthetic().needs == ("clip-vit-l-14", "laion-mlp-l-14")
    assert Aesthetic("linear", clip=Clip("ViT-B-32")).needs == ("clip-vit-b-32", "laion-v1-b-32")
    (tmp_path / "head.pth").touch()
    assert Aesthetic(str(tmp_path / "head.pth"), clip=Clip(str(folder))).needs == ()
    with pytest.raises(ModelError, match="no such file 'nowhere.pth'"):
        Aesthetic("nowhere.pth", clip=Clip(str(folder))).needs  # noqa: B018 - it is looked for when asked
    assert FrameConsistency().needs == Embedding().needs == ("clip-vit-l-14",)
