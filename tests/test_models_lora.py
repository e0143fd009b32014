"""Adapters leave the base alone, survive both file layouts to the bit, add up as the formula says, and fuse."""

import json
import math
import warnings
from pathlib import Path

import pytest
import torch
from peft import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from models.easyanimate import EasyAnimate, EasyAnimateTransformer3DModel
from models.errors import ModelError
from models.lora import (
    DIFFUSERS_FILE,
    KOHYA_FILE,
    Factors,
    LoraWeights,
    add_lora,
    apply_lora,
    export_lora,
    fuse,
    lora_weights,
    read_lora,
    remove,
    set_scale,
    trainable,
    verify_exports,
    write_lora,
)
from models.lora_files import easyanimate_name, resolve

torch.set_num_threads(1)

TARGETS = EasyAnimate.lora_targets
QUERY = "transformer_blocks.0.attn1.to_q"


def build(seed: int = 0, heads: int = 2, dtype: torch.dtype = torch.float32) -> EasyAnimateTransformer3DModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = EasyAnimateTransformer3DModel(
            num_attention_heads=heads, attention_head_dim=16, in_channels=4, out_channels=4, patch_size=2, num_layers=2,
            mmdit_layers=2, time_embed_dim=16, text_embed_dim=16, add_norm_text_encoder=True,
        )  # fmt: skip
    return (model if dtype == torch.float32 else model.to(dtype)).eval()


def inputs(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    latents = torch.randn(2, 4, 3, 8, 8, generator=generator).to(dtype)
    return latents, torch.tensor([100.0, 700.0]).to(dtype), torch.randn(2, 6, 16, generator=generator).to(dtype)


@torch.no_grad()
def output(model: nn.Module) -> torch.Tensor:
    latents, timesteps, text = inputs(next(model.parameters()).dtype)
    return model(latents, timesteps, encoder_hidden_states=text, return_dict=False)[0]


def train(model: nn.Module, steps: int = 3) -> None:
    optimizer = torch.optim.AdamW(trainable(model), lr=1e-2)
    latents, timesteps, text = inputs()
    for _ in range(steps):
        loss = (model(latents, timesteps, encoder_hidden_states=text, return_dict=False)[0] - 1).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def base_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The base's own weights, under the names they have without adapters."""
    return {
        key.replace(".base_layer.", "."): tensor.clone()
        for key, tensor in model.state_dict().items()
        if ".lora_" not in key
    }


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def trained(dora: bool = False, rank: int = 3, alpha: float | None = 5.0, seed: int = 0) -> nn.Module:
    model = build()
    add_lora(model, rank, alpha, TARGETS, dora, seed=seed)
    train(model)
    return model


def random_weights(model: nn.Module, seed: int, rank: int, alpha: float, dora: bool = False) -> LoraWeights:
    generator = torch.Generator().manual_seed(seed)
    layers = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and name.endswith(("to_q", "to_out.0", "add_v_proj")):
            down = torch.randn(rank, layer.in_features, generator=generator) / math.sqrt(layer.in_features)
            up = torch.randn(layer.out_features, rank, generator=generator) / 4
            magnitude = layer.weight.detach().norm(dim=1) * 1.3 if dora else None
            layers[name] = Factors(down, up, alpha, magnitude)
    return LoraWeights(layers)


@pytest.mark.parametrize("dora", [False, True])
def test_a_new_adapter_changes_nothing_and_only_it_is_trained(dora: bool) -> None:
    model = build()
    before, expected = base_state(model), output(model)
    modules = add_lora(model, 3, 5.0, TARGETS, dora)
    assert len(modules) == 2 * len(TARGETS)
    assert torch.allclose(output(model), expected, atol=1e-6)
    assert {id(p) for p in trainable(model)} == {id(p) for n, p in model.named_parameters() if ".lora_" in n}
    train(model)
    assert same(base_state(model), before)
    assert float((output(model) - expected).abs().max()) > 1e-3
    remove(model)
    assert same(model.state_dict(), before)
    assert torch.equal(output(model), expected)


def test_the_seed_decides_the_adapter_and_the_global_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    first, again, other = build(), build(), build()
    add_lora(first, 3, None, TARGETS, seed=1)
    add_lora(again, 3, None, TARGETS, seed=1)
    add_lora(other, 3, None, TARGETS, seed=2)
    apply_lora(other, lora_weights(first), "more")
    assert torch.equal(torch.get_rng_state(), state)
    assert same(get_peft_model_state_dict(first), get_peft_model_state_dict(again))
    assert not same(get_peft_model_state_dict(first), get_peft_model_state_dict(other))
    bound = 1 / math.sqrt(32)  # kaiming uniform with a = sqrt(5)
    down = lora_weights(first).layers[QUERY].down
    assert 0.8 * bound < float(down.abs().max()) <= bound


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("alpha", [None, 5.0, 0.1])
def test_both_files_bring_the_adapter_back_to_the_bit(tmp_path: Path, dora: bool, alpha: float | None) -> None:
    model = trained(dora, alpha=alpha)
    files = export_lora(model, "default", tmp_path)
    assert [file.name for file in files] == [DIFFUSERS_FILE, KOHYA_FILE]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([DIFFUSERS_FILE, KOHYA_FILE])
    before = base_state(model)
    assert verify_exports(model, "default", tmp_path) == 0.0
    assert same(base_state(model), before)
    assert len(trainable(model)) == (3 if dora else 2) * 2 * len(TARGETS)
    for file in (*files, tmp_path):
        fresh = build()
        apply_lora(fresh, read_lora(file), "loaded")
        assert torch.equal(output(fresh), output(model))
        assert same(get_peft_model_state_dict(fresh, adapter_name="loaded"), get_peft_model_state_dict(model))


def test_verifying_notices_any_difference(tmp_path: Path) -> None:
    model = trained()
    export_lora(model, "default", tmp_path)
    tensors = load_file(tmp_path / KOHYA_FILE)
    key = next(key for key in tensors if key.endswith("lora_up.weight"))
    tensors[key][0, 0] += 0.25
    save_file(tensors, tmp_path / KOHYA_FILE)
    assert verify_exports(model, "default", tmp_path) == pytest.approx(0.25)
    alpha = next(key for key in tensors if key.endswith("alpha"))
    tensors[alpha] += 2
    save_file(tensors, tmp_path / KOHYA_FILE)
    assert verify_exports(model, "default", tmp_path) == pytest.approx(2)
    tensors[key][0, 0] = math.nan
    save_file(tensors, tmp_path / KOHYA_FILE)
    assert verify_exports(model, "default", tmp_path) == math.inf
    save_file({k: t for k, t in tensors.items() if not k.startswith(key.split(".")[0])}, tmp_path / KOHYA_FILE)
    assert verify_exports(model, "default", tmp_path) == math.inf


def test_the_diffusers_file_is_what_peft_and_diffusers_write(tmp_path: Path) -> None:
    model = trained()
    file, _ = export_lora(model, "default", tmp_path)
    expected = {f"transformer.{key}": tensor for key, tensor in get_peft_model_state_dict(model).items()}
    assert same(load_file(file), expected)
    with safe_open(file, "pt") as opened:
        metadata = json.loads(opened.metadata()["lora_adapter_metadata"])
    assert metadata["transformer.r"] == 3
    assert metadata["transformer.lora_alpha"] == 5
    # what the mixin itself writes is read as well
    model.save_lora_adapter(tmp_path / "mixin")
    theirs = read_lora(tmp_path / "mixin" / DIFFUSERS_FILE)
    assert {m: f.alpha for m, f in theirs.layers.items()} == {m: f.alpha for m, f in read_lora(file).layers.items()}


@pytest.mark.parametrize("dora", [False, True])
def test_diffusers_loads_the_file_with_its_scale(tmp_path: Path, dora: bool) -> None:
    model = trained(dora)
    export_lora(model, "default", tmp_path)
    theirs = build()
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # peft warns so if metadata and keys name different layers
        theirs.load_lora_adapter(tmp_path, prefix="transformer", weight_name=DIFFUSERS_FILE)
    assert torch.equal(output(theirs), output(model))


def test_layers_may_have_ranks_and_alphas_of_their_own(tmp_path: Path) -> None:
    base = build()
    layers = dict(random_weights(base, 0, rank=2, alpha=2.0).layers)
    layers[QUERY] = random_weights(base, 1, rank=4, alpha=1.0).layers[QUERY]
    weights = LoraWeights(layers)
    ours, theirs = build(), build()
    apply_lora(ours, weights, "mixed")
    for file in write_lora(weights, tmp_path):
        back, strangers = resolve(read_lora(file), layers)
        assert not strangers
        assert {m: (f.rank, f.alpha) for m, f in back.layers.items()} == {
            m: (f.rank, f.alpha) for m, f in layers.items()
        }
    theirs.load_lora_adapter(tmp_path, prefix="transformer", weight_name=DIFFUSERS_FILE)
    assert torch.equal(output(theirs), output(ours))


def test_kohya_keys_are_those_that_easyanimate_reads(tmp_path: Path) -> None:
    model = trained(dora=True)
    _, file = export_lora(model, "default", tmp_path)
    tensors = load_file(file)
    assert easyanimate_name("transformer_blocks.1.attn1.to_add_out") == "transformer_blocks.1.attn2.to_out.0"
    for name, inner in (("attn1_to_q", "to_q"), ("attn2_to_q", "add_q_proj"), ("attn2_to_out_0", "to_add_out")):
        factors = lora_weights(model).layers[f"transformer_blocks.1.attn1.{inner}"]
        stem = f"lora_unet_transformer_blocks_1_{name}"
        assert torch.equal(tensors[f"{stem}.lora_down.weight"], factors.down)
        assert torch.equal(tensors[f"{stem}.lora_up.weight"], factors.up)
        assert torch.equal(tensors[f"{stem}.dora_scale"], factors.magnitude[:, None])
        assert tensors[f"{stem}.alpha"].item() == 5
    assert len(tensors) == 4 * 2 * len(TARGETS)
    # the double underscore of EasyAnimate's own trainer, and diffusers' names in kohya's spelling
    for old, new in (("lora_unet_", "lora_unet__"), ("attn2_to_q", "attn1_add_q_proj")):
        renamed = tmp_path / f"{new}.safetensors"
        save_file({key.replace(old, new): tensor for key, tensor in tensors.items()}, renamed)
        fresh = build()
        apply_lora(fresh, read_lora(renamed), "renamed")
        assert torch.equal(output(fresh), output(model))


def test_alpha_is_the_rank_where_no_file_says_otherwise(tmp_path: Path) -> None:
    _, file = export_lora(trained(), "default", tmp_path)
    save_file({k: t for k, t in load_file(file).items() if not k.endswith(".alpha")}, tmp_path / "bare.safetensors")
    assert {factors.alpha for factors in read_lora(tmp_path / "bare.safetensors").layers.values()} == {3.0}


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
    add_lora(model, 3, 5.0, TARGETS, dora=True)
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
        assert torch.equal(model.get_submodule(module).weight, exact.bfloat16())


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


def test_a_lora_of_another_model_is_refused_with_keys_and_shapes(tmp_path: Path) -> None:
    file, kohya = export_lora(trained(), "default", tmp_path)
    wide = build(heads=3)
    before = base_state(wide)
    for path in (file, kohya):
        with pytest.raises(ModelError, match=r"16 of 16 layers do not fit.*\(32, 32\), expected \(48, 48\)") as caught:
            apply_lora(wide, read_lora(path), "foreign")
        assert str(caught.value).count("expected") == 3
        assert "\n" not in str(caught.value)
    assert same(wide.state_dict(), before)

    unknown = LoraWeights({
        **lora_weights(trained()).layers,
        "blocks.7.cross_attn.q": lora_weights(trained()).layers[QUERY],
    })
    with pytest.raises(ModelError, match=r"1 of 17 layers do not fit.*blocks\.7\.cross_attn\.q: no such linear layer"):
        apply_lora(build(), unknown, "foreign")


class Twins(nn.Module):
    """Two layers that are called the same with underscores for dots."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Module()
        self.a.b_q = nn.Linear(4, 4)
        self.a_b = nn.Module()
        self.a_b.q = nn.Linear(4, 4)
        self.free = nn.Linear(4, 4)


def test_a_name_that_may_be_two_layers_is_refused_only_where_it_is_used() -> None:
    factors = Factors(torch.ones(1, 4), torch.ones(4, 1), 1.0)
    with pytest.raises(ModelError, match=r"'a_b_q' may be any of a\.b_q, a_b\.q"):
        apply_lora(Twins(), LoraWeights({"a_b_q": factors}), "x")
    apply_lora(Twins(), LoraWeights({"free": factors, "a.b_q": factors}), "x")
    with pytest.raises(ModelError, match="another key both adapt"):
        apply_lora(build(), LoraWeights({QUERY: factors, QUERY.replace(".", "_"): factors}), "x")


def test_twins_are_not_exported_in_kohya_layout(tmp_path: Path) -> None:
    model = Twins()
    add_lora(model, 1, None, ["b_q", "q"])
    with pytest.raises(ModelError, match="two modules are called"):
        export_lora(model, "default", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {"unet.weight": torch.ones(2)}, "no LoRA: 1 keys"),
        (lambda t: {**t, "lora_te_x.lora_up.weight": torch.ones(2, 2)}, "adapt a text encoder"),
        (lambda t: {k: v for k, v in t.items() if "lora_B" not in k}, "one factor is missing at 16 keys"),
        (lambda t: {k: v[:2] if "lora_A" in k else v for k, v in t.items()}, "do not multiply"),
        (lambda t: {k: v[None] if "magnitude" in k else v for k, v in t.items()}, "DoRA over output rows"),
    ],
)
def test_files_that_are_no_lora_are_refused(tmp_path: Path, change, message: str) -> None:
    file, _ = export_lora(trained(dora=True), "default", tmp_path)
    tensors = {key: tensor.contiguous() for key, tensor in change(load_file(file)).items()}
    save_file(tensors, tmp_path / "changed.safetensors")
    with pytest.raises(ModelError, match=message):
        read_lora(tmp_path / "changed.safetensors")


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        read_lora(tmp_path / "none.safetensors")
    torch.save({"x": torch.ones(2)}, tmp_path / "pickled.safetensors")
    with pytest.raises(ModelError, match="only .safetensors weights are read"):
        read_lora(tmp_path / "pickled.safetensors")
    tensors = {"transformer.a.lora_A.weight": torch.ones(1, 2), "transformer.a.lora_B.weight": torch.ones(2, 1)}
    save_file(tensors, tmp_path / "odd.safetensors", metadata={"lora_adapter_metadata": "{nonsense"})
    with pytest.raises(ModelError, match="not readable; export the LoRA again"):
        read_lora(tmp_path / "odd.safetensors")


def test_half_a_dora_is_refused() -> None:
    base = build()
    weights = dict(random_weights(base, 1, rank=2, alpha=2.0, dora=True).layers)
    weights[QUERY] = random_weights(base, 1, rank=2, alpha=2.0).layers[QUERY]
    with pytest.raises(ModelError, match="magnitudes are missing at 1 layers"):
        apply_lora(base, LoraWeights(weights), "x")


def test_wrong_requests_say_what_there_is() -> None:
    model = build()
    with pytest.raises(ModelError, match=r"target 'to_x' is no linear layer.*to_out\.0, to_q"):
        add_lora(model, 4, None, ["to_q", "to_x"])
    with pytest.raises(ModelError, match="target 'norm_final' is no linear layer"):
        add_lora(model, 4, None, ["norm_final"])
    for rank, alpha in ((0, None), (4, 0.0), (4, math.nan)):
        with pytest.raises(ModelError, match="at least 1 and alpha above 0"):
            add_lora(model, rank, alpha, TARGETS)
    with pytest.raises(ModelError, match="no targets"):
        add_lora(model, 4, None, [])
    with pytest.raises(ModelError, match=r"adapter name 'a\.b'"):
        add_lora(model, 4, None, TARGETS, name="a.b")
    assert not any(".lora_" in name for name, _ in model.named_modules())
    add_lora(model, 4, None, TARGETS)
    with pytest.raises(ModelError, match="has an adapter 'default' already"):
        apply_lora(model, lora_weights(model), "default")
    with pytest.raises(ModelError, match="no adapter 'other'"):
        set_scale(model, "other", 1.0)


def test_convolutions_are_never_adapted() -> None:
    model = build()
    modules = add_lora(model, 2, None, ["proj"])  # the patch embedding and the feed-forward's first layer
    assert modules
    assert all(isinstance(build().get_submodule(module), nn.Linear) for module in modules)
    assert isinstance(model.proj, nn.Conv2d)
