"""Adapters survive both file layouts to the bit; files that do not fit are refused."""

import json
import math
import warnings
from pathlib import Path

import pytest
import torch
from adapters import QUERY, TARGETS, base_state, build, output, random_weights, same, trained
from closeness import close
from peft import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from models.errors import ModelError
from models.lora.adapters import add_lora, apply_lora, export_lora, lora_weights, trainable, verify_exports
from models.lora.files import (
    DIFFUSERS_FILE,
    KOHYA_FILE,
    Factors,
    LoraWeights,
    easyanimate_name,
    read_lora,
    resolve,
    write_lora,
)
from models.lora.form import AdapterForm

torch.set_num_threads(1)


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
        assert close(output(fresh), output(model))
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
    assert close(output(theirs), output(model))


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
    assert close(output(theirs), output(ours))


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
        assert close(output(fresh), output(model))


def test_alpha_is_the_rank_where_no_file_says_otherwise(tmp_path: Path) -> None:
    _, file = export_lora(trained(), "default", tmp_path)
    save_file({k: t for k, t in load_file(file).items() if not k.endswith(".alpha")}, tmp_path / "bare.safetensors")
    assert {factors.alpha for factors in read_lora(tmp_path / "bare.safetensors").layers.values()} == {3.0}


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
    add_lora(model, AdapterForm(1, None), ["b_q", "q"])
    with pytest.raises(ModelError, match="two modules are called"):
        export_lora(model, "default", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {"unet.weight": torch.ones(2)}, "no LoRA: 1 keys"),
        (lambda t: {"lora_te_x.lora_up.weight": torch.ones(2, 2)}, "adapt a text encoder alone"),
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


def test_what_adapts_the_text_encoder_beside_it_is_skipped_and_told_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, file = export_lora(trained(), "default", tmp_path)
    plain = read_lora(file)
    # As EasyAnimate V1's published LoRA has them: two underscores where the root has no name, and T5's modules.
    tensors = {key.replace("lora_unet_", "lora_unet__", 1): tensor for key, tensor in load_file(file).items()}
    name = "lora_te_encoder_block_0_layer_0_SelfAttention_q"
    parts = {".lora_down.weight": torch.ones(2, 4), ".lora_up.weight": torch.ones(4, 2), ".alpha": torch.tensor(1.0)}
    save_file(tensors | {name + end: tensor for end, tensor in parts.items()}, tmp_path / "portrait.safetensors")
    capsys.readouterr()
    found = [read_lora(tmp_path / "portrait.safetensors") for _ in range(2)][1]
    assert found.layers.keys() == plain.layers.keys()
    assert all(torch.equal(found.layers[layer].up, factors.up) for layer, factors in plain.layers.items())
    [line] = capsys.readouterr().err.splitlines()
    assert "3 keys adapt the text encoder and are skipped" in line and "portrait.safetensors" in line


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
