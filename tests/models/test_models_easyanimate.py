"""The transformer: diffusers' own on disk, with the mixins that it lacks."""

from pathlib import Path

import diffusers
import pytest
import torch
from closeness import close
from diffusers.hooks import FirstBlockCacheConfig
from safetensors.torch import load_file, save_file

from models.errors import ModelError
from models.transformers.conditioning import Conditioning
from models.transformers.easyanimate_v5 import EasyAnimate, EasyAnimateTransformer3DModel, enable_caching
from models.transformers.table import build_transformer, find_architecture, shape_of

torch.set_num_threads(1)
FAMILY = EasyAnimate()


@pytest.fixture
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return FAMILY.build(FAMILY.presets["tiny"] | {"num_layers": 2, "mmdit_layers": 2})


def inputs(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, Conditioning]:
    draw = torch.Generator().manual_seed(1)
    return (
        torch.randn(batch, 16, 3, 8, 8, generator=draw),
        torch.tensor([100.0, 900.0][:batch]),
        Conditioning(torch.randn(batch, 12, 64, generator=draw)),
    )


def test_the_large_preset_is_the_published_12b() -> None:
    shape = shape_of("12b")
    assert shape.parameters == 11_799_056_960
    assert (shape.width, shape.layers, shape.text_dim) == (48 * 64, 48, 3584)


def test_weights_go_to_diffusers_and_back_bit_for_bit(model: torch.nn.Module, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "ours")
    theirs = diffusers.EasyAnimateTransformer3DModel.from_pretrained(tmp_path / "ours")
    assert type(theirs) is diffusers.EasyAnimateTransformer3DModel
    theirs.save_pretrained(tmp_path / "theirs")
    family, back = build_transformer(str(tmp_path / "theirs"))
    assert isinstance(back, EasyAnimateTransformer3DModel)
    assert family.class_name == "EasyAnimateTransformer3DModel"
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, back.state_dict()[name]), name
    assert close(FAMILY.predict(model, *inputs()), theirs(*inputs()[:2], encoder_hidden_states=inputs()[2].text).sample)


def test_the_parameters_named_unused_are_just_those_without_gradient(model: torch.nn.Module) -> None:
    FAMILY.predict(model, *inputs()).square().mean().backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == set(FAMILY.unused_parameters(model))
    assert len(without) == 6


def test_gradient_checkpointing_changes_no_gradient(model: torch.nn.Module) -> None:
    gradients = []
    for checkpointing in (False, True):
        model.zero_grad()
        if checkpointing:
            model.enable_gradient_checkpointing()
        FAMILY.predict(model, *inputs()).square().mean().backward()
        gradients.append(model.proj.weight.grad.clone())
    assert close(*gradients)


def test_fp8_storage_offload_and_first_block_cache_work(model: torch.nn.Module) -> None:
    model.eval()
    with torch.no_grad():
        expected = FAMILY.predict(model, *inputs())
        model.enable_group_offload(onload_device="cpu", offload_type="leaf_level")
        assert close(FAMILY.predict(model, *inputs()), expected)

        torch.manual_seed(0)
        cached = FAMILY.build(FAMILY.presets["tiny"] | {"num_layers": 2, "mmdit_layers": 2}).eval()
        enable_caching()
        cached.enable_cache(FirstBlockCacheConfig(threshold=0.1))
        with cached.cache_context("cond"):
            first = FAMILY.predict(cached, *inputs())
            again = FAMILY.predict(cached, *inputs())
        assert torch.allclose(first, expected, atol=1e-5)
        assert torch.allclose(again, expected, atol=1e-4)  # taken from the cache: the input has not changed

        torch.manual_seed(0)
        small = FAMILY.build(FAMILY.presets["tiny"] | {"num_layers": 2, "mmdit_layers": 2}).eval()
        small.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
        assert small.transformer_blocks[0].ff.net[2].weight.dtype is torch.float8_e4m3fn
        error = (FAMILY.predict(small, *inputs()) - expected).norm() / expected.norm()
        assert 0 < error < 0.1


def test_what_is_no_transformer_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither a preset"):
        find_architecture(str(tmp_path))
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(ModelError, match="UNet2DModel"):
        find_architecture(str(tmp_path))
    (tmp_path / "config.json").write_text('{"_class_name": "EasyAnimateTransformer3DModel"}')
    with pytest.raises(ModelError, match="no .safetensors beside config.json"):
        build_transformer(str(tmp_path))


def test_weights_that_do_not_fit_the_config_are_refused(model: torch.nn.Module, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    tensors = load_file(file)
    lost = "transformer_blocks.1.attn1.to_q.weight"
    save_file({name: tensor for name, tensor in tensors.items() if name != lost}, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"1 weights do not fit config.json .{lost}.; give"):
        build_transformer(str(tmp_path))
    more = {"transformer_blocks.2.attn1.to_q.weight": tensors[lost].clone()}
    save_file(tensors | more, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 weights do not fit config.json .transformer_blocks\.2"):
        build_transformer(str(tmp_path))
