"""Objectives: what is mixed can be taken apart again; a perfect network samples the data exactly."""

import json
import math
from pathlib import Path

import diffusers
import pytest
import torch
from closeness import close
from hypothesis import given, settings
from hypothesis import strategies as st

from models.denoise.generate import Course, Denoiser, Prompted, generate_latents
from models.denoise.objectives import DYNAMIC_MU, Kind, draw_quantile, make_objective, objective_of
from models.denoise.samplers import SAMPLERS, make_scheduler
from models.errors import ModelError
from models.transformers.conditioning import Conditioning
from models.transformers.easyanimate_v5 import EasyAnimate

torch.set_num_threads(1)
KINDS: tuple[Kind, ...] = ("flow", "epsilon", "v_prediction")


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(st.sampled_from(KINDS), st.floats(0, 1), st.floats(1, 8), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_data_follows_from_mixture_and_target(kind: Kind, quantile: float, shift: float, seed: int) -> None:
    objective = make_objective(kind, shift if kind == "flow" else None)
    data, noise = draw(seed, 2, 4, 3, 2, 2), draw(seed + 100, 2, 4, 3, 2, 2)
    timesteps = objective.timesteps(torch.tensor([quantile, 1 - quantile]))
    assert ((timesteps >= 0) & (timesteps <= 1000)).all()
    mixed, target = objective.corrupt(data, noise, timesteps), objective.target(data, noise, timesteps)
    if kind == "flow":
        sigma = (timesteps / 1000).view(-1, 1, 1, 1, 1)
        assert torch.allclose(mixed - sigma * target, data, atol=1e-5)
        return
    alpha = objective.schedule.alphas_cumprod[timesteps].view(-1, 1, 1, 1, 1)
    if kind == "epsilon":
        assert torch.allclose(mixed, alpha.sqrt() * data + (1 - alpha).sqrt() * target, atol=1e-5)
    else:
        assert torch.allclose(alpha.sqrt() * mixed - (1 - alpha).sqrt() * target, data, atol=1e-5)


def test_the_flow_is_shifted_as_its_scheduler_shifts_it() -> None:
    scheduler = make_scheduler(make_objective("flow", 3.0).scheduler_config(), 10)
    sigmas = torch.linspace(1, 1 / 1000, 1000)
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0).timesteps
    assert torch.allclose(make_objective("flow", 3.0).timesteps(sigmas), theirs, atol=1e-2)
    assert scheduler.config.shift == 3.0


BASES = {
    "euler": ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 5.0, "shift_terminal": 0.1}, 5.0),
    "none said": ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, 1.0),
    "unipc": ({"_class_name": "UniPCMultistepScheduler", "prediction_type": "flow_prediction", "flow_shift": 3.0}, 3.0),
    "dynamic": ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 9.0, "use_dynamic_shifting": True}, math.e),
}  # fmt: skip


@pytest.mark.parametrize("name", BASES)
def test_a_flow_takes_the_noise_levels_of_its_base_unless_a_number_is_given(name: str) -> None:
    """What trains, what samples and what is exported agree, whatever words the base has for it."""
    base, shift = BASES[name]
    objective = make_objective("flow", None, base)
    assert objective.scheduler_config() == base
    assert float(objective.timesteps(torch.tensor([0.5]))) == pytest.approx(1000 * shift / (1 + shift))
    given = make_objective("flow", 2.0, base)
    assert float(given.timesteps(torch.tensor([0.5]))) == pytest.approx(1000 * 2 / 3)
    changed = given.scheduler_config()
    assert make_objective("flow", None, changed) == given.__class__(2.0, changed)
    assert {key for key in base if changed[key] != base[key]} <= {"shift", "flow_shift", "use_dynamic_shifting"}
    levels = make_scheduler({key: value for key, value in changed.items() if key != "shift_terminal"}, 100)
    levels.set_timesteps(100)
    assert float(levels.sigmas[50]) == pytest.approx(2 / 3, abs=0.02)


def test_a_dynamic_base_is_trained_on_the_levels_that_its_pipeline_samples() -> None:
    base, _ = BASES["dynamic"]
    scheduler = make_scheduler(base, 1000)
    scheduler.set_timesteps(1000, mu=DYNAMIC_MU)
    ours = make_objective("flow", None, base).timesteps(torch.linspace(1, 1 / 1000, 1000))
    assert torch.allclose(ours, scheduler.timesteps, atol=0.5)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_diffusion_keeps_its_base_and_has_no_shift(kind: Kind) -> None:
    base = make_objective(kind).scheduler_config() | {"timestep_spacing": "trailing", "beta_end": 0.02}
    base |= {"num_train_timesteps": 500}
    objective = make_objective(kind, 1.0, base)
    assert objective.scheduler_config() == base
    assert objective.schedule.config.beta_end == 0.02
    assert objective.timesteps(torch.tensor([0.0, 1.0])).tolist() == [0, 499]
    with pytest.raises(ModelError, match=f"objective.shift 2: .*set it to null for {kind}"):
        make_objective(kind, 2.0, base)


class Perfect:
    """Knows the data, and so what the network should say."""

    def __init__(self, kind: Kind, data: torch.Tensor):
        self.kind, self.data, self.schedule = kind, data, getattr(make_objective(kind), "schedule", None)

    def predict(self, model: object, latents: torch.Tensor, levels: torch.Tensor, seen: Conditioning) -> torch.Tensor:
        if self.kind == "flow":
            return (latents - self.data) / (levels / 1000).view(-1, 1, 1, 1, 1)
        alpha = self.schedule.alphas_cumprod[levels.long()].view(-1, 1, 1, 1, 1)
        noise = (latents - alpha.sqrt() * self.data) / (1 - alpha).sqrt()
        return noise if self.kind == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * self.data


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_network_samples_the_data(kind: Kind) -> None:
    data = draw(3, 1, 4, 2, 2, 2)
    scheduler = make_scheduler(make_objective(kind).scheduler_config(), 20)
    latents = generate_latents(
        Denoiser(Perfect(kind, data), None, scheduler),
        Prompted(Conditioning(torch.zeros(1, 1, 1)), None, 1.0),
        (4, 2, 2, 2),
        Course(20),
        torch.Generator().manual_seed(0),
    )
    assert (latents - data).abs().max() < (1e-3 if kind == "flow" else 0.1)  # DDIM ends one small step before 0


def test_sampling_equals_that_of_diffusers() -> None:
    torch.manual_seed(0)
    family = EasyAnimate()
    network = family.build(family.presets["tiny"] | {"num_layers": 1, "mmdit_layers": 1}).eval()
    vae = diffusers.AutoencoderKLMagvit(block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2)
    pipeline = diffusers.EasyAnimatePipeline(
        vae, None, None, network, diffusers.FlowMatchEulerDiscreteScheduler(shift=2)
    )
    pipeline.set_progress_bar_config(disable=True)
    text, negative = draw(1, 1, 12, 64), draw(2, 1, 12, 64)
    mask = torch.ones(1, 12)
    theirs = pipeline(
        prompt_embeds=text, negative_prompt_embeds=negative, prompt_attention_mask=mask,
        negative_prompt_attention_mask=mask, height=32, width=48, num_frames=5, num_inference_steps=3,
        guidance_scale=4.0, generator=torch.Generator().manual_seed(7), output_type="latent",
    ).frames  # fmt: skip
    scheduler = make_scheduler({"_class_name": "FlowMatchEulerDiscreteScheduler", **pipeline.scheduler.config}, 3)
    ours = generate_latents(
        Denoiser(family, network, scheduler),
        Prompted(Conditioning(text), Conditioning(negative), 4.0),
        (16, 2, 4, 6),
        Course(3),
        torch.Generator().manual_seed(7),
    )
    assert close(ours, theirs)


@pytest.mark.parametrize("density", ["logit_normal", "uniform", "mode"])
def test_quantiles_follow_from_the_generator(density: str) -> None:
    one, two = (torch.Generator().manual_seed(5) for _ in range(2))
    first = torch.cat([draw_quantile(density, one) for _ in range(500)])
    assert torch.equal(first, torch.cat([draw_quantile(density, two) for _ in range(500)]))
    assert ((first >= 0) & (first <= 1)).all()
    assert abs(first.mean() - 0.5) < 0.05


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_that_does_not_fit_the_weights_says_so(kind: Kind, name: str) -> None:
    config = make_objective(kind).scheduler_config()
    assert objective_of(config) == kind
    if kind in SAMPLERS[name].objectives:
        assert isinstance(make_scheduler(config, 5, name), SAMPLERS[name].scheduler)
    else:
        with pytest.raises(ModelError, match=f"trained for {kind}; use"):
            make_scheduler(config, 5, name)


def test_a_base_of_another_objective_is_refused(tmp_path: Path) -> None:
    scheduler = json.loads(json.dumps(make_objective("v_prediction").scheduler_config(), default=str))
    with pytest.raises(ModelError, match="objective.kind=v_prediction"):
        make_objective("flow", 1.0, scheduler)
    assert make_objective("v_prediction", 1.0, scheduler).kind == "v_prediction"
    with pytest.raises(ModelError, match="there is none"):
        make_scheduler(scheduler, 5, "euler_z")
