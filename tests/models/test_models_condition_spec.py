"""Layouts of condition channels, and models of each published kind, without weights and in tiny form."""

import pytest
import torch

from models.conditions.spec import (
    CAMERA_REFERENCE,
    CONTROL,
    CONTROL_REFERENCE,
    EASYANIMATE_V5,
    INPAINT,
    PARTS,
    TEXT_TO_VIDEO,
    ConditionSpec,
    find_spec,
    spec_of,
)
from models.errors import ModelError
from models.transformers.architecture import Shape
from models.transformers.conditioning import Conditioning
from models.transformers.easyanimate_v5 import EasyAnimate
from models.transformers.easyanimate_v5_presets import TINY, V5_1_12B

torch.set_num_threads(1)
PUBLISHED = {16: TEXT_TO_VIDEO, 33: INPAINT, 32: CONTROL, 48: CONTROL_REFERENCE, 38: CAMERA_REFERENCE}


def shape(in_channels: int, out_channels: int = 16) -> Shape:
    return Shape(64, 2, 4.0, 2, in_channels, out_channels, 64, 1000)


@pytest.mark.parametrize(("channels", "spec"), PUBLISHED.items())
def test_published_layouts_are_told_apart_and_built_without_memory(channels: int, spec: ConditionSpec) -> None:
    family = EasyAnimate()
    with torch.device("meta"):
        model = family.build(V5_1_12B | {"in_channels": channels, "num_layers": 1, "mmdit_layers": 1})
    assert model.proj.weight.is_meta and model.proj.weight.shape[1] == channels
    assert spec_of(family.shape(model), EASYANIMATE_V5) is spec and spec.channels(16) == channels - 16
    assert find_spec(spec.name) is spec


@pytest.mark.parametrize("latent", [4, 8, 16])
def test_every_kind_of_a_family_has_channels_of_its_own(latent: int) -> None:
    counts = [spec.channels(latent) for spec in EASYANIMATE_V5]
    assert len(set(counts)) == len(counts)
    for spec in EASYANIMATE_V5:
        assert spec_of(shape(latent + spec.channels(latent), latent), EASYANIMATE_V5) is spec
        places = list(spec.places(latent).values())
        assert [p.start for p in places] == [0, *(p.stop for p in places[:-1])][: len(places)]
        assert (places[-1].stop if places else 0) == spec.channels(latent)


def test_an_unknown_kind_is_told_in_one_line() -> None:
    with pytest.raises(ModelError, match=r"40 input channels for 16: only 16 \(text_to_video\), 33 \(inpaint\)"):
        spec_of(shape(40), EASYANIMATE_V5)
    with pytest.raises(ModelError, match="kind of model 'pose': there is none; known: text_to_video"):
        find_spec("pose")


def test_parts_lie_in_order_and_what_is_not_given_is_zero() -> None:
    size = (2, 4, 3, 5, 6)
    reference = torch.randn(2, 4, 3, 5, 6)
    joined = CAMERA_REFERENCE.join({"reference": reference}, size)
    assert joined.shape == (2, 10, 3, 5, 6)
    assert not joined[:, :6].any() and torch.equal(joined[:, 6:], reference)
    camera = torch.randn(2, 6, 3, 5, 6)
    both = CAMERA_REFERENCE.join({"reference": reference, "camera": camera}, size)
    assert torch.equal(both[:, :6], camera) and torch.equal(both[:, 6:], reference)
    assert not CONTROL.join({}, size).any()
    with pytest.raises(ModelError, match="a reference image: a model of kind control has no channels for it"):
        CONTROL.join({"reference": reference}, size)
    with pytest.raises(ModelError, match=r"a control map of shape .* wanted \(2, 4, 3, 5, 6\)"):
        CONTROL.join({"control": camera}, size)


def test_a_part_that_is_changed_leaves_the_others() -> None:
    condition = torch.randn(1, 8, 2, 3, 3)
    changed = CONTROL_REFERENCE.changed(condition, 4, {"control": 0.5})
    assert torch.equal(changed[:, :4], 0.5 * condition[:, :4]) and torch.equal(changed[:, 4:], condition[:, 4:])
    without = CONTROL_REFERENCE.changed(condition, 4, {"control": 0.0, "reference": 0.0})
    assert torch.equal(without, CONTROL_REFERENCE.join({}, (1, 4, 2, 3, 3)))


def test_shares_that_are_left_out_in_training_are_the_published_ones() -> None:
    assert {name: part.zeroed for name, part in PARTS.items()} == {
        "mask": 0.0, "encoded_mask": 0.0, "masked_video": 0.0, "control": 0.2, "camera": 0.2, "reference": 0.2,
    }  # fmt: skip


@pytest.mark.parametrize("spec", [CONTROL, CONTROL_REFERENCE, CAMERA_REFERENCE], ids=lambda spec: spec.name)
def test_a_tiny_control_model_sees_each_of_its_parts(spec: ConditionSpec) -> None:
    torch.manual_seed(0)
    family = EasyAnimate()
    model = family.build(TINY | {"in_channels": 16 + spec.channels(16), "num_layers": 1, "mmdit_layers": 1}).eval()
    latents, text, level = torch.randn(1, 16, 2, 4, 4), torch.randn(1, 8, 64), torch.tensor([300.0])
    parts = {part: torch.randn(1, place.stop - place.start, 2, 4, 4) for part, place in spec.places(16).items()}
    with torch.no_grad():
        whole = family.predict(model, latents, level, Conditioning(text, latents=spec.join(parts, latents.shape)))
        for part in parts:
            rest = {name: tensor for name, tensor in parts.items() if name != part}
            seen = Conditioning(text, latents=spec.join(rest, latents.shape))
            assert not torch.allclose(whole, family.predict(model, latents, level, seen))
