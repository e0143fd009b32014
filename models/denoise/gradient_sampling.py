"""Sampling with a gradient: the whole trajectory, of which some steps' predictions are differentiated.

A reward of what was sampled is a function of the network's predictions at all steps. Their gradients take the memory of
as many networks, so that it is kept at K chosen steps and all other predictions are constants (DRaFT, Clark et al.,
arXiv 2309.17400; EasyAnimate's reward LoRA). The samplers' steps are linear in latents and prediction, so what a
kept step contributes flows on to the end. With DRTune (Wu et al., arXiv 2405.00760) the network's input is a constant,
too, and a kept step is reached through the samplers alone, which keeps gradients from growing from step to step.
"""

import hashlib
import inspect
from collections.abc import Callable, Collection
from typing import Any, Literal

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import nn
from torch.utils.checkpoint import checkpoint

from models.denoise.objectives import DYNAMIC_MU
from models.errors import ModelError
from models.transformers.architecture import Architecture
from models.transformers.conditioning import Conditioning, stacked

Choice = Literal["last", "tail", "uniform", "random"]
Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""latents (B, C, F, H, W) and a timestep → the prediction"""
SAMPLERS = ("flow_euler", "ddim")
"""samplers whose steps are linear and draw nothing; the first that fits a model is taken"""


def kept_steps(choice: Choice, count: int, steps: int, key: str) -> tuple[int, ...]:
    """Return the steps whose predictions are differentiated, ascending, 0 the noisiest.

    Args:
        choice: `last`: the last one; `tail`: the last `count`; `uniform`: every (steps // count)-th, from a drawn
            beginning; `random`: any `count`.
        count: how many; `last` takes one whatever it is.
        steps: denoising steps.
        key: what is drawn follows from it.

    Raises:
        ModelError: more than there are steps.
    """
    if not 1 <= count <= steps:
        raise ModelError(f"reward.gradient_steps {count}: must be 1 to reward.steps, {steps}")
    if choice == "last":
        return (steps - 1,)
    if choice == "tail":
        return tuple(range(steps - count, steps))
    seed = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest(), "big")
    generator = torch.Generator().manual_seed(seed)
    if choice == "uniform":
        interval = steps // count
        begin = int(torch.randint(steps - interval * (count - 1), (1,), generator=generator))
        return tuple(begin + interval * place for place in range(count))
    return tuple(sorted(torch.randperm(steps, generator=generator)[:count].tolist()))


def predictor(
    family: Architecture,
    transformer: nn.Module,
    conditioning: Conditioning,
    negative: Conditioning,
    guidance: float,
    channels: int,
) -> Predict:
    """Return what predicts with classifier-free guidance, as `generate.generate_latents` does.

    Args:
        family: how to call the transformer.
        transformer: the network.
        conditioning: B rows, on the latents' device and of their type.
        negative: 1 or B rows that guidance leads away from.
        guidance: scale; 1 or less: none, and half the work.
        channels: of the latents; further ones of a prediction are learned variance, which is not used.
    """
    guided = guidance > 1
    seen = stacked(negative, conditioning) if guided else conditioning

    def predict(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        both = torch.cat([latents] * 2) if guided else latents
        levels = torch.full((len(both),), float(timestep), device=latents.device).to(latents.dtype)
        prediction = family.predict(transformer, both, levels, seen)[:, :channels]
        if guided:
            without, with_text = prediction.chunk(2)
            prediction = without + guidance * (with_text - without)
        return prediction

    return predict


def sample_with_gradient(
    predict: Predict,
    scheduler: Any,
    noise: torch.Tensor,
    steps: int,
    kept: Collection[int] = (),
    *,
    stop_input: bool = False,
    checkpointing: bool = False,
) -> torch.Tensor:
    """Sample latents whose gradient is that of the kept steps' predictions.

    Args:
        predict: of `predictor`.
        scheduler: of one of `SAMPLERS` (`samplers.make_scheduler`); a new one for each call.
        noise: (B, C, F, H, W), standard normal.
        steps: denoising steps.
        kept: steps that are differentiated; with none the result has no gradient.
        stop_input: the network's input is a constant (DRTune).
        checkpointing: compute kept predictions again in the backward pass, so that one step's activations are held at
            a time.

    Returns:
        Scaled latents (B, C, F, H, W).
    """
    extra = {"mu": DYNAMIC_MU} if isinstance(scheduler, FlowMatchEulerDiscreteScheduler) else {}
    scheduler.set_timesteps(steps, device=noise.device, **extra)
    step_extra = {"eta": 0.0} if "eta" in inspect.signature(scheduler.step).parameters else {}
    latents = noise * float(scheduler.init_noise_sigma) if hasattr(scheduler, "init_noise_sigma") else noise
    for place, timestep in enumerate(scheduler.timesteps):
        if hasattr(scheduler, "scale_model_input"):
            given = scheduler.scale_model_input(latents, timestep)
        else:
            given = latents
        if place not in kept:
            with torch.no_grad():
                prediction = predict(given.detach(), timestep)
        else:
            given = given.detach() if stop_input else given
            if checkpointing:
                prediction = checkpoint(predict, given, timestep, use_reentrant=False)
            else:
                prediction = predict(given, timestep)
        latents = scheduler.step(prediction, timestep, latents, return_dict=False, **step_extra)[0]
    return latents
