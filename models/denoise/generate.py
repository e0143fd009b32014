"""From noise, or from a video, to latents: the denoising loop with classifier-free guidance."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, PNDMScheduler
from diffusers.utils.torch_utils import randn_tensor
from torch import nn

from models.denoise.expected import expected_clean
from models.denoise.objectives import DYNAMIC_MU
from models.transformers.architecture import Architecture
from models.transformers.conditioning import Conditioning, moved, repeated, stacked, without_image


@dataclass(frozen=True)
class Source:
    """What sampling begins from beside noise.

    Attributes:
        latents: of a video, scaled, (1 or B, C, F, H, W).
        strength: share of the denoising steps that are done: 0 gives the latents back, 1 begins from noise alone.
        mask: (1 or B, 1, F, H, W), 1 = to be generated, 0 = kept; after every step kept latents are set back to the
            source's, noised to the step's level (RePaint, arXiv 2201.09865, without resampling). None: nothing is.
    """

    latents: torch.Tensor
    strength: float = 1.0
    mask: torch.Tensor | None = None


@dataclass(frozen=True)
class Acting:
    """In which part of the denoising a condition acts.

    Attributes:
        start: share of the steps before which the model sees `otherwise`.
        end: share of the steps from which on it does.
        otherwise: the condition without what acts, of the same shape.
    """

    start: float
    end: float
    otherwise: torch.Tensor

    def acts(self, done: int, steps: int) -> bool:
        """Return whether the condition acts in a step, after so many of all were done."""
        return self.start * steps <= done < self.end * steps


@dataclass(frozen=True, eq=False)
class Denoiser:
    """A network with its sampler.

    Attributes:
        family: how to call the transformer.
        transformer: the network.
        scheduler: fits the weights' objective (`samplers.make_scheduler`); a new one for each call.
    """

    family: Architecture
    transformer: nn.Module
    scheduler: Any


@dataclass(frozen=True, eq=False)
class Prompted:
    """What is asked for.

    Attributes:
        conditioning: B rows of text, on the device and of the type that latents have; its other parts have 1 or B.
        negative: 1 or B rows that guidance leads away from, at least their text (`conditioning.stacked`); None or
            guidance ≤ 1: no guidance, and half the work.
        guidance: scale w of uncond + w·(cond − uncond) (arXiv 2207.12598).
    """

    conditioning: Conditioning
    negative: Conditioning | None = None
    guidance: float = 1.0


@dataclass(frozen=True, eq=False)
class Course:
    """How the denoising goes.

    Attributes:
        steps: denoising steps, of which a source's strength may leave out the first.
        source: what to begin from; None: noise.
        image_from: share of the steps, from the first on, that see no tokens of a condition image.
        acting: in which steps the condition channels act; None: in all.
    """

    steps: int
    source: Source | None = None
    image_from: float = 0.0
    acting: Acting | None = None


@torch.no_grad()
def generate_latents(
    denoiser: Denoiser,
    prompted: Prompted,
    shape: tuple[int, int, int, int],
    course: Course,
    generator: torch.Generator,
    *,
    progress: Callable[[int, int], None] | None = None,
    look: Callable[[torch.Tensor], None] | None = None,
) -> torch.Tensor:
    """Sample latents for a batch of texts, step for step as diffusers' EasyAnimate pipelines do.

    Args:
        denoiser: the network, and the sampler that fits it.
        prompted: what is asked for.
        shape: latent channels, frames, height, width.
        course: how many steps from where, and what acts in them.
        generator: draws the first noise, and what a sampler draws later; on the CPU it gives the same noise for every
            device.
        progress: called with steps done and steps in all.
        look: called after each step, before `progress`, with the clean latents that the network expects there; None:
            they are not computed. The result is the same with and without it.

    Returns:
        Scaled latents (B, C, F, H, W); divide by the VAE's scaling factor to decode.
    """
    family, transformer, scheduler = denoiser.family, denoiser.transformer, denoiser.scheduler
    conditioning, negative, guidance = prompted.conditioning, prompted.negative, prompted.guidance
    steps, source, image_from, acting = course.steps, course.source, course.image_from, course.acting
    text = conditioning.text
    count, device, dtype = len(text), text.device, text.dtype
    guided = negative is not None and guidance > 1
    seen = moved(repeated(conditioning, count), device, dtype)
    if guided:
        assert negative is not None
        seen = stacked(moved(negative, device, dtype), seen)
    resting = seen
    if acting is not None:
        resting = repeated(replace(seen, latents=acting.otherwise.to(device, dtype)), len(seen.text))
    # The pipeline's own call: mu matters to configurations with dynamic shifting only.
    extra = {"mu": DYNAMIC_MU} if isinstance(scheduler, FlowMatchEulerDiscreteScheduler) else {}
    scheduler.set_timesteps(steps, device=device, **extra)
    timesteps = scheduler.timesteps
    noise = randn_tensor((count, *shape), generator=generator, device=device, dtype=dtype)
    latents = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    if source is not None:
        timesteps = last_timesteps(scheduler, steps, source.strength)
        clean = source.latents.to(device, dtype).expand_as(noise)
        mask = None if source.mask is None else source.mask.to(device, dtype)
        if not len(timesteps):
            return clean.clone()
        if source.strength < 1:
            latents = _noised(scheduler, clean, noise, timesteps[0])
    step_extra = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    for done, timestep in enumerate(timesteps):
        both = torch.cat([latents] * 2) if guided else latents
        if hasattr(scheduler, "scale_model_input"):
            both = scheduler.scale_model_input(both, timestep)
        levels = torch.full((len(both),), float(timestep), device=device).to(dtype)
        now = seen if acting is None or acting.acts(done, len(timesteps)) else resting
        sees_image = done >= image_from * len(timesteps)
        prediction = family.predict(transformer, both, levels, now if sees_image else without_image(now))
        prediction = prediction[:, : shape[0]]  # learned variance is not used
        if guided:
            without, with_text = prediction.chunk(2)
            prediction = without + guidance * (with_text - without)
        if look is not None:
            look(expected_clean(scheduler, both[:count], prediction, timestep))
        latents = scheduler.step(prediction, timestep, latents, return_dict=False, **step_extra)[0]
        if source is not None and mask is not None:
            is_last = done + 1 == len(timesteps)
            kept = clean if is_last else _noised(scheduler, clean, noise, timesteps[done + 1])
            latents = (1 - mask) * kept + mask * latents
        if progress is not None:
            progress(done + 1, len(timesteps))
    return latents


def steps_done(steps: int, strength: float) -> int:
    """Return how many of the steps a strength leaves, as diffusers counts them."""
    return min(int(steps * strength + 1e-6), steps)


def last_timesteps(scheduler: Any, steps: int, strength: float) -> torch.Tensor:
    """Return the timesteps that a strength leaves, and tell the scheduler where it begins.

    Args:
        scheduler: with its timesteps set.
        steps: as they were set.
        strength: 0..1.
    """
    skipped = steps - steps_done(steps, strength)
    timesteps: torch.Tensor = scheduler.timesteps
    if skipped and isinstance(scheduler, PNDMScheduler):
        # It takes the second timestep twice, counted from its own first step.
        levels = torch.cat([timesteps[:1], timesteps[2:]] if len(timesteps) > 2 else [timesteps])[skipped:]
        return torch.cat([levels[:2], levels[1:]])
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(min(skipped * scheduler.order, len(timesteps) - 1))
    return timesteps[skipped * scheduler.order :]


def _noised(scheduler: Any, clean: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    """Bring clean latents to a timestep's noise level."""
    levels = timestep.reshape(1)
    noised: torch.Tensor
    if hasattr(scheduler, "scale_noise"):
        noised = scheduler.scale_noise(clean, levels, noise)
    else:
        noised = scheduler.add_noise(clean, noise, levels)
    return noised
