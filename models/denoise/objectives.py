"""What the transformer learns to predict, and from which noise levels.

Flow matching (Lipman et al., arXiv 2210.02747; logit-normal density: Esser et al., arXiv 2403.03206) is
EasyAnimate V5.1's; epsilon (DDPM, arXiv 2006.11239) is that of V1 to V3, v (arXiv 2202.00512) that of V4 and V5. Each
has noise levels of its own, which its family states (`models.transformers.defaults`).
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling

from models.errors import ModelError

Kind = Literal["flow", "epsilon", "v_prediction"]
Density = Literal["logit_normal", "uniform", "mode"]
TIMESTEPS = 1000
MODE_SCALE = 1.29
"""of the density `mode` (arXiv 2403.03206)"""
DYNAMIC_MU = 1.0
"""which EasyAnimate's pipelines give to schedulers with dynamic shifting, whatever the size"""
# Where neither a base nor a family has betas: those of EasyAnimate V5, before its terminal noise is made whole.
DDPM = {"num_train_timesteps": TIMESTEPS, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


class Objective(Protocol):
    """Noise levels in, regression target out; all tensors share a leading batch axis."""

    @property
    def kind(self) -> Kind:
        """Its name."""
        ...

    def timesteps(self, quantiles: torch.Tensor) -> torch.Tensor:
        """Return the network's timesteps (B,), 0..1000, for noise quantiles (B,) in 0..1."""
        ...

    def quantile_of(self, timestep: float) -> float:
        """Return the noise quantile in 0..1 that a timestep 0..1000 stands for, the inverse of `timesteps`."""
        ...

    def corrupt(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Mix latents and noise (B, C, F, H, W) at timesteps (B,)."""
        ...

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Return what the network shall say."""
        ...

    def losses(
        self,
        prediction: torch.Tensor,
        latents: torch.Tensor,
        noise: torch.Tensor,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
    ) -> torch.Tensor:
        """Return each row's loss (B,).

        Args:
            prediction: of the network, (B, C, F, H, W), or with more channels than the latents.
            latents: clean (B, C, F, H, W).
            noise: that was mixed in.
            noisy: what `corrupt` made of both.
            timesteps: (B,).
        """
        ...

    def scheduler_config(self) -> dict[str, Any]:
        """Return the `scheduler_config.json` that samples what is trained here."""
        ...


@dataclass(frozen=True)
class Flow:
    """Straight paths from data to noise: x = (1−σ)·data + σ·noise, target noise − data.

    Attributes:
        shift: of the noise levels.
        base: the base model's `scheduler_config.json`; None: there is none.
        kind: its name.
    """

    shift: float = 1.0
    base: dict[str, Any] | None = None
    kind: Kind = "flow"

    def timesteps(self, quantiles: torch.Tensor) -> torch.Tensor:
        """Return 1000·σ with σ shifted towards noise, as `FlowMatchEulerDiscreteScheduler` shifts it."""
        sigmas = self.shift * quantiles / (1 + (self.shift - 1) * quantiles)
        return TIMESTEPS * sigmas.clamp(max=1.0)

    def quantile_of(self, timestep: float) -> float:
        """Return the level that is shifted to timestep / 1000."""
        sigma = min(max(timestep / TIMESTEPS, 0.0), 1.0)
        return sigma / (self.shift - (self.shift - 1) * sigma)

    def corrupt(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Mix linearly."""
        sigma = _like(timesteps / TIMESTEPS, latents)
        return (1 - sigma) * latents + sigma * noise

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Return the velocity, which is the same at every level."""
        return noise - latents

    def losses(
        self,
        prediction: torch.Tensor,
        latents: torch.Tensor,
        noise: torch.Tensor,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
    ) -> torch.Tensor:
        """Return the mean squared error."""
        return squared_error(prediction, self.target(latents, noise, timesteps))

    def scheduler_config(self) -> dict[str, Any]:
        """Return the base's configuration with this shift; without a base that of the Euler scheduler."""
        if self.base is not None:
            return self.base if self.shift == shift_of(self.base) else _with_shift(self.base, self.shift)
        return _config(FlowMatchEulerDiscreteScheduler(num_train_timesteps=TIMESTEPS, shift=self.shift))


@dataclass(frozen=True)
class Diffusion:
    """Variance-preserving diffusion with discrete steps, predicting the noise or the velocity.

    Attributes:
        kind: its name.
        schedule: the noise levels.
        base: the base model's `scheduler_config.json`; None: there is none.
        high_noise_weight: most that an error of the noise counts where there is more noise than picture (`weighted`);
            1: all alike.
    """

    kind: Kind
    schedule: DDPMScheduler
    base: dict[str, Any] | None = None
    high_noise_weight: float = 1.0

    def timesteps(self, quantiles: torch.Tensor) -> torch.Tensor:
        """Return whole steps, 0..999 where the schedule has 1000."""
        count = int(self.schedule.config.num_train_timesteps)
        return (quantiles * count).long().clamp(0, count - 1)

    def quantile_of(self, timestep: float) -> float:
        """Return the share of the schedule's steps below a timestep."""
        return min(max(timestep / int(self.schedule.config.num_train_timesteps), 0.0), 1.0)

    def corrupt(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Mix by the square roots of the cumulative alphas."""
        mixed: torch.Tensor = self.schedule.add_noise(latents, noise, timesteps)
        return mixed

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Return the noise, or the velocity."""
        if self.kind == "epsilon":
            return noise
        velocity: torch.Tensor = self.schedule.get_velocity(latents, noise, timesteps)
        return velocity

    def losses(
        self,
        prediction: torch.Tensor,
        latents: torch.Tensor,
        noise: torch.Tensor,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
    ) -> torch.Tensor:
        """Return the mean squared error of the first channels, `weighted`; others mean nothing."""
        error = squared_error(prediction[:, : latents.shape[1]], self.target(latents, noise, timesteps))
        return self.weighted(error, timesteps)

    def weighted(self, error: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Let errors (B,) of the noise count as many times as there is more noise than picture, up to a bound.

        An error of the noise is an error of the picture that is √((1−ᾱ)/ᾱ) times as large; so squared errors are those
        of the picture where noise prevails, and of the noise where it does not (truncated SNR, arXiv 2202.00512). The
        bound holds gradients together: at the last step of V1 to V3 the ratio is 25,000.
        """
        if self.high_noise_weight == 1:
            return error
        kept = self.schedule.alphas_cumprod.to(error.device)[timesteps.long()]
        return error * ((1 - kept) / kept).clamp(1.0, self.high_noise_weight)

    def scheduler_config(self) -> dict[str, Any]:
        """Return the base's configuration; without a base that of the DDIM scheduler with the same betas."""
        if self.base is not None:
            return self.base
        return _config(DDIMScheduler.from_config(self.schedule.config, clip_sample=False))


def squared_error(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return each row's mean squared error (B,), in float32."""
    return (prediction.float() - target.float()).square().flatten(1).mean(1)


def make_objective(kind: Kind, shift: float | None = None, scheduler: dict[str, Any] | None = None) -> Objective:
    """Make an objective that fits a base model's scheduler; its `scheduler_config` samples what it trains.

    Args:
        kind: what is predicted.
        shift: of the flow's noise levels; None: the base's, or 1 without one.
        scheduler: the base's `scheduler_config.json`; None: train from nothing.

    Raises:
        ModelError: the base was trained for another objective, or a shift where there is no flow.
    """
    if scheduler is not None and objective_of(scheduler) != kind:
        was = objective_of(scheduler)
        raise ModelError(f"objective.kind {kind}: the base model was trained for {was}; set objective.kind={was}")
    if kind == "flow":
        return Flow(shift_of(scheduler) if shift is None else shift, scheduler)
    if shift not in (None, 1.0):
        raise ModelError(f"objective.shift {shift:g}: shifts the noise levels of flow; set it to null for {kind}")
    known = (*DDPM, "trained_betas", "rescale_betas_zero_snr")
    betas = {key: scheduler[key] for key in known if key in scheduler} if scheduler else {}
    if kind == "epsilon" and betas.get("rescale_betas_zero_snr"):
        raise ModelError(
            "scheduler: rescale_betas_zero_snr ends in noise alone, where epsilon says nothing of the picture; train "
            "with v_prediction, or set it to false"
        )
    schedule = DDPMScheduler(**(DDPM | betas), prediction_type=kind, clip_sample=False)
    return Diffusion(kind, schedule, scheduler)


def with_high_noise_weight(objective: Objective, weight: float) -> Objective:
    """Return the objective with errors weighted up to a bound where noise prevails; 1 changes nothing.

    Raises:
        ModelError: another objective than epsilon, whose errors are not divided by the picture's share.
    """
    if weight == 1:
        return objective
    if not isinstance(objective, Diffusion) or objective.kind != "epsilon":
        raise ModelError(
            f"objective.high_noise_weight {weight:g}: is for epsilon, not for {objective.kind}; set it to 1"
        )
    return replace(objective, high_noise_weight=weight)


def shift_of(scheduler: dict[str, Any] | None) -> float:
    """Read the factor that a flow's noise levels are pushed up by; 1 where there is no configuration."""
    if scheduler is None:
        return 1.0
    if scheduler.get("use_dynamic_shifting"):
        return math.exp(DYNAMIC_MU) if scheduler.get("time_shift_type", "exponential") == "exponential" else DYNAMIC_MU
    return float(scheduler.get("shift", scheduler.get("flow_shift", 1.0)))


def _with_shift(scheduler: dict[str, Any], shift: float) -> dict[str, Any]:
    """Set the shift in the words of the scheduler's class; a number leaves nothing dynamic."""
    is_flow_match = "shift" in scheduler or scheduler.get("_class_name", "").startswith("FlowMatch")
    fixed = {"use_dynamic_shifting": False} if scheduler.get("use_dynamic_shifting") else {}
    return scheduler | fixed | {"shift" if is_flow_match else "flow_shift": shift}


def objective_of(scheduler: dict[str, Any]) -> Kind:
    """Read from a scheduler's configuration what its model predicts.

    Raises:
        ModelError: something else than the three objectives.
    """
    name, predicts = scheduler.get("_class_name", ""), scheduler.get("prediction_type", "epsilon")
    if name.startswith("FlowMatch") or predicts == "flow_prediction":
        return "flow"
    if predicts not in ("epsilon", "v_prediction"):
        raise ModelError(f"scheduler {name}: prediction_type {predicts!r} is none of flow, epsilon, v_prediction")
    kind: Kind = predicts
    return kind


def draw_quantile(density: Density, generator: torch.Generator) -> torch.Tensor:
    """Draw one noise quantile in 0..1, shape (1,)."""
    scheme = {"logit_normal": "logit_normal", "uniform": "none", "mode": "mode"}[density]
    drawn: torch.Tensor = compute_density_for_timestep_sampling(
        weighting_scheme=scheme, batch_size=1, logit_mean=0.0, logit_std=1.0, mode_scale=MODE_SCALE, generator=generator
    )
    return drawn


def _like(values: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    return values.to(tensor.dtype).view(-1, *[1] * (tensor.ndim - 1))


def _config(scheduler: Any) -> dict[str, Any]:
    return {"_class_name": type(scheduler).__name__, **dict(scheduler.config)}
