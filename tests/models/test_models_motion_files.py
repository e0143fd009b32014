"""Video models in parts: an image model's folder, a personalised checkpoint, a motion module; and inflation."""

import json
from pathlib import Path

import pytest
import torch
from closeness import close
from pixart import FAMILIES, build, caption, frame_by_frame, image_folder, image_model, noise, predicted, trained
from safetensors.torch import load_file, save_file

from models.errors import ModelError
from models.transformers.inflation import assemble, inflate, is_new
from models.transformers.motion_files import load_motion_module, load_personalised, save_motion_module

torch.set_num_threads(1)
V1, V2, V3 = FAMILIES.values()
each_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


@each_family
@pytest.mark.parametrize("class_name", ["PixArtTransformer2DModel", "Transformer2DModel"])
def test_an_inflated_model_predicts_each_frame_as_the_image_model_did(
    family: object, class_name: str, tmp_path: Path
) -> None:
    image = image_folder(tmp_path, 6)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"_class_name": class_name}))
    model = inflate(family, tmp_path)
    assert close(predicted(family, model, noise(), caption()), frame_by_frame(image, noise(), caption()), 1e-5)
    assert family.takes(model.config)
    assert family.shape(model).in_channels == (12 if family is V3 else 4)
    old = {name for name in model.state_dict() if not is_new(name)}
    assert old == image.state_dict().keys()
    model.save_pretrained(tmp_path / "video")
    again = family.load(tmp_path / "video")
    assert again.state_dict().keys() == model.state_dict().keys()


def test_inflation_learns_motion_from_its_first_step_on(tmp_path: Path) -> None:
    image_folder(tmp_path, 2)
    model = inflate(V1, tmp_path).train()
    V1.predict(model, noise(), torch.tensor([100.0, 900.0]), caption()).square().mean().backward()
    for block in model.transformer_blocks:
        assert block.attn_temporal.temporal_transformer.proj_out.weight.grad.abs().max() > 0


def test_parts_are_put_together_in_order(tmp_path: Path) -> None:
    image_folder(tmp_path / "base", 2)
    personalised = trained(image_model(2))
    save_file(personalised.state_dict(), tmp_path / "portrait.safetensors")
    source = trained(inflate(V1, tmp_path / "base"))
    save_motion_module(source, tmp_path / "motion.safetensors")
    model = assemble(V1, tmp_path / "base", tmp_path / "portrait.safetensors", tmp_path / "motion.safetensors")
    for name, tensor in model.state_dict().items():
        from_where = source if "temporal" in name else personalised
        assert torch.equal(tensor, from_where.state_dict()[name]), name
    without = assemble(V1, tmp_path / "base", tmp_path / "portrait.safetensors")
    assert close(predicted(V1, without, noise(), caption()), frame_by_frame(personalised, noise(), caption()), 1e-5)
    source.save_pretrained(tmp_path / "video")
    onto_video = assemble(V1, tmp_path / "video", tmp_path / "portrait.safetensors")
    assert close(predicted(V1, onto_video, noise(), caption()), predicted(V1, model, noise(), caption()))
    with pytest.raises(ModelError, match="not of EasyAnimate V2"):
        assemble(V2, tmp_path / "video")


@each_family
def test_a_motion_module_alone_is_saved_and_loaded(family: object, tmp_path: Path) -> None:
    preset = next(name for name, found in FAMILIES.items() if found is family)
    source, target = trained(build(preset)), build(preset)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    save_motion_module(source, tmp_path / "mm.safetensors")
    written = load_file(tmp_path / "mm.safetensors")
    assert written.keys() == {name for name in before if "temporal" in name}
    load_motion_module(target, tmp_path / "mm.safetensors")
    for name, tensor in target.state_dict().items():
        assert torch.equal(tensor, source.state_dict()[name] if "temporal" in name else before[name])


def test_a_motion_module_is_read_from_pytorchs_files_without_losses(tmp_path: Path) -> None:
    source, target = trained(build("tiny-v1")), build("tiny-v1")
    temporal = {name: tensor for name, tensor in source.state_dict().items() if "temporal" in name}
    wrapped = {f"module.{name}": tensor for name, tensor in temporal.items()}
    for number, content in enumerate((temporal | {"loss.w": torch.ones(1)}, {"state_dict": temporal}, wrapped)):
        file = tmp_path / f"{number}.pth"
        torch.save(content, file)
        load_motion_module(target, file)
        assert all(torch.equal(target.state_dict()[name], tensor) for name, tensor in temporal.items())


def test_motion_modules_that_do_not_fit_are_refused_in_one_line(tmp_path: Path) -> None:
    target = build("tiny-v1")
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    file = tmp_path / "mm.safetensors"
    temporal = {name: tensor for name, tensor in before.items() if "temporal" in name}
    lost = next(iter(temporal))
    save_motion_module(build("tiny-v1", num_attention_heads=8, cross_attention_dim=192), tmp_path / "wide.safetensors")
    save_motion_module(build("tiny-v1", num_layers=5), tmp_path / "deep.safetensors")
    save_file({"transformer_blocks.0.attn1.to_q.weight": torch.ones(32, 32)}, tmp_path / "spatial.safetensors")
    save_file(before, tmp_path / "whole.safetensors")
    save_file({name: tensor for name, tensor in temporal.items() if name != lost}, tmp_path / "half.safetensors")
    (tmp_path / "text.safetensors").write_text("not weights")
    (tmp_path / "text.pth").write_text("not weights")
    torch.save([torch.ones(2)], tmp_path / "list.pth")
    torch.save({"state_dict": Path()}, tmp_path / "code.pth")
    for name, said in {
        "wide.safetensors": "width 192, for a model of width 96",
        "deep.safetensors": r"transformer_blocks\.4\..* is unknown",
        "spatial.safetensors": "holds no motion module",
        "whole.safetensors": "no motion module's",
        "half.safetensors": f"{lost} is missing",
        "text.safetensors": "not readable as safetensors",
        "text.pth": "not readable as weights",
        "list.pth": "expected tensors by name",
        "code.pth": "not readable as weights",
        "none.safetensors": "no such file",
        "none.pth": "no such file",
    }.items():
        with pytest.raises(ModelError, match=said) as caught:
            load_motion_module(target, tmp_path / name)
        assert "\n" not in str(caught.value) and name in str(caught.value)
    assert not file.exists()
    assert all(torch.equal(tensor, before[name]) for name, tensor in target.state_dict().items())


def test_personalised_checkpoints_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    target = build("tiny-v1")
    save_file(target.state_dict(), tmp_path / "video.safetensors")
    save_file({"unet.conv_in.weight": torch.ones(2)}, tmp_path / "other.safetensors")
    save_file({"proj_out.bias": torch.ones(2)}, tmp_path / "narrow.safetensors")
    save_file({}, tmp_path / "empty.safetensors")
    for name, said in {
        "video.safetensors": "weights are a motion module's",
        "other.safetensors": "unet.conv_in.weight is unknown",
        "narrow.safetensors": r"proj_out.bias is \[2\], wanted \[32\]",
        "empty.safetensors": "holds no weights",
    }.items():
        with pytest.raises(ModelError, match=said):
            load_personalised(target, tmp_path / name)
    some = {"proj_out.bias": torch.full((32,), 7.0), "pos_embed.pos_embed": torch.ones(1, 16, 32)}
    save_file(some, tmp_path / "some.safetensors")
    load_personalised(target, tmp_path / "some.safetensors")
    assert torch.equal(target.proj_out.bias, some["proj_out.bias"])


def test_what_cannot_be_inflated_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="give an image model's folder"):
        inflate(V1, tmp_path)
    image_folder(tmp_path, 2)
    with pytest.raises(ModelError, match="multiple of 32 and of its 5 heads"):
        inflate(V1, tmp_path, {"motion_module_kwargs": {"num_attention_heads": 5}})
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_layers": 3}))
    with pytest.raises(ModelError, match="weights do not fit config.json"):
        inflate(V1, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"_class_name": "UNet2DConditionModel"}))
    with pytest.raises(ModelError, match="'UNet2DConditionModel' is no image model"):
        inflate(V1, tmp_path)
