"""Diffusion that learns the variance of its denoising steps beside the mean (Nichol & Dhariwal, arXiv 2102.09672).

The network says twice as many channels as a latent has: the noise, and v that interpolates the logarithm of a step's
variance between its bounds, β̃ and β (equation 15). The loss is the squared error of the noise plus the term of the
variational bound, in bits, in which the mean is held still (section 3.1, without rescaling, as PixArt and EasyAnimate
V1 to V3 are trained).
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from models.denoise.objectives import Diffusion, Kind, squared_error
from models.errors import ModelError

HALF_BIN = 1 / 255
"""half the distance of two of 256 values in −1..1, by which the last step's Gaussian is made discrete"""
LEAST = 1e-12


@dataclass(frozen=True)
class Posterior:
    """q(x_{t−1} | x_t, x_0) at each step of a schedule, float64 (T,) each (Ho et al., arXiv 2006.11239, equation 7).

    Attributes:
        clean: factor of x_0 in its mean.
        noisy: factor of x_t in its mean.
        log_variance: log β̃; that of the first step, which is 0, is the second's.
        log_beta: log β.
        alphas_cumprod: ᾱ.
    """

    clean: torch.Tensor
    noisy: torch.Tensor
    log_variance: torch.Tensor
    log_beta: torch.Tensor
    alphas_cumprod: torch.Tensor


def posterior_of(betas: torch.Tensor) -> Posterior:
    """Compute the posterior of a schedule's betas (T,)."""
    betas = betas.double()
    alphas = 1 - betas
    after = alphas.cumprod(0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), after[:-1]])
    variance = betas * (1 - before) / (1 - after)
    clipped = torch.cat([variance[1:2], variance[1:]]).log()
    clean = betas * before.sqrt() / (1 - after)
    noisy = (1 - before) * alphas.sqrt() / (1 - after)
    return Posterior(clean, noisy, clipped, betas.log(), after)


@dataclass(frozen=True)
class LearnedSigma:
    """Noise and variance, learned together.

    Attributes:
        mean: the objective of the noise; its kind is epsilon.
    """

    mean: Diffusion

    def __post_init__(self) -> None:
        """Refuse a velocity, of which the bound is not computed here."""
        if self.mean.kind != "epsilon":
            raise ModelError(f"learned variance: trained with epsilon only, not with {self.mean.kind}")

    @property
    def kind(self) -> Kind:
        """That of the mean."""
        return self.mean.kind

    @cached_property
    def posterior(self) -> Posterior:
        """The schedule's, computed once."""
        return posterior_of(self.mean.schedule.betas)

    def timesteps(self, quantiles: torch.Tensor) -> torch.Tensor:
        """Return whole steps."""
        return self.mean.timesteps(quantiles)

    def quantile_of(self, timestep: float) -> float:
        """Return the share of the schedule's steps below a timestep."""
        return self.mean.quantile_of(timestep)

    def corrupt(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Mix by the square roots of the cumulative alphas."""
        return self.mean.corrupt(latents, noise, timesteps)

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Return the noise."""
        return self.mean.target(latents, noise, timesteps)

    def losses(
        self,
        prediction: torch.Tensor,
        latents: torch.Tensor,
        noise: torch.Tensor,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
    ) -> torch.Tensor:
        """Return the squared error and the bound's term.

        Raises:
            ModelError: a network without channels for the variance.
        """
        channels = latents.shape[1]
        if prediction.shape[1] != 2 * channels:
            raise ModelError(
                f"learned variance: the network gives {prediction.shape[1]} channels for {channels} of the latents; "
                f"take one with {2 * channels} output channels"
            )
        said, variance = prediction.float().chunk(2, dim=1)
        error = self.mean.weighted(squared_error(said, self.target(latents, noise, timesteps)), timesteps)
        return error + bound_bits(self.posterior, said.detach(), variance, latents, noisy, timesteps)

    def scheduler_config(self) -> dict[str, Any]:
        """Return that of the mean."""
        return self.mean.scheduler_config()


def bound_bits(
    posterior: Posterior,
    noise: torch.Tensor,
    variance: torch.Tensor,
    latents: torch.Tensor,
    noisy: torch.Tensor,
    timesteps: torch.Tensor,
) -> torch.Tensor:
    """Return one term of the variational bound for each row, in bits, the mean over its elements.

    Args:
        posterior: of the schedule.
        noise: as the network says it (B, C, F, H, W).
        variance: v, −1 where a step has the variance β̃, and 1 where it has β.
        latents: clean.
        noisy: at `timesteps`.
        timesteps: (B,), whole.

    Returns:
        (B,): KL(q(x_{t−1} | x_t, x_0) ‖ p(x_{t−1} | x_t)), and at step 0 −log p(x_0 | x_1) of 256 bins in −1..1.
    """

    def at(values: torch.Tensor) -> torch.Tensor:
        found = values.to(noisy.device)[timesteps.long()].float()
        return found.view(-1, *[1] * (noisy.ndim - 1))

    latents, noisy = latents.float(), noisy.float()
    clean, mixed, alpha = at(posterior.clean), at(posterior.noisy), at(posterior.alphas_cumprod)
    true_mean, true_log = clean * latents + mixed * noisy, at(posterior.log_variance)
    guess = (noisy - (1 - alpha).sqrt() * noise) / alpha.sqrt()
    mean = clean * guess + mixed * noisy
    share = (variance + 1) / 2
    log = share * at(posterior.log_beta) + (1 - share) * true_log
    apart = gaussian_kl(true_mean, true_log.expand_as(log), mean, log)
    first = -discrete_log_likelihood(latents, mean, log)
    bits = torch.where((timesteps == 0).view(-1, *[1] * (noisy.ndim - 1)), first, apart) / math.log(2)
    return bits.flatten(1).mean(1)


def gaussian_kl(
    mean: torch.Tensor, log_variance: torch.Tensor, other_mean: torch.Tensor, other_log_variance: torch.Tensor
) -> torch.Tensor:
    """Return KL(N(mean, exp(log_variance)) ‖ N(other_mean, exp(other_log_variance))), in nats, by element."""
    spread = torch.exp(log_variance - other_log_variance)
    between = (mean - other_mean).square() * torch.exp(-other_log_variance)
    return 0.5 * (other_log_variance - log_variance - 1 + spread + between)


def discrete_log_likelihood(values: torch.Tensor, mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """Return the logarithm of a Gaussian's mass in each value's bin; the outermost bins reach to infinity."""
    inverse = torch.exp(-0.5 * log_variance)
    above = torch.special.ndtr((values - mean + HALF_BIN) * inverse)
    below = torch.special.ndtr((values - mean - HALF_BIN) * inverse)
    low, high = values < -0.999, values > 0.999
    mass = torch.where(low, above, torch.where(high, 1 - below, above - below))
    return mass.clamp(min=LEAST).log()
