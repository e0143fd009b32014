"""EasyAnimate V4: published names and numbers, diffusers' HunyuanDiT for one frame, conditions and their absence."""

import math
from pathlib import Path

import pytest
import torch
from closeness import close
from diffusers import HunyuanDiT2DModel

from models.conditions.masks import check_probabilities
from models.denoise.objectives import make_objective
from models.errors import ModelError
from models.lora.adapters import add_lora, apply_lora, export_lora
from models.lora.files import read_lora
from models.lora.form import AdapterForm
from models.text.table import IMAGE_ENCODERS, TEXT_ENCODERS
from models.transformers.blocks.hunyuan_rope import rotary_2d
from models.transformers.conditioning import Conditioning
from models.transformers.easyanimate_v4 import V4_XL_2, EasyAnimateV4
from models.transformers.table import build_empty, build_transformer

torch.set_num_threads(1)
FAMILY = EasyAnimateV4()
SMALL = FAMILY.presets["tiny-v4"] | {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "hidden_size": 32,
    "cross_attention_dim": 24,
    "cross_attention_dim_t5": 32,
    "text_len": 7,
    "text_len_t5": 9,
    "projection_dim": 20,
    "pooled_projection_dim": 20,
}
SMALL_INPAINT = SMALL | {"in_channels": 12}
SHARED_FIELDS = (
    "num_attention_heads", "attention_head_dim", "patch_size", "hidden_size", "num_layers", "mlp_ratio",
    "cross_attention_dim", "cross_attention_dim_t5", "pooled_projection_dim", "text_len", "text_len_t5",
)  # fmt: skip
CLIP = ("norm_clip.", "attn_clip.", "gate_clip.", "norm_clip_out.", "clip_padding", "clip_projection.")


def build(config: dict, seed: int = 0) -> torch.nn.Module:
    """A network whose every weight is drawn, so that no part says nothing."""
    torch.manual_seed(seed)
    model = FAMILY.build(config).eval()
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.ndim == 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def inputs(frames: int = 3, height: int = 8, width: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(2, 4, frames, height, width, generator=draw), torch.tensor([100.0, 900.0])


def conditions(**more: torch.Tensor) -> Conditioning:
    draw = torch.Generator().manual_seed(2)
    return Conditioning(
        text=torch.randn(2, 7, 24, generator=draw),
        text_mask=torch.tensor([[1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1]]),
        second_text=torch.randn(2, 9, 32, generator=draw),
        second_text_mask=torch.tensor([[1, 1, 0, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0, 0, 0]]),
        **more,
    )


def shapes(model: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("preset", ["tiny-v4-inpaint", "v4-inpaint"])
def test_names_and_shapes_are_diffusers_hunyuandit_and_those_of_frames_and_image(preset: str) -> None:
    family, ours = build_empty(preset)
    config = family.presets[preset]
    with torch.device("meta"):
        theirs = HunyuanDiT2DModel(**{name: config[name] for name in SHARED_FIELDS}, in_channels=4)
    found, expected = shapes(ours), shapes(theirs)
    assert found.pop("pos_embed.proj.weight")[1] == 12 and expected.pop("pos_embed.proj.weight")[1] == 4
    more = {name for name in found if any(part in name for part in CLIP) or name.endswith("t_embed.pe")}
    assert {name: shape for name, shape in found.items() if name not in more} == expected
    width, layers, text = config["hidden_size"], config["num_layers"], config["cross_attention_dim"]
    assert found["clip_padding"] == found["clip_projection.query"] == (config["n_query"], text)
    assert found["clip_projection.attn.in_proj_weight"] == (3 * text, text)
    for block in range(layers):
        assert found[f"blocks.{block}.t_embed.pe"] == (1, 512, width)
        assert found[f"blocks.{block}.gate_clip.proj.weight"] == (2 * width, width)
    assert ("clip_projection.kv_proj.weight" in found) == (config["projection_dim"] != text)


def test_the_value_count_is_the_published_one() -> None:
    _, model = build_empty("v4-inpaint")
    assert sum(shape.numel() for shape in shapes(model).values()) == 1_982_894_112
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained + model.clip_projection.pos_embed.numel() == 1_954_058_272
    assert sum(number > 20 for number, block in enumerate(model.blocks) if block.skip_linear is not None) == 19


def test_one_frame_without_conditions_is_diffusers_hunyuandit() -> None:
    ours = build(SMALL)
    theirs = HunyuanDiT2DModel(**{name: SMALL[name] for name in SHARED_FIELDS}, in_channels=4).eval()
    theirs.load_state_dict({name: tensor for name, tensor in ours.state_dict().items() if ".t_embed." not in name})
    (latents, times), given = inputs(frames=1), conditions(size_px=torch.tensor([[640, 960], [64, 96]]))
    with torch.no_grad():
        expected = theirs(
            latents[:, :, 0],
            times,
            encoder_hidden_states=given.text,
            text_embedding_mask=given.text_mask,
            encoder_hidden_states_t5=given.second_text,
            text_embedding_mask_t5=given.second_text_mask,
            image_meta_size=torch.tensor([[1024, 1024, 640, 960, 0, 0], [1024, 1024, 64, 96, 0, 0]]),
            style=torch.zeros(2, dtype=torch.long),
            image_rotary_emb=rotary_2d(4, 6, 16, 32),
        ).sample
        found = FAMILY.predict(ours, latents, times, given)
    assert found.shape == (2, 8, 1, 8, 12)
    assert torch.allclose(found[:, :, 0], expected, atol=1e-5 * float(expected.abs().max()))


@torch.no_grad()
def test_every_frame_hears_of_every_other_and_of_its_own_number() -> None:
    model = build(SMALL)
    latents, times = inputs()
    said = FAMILY.predict(model, latents, times, conditions())
    changed = latents.clone()
    changed[:, :, 2] += 1
    assert ((FAMILY.predict(model, changed, times, conditions()) - said).abs().amax(dim=(0, 1, 3, 4)) > 1e-4).all()
    still = latents[:, :, :1].repeat(1, 1, 3, 1, 1)
    frames = FAMILY.predict(model, still, times, conditions())
    assert not torch.allclose(frames[:, :, 0], frames[:, :, 1], atol=1e-4)
    for block in model.blocks:
        block.t_embed = None
    frames = FAMILY.predict(model, still, times, conditions())
    assert torch.allclose(frames[:, :, 0], frames[:, :, 1], atol=1e-5)


@torch.no_grad()
def test_each_block_adds_the_sinusoid_of_the_frame_to_its_tokens() -> None:
    block = build(SMALL).blocks[0]
    seen: list[torch.Tensor] = []
    block.norm1.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    draw = torch.Generator().manual_seed(3)
    tokens, text, time = (torch.randn(*size, generator=draw) for size in ((2, 12, 32), (2, 16, 24), (2, 32)))
    rotary = rotary_2d(2, 2, 16, 32)
    block(tokens, text, time, (rotary[0].repeat(3, 1), rotary[1].repeat(3, 1)), 3)
    block(tokens[:, :4], text, time, rotary, 1)
    added = (seen[0] - tokens).reshape(2, 3, 4, 32)
    for frame in range(3):
        angles = torch.tensor([frame * 10000 ** (-2 * pair / 32) for pair in range(16)])
        expected = torch.stack((angles.sin(), angles.cos()), dim=1).flatten()
        assert torch.allclose(added[:, frame], expected.expand(2, 4, 32), atol=1e-5)
    assert torch.equal(seen[1], tokens[:, :4])


@torch.no_grad()
def test_skips_go_from_the_earlier_half_to_the_later_last_first() -> None:
    model = build(SMALL | {"num_layers": 8})
    outputs: dict[int, torch.Tensor] = {}
    skips: dict[int, torch.Tensor | None] = {}
    for number, block in enumerate(model.blocks):

        def note(_: torch.nn.Module, given: tuple, output: torch.Tensor, number: int = number) -> None:
            outputs[number], skips[number] = output, given[6]

        block.register_forward_hook(note)
    FAMILY.predict(model, *inputs(), conditions())
    taken = {
        number: next(k for k, v in outputs.items() if v is skip) for number, skip in skips.items() if skip is not None
    }
    assert taken == {5: 2, 6: 1, 7: 0}


@torch.no_grad()
def test_what_is_masked_has_no_influence_on_what_blocks_attend_to() -> None:
    model = build(SMALL)
    given = conditions()
    noise = torch.randn(2, 7, 24) * (1 - given.text_mask)[..., None]
    second_noise = torch.randn(2, 9, 32) * (1 - given.second_text_mask)[..., None]
    texts = (given.text_mask, given.second_text_mask)
    before = model.text_tokens(given.text, given.second_text, *texts)
    assert close(model.text_tokens(given.text + noise, given.second_text + second_noise, *texts), before)
    assert torch.equal(before[0, 3:7], model.text_embedding_padding[3:7])
    assert torch.equal(before[0, 9:], model.text_embedding_padding[9:])
    other = Conditioning(given.text + noise, given.text_mask, given.second_text, given.second_text_mask)
    assert close(FAMILY.predict(model, *inputs(), other), FAMILY.predict(model, *inputs(), given))
    unmasked = Conditioning(given.text + noise, None, given.second_text, None)
    assert not torch.allclose(FAMILY.predict(model, *inputs(), unmasked), FAMILY.predict(model, *inputs(), given))


@torch.no_grad()
def test_no_condition_is_zeros_and_a_masked_image() -> None:
    model = build(SMALL_INPAINT)
    (latents, times), image = inputs(), torch.randn(2, 16, 20)
    nothing = FAMILY.predict(model, latents, times, conditions())
    zeros = torch.zeros(2, 8, 3, 8, 12)
    masked = conditions(latents=zeros, image=image, image_mask=torch.zeros(2, 16))
    assert torch.allclose(FAMILY.predict(model, latents, times, masked), nothing, atol=1e-6)
    half = torch.tensor([[1] * 16, [0] * 16])
    one = FAMILY.predict(model, latents, times, conditions(image=image, image_mask=half))
    assert torch.allclose(one[1], nothing[1], atol=1e-5) and not torch.allclose(one[0], nothing[0], atol=1e-3)
    every = FAMILY.predict(model, latents, times, conditions(image=image))
    assert torch.allclose(every[0], one[0], atol=1e-5) and not torch.allclose(every[1], nothing[1], atol=1e-3)
    known = FAMILY.predict(model, latents, times, conditions(latents=zeros + 0.5))
    assert not torch.allclose(known, nothing, atol=1e-3)


def test_a_widened_model_predicts_what_it_did_and_can_learn_otherwise() -> None:
    model = build(SMALL)
    (latents, times), given = inputs(), conditions()
    more = conditions(latents=torch.randn(2, 8, 3, 8, 12), image=torch.randn(2, 16, 20))
    with torch.no_grad():
        before = FAMILY.predict(model, latents, times, given)
        FAMILY.widen(model)
        assert close(FAMILY.predict(model, latents, times, more), before)
    assert shapes(model) == shapes(FAMILY.build(SMALL_INPAINT)) and model.config.in_channels == 12
    FAMILY.predict(model, latents, times, more).square().mean().backward()
    for name in ("pos_embed.proj.weight", "blocks.5.norm_clip_out.weight"):
        assert model.get_parameter(name).grad.abs().sum() > 0
    assert model.pos_embed.proj.weight.grad[:, 4:].abs().sum() > 0
    with pytest.raises(ModelError, match="widened already"):
        FAMILY.widen(model)
    with pytest.raises(ModelError, match="22 condition channels: EasyAnimate V4 takes 8"):
        FAMILY.widen(build(SMALL), 22)


@pytest.mark.parametrize("config", [SMALL, SMALL_INPAINT], ids=["plain", "inpaint"])
def test_every_parameter_gets_a_gradient_and_checkpointing_changes_none(config: dict) -> None:
    model = build(config)
    gradients = []
    for checkpointing in (False, True):
        model.zero_grad()
        if checkpointing:
            model.enable_gradient_checkpointing()
        FAMILY.predict(model, *inputs(), conditions()).square().mean().backward()
        assert not [n for n, p in model.named_parameters() if p.grad is None and p.requires_grad]
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert all(torch.allclose(gradients[0][name], gradients[1][name], atol=1e-5) for name in gradients[0])
    assert FAMILY.unused_parameters(model) == []


@torch.no_grad()
def test_positions_in_the_first_block_can_be_left_out() -> None:
    model, without = build(SMALL), build(SMALL | {"rope_in_first_block": False})
    assert shapes(model) == shapes(without)
    without.load_state_dict(model.state_dict())
    first, second = (FAMILY.predict(one, *inputs(), conditions()) for one in (model, without))
    assert not torch.allclose(first, second, atol=1e-4)


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    model = build(SMALL)
    short = Conditioning(torch.zeros(2, 5, 24), None, torch.zeros(2, 9, 32))
    with pytest.raises(ValueError, match="texts of 5 and 9 tokens; this model reads 7 and 9"):
        FAMILY.predict(model, *inputs(), short)
    with pytest.raises(ModelError, match="reads text by two encoders"):
        FAMILY.predict(model, *inputs(), Conditioning(torch.zeros(2, 7, 24)))
    with pytest.raises(ValueError, match="a condition image for a model without"):
        FAMILY.predict(model, *inputs(), conditions(image=torch.zeros(2, 16, 20)))
    with pytest.raises(ValueError, match="4 latent and 8 condition channels; this model has 4"):
        FAMILY.predict(model, *inputs(), conditions(latents=torch.zeros(2, 8, 3, 8, 12)))
    for wrong in ({"num_layers": 5}, {"hidden_size": 40}, {"basic_block_type": "hybrid_attention"}):
        with pytest.raises(ModelError, match=r"config\.json"):
            FAMILY.build(SMALL | wrong)


@pytest.mark.parametrize("kind", ["safetensors", "pickle", "wrapped"])
def test_published_folders_load_and_save_the_same_names(kind: str, tmp_path: Path) -> None:
    model = build(SMALL_INPAINT)
    model.save_pretrained(tmp_path)
    state = dict(model.state_dict())
    if kind != "safetensors":
        for file in tmp_path.glob("*.safetensors"):
            file.unlink()
        trainers = {"loss.discriminator.weight": torch.zeros(1)}
        torch.save({"state_dict": state | trainers, "step": 7} if kind == "wrapped" else state | trainers,
                   tmp_path / "diffusion_pytorch_model.pth")  # fmt: skip
    family, back = build_transformer(str(tmp_path))
    assert family.class_name == "HunyuanTransformer3DModel"
    assert back.state_dict().keys() == state.keys()
    assert all(torch.equal(back.state_dict()[name], tensor) for name, tensor in state.items())
    with torch.no_grad():
        assert close(FAMILY.predict(back, *inputs(), conditions()), FAMILY.predict(model, *inputs(), conditions()))
    assert not back.clip_projection.pos_embed.requires_grad
    back.save_pretrained(tmp_path / "again")
    assert shapes(build_transformer(str(tmp_path / "again"))[1]) == shapes(model)


def test_its_facts_are_the_published_ones() -> None:
    facts = FAMILY.defaults(SMALL)
    assert facts.objective.scheduler is not None
    objective = make_objective(facts.objective.kind, scheduler=dict(facts.objective.scheduler))
    first, last = 0.00085, 0.03
    betas = [(first**0.5 + (last**0.5 - first**0.5) * step / 999) ** 2 for step in range(1000)]
    kept = math.prod(1 - beta for beta in betas)
    ones, zeros, end = torch.ones(1, 1, 1, 1, 1), torch.zeros(1, 1, 1, 1, 1), torch.tensor([999])
    assert float(objective.corrupt(ones, zeros, end)) == pytest.approx(kept**0.5, rel=1e-3)
    assert float(objective.target(ones, zeros, end)) == pytest.approx(-((1 - kept) ** 0.5), rel=1e-3)
    assert TEXT_ENCODERS[facts.text_encoder].parts == ("text", "text_mask", "second_text", "second_text_mask")
    assert facts.image_encoder in IMAGE_ENCODERS and facts.text_tokens == V4_XL_2["text_len"]
    check_probabilities(facts.masks)


def test_its_shape_counts_latents_without_the_variance() -> None:
    shape = FAMILY.shape(build(SMALL_INPAINT))
    assert (shape.in_channels, shape.out_channels, shape.text_dim, shape.layers) == (12, 4, 24, 6)
    assert (shape.width, shape.patch) == (32, 2)


@torch.no_grad()
def test_layers_that_come_to_the_device_for_their_call_and_8_bits_change_nothing_much() -> None:
    model = build(SMALL_INPAINT)
    given = conditions(image=torch.randn(2, 16, 20, generator=torch.Generator().manual_seed(4)))
    expected = FAMILY.predict(model, *inputs(), given)
    small = build(SMALL_INPAINT)
    small.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    assert small.blocks[0].ff.net[2].weight.dtype is torch.float8_e4m3fn
    error = (FAMILY.predict(small, *inputs(), given) - expected).norm() / expected.norm()
    assert 0 < error < 0.15
    model.enable_group_offload(onload_device="cpu", offload_type="leaf_level")
    assert close(FAMILY.predict(model, *inputs(), given), expected)


def test_noise_on_known_pixels_is_noted_and_kept(tmp_path: Path) -> None:
    model = build(SMALL_INPAINT)
    assert model.config.add_noise_in_inpaint_model is False
    FAMILY.set_reference_noise(model, noisy=True)
    model.save_pretrained(tmp_path)
    assert build_transformer(str(tmp_path))[1].config.add_noise_in_inpaint_model is True


@torch.no_grad()
def test_adapters_go_to_both_layouts_and_back(tmp_path: Path) -> None:
    model = build(SMALL_INPAINT)
    add_lora(model, AdapterForm(4, None), FAMILY.lora_targets)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    expected = FAMILY.predict(model, *inputs(), conditions())
    assert not close(expected, FAMILY.predict(build(SMALL_INPAINT), *inputs(), conditions()))
    for file in export_lora(model, "default", tmp_path):
        weights = read_lora(file)
        assert len(weights.layers) == 6 * 3 * 4  # blocks, attentions among tokens, to text and to image, layers of each
        again = build(SMALL_INPAINT)
        apply_lora(again, weights, "again")
        assert close(FAMILY.predict(again, *inputs(), conditions()), expected)
