"""The samplers there are, and which objectives each of them can integrate."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from models.errors import ModelError
from models.objectives import Kind, objective_of


@dataclass(frozen=True)
class Sampler:
    """One way to integrate from noise to data.

    Attributes:
        scheduler: diffusers' class.
        objectives: what the weights must have been trained to predict.
        min_steps: fewest steps it works with.
    """

    scheduler: type[Any]
    objectives: tuple[Kind, ...]
    min_steps: int = 1


SAMPLERS: Mapping[str, Sampler] = {
    "flow_euler": Sampler(FlowMatchEulerDiscreteScheduler, ("flow",)),
    "ddim": Sampler(DDIMScheduler, ("epsilon", "v_prediction")),
}


def make_scheduler(config: dict[str, Any], steps: int, name: str | None = None) -> Any:
    """Make the scheduler that samples a model.

    Args:
        config: the model's `scheduler_config.json`.
        steps: denoising steps.
        name: a sampler; None: the first that fits the model.

    Raises:
        ModelError: unknown sampler, one that does not fit the weights' objective, or too few steps.
    """
    objective = objective_of(config)
    fitting = [key for key, sampler in SAMPLERS.items() if objective in sampler.objectives]
    name = name or fitting[0]
    if name not in SAMPLERS:
        raise ModelError(f"sampler '{name}': there is none; known: {', '.join(SAMPLERS)}")
    sampler = SAMPLERS[name]
    if objective not in sampler.objectives:
        raise ModelError(f"sampler {name}: these weights were trained for {objective}; use {' or '.join(fitting)}")
    if steps < sampler.min_steps:
        raise ModelError(f"sampler {name}: {steps} steps are too few; it needs {sampler.min_steps} or more")
    return sampler.scheduler.from_config({k: v for k, v in config.items() if not k.startswith("_")})
