"""The samplers there are, and which objectives each of them can integrate."""

import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from models.denoise.objectives import TIMESTEPS, Kind, objective_of
from models.errors import ModelError

DIFFUSION: tuple[Kind, ...] = ("epsilon", "v_prediction")
ALL: tuple[Kind, ...] = ("flow", *DIFFUSION)
FIRST_LEVEL = 0.65
"""of the timesteps; a sampler that begins lower takes pure noise for what should hold some of a picture already"""
SKIPPED = 0.05
"""of the timesteps; a sampler that skips more leaves noise in the result"""
# Settings that change the noise levels; a class that does not know one that is set would sample with other levels.
LEVELS = (
    "rescale_betas_zero_snr", "trained_betas", "use_dynamic_shifting", "shift_terminal", "use_karras_sigmas",
    "use_exponential_sigmas", "use_beta_sigmas", "invert_sigmas",
)  # fmt: skip


@dataclass(frozen=True)
class Sampler:
    """One way to integrate from noise to data.

    Attributes:
        scheduler: diffusers' class.
        objectives: what the weights must have been trained to predict.
        min_steps: fewest steps it works with.
        stochastic: draws noise at every step.
        whole_steps: its steps are a whole number of noise levels each, whatever lies between its timesteps.
        defaults: settings where the model's configuration has none.
        settings: settings that hold whatever the configuration has.
    """

    scheduler: type[Any]
    objectives: tuple[Kind, ...]
    min_steps: int = 1
    stochastic: bool = False
    whole_steps: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


# Each objective's default is the first that fits it.
SAMPLERS: Mapping[str, Sampler] = {
    "flow_euler": Sampler(FlowMatchEulerDiscreteScheduler, ("flow",)),
    "flow_heun": Sampler(FlowMatchHeunDiscreteScheduler, ("flow",)),
    "ddim": Sampler(DDIMScheduler, DIFFUSION, whole_steps=True, defaults={"clip_sample": False}),
    "unipc": Sampler(UniPCMultistepScheduler, ALL),
    "pndm": Sampler(PNDMScheduler, DIFFUSION, min_steps=3, whole_steps=True, settings={"skip_prk_steps": True}),
    "euler": Sampler(EulerDiscreteScheduler, DIFFUSION),
    "euler_a": Sampler(EulerAncestralDiscreteScheduler, DIFFUSION, stochastic=True),
    "dpm++": Sampler(DPMSolverMultistepScheduler, ALL),
}


def make_scheduler(config: dict[str, Any], steps: int, name: str | None = None) -> Any:
    """Make the scheduler that samples a model.

    Args:
        config: the model's `scheduler_config.json`.
        steps: denoising steps.
        name: a sampler; None: the first that fits the model.

    Raises:
        ModelError: unknown sampler, one that does not fit the weights' objective or cannot follow their noise levels,
            or too few or too many steps.
    """
    objective = objective_of(config)
    fitting = [key for key, sampler in SAMPLERS.items() if objective in sampler.objectives]
    name = name or fitting[0]
    if name not in SAMPLERS:
        raise ModelError(f"sampler '{name}': there is none; known: {', '.join(SAMPLERS)}")
    sampler = SAMPLERS[name]
    if objective not in sampler.objectives:
        raise ModelError(f"sampler {name}: these weights were trained for {objective}; use {' or '.join(fitting)}")
    trained = int(config.get("num_train_timesteps", TIMESTEPS))
    if steps < sampler.min_steps:
        raise ModelError(f"sampler {name}: {steps} steps are too few; it needs {sampler.min_steps} or more")
    if steps > trained:
        raise ModelError(f"sampler {name}: {steps} steps are too many; the weights know {trained} noise levels")
    known = _known(sampler)
    for key in LEVELS:
        if config.get(key) and not _follows(sampler, key, objective):
            able = [other for other in fitting if _follows(SAMPLERS[other], key, objective)]
            raise ModelError(f"sampler {name}: cannot follow the weights' {key}; use {' or '.join(able)}")
    settings = _flow_settings(config, known) if objective == "flow" else config
    values = {**sampler.defaults, **settings, **sampler.settings}
    # What a class does not know it would name in a warning.
    scheduler = sampler.scheduler.from_config({key: value for key, value in values.items() if key in known})
    if objective != "flow":
        _check_levels(sampler, scheduler, steps, name)
    return scheduler


def _known(sampler: Sampler) -> Collection[str]:
    return inspect.signature(sampler.scheduler.__init__).parameters.keys()


def _follows(sampler: Sampler, key: str, objective: Kind) -> bool:
    """Return whether a setting of the noise levels means the same to a class; for flow each class has its own words."""
    known = _known(sampler)
    return key in known and (objective != "flow" or "shift" in known)


def _flow_settings(config: Mapping[str, Any], known: Collection[str]) -> Mapping[str, Any]:
    """Say the same noise levels in the words of another class."""
    shift = config.get("shift", config.get("flow_shift", 1.0))
    if "flow_shift" not in known:
        return {**config, "shift": shift}
    return {
        "num_train_timesteps": config.get("num_train_timesteps", TIMESTEPS),
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "flow_shift": shift,
    }


def _check_levels(sampler: Sampler, scheduler: Any, steps: int, name: str) -> None:
    """Refuse numbers of steps that do not lead from noise to data; diffusers' spacings have such."""
    flaw = _flaw(sampler, scheduler, steps)
    if flaw is None:
        return
    trained = scheduler.config.num_train_timesteps
    near = (n for d in range(1, trained) for n in (steps - d, steps + d) if sampler.min_steps <= n <= trained)
    better = next((n for n in near if _flaw(sampler, scheduler, n) is None), None)
    fix = "use another sampler" if better is None else f"take {better}"
    spacing = scheduler.config.timestep_spacing
    raise ModelError(f"sampler {name}: {steps} steps of spacing '{spacing}' would {flaw}; {fix}")


def _flaw(sampler: Sampler, scheduler: Any, steps: int) -> str | None:
    """Return what is wrong with a number of steps, if anything is."""
    trained = scheduler.config.num_train_timesteps
    scheduler.set_timesteps(steps)
    first = float(scheduler.timesteps[0])
    if first < FIRST_LEVEL * trained:
        return f"begin at noise level {first:.0f} of {trained}, where pure noise is no beginning"
    skipped = trained % steps
    if sampler.whole_steps and scheduler.config.timestep_spacing != "leading" and skipped > SKIPPED * trained:
        return f"skip {skipped} of {trained} noise levels"
    return None
