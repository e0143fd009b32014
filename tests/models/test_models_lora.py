"""Adapters leave the base alone, add up as the formula says, and fuse."""

import math
import warnings
from pathlib import Path

import pytest
import torch
from adapters import QUERY, TARGETS, base_state, build, output, random_weights, same, train, trained
from closeness import close
from peft import get_peft_model_state_dict
from torch import nn

from models.errors import ModelError
from models.lora.adapters import (
    add_lora,
    apply_lora,
    export_lora,
    fuse,
    lora_weights,
    remove,
    set_scale,
    trainable,
    verify_exports,
)
from models.lora.files import LoraWeights
from models.lora.form import AdapterForm

torch.set_num_threads(1)


@pytest.mark.parametrize("dora", [False, True])
def test_a_new_adapter_changes_nothing_and_only_it_is_trained(dora: bool) -> None:
    model = build()
    before, expected = base_state(model), output(model)
    modules = add_lora(model, AdapterForm(3, 5.0, dora=dora), TARGETS)
    assert len(modules) == 2 * len(TARGETS)
    assert torch.allclose(output(model), expected, atol=1e-6)
    assert {id(p) for p in trainable(model)} == {id(p) for n, p in model.named_parameters() if ".lora_" in n}
    train(model)
    assert same(base_state(model), before)
    assert float((output(model) - expected).abs().max()) > 1e-3
    remove(model)
    assert same(model.state_dict(), before)
    assert close(output(model), expected)


def test_the_seed_decides_the_adapter_and_the_global_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    first, again, other = build(), build(), build()
    add_lora(first, AdapterForm(3, None), TARGETS, seed=1)
    add_lora(again, AdapterForm(3, None), TARGETS, seed=1)
    add_lora(other, AdapterForm(3, None), TARGETS, seed=2)
    apply_lora(other, lora_weights(first), "more")
    assert torch.equal(torch.get_rng_state(), state)
    assert same(get_peft_model_state_dict(first), get_peft_model_state_dict(again))
    assert not same(get_peft_model_state_dict(first), get_peft_model_state_dict(other))
    bound = 1 / math.sqrt(32)  # kaiming uniform with a = sqrt(5)
    down = lora_weights(first).layers[QUERY].down
    assert 0.8 * bound < float(down.abs().max()) <= bound


def weight_of(model: nn.Module, module: str) -> torch.Tensor:
    return model.get_submodule(module).weight.detach().double()


def test_two_adapters_add_up_as_the_formula_says() -> None:
    base, model = build(), build()
    one, two = random_weights(base, 1, rank=2, alpha=3.0), random_weights(base, 2, rank=5, alpha=5.0)
    apply_lora(model, one, "one", 0.5)
    apply_lora(model, two, "two", -0.75)
    manual = build()
    for module, a in one.layers.items():
        b = two.layers[module]
        update = 0.5 * 3 / 2 * a.up.double() @ a.down.double() - 0.75 * 5 / 5 * b.up.double() @ b.down.double()
        manual.get_submodule(module).weight.data = (weight_of(base, module) + update).float()
    assert float((output(manual) - output(base)).abs().max()) > 0.01
    assert torch.allclose(output(model), output(manual), atol=1e-5)
    set_scale(model, "two", 0.0)
    alone = build()
    apply_lora(alone, one, "one", 0.5)
    assert torch.allclose(output(model), output(alone), atol=1e-6)


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0, 1.5])
def test_dora_moves_by_its_strength_between_the_two_weights(strength: float) -> None:
    base, model = build(), build()
    weights = random_weights(base, 1, rank=2, alpha=3.0, dora=True)
    apply_lora(model, weights, "dora", strength)
    manual = build()
    for module, factors in weights.layers.items():
        weight = weight_of(base, module)
        direction = weight + 3 / 2 * factors.up.double() @ factors.down.double()
        moved = factors.magnitude.double()[:, None] * direction / direction.norm(dim=1, keepdim=True)
        manual.get_submodule(module).weight.data = (weight + strength * (moved - weight)).float()
    assert torch.allclose(output(model), output(manual), atol=1e-5)
    fuse(model)
    assert torch.allclose(output(model), output(manual), atol=1e-5)


@pytest.mark.parametrize("kinds", [(False,), (True,), (False, False), (False, True), (True, False), (True, True)])
def test_fused_gives_what_unfused_gives_and_leaves_a_plain_model(kinds: tuple[bool, ...]) -> None:
    base, model = build(), build()
    for i, dora in enumerate(kinds):
        apply_lora(model, random_weights(base, i, rank=2 + i, alpha=3.0, dora=dora), f"a{i}", 0.6 + i)
    expected = output(model)
    assert float((expected - output(base)).abs().max()) > 0.01
    fuse(model)
    assert float((output(model) - expected).abs().max()) < 1e-5
    assert model.state_dict().keys() == base.state_dict().keys()
    assert not hasattr(model, "peft_config")
    apply_lora(model, random_weights(base, 9, rank=2, alpha=2.0), "a0")  # names are free again


def test_a_broken_adapter_is_not_fused() -> None:
    model = build()
    weights = random_weights(model, 1, rank=2, alpha=2.0)
    weights.layers[QUERY].up[0, 0] = math.inf
    apply_lora(model, weights, "broken")
    before = base_state(model)
    with pytest.raises(ModelError, match="not finite"):
        fuse(model)
    assert same(base_state(model), before)


def test_a_bf16_base_keeps_its_dtype_and_the_adapter_its_digits(tmp_path: Path) -> None:
    model = build(dtype=torch.bfloat16)
    add_lora(model, AdapterForm(3, 5.0, dora=True), TARGETS)
    assert {p.dtype for p in trainable(model)} == {torch.float32}
    with torch.no_grad():
        for parameter in trainable(model):
            parameter.add_(1e-4)
    export_lora(model, "default", tmp_path)
    assert verify_exports(model, "default", tmp_path) == 0.0
    expected = output(model)
    assert expected.dtype == torch.bfloat16
    fuse(model)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert torch.allclose(output(model).float(), expected.float(), atol=0.1)


def test_fusing_into_bf16_rounds_once() -> None:
    base, model = build(dtype=torch.bfloat16), build(dtype=torch.bfloat16)
    one, two = (random_weights(build(), seed, rank=2, alpha=2.0) for seed in (1, 2))
    apply_lora(model, one, "one")
    apply_lora(model, two, "two")
    fuse(model)
    for module, a in one.layers.items():
        b = two.layers[module]
        exact = base.get_submodule(module).weight.detach().float() + a.up @ a.down + b.up @ b.down
        found = model.get_submodule(module).weight
        assert found.dtype == torch.bfloat16
        # A sum that falls between two bf16 values may go either way; rounding twice would change every eighth.
        assert (found != exact.bfloat16()).float().mean() < 0.005
        assert close(found.float(), exact, 2**-8)


def test_divided_parameters_are_gathered(tmp_path: Path) -> None:
    from torch.distributed.fsdp import fully_shard

    model = trained(dora=True)
    expected = lora_weights(model)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        for block in model.transformer_blocks:
            fully_shard(block, mesh=torch.distributed.init_device_mesh("cpu", (1,)))
        assert type(trainable(model)[0].data).__name__ == "DTensor"
        found = lora_weights(model)
    finally:
        torch.distributed.destroy_process_group()
    for module, factors in expected.layers.items():
        assert type(found.layers[module].up) is torch.Tensor
        assert torch.equal(found.layers[module].up, factors.up)
        assert torch.equal(found.layers[module].magnitude, factors.magnitude)


def test_applying_does_not_change_what_is_trained() -> None:
    model = trained()
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    apply_lora(model, random_weights(build(), 3, rank=2, alpha=2.0), "style")
    after = {name: p.requires_grad for name, p in model.named_parameters()}
    assert {name: after[name] for name in before if name in after} == {n: g for n, g in before.items() if n in after}
    assert not any(needs for name, needs in after.items() if ".style." in name)
    plain = build()
    apply_lora(plain, random_weights(plain, 3, rank=2, alpha=2.0), "style")
    fuse(plain)
    assert all(parameter.requires_grad for parameter in plain.parameters())


def test_an_adapter_named_like_a_module_is_kept_apart() -> None:
    model, base = build(), build()
    one, two = random_weights(base, 1, rank=2, alpha=2.0), random_weights(base, 2, rank=2, alpha=2.0)
    apply_lora(model, one, "0")
    apply_lora(model, two, "attn1")
    for name, weights in (("0", one), ("attn1", two)):
        found = lora_weights(model, name)
        assert found.layers.keys() == weights.layers.keys()
        assert all(torch.equal(found.layers[m].up, f.up) for m, f in weights.layers.items())


def test_peft_is_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = trained(dora=True)
        export_lora(model, "default", tmp_path)
        verify_exports(model, "default", tmp_path)
        apply_lora(model, random_weights(build(), 1, rank=2, alpha=2.0), "second")
        fuse(model)
    assert not caplog.records


def test_half_a_dora_is_refused() -> None:
    base = build()
    weights = dict(random_weights(base, 1, rank=2, alpha=2.0, dora=True).layers)
    weights[QUERY] = random_weights(base, 1, rank=2, alpha=2.0).layers[QUERY]
    with pytest.raises(ModelError, match="magnitudes are missing at 1 layers"):
        apply_lora(base, LoraWeights(weights), "x")


def test_wrong_requests_say_what_there_is() -> None:
    model = build()
    with pytest.raises(ModelError, match=r"target 'to_x' is no linear layer.*to_out\.0, to_q"):
        add_lora(model, AdapterForm(4, None), ["to_q", "to_x"])
    with pytest.raises(ModelError, match="target 'norm_final' is no linear layer"):
        add_lora(model, AdapterForm(4, None), ["norm_final"])
    for rank, alpha in ((0, None), (4, 0.0), (4, math.nan)):
        with pytest.raises(ModelError, match="at least 1 and alpha above 0"):
            add_lora(model, AdapterForm(rank, alpha), TARGETS)
    with pytest.raises(ModelError, match="no targets"):
        add_lora(model, AdapterForm(4, None), [])
    with pytest.raises(ModelError, match=r"adapter name 'a\.b'"):
        add_lora(model, AdapterForm(4, None), TARGETS, name="a.b")
    assert not any(".lora_" in name for name, _ in model.named_modules())
    add_lora(model, AdapterForm(4, None), TARGETS)
    with pytest.raises(ModelError, match="has an adapter 'default' already"):
        apply_lora(model, lora_weights(model), "default")
    with pytest.raises(ModelError, match="no adapter 'other'"):
        set_scale(model, "other", 1.0)


def test_convolutions_are_never_adapted() -> None:
    model = build()
    modules = add_lora(model, AdapterForm(2, None), ["proj"])  # the patch embedding and the feed-forward's first layer
    assert modules
    assert all(isinstance(build().get_submodule(module), nn.Linear) for module in modules)
    assert isinstance(model.proj, nn.Conv2d)
