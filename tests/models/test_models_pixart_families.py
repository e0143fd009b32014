"""EasyAnimate V1–V3: published weights' names and shapes, conditions, LoRA, folders as they were published."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from closeness import close
from diffusers import PixArtTransformer2DModel
from pixart import FAMILIES, build, caption, noise, predicted, trained
from torch import nn

from models.conditions.masks import check_probabilities
from models.denoise.first_block_cache import first_block_cache
from models.denoise.objectives import objective_of
from models.denoise.samplers import make_scheduler
from models.errors import ModelError
from models.lora.adapters import add_lora, apply_lora, export_lora, lora_weights, trainable, verify_exports
from models.lora.files import read_lora
from models.lora.form import AdapterForm
from models.text.table import IMAGE_ENCODERS
from models.transformers.architecture import Shape
from models.transformers.conditioning import Conditioning
from models.transformers.table import ARCHITECTURES, build_empty, build_transformer, find_architecture, shape_of

torch.set_num_threads(1)
each = pytest.mark.parametrize("preset", FAMILIES)
V1, V2, V3 = FAMILIES.values()


def counted(tensors: dict[str, torch.Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


@pytest.fixture(scope="module")
def published() -> dict[str, dict[str, torch.Tensor]]:
    return {name: dict(build_empty(name)[1].state_dict()) for name in ("v1", "v2", "v3")}


def test_weights_are_the_published_ones_in_number_and_size(published: dict[str, dict[str, torch.Tensor]]) -> None:
    temporal = {name: tensor for name, tensor in published["v1"].items() if "temporal" in name}
    assert (len(temporal), counted(temporal)) == (784, 1_082_414_592)
    places = {name: tensor for name, tensor in temporal.items() if name.endswith(".pe")}
    assert {tuple(tensor.shape) for tensor in places.values()} == {(1, 4096, 1152)}
    assert counted(temporal) - counted(places) == 818_173_440
    assert counted(published["v1"]) - counted(temporal) == 610_856_096
    pe = {name: tensor for name, tensor in published["v2"].items() if name.endswith(".pe")}
    assert (len(pe), counted(pe)) == (56, 264_241_152)
    assert counted(published["v2"]) - counted(pe) == 1_446_296_864
    assert counted(published["v3"]) == 1_802_605_856


def test_without_the_temporal_layers_they_are_diffusers_pixart(published: dict[str, dict[str, torch.Tensor]]) -> None:
    fields = ("num_attention_heads", "attention_head_dim", "in_channels", "out_channels", "num_layers", "sample_size")
    v1 = V1.presets["v1"]
    with torch.device("meta"):
        image = PixArtTransformer2DModel(
            **{field: v1[field] for field in fields}, caption_channels=4096, use_additional_conditions=False
        ).state_dict()
    wanted = {name: tensor.shape for name, tensor in image.items()}
    own = {name: {k: t.shape for k, t in tensors.items() if "temporal" not in k} for name, tensors in published.items()}
    assert own["v1"] == wanted
    skips = {f"long_connect_fc.{n}.{part}" for n in range(13) for part in ("weight", "bias")}
    assert own["v2"].keys() - wanted.keys() == skips
    assert own["v3"].keys() - own["v2"].keys() == {
        f"clip_projection.linear_{n}.{part}" for n in (1, 2) for part in ("weight", "bias")
    }
    assert own["v3"]["clip_projection.linear_1.weight"] == (9216, 768)
    assert own["v3"]["clip_projection.linear_2.weight"] == (9216, 9216)
    assert {name for name in wanted if own["v3"][name] != wanted[name]} == {"pos_embed.proj.weight"}


def test_names_within_a_motion_module_are_the_published_ones(published: dict[str, dict[str, torch.Tensor]]) -> None:
    prefix = "transformer_blocks.27.attn_temporal.temporal_transformer."
    inner = f"{prefix}transformer_blocks.0."
    expected = {f"{prefix}{layer}.{part}" for layer in ("norm", "proj_in", "proj_out") for part in ("weight", "bias")}
    for n in (0, 1):
        attention = f"{inner}attention_blocks.{n}."
        expected |= {f"{attention}to_{part}.weight" for part in "qkv"}
        expected |= {f"{attention}to_out.0.weight", f"{attention}to_out.0.bias", f"{attention}pos_encoder.pe"}
        expected |= {f"{inner}norms.{n}.weight", f"{inner}norms.{n}.bias"}
    expected |= {
        f"{inner}{layer}.{part}" for layer in ("ff_norm", "ff.net.0.proj", "ff.net.2") for part in ("weight", "bias")
    }
    for tensors in published.values():
        assert {name for name in tensors if name.startswith(prefix)} == expected
        assert tensors[f"{inner}ff.net.0.proj.weight"].shape == (9216, 1152)


@each
def test_a_familys_facts_fit_what_there_is(preset: str) -> None:
    facts = FAMILIES[preset].defaults(FAMILIES[preset].presets[preset])
    scheduler = dict(facts.objective.scheduler)
    assert objective_of(scheduler) == facts.objective.kind == "epsilon"
    sampler = make_scheduler(scheduler, facts.sampler.steps, facts.sampler.name)
    assert torch.allclose(sampler.betas, torch.linspace(0.0001, 0.02, 1000))
    if facts.masks:
        check_probabilities(facts.masks)
        assert sum(facts.masks.values()) == pytest.approx(1.0)
    assert (facts.image_encoder is not None) == FAMILIES[preset].takes_images == (len(facts.kinds) > 1)
    assert facts.image_encoder is None or facts.image_encoder in IMAGE_ENCODERS


def test_shapes_tell_what_costs_depend_on() -> None:
    assert shape_of("v2") == Shape(1152, 28, 4.0, 2, 4, 4, 4096, 1_446_296_864)
    assert shape_of("tiny-v3").in_channels == 12


@each
def test_padding_has_no_influence(preset: str) -> None:
    model = trained(build(preset))
    given = caption()
    expected = predicted(FAMILIES[preset], model, noise(), given)
    other = given.text.clone()
    other[1, 3:] = 50.0
    assert close(predicted(FAMILIES[preset], model, noise(), Conditioning(other, given.text_mask)), expected)
    short = Conditioning(given.text[1:, :3])
    alone = predicted(FAMILIES[preset], model, noise()[1:], short)
    with torch.no_grad():
        second = FAMILIES[preset].predict(model, noise()[1:], torch.tensor([900.0]), short)
    assert close(second, expected[1:]) and not close(alone, expected[1:], 1e-3)
    seen = given.text.clone()
    seen[1, 2] = 50.0
    assert not close(predicted(FAMILIES[preset], model, noise(), Conditioning(seen, given.text_mask)), expected, 1e-3)


@each
def test_every_sample_of_a_batch_is_its_own(preset: str) -> None:
    model = trained(build(preset))
    both = predicted(FAMILIES[preset], model, noise(), caption())
    changed = noise()
    changed[1] = 3.0
    assert close(predicted(FAMILIES[preset], model, changed, caption())[:1], both[:1])


def test_image_conditions_of_zero_are_text_to_video() -> None:
    model = trained(build("tiny-v3"))
    given = caption()
    expected = predicted(V3, model, noise(), given)
    zeros = dataclasses.replace(
        given, latents=torch.zeros(2, 8, 3, 8, 8), image=torch.zeros(2, 1, 768), image_mask=torch.zeros(2, 1)
    )
    assert close(predicted(V3, model, noise(), zeros), expected)
    image = torch.randn(2, 1, 768, generator=torch.Generator().manual_seed(5))
    hidden = dataclasses.replace(zeros, image=image)
    assert close(predicted(V3, model, noise(), hidden), expected), "masked tokens are not seen"
    for part in ({"image_mask": torch.ones(2, 1)}, {"image_mask": torch.ones(2, 8)}, {"image_mask": None}):
        seen = predicted(V3, model, noise(), dataclasses.replace(hidden, **part))
        assert not close(seen, expected, 1e-3)
    one_sided = dataclasses.replace(hidden, image_mask=torch.tensor([[0.0], [1.0]]))
    found = predicted(V3, model, noise(), one_sided)
    assert close(found[:1], expected[:1]) and close(found[1:], seen[1:])
    filled = dataclasses.replace(given, latents=noise(channels=8))
    assert not close(predicted(V3, model, noise(), filled), expected, 1e-3)


@each
def test_a_widened_model_predicts_what_it_did_until_it_sees_the_condition(preset: str) -> None:
    family, model = FAMILIES[preset], trained(build(preset, in_channels=4))
    expected = predicted(family, model, noise(), caption())
    family.widen(model)
    given = dataclasses.replace(
        caption(), latents=noise(channels=8), image=torch.ones(2, 1, 768), image_mask=torch.zeros(2, 1)
    )
    assert close(predicted(family, model, noise(), given), expected)
    assert family.shape(model).in_channels == 12
    assert model.state_dict().keys() == build(preset, in_channels=12).state_dict().keys()
    nn.init.ones_(model.pos_embed.proj.weight)
    assert not close(predicted(family, model, noise(), given), expected, 1e-3)
    with pytest.raises(ModelError, match="nothing to widen"):
        family.widen(model)


@each
def test_all_parameters_have_gradients_and_checkpointing_changes_none(preset: str) -> None:
    family, found = FAMILIES[preset], []
    for checkpointing in (False, True):
        model = trained(build(preset)).train()
        if checkpointing:
            model.enable_gradient_checkpointing()
        family.predict(model, noise(), torch.tensor([100.0, 900.0]), caption()).square().mean().backward()
        found.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert {name for name, gradient in found[0].items() if gradient is None} == set(family.unused_parameters(model))
    assert all(close(found[1][name], gradient) for name, gradient in found[0].items())


@pytest.mark.parametrize(
    ("preset", "latents", "given", "said"),
    [
        ("tiny-v1", noise(height=6), caption(), "3x4 tokens: .* multiples of 2; .* multiples of 32 px"),
        ("tiny-v2", noise(height=5), caption(), "height and width must be multiples of 2"),
        ("tiny-v2", noise(frames=33), caption(), "33 latent frames: .* at most 32"),
        ("tiny-v2", noise(channels=5), caption(), "with 5 channels and conditions with 0: the model takes 4"),
        ("tiny-v1", noise(), dataclasses.replace(caption(), latents=noise()), "conditions with 4: the model takes 4"),
        ("tiny-v3", noise(), dataclasses.replace(caption(), latents=noise()), "conditions with 4: the model takes 12"),
        ("tiny-v1", noise(), dataclasses.replace(caption(), image=torch.ones(2, 1, 768)), "without image tokens"),
    ],
)
def test_what_a_network_cannot_take_is_refused_in_one_line(
    preset: str, latents: torch.Tensor, given: Conditioning, said: str
) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        predicted(FAMILIES[preset], build(preset), latents, given)
    assert "\n" not in str(caught.value)


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def public(model: nn.Module) -> dict[str, Any]:
    return {field: value for field, value in model.config.items() if not field.startswith("_")}


@each
@pytest.mark.parametrize("kind", ["safetensors", "pth", "nested", "shards"])
def test_folders_load_as_they_were_published_and_save_the_same_keys(preset: str, kind: str, tmp_path: Path) -> None:
    model = trained(build(preset))
    model.save_pretrained(tmp_path, max_shard_size="200KB" if kind == "shards" else "10GB")
    if kind in ("pth", "nested"):
        (file,) = tmp_path.glob("*.safetensors")
        file.unlink()
        tensors = model.state_dict() | {"loss.discriminator.weight": torch.ones(2)}
        torch.save({"state_dict": tensors, "step": 3} if kind == "nested" else tensors, file.with_suffix(".pth"))
    family, loaded = build_transformer(str(tmp_path))
    assert family is FAMILIES[preset] and json.loads((tmp_path / "config.json").read_text())["_class_name"] == (
        "Transformer3DModel"
    )
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert loaded.state_dict().keys() == model.state_dict().keys()
    loaded.save_pretrained(tmp_path / "again")
    again = build_transformer(str(tmp_path / "again"))[1]
    assert public(again) == public(loaded) and again.state_dict().keys() == model.state_dict().keys()
    assert close(predicted(family, again, noise(), caption()), predicted(family, model, noise(), caption()))
    half = build_transformer(str(tmp_path), torch.bfloat16)[1]
    assert {tensor.dtype for tensor in half.state_dict().values()} == {torch.bfloat16}


def test_the_published_config_of_v3_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build("tiny-v3").save_pretrained(tmp_path)
    average = {"decay": 0.9999, "inv_gamma": 1.0, "min_decay": 0.0, "optimization_step": 4400, "power": 0.66}
    settled = {"patch_3d": False, "fake_3d": False, "time_patch_size": None, "norm_num_groups": 32, "qk_norm": False}
    edit(tmp_path / "config.json", **average, **settled)
    assert find_architecture(str(tmp_path))[0] is V3
    model = build_transformer(str(tmp_path))[1]
    assert capsys.readouterr().err == ""
    model.save_pretrained(tmp_path / "again")
    written = json.loads((tmp_path / "again" / "config.json").read_text())
    assert written.items() >= (average | settled).items()
    edit(tmp_path / "config.json", of_another_fork=1)
    build_transformer(str(tmp_path))
    (line,) = capsys.readouterr().err.splitlines()
    assert "'of_another_fork'" in line


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"patch_3d": True}, "patch_3d True: only False"),
        ({"qk_norm": True}, "qk_norm True"),
        ({"basic_block_type": "selfattentiontemporal"}, "no family of class Transformer3DModel"),
        ({"motion_module_type": "Spiral"}, "'Spiral'"),
        ({"num_layers": "two"}, "config.json|loaded"),
        ({"num_layers": 3}, "weights do not fit config.json"),
        ({"out_channels": 4}, "weights do not fit config.json"),
    ],
)
def test_configs_that_are_not_supported_are_refused_in_one_line(
    values: dict[str, Any], said: str, tmp_path: Path
) -> None:
    build("tiny-v1").save_pretrained(tmp_path)
    edit(tmp_path / "config.json", **values)
    with pytest.raises(ModelError, match=said) as caught:
        build_transformer(str(tmp_path))
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_families_that_share_a_class_name_are_told_apart(tmp_path: Path) -> None:
    for preset, family in FAMILIES.items():
        build(preset).save_pretrained(tmp_path / preset)
        assert find_architecture(str(tmp_path / preset))[0] is family
        assert find_architecture(preset)[0] is family
    for values in (config for family in FAMILIES.values() for config in family.presets.values()):
        assert sum(family.takes(values) for family in FAMILIES.values()) == 1
    widened = build("tiny-v2", in_channels=4)
    V2.widen(widened)
    widened.save_pretrained(tmp_path / "widened")
    assert find_architecture(str(tmp_path / "widened"))[0] is V2
    (tmp_path / "config.json").write_text('{"_class_name": "PixArtTransformer2DModel"}')
    with pytest.raises(ModelError, match="is an image model; make a video model of it"):
        find_architecture(str(tmp_path))
    names = [preset for family in ARCHITECTURES.values() for preset in family.presets]
    assert len(names) == len(set(names))


def test_a_models_weights_say_whether_it_is_told_sizes(tmp_path: Path) -> None:
    model = build("tiny-v2", num_attention_heads=8, cross_attention_dim=192, sample_size=128)
    model.save_pretrained(tmp_path)
    edit(tmp_path / "config.json", sample_size=64, use_additional_conditions=None)
    loaded = build_transformer(str(tmp_path))[1]
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert loaded.config.use_additional_conditions is True


@pytest.mark.parametrize(("preset", "layers"), [("v1", 622), ("v2", 635), ("v3", 637)])
def test_a_lora_adapts_every_linear_layer_as_published(preset: str, layers: int) -> None:
    family, model = build_empty(preset)
    linear = {name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    adapted = add_lora(model, AdapterForm(1, None), family.lora_targets)
    assert len(adapted) == layers and set(adapted) == linear


@pytest.mark.parametrize(("preset", "layers"), [("v1", 286), ("v2", 299), ("v3", 301)])
def test_a_lora_of_images_adapts_all_but_the_temporal_layers(preset: str, layers: int) -> None:
    family, model = build_empty(preset)
    linear = {name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    adapted = add_lora(model, AdapterForm(1, None), family.lora_targets, excludes=family.image_lora_excludes)
    assert len(adapted) == layers and set(adapted) == {name for name in linear if "temporal" not in name}


@each
def test_a_lora_of_images_alone_leaves_temporal_layers_as_they_are(preset: str, tmp_path: Path) -> None:
    family, model = FAMILIES[preset], trained(build(preset))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    add_lora(model, AdapterForm(2, None), family.lora_targets, excludes=family.image_lora_excludes)
    optimizer = torch.optim.AdamW(trainable(model), lr=0.05)
    for _ in range(2):
        optimizer.zero_grad()
        family.predict(model, noise(frames=1), torch.tensor([100.0, 900.0]), caption()).square().mean().backward()
        optimizer.step()
    assert not any("temporal" in name for name in lora_weights(model).layers)
    after = {name.replace(".base_layer.", "."): tensor for name, tensor in model.state_dict().items()}
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    export_lora(model, "default", tmp_path)
    bare = trained(build(preset))
    expected = predicted(family, model, noise(), caption())
    assert not close(predicted(family, bare, noise(), caption()), expected, 1e-3)
    assert verify_exports(model, "default", tmp_path) == 0.0
    apply_lora(bare, read_lora(tmp_path / "lora_kohya.safetensors"), "stills")
    assert close(predicted(family, bare, noise(), caption()), expected)


@each
def test_caching_the_first_block_is_refused(preset: str) -> None:
    model = build(preset)
    with pytest.raises(ModelError, match="Transformer3DModel cannot skip its blocks"), first_block_cache(model, 0.1):
        pass
    predicted(FAMILIES[preset], model, noise(), caption())


@each
def test_weights_in_8_bits_and_offloaded_blocks_compute_the_same(preset: str) -> None:
    family, model = FAMILIES[preset], trained(build(preset))
    expected = predicted(family, model, noise(), caption())
    model.enable_group_offload(onload_device="cpu", offload_type="leaf_level")
    assert close(predicted(family, model, noise(), caption()), expected)
    small = trained(build(preset))
    small.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    error = (predicted(family, small, noise(), caption()) - expected).norm() / expected.norm()
    assert 0 < error < 0.2


@each
def test_half_precision_is_close(preset: str) -> None:
    family, model = FAMILIES[preset], trained(build(preset))
    expected = predicted(family, model, noise(), caption())
    half = trained(build(preset))
    half = half.bfloat16()
    given = dataclasses.replace(caption(), text=caption().text.bfloat16())
    found = predicted(family, half, noise().bfloat16(), given)
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).norm() / expected.norm() < 0.05
