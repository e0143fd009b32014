"""What the transformer learns to predict, and from which noise levels.

Flow matching (Lipman et al., arXiv 2210.02747; logit-normal density: Esser et al., arXiv 2403.03206) is
EasyAnimate V5.1's; epsilon (DDPM, arXiv 2006.11239) and v (arXiv 2202.00512) are those of V4 and V5.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling

from models.errors import ModelError

Kind = Literal["flow", "epsilon", "v_prediction"]
Density = Literal["logit_normal", "uniform", "mode"]
TIMESTEPS = 1000
# The betas of EasyAnimate V4 and V5.
DDPM = {"num_train_timesteps": TIMESTEPS, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


class Objective(Protocol):
    """Noise levels in, regression target out; all tensors share a leading batch axis."""

    @property
    def kind(self) -> Kind:
        """Its name."""
        ...

    def timesteps(self, quantiles: torch.Tensor) -> torch.Tensor:
        """Give the network's timesteps (B,), 0..1000, for noise quantiles (B,) in 0..1."""
        ...

    def corrupt(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Mix latents and noise (B, C, F, H, W) at timesteps (B,)."""
        ...

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Give what the network shall say."""
        ...

    def scheduler_config(self) -> dict[str, Any]:
        """Give the `scheduler_config.json` that samples what is trained here."""
        ...


@dataclass(frozen=True)
class Flow:
    """Straight paths from data to noise: x = (1−σ)·data + σ·noise, target noise − data."""

    shift: float = 1.0
    kind: Kind = "flow"

    def timesteps(self, quantiles: torch.Tensor) -> torch.Tensor:
        """Give 1000·σ with σ shifted towards noise, as `FlowMatchEulerDiscreteScheduler` shifts it."""
        sigmas = self.shift * quantiles / (1 + (self.shift - 1) * quantiles)
        return TIMESTEPS * sigmas.clamp(max=1.0)

    def corrupt(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Mix linearly."""
        sigma = _like(timesteps / TIMESTEPS, latents)
        return (1 - sigma) * latents + sigma * noise

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Give the velocity, which is the same at every level."""
        return noise - latents

    def scheduler_config(self) -> dict[str, Any]:
        """Give the configuration of the Euler scheduler."""
        return _config(FlowMatchEulerDiscreteScheduler(num_train_timesteps=TIMESTEPS, shift=self.shift))


@dataclass(frozen=True)
class Diffusion:
    """Variance-preserving diffusion with discrete steps, predicting the noise or the velocity."""

    kind: Kind
    schedule: DDPMScheduler

    def timesteps(self, quantiles: torch.Tensor) -> torch.Tensor:
        """Give whole steps 0..999."""
        return (quantiles * TIMESTEPS).long().clamp(0, TIMESTEPS - 1)

    def corrupt(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Mix by the square roots of the cumulative alphas."""
        mixed: torch.Tensor = self.schedule.add_noise(latents, noise, timesteps)
        return mixed

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Give the noise, or the velocity."""
        if self.kind == "epsilon":
            return noise
        velocity: torch.Tensor = self.schedule.get_velocity(latents, noise, timesteps)
        return velocity

    def scheduler_config(self) -> dict[str, Any]:
        """Give the configuration of the DDIM scheduler with the same betas."""
        return _config(DDIMScheduler.from_config(self.schedule.config, clip_sample=False))


def make_objective(kind: Kind, shift: float = 1.0, scheduler: dict[str, Any] | None = None) -> Objective:
    """Make an objective that fits a base model's scheduler.

    Args:
        kind: what is predicted.
        shift: of the flow's noise levels.
        scheduler: the base's `scheduler_config.json`; None: train from nothing.

    Raises:
        ModelError: the base was trained for another objective.
    """
    if scheduler is not None and objective_of(scheduler) != kind:
        was = objective_of(scheduler)
        raise ModelError(f"objective.kind {kind}: the base model was trained for {was}; set objective.kind={was}")
    if kind == "flow":
        return Flow(shift)
    betas = {key: scheduler[key] for key in (*DDPM, "rescale_betas_zero_snr") if key in scheduler} if scheduler else {}
    return Diffusion(kind, DDPMScheduler(**(DDPM | betas), prediction_type=kind, clip_sample=False))


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
        weighting_scheme=scheme, batch_size=1, logit_mean=0.0, logit_std=1.0, mode_scale=1.29, generator=generator
    )
    return drawn


def _like(values: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    return values.to(tensor.dtype).view(-1, *[1] * (tensor.ndim - 1))


def _config(scheduler: Any) -> dict[str, Any]:
    return {"_class_name": type(scheduler).__name__, **dict(scheduler.config)}
