"""The learned variance's loss is a KL of Gaussians, and a family's facts decide which noise levels are trained."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from models.denoise.family_objective import family_objective, kind_for, shift_for
from models.denoise.learned_sigma import LearnedSigma, bound_bits, discrete_log_likelihood, gaussian_kl, posterior_of
from models.denoise.objectives import Diffusion, make_objective
from models.errors import ModelError
from models.transformers.defaults import ObjectiveFacts

torch.set_num_threads(1)

LINEAR = {
    "_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02,
    "beta_schedule": "linear", "prediction_type": "epsilon", "clip_sample": False, "steps_offset": 1,
}  # fmt: skip
V1 = ObjectiveFacts("epsilon", LINEAR, "trained")
V4 = ObjectiveFacts(
    "v_prediction",
    LINEAR
    | {"beta_start": 0.00085, "beta_end": 0.03, "beta_schedule": "scaled_linear", "prediction_type": "v_prediction"},
    "ignored",
)


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def learned() -> LearnedSigma:
    objective = family_objective(V1, None, None, None)
    assert isinstance(objective, LearnedSigma)
    return objective


def test_the_posterior_is_that_of_bayes() -> None:
    """q(x_{t-1} | x_t, x_0) by multiplying the two Gaussians that define it."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    found, after = posterior_of(betas), (1 - betas).cumprod(0)
    for t in (1, 2, 500, 999):
        prior = 1 - after[t - 1]  # variance of q(x_{t-1} | x_0)
        precision = 1 / prior + (1 - betas[t]) / betas[t]
        assert float(found.log_variance[t].exp()) == pytest.approx(float(1 / precision), rel=1e-9)
        assert float(found.clean[t]) == pytest.approx(float(after[t - 1].sqrt() / prior / precision), rel=1e-9)
        assert float(found.noisy[t]) == pytest.approx(float((1 - betas[t]).sqrt() / betas[t] / precision), rel=1e-9)
    assert found.log_variance[0] == found.log_variance[1], "the first step's would be minus infinity"


@given(t=st.integers(1, 999), v=st.floats(-1.5, 1.5), off=st.floats(-0.5, 0.5))
@settings(max_examples=25, deadline=None)
def test_the_bound_is_a_kl_of_two_gaussians(t: int, v: float, off: float) -> None:
    posterior = learned().posterior
    latents, noise = draw(1, 2, 4, 1, 3, 3), draw(2, 2, 4, 1, 3, 3)
    levels = torch.tensor([t, t])
    noisy = learned().corrupt(latents, noise, levels)
    said, variance = noise + off, torch.full_like(noise, v)
    alpha = posterior.alphas_cumprod[t]
    true = posterior.clean[t] * latents.double() + posterior.noisy[t] * noisy.double()
    guess = (noisy.double() - (1 - alpha).sqrt() * said.double()) / alpha.sqrt()
    mean = posterior.clean[t] * guess + posterior.noisy[t] * noisy.double()
    share = (v + 1) / 2
    deviation = (0.5 * (share * posterior.log_beta[t] + (1 - share) * posterior.log_variance[t])).exp()
    apart = kl_divergence(
        Normal(true, (0.5 * posterior.log_variance[t]).exp().expand_as(true)), Normal(mean, deviation.expand_as(mean))
    )
    exact = apart.flatten(1).mean(1) / math.log(2)
    found = bound_bits(posterior, said, variance, latents, noisy, levels)
    torch.testing.assert_close(found, exact.float(), rtol=2e-3, atol=1e-4)


def test_the_true_noise_with_the_posteriors_variance_costs_nothing_and_beta_costs_more() -> None:
    objective, latents, noise = learned(), draw(1, 1, 4, 1, 2, 2), draw(2, 1, 4, 1, 2, 2)
    levels = torch.tensor([20])
    noisy = objective.corrupt(latents, noise, levels)
    exact = torch.cat([noise, -torch.ones_like(noise)], dim=1)
    assert float(objective.losses(exact, latents, noise, noisy, levels)) == pytest.approx(0, abs=1e-4)
    wide = torch.cat([noise, torch.ones_like(noise)], dim=1)
    assert float(objective.losses(wide, latents, noise, noisy, levels)) > 1e-4


@given(mean=st.floats(-1.2, 1.2), log_variance=st.floats(-9, 1))
@settings(max_examples=20, deadline=None)
def test_the_first_step_spends_all_mass_on_256_values(mean: float, log_variance: float) -> None:
    values = torch.linspace(-1, 1, 256, dtype=torch.float64)
    logs = discrete_log_likelihood(values, torch.full_like(values, mean), torch.full_like(values, log_variance))
    assert float(logs.exp().sum()) == pytest.approx(1, abs=1e-6)


def test_the_first_step_counts_bits_of_the_data() -> None:
    objective, latents, noise = learned(), draw(1, 1, 4, 1, 2, 2).clamp(-0.9, 0.9), draw(2, 1, 4, 1, 2, 2)
    levels = torch.tensor([0])
    noisy = objective.corrupt(latents, noise, levels)
    variance = torch.zeros_like(noise)
    posterior = objective.posterior
    log = 0.5 * (posterior.log_beta[0] + posterior.log_variance[0])
    normal = Normal(latents.double(), (0.5 * log).exp())  # with the true noise the mean is the data
    bins = (normal.cdf(latents.double() + 1 / 255) - normal.cdf(latents.double() - 1 / 255)).log().mean() / math.log(2)
    found = bound_bits(posterior, noise, variance, latents, noisy, levels)
    assert float(found) == pytest.approx(-float(bins), rel=1e-2)


def test_the_bound_trains_the_variance_alone() -> None:
    objective, latents, noise = learned(), draw(1, 2, 4, 1, 2, 2), draw(2, 2, 4, 1, 2, 2)
    levels = torch.tensor([300, 700])
    noisy = objective.corrupt(latents, noise, levels)
    said = draw(3, 2, 8, 1, 2, 2).requires_grad_()
    objective.losses(said, latents, noise, noisy, levels).sum().backward()
    error = draw(3, 2, 8, 1, 2, 2)[:, :4].requires_grad_()
    (error - noise).square().flatten(1).mean(1).sum().backward()
    torch.testing.assert_close(said.grad[:, :4], error.grad)
    assert said.grad[:, 4:].abs().min() > 0


def test_equal_gaussians_are_no_bits_apart() -> None:
    mean, log = draw(1, 8), draw(2, 8)
    torch.testing.assert_close(gaussian_kl(mean, log, mean, log), torch.zeros(8), rtol=0, atol=1e-6)


def test_a_new_model_has_its_familys_noise_levels_and_a_base_keeps_its_own() -> None:
    linear = learned().mean.schedule.betas
    torch.testing.assert_close(linear, torch.linspace(1e-4, 0.02, 1000))
    wide = family_objective(V4, None, None, None)
    assert isinstance(wide, Diffusion) and wide.kind == "v_prediction"
    torch.testing.assert_close(wide.schedule.betas, torch.linspace(0.00085**0.5, 0.03**0.5, 1000) ** 2)
    assert wide.scheduler_config()["beta_end"] == 0.03, "samples and exports have the levels that were trained"
    base = dict(V4.scheduler) | {"beta_end": 0.012}
    kept = family_objective(V4, None, None, base)
    assert isinstance(kept, Diffusion) and float(kept.schedule.betas[-1]) == pytest.approx(0.012)
    assert kind_for(V1, base) == "v_prediction" and kind_for(V1, None) == "epsilon"
    other = family_objective(V4, "epsilon", None, None)
    assert isinstance(other, Diffusion) and float(other.schedule.betas[-1]) == pytest.approx(0.012), "not the family's"
    flow = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
    assert (shift_for(ObjectiveFacts("flow"), None), shift_for(ObjectiveFacts("flow", flow), None)) == (1.0, 3.0)


def test_a_variance_that_means_nothing_is_passed_over() -> None:
    objective, latents, noise = family_objective(V4, None, None, None), draw(1, 1, 4, 1, 2, 2), draw(2, 1, 4, 1, 2, 2)
    levels = torch.tensor([400])
    noisy, target = objective.corrupt(latents, noise, levels), objective.target(latents, noise, levels)
    said = torch.cat([target + 0.5, draw(3, 1, 4, 1, 2, 2)], dim=1)
    assert float(objective.losses(said, latents, noise, noisy, levels)) == pytest.approx(0.25, rel=1e-5)


def test_zero_terminal_snr_is_noise_alone_and_its_velocity_the_data() -> None:
    config = LINEAR | {
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "beta_schedule": "scaled_linear",
    }
    objective = make_objective("v_prediction", None, config)
    latents, noise, last = draw(1, 1, 4, 1, 2, 2), draw(2, 1, 4, 1, 2, 2), torch.tensor([999])
    torch.testing.assert_close(objective.corrupt(latents, noise, last), noise, rtol=0, atol=1e-3)
    torch.testing.assert_close(objective.target(latents, noise, last), -latents, rtol=0, atol=1e-3)
    assert DDIMScheduler.from_config(objective.scheduler_config()).alphas_cumprod[-1] < 1e-6
    with pytest.raises(ModelError, match="train with v_prediction"):
        make_objective("epsilon", None, config | {"prediction_type": "epsilon"})


def test_what_has_no_variance_is_refused() -> None:
    objective, latents = learned(), draw(1, 1, 4, 1, 2, 2)
    with pytest.raises(ModelError, match="take one with 8 output channels"):
        objective.losses(latents, latents, latents, latents, torch.tensor([3]))
    with pytest.raises(ModelError, match="epsilon only"):
        LearnedSigma(Diffusion("v_prediction", DDPMScheduler()))


def test_where_noise_prevails_errors_count_as_those_of_the_picture() -> None:
    """And where it does not, as those of the noise; the variance's term is left alone, and much noise is bounded."""
    plain, weighing = learned(), family_objective(V1, None, None, None, 20.0)
    steps = torch.tensor([0, 150, 450, 999])
    latents, noise = draw(1, 4, 4, 1, 3, 3), draw(2, 4, 4, 1, 3, 3)
    said, variance = noise + 0.1 * draw(3, 4, 4, 1, 3, 3), draw(4, 4, 4, 1, 3, 3)
    noisy = plain.corrupt(latents, noise, steps)
    seen = (torch.cat([said, variance], dim=1), latents, noise, noisy, steps)
    of_noise = (said - noise).square().flatten(1).mean(1)
    kept = plain.mean.schedule.alphas_cumprod[steps].view(-1, 1, 1, 1, 1)
    guess = (noisy - (1 - kept).sqrt() * said) / kept.sqrt()
    of_picture = (guess - latents).square().flatten(1).mean(1)
    more = weighing.losses(*seen) - plain.losses(*seen)
    torch.testing.assert_close(more[:2], torch.zeros(2), rtol=0, atol=0)
    assert kept[2] < 0.5 < kept[1]
    torch.testing.assert_close(more[2], of_picture[2] - of_noise[2], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(more[3], 19 * of_noise[3], rtol=1e-3, atol=1e-5)
    for kind, facts in (("v_prediction", V4), ("flow", ObjectiveFacts("flow"))):
        with pytest.raises(ModelError, match=f"is for epsilon, not for {kind}; set it to 1"):
            family_objective(facts, None, None, None, 2.0)
