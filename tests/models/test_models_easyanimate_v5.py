"""EasyAnimate V5 beside V5.1: the published numbers and names, and what tells them apart."""

from pathlib import Path

import pytest
import torch
from closeness import close

from models.denoise.objectives import make_objective
from models.denoise.samplers import make_scheduler
from models.errors import ModelError
from models.transformers.conditioning import Conditioning
from models.transformers.easyanimate_v5 import EasyAnimate
from models.transformers.easyanimate_v5_names import has_published_names, to_diffusers, to_published
from models.transformers.easyanimate_v5_presets import V5, V5_1
from models.transformers.published_folder import save_published
from models.transformers.table import build_empty, build_transformer, find_architecture

torch.set_num_threads(1)
SMALL = {"num_layers": 3, "mmdit_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16, "time_embed_dim": 8}


def parameters(preset: str) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in build_empty(preset)[1].named_parameters()}


@pytest.mark.parametrize(
    ("preset", "published"),
    [
        ("12b-inpaint", 11_799_265_856),
        ("7b-inpaint", 6_814_670_912),
        ("v5-12b-inpaint", 11_797_692_480),
        ("v5-7b-inpaint", 6_813_097_536),
    ],
)
def test_value_counts_are_the_published_ones(preset: str, published: int) -> None:
    found = parameters(preset)
    assert sum(shape.numel() for shape in found.values()) == published
    own = {name.split(".")[1] for name in found if ".txt_ff." in name}
    assert len(own) == (18 if "7b" in preset else 48)
    assert found["proj.weight"] == (3072, 33, 2, 2)


@pytest.mark.parametrize("size", ["tiny", "12b", "7b"])
def test_v5_and_v5_1_differ_in_how_text_comes_in_and_in_nothing_else(size: str) -> None:
    newer, older = parameters(size), parameters(f"v5-{size}" if size != "tiny" else "tiny-v5")
    text = {name for name in newer.keys() | older.keys() if name.startswith("text_proj")}
    assert {n: s for n, s in newer.items() if n not in text} == {n: s for n, s in older.items() if n not in text}
    assert text & newer.keys() == {"text_proj.0.weight", "text_proj.1.weight", "text_proj.1.bias"}
    assert text & older.keys() == {f"text_proj{second}.{kind}" for second in ("", "_t5") for kind in ("weight", "bias")}
    if size != "tiny":
        assert (older["text_proj.weight"][1], older["text_proj_t5.weight"][1]) == (1024, 2048)


@pytest.mark.parametrize(
    ("preset", "channels"),
    [("7b", 16), ("12b-control-reference", 48), ("7b-camera", 38), ("v5-12b-control", 32), ("tiny-v5-inpaint", 33)],
)
def test_the_published_kinds_have_their_channels(preset: str, channels: int) -> None:
    assert parameters(preset)["proj.weight"][1] == channels


@pytest.fixture(params=["tiny", "tiny-v5"])
def model(request: pytest.FixtureRequest) -> torch.nn.Module:
    torch.manual_seed(0)
    family, config = find_architecture(request.param)
    assert config is not None
    return family.build(config | SMALL).eval()


def test_published_names_keep_text_in_an_attention_of_its_own(model: torch.nn.Module) -> None:
    state = dict(model.state_dict())
    published = to_published(state)
    assert len(published) == len(state) and not any("add" in name for name in published)
    layers = ("to_q", "to_k", "to_v", "to_out.0", "norm_q", "norm_k")
    wanted = {f"transformer_blocks.0.attn{n}.{layer}.weight" for n in (1, 2) for layer in layers}
    assert wanted <= published.keys()
    assert not any(".2.attn2." in name for name in published)  # the last block shares its weights with the video
    back = to_diffusers(published)
    assert back.keys() == state.keys() and all(back[name] is state[name] for name in state)
    assert to_diffusers(state) == state


@pytest.mark.parametrize("kind", ["published", "pickle", "wrapped", "diffusers"])
def test_folders_load_under_either_name_and_are_saved_as_published(
    model: torch.nn.Module, kind: str, tmp_path: Path
) -> None:
    folder = tmp_path / "transformer"
    if kind == "diffusers":
        model.save_pretrained(folder)
    else:
        save_published(EasyAnimate(), model, folder)
    if kind in ("pickle", "wrapped"):
        next(folder.glob("*.safetensors")).unlink()
        state = to_published(model.state_dict())
        torch.save({"state_dict": state} if kind == "wrapped" else state, folder / "diffusion_pytorch_model.pth")
    assert has_published_names(folder) == (kind != "diffusers")
    family, back = build_transformer(str(folder))
    assert family.takes(model.config)
    assert back.config.text_embed_dim_t5 == model.config.text_embed_dim_t5
    assert back.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(back.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    assert build_transformer(str(folder), torch.bfloat16)[1].dtype == torch.bfloat16


def test_presets_of_both_are_found_by_name_and_have_fields_that_are_known() -> None:
    assert not V5.keys() & V5_1.keys()
    for name in (*V5, *V5_1):
        family, config = find_architecture(name)
        assert config is not None and config.keys() <= set(family.fields) and family.takes(config)
        assert family.defaults(config).name == ("EasyAnimate V5" if name in V5 else "EasyAnimate V5.1")


@torch.no_grad()
def test_v5_reads_both_texts_and_v5_1_has_one() -> None:
    torch.manual_seed(0)
    family, config = find_architecture("tiny-v5")
    assert config is not None
    two = family.build(config | SMALL).eval()
    draw = torch.Generator().manual_seed(1)
    latents, times = torch.randn(1, 16, 2, 4, 4, generator=draw), torch.tensor([500.0])
    text, second = torch.randn(1, 7, 64, generator=draw), torch.randn(1, 9, 64, generator=draw)
    said = family.predict(two, latents, times, Conditioning(text, second_text=second))
    assert said.shape == latents.shape
    for other in (Conditioning(text, second_text=second + 1), Conditioning(text + 1, second_text=second)):
        assert not torch.allclose(family.predict(two, latents, times, other), said, atol=1e-4)
    masked = Conditioning(text, torch.zeros(1, 7), second, torch.zeros(1, 9))
    assert close(family.predict(two, latents, times, masked), said)
    with pytest.raises(ModelError, match="V5 reads two texts"):
        family.predict(two, latents, times, Conditioning(text))
    one = family.build(dict(family.presets["tiny"]) | SMALL).eval()
    with pytest.raises(ModelError, match=r"V5\.1 reads one text"):
        family.predict(one, latents, times, Conditioning(text, second_text=second))


def test_v5_is_trained_from_a_terminal_step_without_data_and_sampled_from_it() -> None:
    facts = find_architecture("tiny-v5")[0].defaults(V5["tiny-v5"])
    assert facts.objective.kind == "v_prediction" and facts.objective.scheduler is not None
    objective = make_objective("v_prediction", scheduler=dict(facts.objective.scheduler))
    data, noise = torch.ones(1, 1, 1, 2, 2), torch.full((1, 1, 1, 2, 2), 3.0)
    last = objective.timesteps(torch.tensor([1.0]))
    assert int(last) == 999
    assert torch.allclose(objective.corrupt(data, noise, last), noise, atol=1e-4)
    assert torch.allclose(objective.target(data, noise, last), -data, atol=1e-4)
    scheduler = make_scheduler(objective.scheduler_config(), 10, "ddim")
    scheduler.set_timesteps(10)
    assert int(scheduler.timesteps[0]) == 999
    # An exact prediction at the last step, where only noise is seen, gives the data back in one step.
    scheduler.set_timesteps(1)
    back = scheduler.step(-data, scheduler.timesteps[0], noise).prev_sample
    assert torch.allclose(back, data, atol=1e-4)
