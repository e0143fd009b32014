"""Every sampler with every objective, on data whose exact predictions are known: a normal distribution."""

import itertools
import json
import math
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from closeness import close

from models.denoise.generate import Course, Denoiser, Prompted, generate_latents
from models.denoise.objectives import Kind, make_objective
from models.denoise.samplers import SAMPLERS, make_scheduler
from models.errors import ModelError
from models.transformers.conditioning import Conditioning
from models.transformers.easyanimate_v5 import EasyAnimate

torch.set_num_threads(1)
KINDS: tuple[Kind, ...] = ("flow", "epsilon", "v_prediction")
PAIRS = [(kind, name) for kind in KINDS for name, sampler in SAMPLERS.items() if kind in sampler.objectives]
ODE = [(kind, name) for kind, name in PAIRS if not SAMPLERS[name].stochastic]
MEAN, DEVIATION = 0.7, 0.4
SHAPE = (4, 4, 24, 24)


class Exact:
    """The best possible network for data from N(MEAN, DEVIATION²): x = a·data + s·noise has a known posterior."""

    def __init__(self, kind: Kind, config: dict[str, Any]):
        self.kind, self.first, self.calls = kind, None, 0
        if kind != "flow":
            schedule = diffusers.DDPMScheduler.from_config(config)
            self.alphas = schedule.alphas_cumprod.double().numpy()

    def scales(self, level: float) -> tuple[float, float]:
        if self.kind == "flow":
            return 1 - level / 1000, level / 1000
        alpha = float(np.interp(level, np.arange(1000), self.alphas))
        return math.sqrt(alpha), math.sqrt(1 - alpha)

    def predict(self, model: object, latents: torch.Tensor, levels: torch.Tensor, seen: Conditioning) -> torch.Tensor:
        a, s = self.scales(float(levels[0]))
        self.first = self.first or (a, s)
        self.calls += 1
        surplus = (latents.double() - a * MEAN) / (a * a * DEVIATION**2 + s * s)
        data, noise = MEAN + a * DEVIATION**2 * surplus, s * surplus
        said = {"flow": noise - data, "epsilon": noise, "v_prediction": a * noise - s * data}[self.kind]
        return said.to(latents.dtype)

    def end(self, noise: torch.Tensor) -> torch.Tensor:
        """Where the exact flow of probability brings this noise."""
        assert self.first is not None
        a, s = self.first
        return MEAN + DEVIATION * (noise - a * MEAN) / math.sqrt(a * a * DEVIATION**2 + s * s)


def config_of(kind: Kind, **changes: Any) -> dict[str, Any]:
    return make_objective(kind).scheduler_config() | changes


def run(
    kind: Kind, name: str, steps: int, config: dict[str, Any] | None = None, seed: int = 0, generator_seed: int = 0
):
    config = config or config_of(kind)
    network = Exact(kind, config)
    scheduler = make_scheduler(config, steps, name)
    generator = torch.Generator().manual_seed(seed)
    latents = generate_latents(
        Denoiser(network, None, scheduler),
        Prompted(Conditioning(torch.zeros(1, 1, 1)), None, 1.0),
        SHAPE,
        Course(steps),
        generator,
    ).double()
    noise = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(seed)).double()
    error = (latents - network.end(noise)).square().mean().sqrt().item() / DEVIATION
    return latents, error, network.calls


@pytest.mark.parametrize(("kind", "name"), ODE)
def test_a_sampler_goes_where_the_exact_flow_goes_and_nearer_with_more_steps(kind: Kind, name: str) -> None:
    # Spacing 'trailing' so that all numbers of steps begin at pure noise.
    config = config_of(kind) if kind == "flow" else config_of(kind, timestep_spacing="trailing")
    errors = [run(kind, name, steps, config)[1] for steps in (8, 40, 200)]
    assert errors[0] > errors[1] > errors[2], errors
    assert errors[2] < 0.03
    latents, _, _ = run(kind, name, 200, config)
    assert abs(latents.mean() - MEAN) < 0.03
    assert abs(latents.std() / DEVIATION - 1) < 0.05


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_ancestral_sampler_draws_from_the_distribution_by_the_generator_alone(kind: Kind) -> None:
    config = config_of(kind, timestep_spacing="trailing")
    few, many = (run(kind, "euler_a", steps, config)[0] for steps in (8, 128))
    assert abs(many.mean() - MEAN) < 0.03
    assert abs(many.std() / DEVIATION - 1) < 0.08 < abs(few.std() / DEVIATION - 1)
    torch.manual_seed(5)  # torch's own generator plays no part
    assert close(many, run(kind, "euler_a", 128, config)[0])
    other = run(kind, "euler_a", 128, config, seed=1)[0]
    correlation = torch.corrcoef(torch.stack([many.flatten(), other.flatten()]))[0, 1]
    assert abs(correlation) < 0.1


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_the_same_seed_gives_the_same_latents(kind: Kind, name: str) -> None:
    assert close(run(kind, name, 6)[0], run(kind, name, 6)[0])


@pytest.mark.parametrize("name", ["flow_heun", "unipc", "dpm++"])
def test_solvers_of_second_order_need_fewer_evaluations_than_euler(name: str) -> None:
    # Heun asks the network twice a step, but for the last.
    steps = 8 if name == "flow_heun" else 16
    _, error, calls = run("flow", name, steps)
    assert calls == (2 * steps - 1 if name == "flow_heun" else steps) <= 16
    assert error < run("flow", "flow_euler", 16)[1] / 5


@pytest.mark.parametrize("name", [name for name, sampler in SAMPLERS.items() if "flow" in sampler.objectives])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_shift_is_followed_by_every_flow_sampler(name: str, shift: float) -> None:
    config = make_objective("flow", shift).scheduler_config()
    scheduler = make_scheduler(config, 200, name)
    scheduler.set_timesteps(200)
    middle = scheduler.timesteps[len(scheduler.timesteps) // 2].item() / 1000
    assert middle == pytest.approx(shift * 0.5 / (1 + (shift - 1) * 0.5), abs=0.01)
    assert run("flow", name, 64, config)[1] < 0.1
    back = json.loads(json.dumps({"_class_name": type(scheduler).__name__, **scheduler.config}))
    assert float(make_scheduler(back, 8, "flow_euler").config.shift) == shift


@pytest.mark.parametrize("name", [name for kind, name in PAIRS if kind == "v_prediction"])
def test_noise_levels_without_signal_are_followed_or_refused(name: str) -> None:
    """As V5's: the last level is pure noise (arXiv 2305.08891)."""
    config = config_of("v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")
    if name == "pndm":
        with pytest.raises(ModelError, match="cannot follow the weights' rescale_betas_zero_snr; use ddim or"):
            make_scheduler(config, 64, name)
        return
    latents, error, _ = run("v_prediction", name, 64, config)
    assert abs(latents.mean() - MEAN) < 0.03
    if not SAMPLERS[name].stochastic:
        assert error < 0.15
        assert error < run("v_prediction", name, 8, config)[1] / 2


def test_dynamic_shifting_is_left_to_the_scheduler_that_knows_it() -> None:
    config = config_of("flow", use_dynamic_shifting=True)
    assert make_scheduler(config, 8).config.use_dynamic_shifting
    for name in ("flow_heun", "unipc", "dpm++"):
        with pytest.raises(ModelError, match="use_dynamic_shifting; use flow_euler$"):
            make_scheduler(config, 8, name)


@pytest.mark.parametrize(("name", "kind"), itertools.product(SAMPLERS, KINDS))
def test_the_fewest_steps_work_and_fewer_are_refused(name: str, kind: Kind) -> None:
    sampler = SAMPLERS[name]
    if kind not in sampler.objectives:
        with pytest.raises(ModelError, match=f"trained for {kind}; use"):
            make_scheduler(config_of(kind), sampler.min_steps, name)
        return
    config = config_of(kind) if kind == "flow" else config_of(kind, timestep_spacing="trailing")
    latents = run(kind, name, sampler.min_steps, config)[0]
    assert latents.isfinite().all()
    with pytest.raises(ModelError, match=f"too few; it needs {sampler.min_steps} or more"):
        make_scheduler(config, sampler.min_steps - 1, name)
    with pytest.raises(ModelError, match="too many"):
        make_scheduler(config, 1001, name)


def test_pndm_needs_more_than_two_steps() -> None:
    with pytest.raises(ModelError, match="2 steps are too few; it needs 3"):
        make_scheduler(config_of("epsilon"), 2, "pndm")


@pytest.mark.parametrize(("name", "spacing", "steps"), [
    ("ddim", "leading", 1), ("ddim", "leading", 2), ("ddim", "leading", 600), ("unipc", "leading", 550),
    ("ddim", "trailing", 128), ("pndm", "trailing", 150),
])  # fmt: skip
def test_steps_that_do_not_lead_from_noise_to_data_are_refused_and_the_mend_is_right(
    name: str, spacing: str, steps: int
) -> None:
    """diffusers' 'leading' begins at level 500 for 2 steps, 599 for 600; DDIM and PNDM round 1000/128 down to 7."""
    config = config_of("epsilon", timestep_spacing=spacing)
    with pytest.raises(ModelError, match=r"would (begin|skip) .* take \d+$") as refused:
        make_scheduler(config, steps, name)
    better = int(str(refused.value).rsplit(" ", 1)[1])
    sampler = SAMPLERS[name].scheduler.from_config(config)
    sampler.set_timesteps(steps)  # diffusers itself does not notice
    assert make_scheduler(config, better, name)
    if steps == 128:
        assert run("epsilon", name, better, config)[1] < 0.05


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_every_sampler_gives_what_diffusers_own_pipeline_gives(kind: Kind, name: str) -> None:
    torch.manual_seed(0)
    family = EasyAnimate()
    size = {"num_layers": 1, "mmdit_layers": 1, "num_attention_heads": 1, "text_embed_dim": 8}
    network = family.build(family.presets["tiny"] | size).eval()
    vae = diffusers.AutoencoderKLMagvit(block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2)
    config = config_of(kind)
    pipeline = diffusers.EasyAnimatePipeline(vae, None, None, network, make_scheduler(config, 5, name))
    pipeline.set_progress_bar_config(disable=True)
    draw, mask = torch.Generator().manual_seed(3), torch.ones(1, 6)
    text, negative = (torch.randn(1, 6, 8, generator=draw) for _ in range(2))
    theirs = pipeline(
        prompt_embeds=text, negative_prompt_embeds=negative, prompt_attention_mask=mask,
        negative_prompt_attention_mask=mask, height=32, width=32, num_frames=5, num_inference_steps=5,
        guidance_scale=4.0, generator=torch.Generator().manual_seed(7), output_type="latent",
    ).frames  # fmt: skip
    ours = generate_latents(
        Denoiser(family, network, make_scheduler(config, 5, name)),
        Prompted(Conditioning(text), Conditioning(negative), 4.0),
        (16, 2, 4, 4),
        Course(5),
        torch.Generator().manual_seed(7),
    )
    assert close(ours, theirs)


def test_a_scheduler_is_made_without_warnings(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture) -> None:
    for kind, name in PAIRS:
        make_scheduler(config_of(kind), 8, name)
    assert not caplog.records
    assert "ignored" not in capsys.readouterr().err


def test_clipping_is_not_switched_on_by_a_configuration_without_the_word() -> None:
    """A model saved with DPM++ says nothing of `clip_sample`, which DDIM would take for yes and spoil latents."""
    config = {key: value for key, value in config_of("epsilon").items() if key != "clip_sample"}
    assert make_scheduler(config, 8, "ddim").config.clip_sample is False
