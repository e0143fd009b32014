"""Which noise levels a run trains on: decided here for training, for its samples and for what it exports."""

import dataclasses

from models.denoise.family_objective import family_objective, kind_for, shift_for
from models.denoise.objectives import Objective
from models.transformers.table import defaults_of
from train_bridge.config import TrainConfig
from train_bridge.parts import Parts


def objective_for(config: TrainConfig, parts: Parts) -> Objective:
    """Make a transformer's objective; its `scheduler_config` is what samples and export take.

    Raises:
        ModelError: it does not fit the base's scheduler.
    """
    assert parts.transformer is not None
    facts = defaults_of(parts.transformer).objective
    asked = config.objective
    return family_objective(facts, asked.kind, asked.shift, parts.scheduler, asked.high_noise_weight)


def with_shift(config: TrainConfig, parts: Parts) -> TrainConfig:
    """Write objective and shift into a config that leaves them open, so that a run goes on with what it began with."""
    if parts.transformer is None:  # a VAE has none; what earlier versions wrote is kept
        kind = config.objective.kind or "flow"
        return dataclasses.replace(config, objective=dataclasses.replace(config.objective, kind=kind))
    facts = defaults_of(parts.transformer).objective
    kind = config.objective.kind or kind_for(facts, parts.scheduler)
    shift = config.objective.shift
    if shift is None:
        shift = shift_for(facts, parts.scheduler) if kind == "flow" else 1.0
    return dataclasses.replace(config, objective=dataclasses.replace(config.objective, kind=kind, shift=shift))
