"""The gradient of what was sampled is that of its definition, whichever steps are kept and however it is computed."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from models.denoise.generate import Course, Denoiser, Prompted, generate_latents
from models.denoise.gradient_sampling import Predict, kept_steps, predictor, sample_with_gradient
from models.denoise.objectives import make_objective
from models.denoise.samplers import make_scheduler
from models.errors import ModelError
from models.rewards.brightness import Brightness
from models.rewards.motion import Motion
from models.transformers.conditioning import Conditioning
from models.transformers.easyanimate_v5 import EasyAnimate
from models.vae.video_vae import PRESETS, build_vae, from_latents

torch.set_num_threads(1)
FAMILY = EasyAnimate()
STEPS = 4
SHAPE = (16, 2, 2, 2)
CHOICES = ("last", "tail", "uniform", "random")
SAMPLERS = ("flow", "epsilon", "v_prediction")


@functools.cache
def networks() -> tuple[nn.Module, Any]:
    """A transformer of one block and a VAE, both in float64, so that small differences mean something."""
    torch.manual_seed(1)
    model = FAMILY.build(dict(FAMILY.presets["tiny"]) | {"num_layers": 1, "mmdit_layers": 1}).double()
    with torch.no_grad():
        model.proj_out.weight.normal_(0, 0.3)  # that of a new model gives next to nothing
    return model, build_vae(PRESETS["tiny"]).double().requires_grad_(False)


def texts(rows: int) -> Conditioning:
    return Conditioning(torch.randn(rows, 4, 64, generator=torch.Generator().manual_seed(2)).double())


def noise(rows: int = 1) -> torch.Tensor:
    return torch.randn(rows, *SHAPE, generator=torch.Generator().manual_seed(3)).double()


def scheduler(kind: str) -> Any:
    return make_scheduler(make_objective(kind).scheduler_config(), STEPS, "flow_euler" if kind == "flow" else "ddim")


def reward(latents: torch.Tensor, checkpointing: bool = False) -> torch.Tensor:
    _, vae = networks()
    frames = from_latents(vae, latents, checkpointing=checkpointing) / 2 + 0.5
    prompts = [""] * len(frames)
    change = Motion().load(torch.device("cpu"), None)(frames, prompts)
    return Brightness().load(torch.device("cpu"), None)(frames, prompts).mean() + 0.1 * change.mean()


def predicting(guidance: float = 1.0) -> Predict:
    return predictor(FAMILY, networks()[0], texts(1), texts(1), guidance, SHAPE[0])


def gradient_of(value: torch.Tensor) -> list[torch.Tensor]:
    used = [p for p in networks()[0].parameters() if p.requires_grad]
    found = torch.autograd.grad(value, used, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(used, found, strict=True)]


def replayed(predict: Predict, plan: Any, kept: tuple[int, ...], stop_input: bool) -> Callable[[], Predict]:
    """Return what stands for `predict` when weights change: constants of now where there is no gradient."""
    memory: list[tuple[torch.Tensor, torch.Tensor]] = []

    def note(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        memory.append((latents.detach(), predict(latents, timestep).detach()))
        return memory[-1][1]

    with torch.no_grad():
        sample_with_gradient(note, plan, noise(), STEPS)

    def again() -> Predict:
        places = iter(range(STEPS))

        def replay(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            place = next(places)
            if place not in kept:
                return memory[place][1]
            return predict(memory[place][0] if stop_input else latents, timestep)

        return replay

    return again


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("stop_input", [False, True])
@pytest.mark.parametrize("choice", CHOICES)
def test_the_gradient_equals_finite_differences(choice: str, stop_input: bool, kind: str) -> None:
    model, _ = networks()
    predict, kept = predicting(), kept_steps(choice, 2, STEPS, "a")
    latents = sample_with_gradient(predict, scheduler(kind), noise(), STEPS, kept, stop_input=stop_input)
    gradients = gradient_of(reward(latents))
    again = replayed(predict, scheduler(kind), kept, stop_input)
    used = [p for p in model.parameters() if p.requires_grad]
    # Along the gradient itself, where the derivative is its norm.
    norm = torch.sqrt(sum((g.square().sum() for g in gradients), torch.tensor(0.0, dtype=torch.float64)))
    assert norm > 1e-5
    step = 2e-3
    values = []
    with torch.no_grad():
        for sign in (1, -1):
            for parameter, gradient in zip(used, gradients, strict=True):
                parameter.add_(gradient / norm, alpha=sign * step)
            values.append(float(reward(sample_with_gradient(again(), scheduler(kind), noise(), STEPS, range(STEPS)))))
            for parameter, gradient in zip(used, gradients, strict=True):
                parameter.add_(gradient / norm, alpha=-sign * step)
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(float(norm), rel=0.02)


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_all_steps_kept_and_recomputed_equal_the_naive_graph(kind: str, guidance: float) -> None:
    predict = predicting(guidance)
    plan = scheduler(kind)
    plan.set_timesteps(STEPS)
    latents = noise()
    for timestep in plan.timesteps:
        latents = plan.step(predict(latents, timestep), timestep, latents, return_dict=False)[0]
    naive = gradient_of(reward(latents))
    ours = sample_with_gradient(predict, scheduler(kind), noise(), STEPS, range(STEPS), checkpointing=True)
    assert torch.allclose(ours, latents)
    for one, other in zip(gradient_of(reward(ours, checkpointing=True)), naive, strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_what_is_sampled_is_what_the_sampler_samples(kind: str) -> None:
    model, _ = networks()
    plan = make_objective(kind).scheduler_config()
    name = "flow_euler" if kind == "flow" else "ddim"
    generator = torch.Generator().manual_seed(5)
    expected = generate_latents(
        Denoiser(FAMILY, model.float(), make_scheduler(plan, STEPS, name)),
        Prompted(Conditioning(texts(1).text.float()), Conditioning(texts(1).text.float()), 3.0),
        SHAPE,
        Course(STEPS),
        generator,
    )
    first = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(5))
    said = Conditioning(texts(1).text.float())
    predict = predictor(FAMILY, model, said, said, 3.0, SHAPE[0])
    found = sample_with_gradient(predict, make_scheduler(plan, STEPS, name), first, STEPS, (1, 3))
    model.double()
    assert torch.allclose(found, expected, atol=1e-5)


@given(st.sampled_from(CHOICES), st.integers(1, 50), st.integers(0, 49), st.text(max_size=5))
def test_kept_steps_are_as_many_as_asked_and_follow_from_their_key(
    choice: str, steps: int, less: int, key: str
) -> None:
    count = max(1, steps - less)
    found = kept_steps(choice, count, steps, key)
    assert found == kept_steps(choice, count, steps, key) == tuple(sorted(set(found)))
    assert found[0] >= 0 and found[-1] < steps
    assert len(found) == (1 if choice == "last" else count)
    if choice in ("last", "tail"):
        assert found[-1] == steps - 1
    if choice == "uniform" and count > 1:
        assert set(np.diff(found).tolist()) == {steps // count}


def test_every_step_is_drawn_some_time() -> None:
    for choice in ("uniform", "random"):
        drawn = {step for key in range(200) for step in kept_steps(choice, 3, 10, str(key))}
        assert drawn == set(range(10)), choice


def test_more_kept_steps_than_there_are_are_refused() -> None:
    with pytest.raises(ModelError, match="must be 1 to reward.steps, 4"):
        kept_steps("tail", 5, 4, "")
