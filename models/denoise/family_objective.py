"""The objective of a family's models: its own noise levels for new ones, the base's for those that have one."""

from typing import Any

from models.denoise.learned_sigma import LearnedSigma
from models.denoise.objectives import (
    Diffusion,
    Kind,
    Objective,
    make_objective,
    objective_of,
    shift_of,
    with_high_noise_weight,
)
from models.transformers.defaults import ObjectiveFacts


def kind_for(facts: ObjectiveFacts, scheduler: dict[str, Any] | None) -> Kind:
    """Return what is predicted where nothing else is asked for: what the base was trained for, else the family's.

    Raises:
        ModelError: the base predicts something that is not known.
    """
    return facts.kind if scheduler is None else objective_of(scheduler)


def shift_for(facts: ObjectiveFacts, scheduler: dict[str, Any] | None) -> float:
    """Return the shift of a flow where no other is asked for: the base's, else the family's, else 1."""
    stated = dict(facts.scheduler) if facts.scheduler and facts.kind == "flow" else None
    return shift_of(scheduler if scheduler is not None else stated)


def family_objective(
    facts: ObjectiveFacts,
    kind: Kind | None,
    shift: float | None,
    scheduler: dict[str, Any] | None,
    high_noise_weight: float = 1.0,
) -> Objective:
    """Make the objective of a model.

    Args:
        facts: the family's.
        kind: what shall be predicted; None: `kind_for`.
        shift: of the flow's noise levels; None: `shift_for`.
        scheduler: the base's `scheduler_config.json`; None: a new model, with the family's where it predicts the same.
        high_noise_weight: see `Diffusion`; 1: as published.

    Raises:
        ModelError: the base was trained for another objective, a shift where there is no flow, or a weight where no
            noise is predicted.
    """
    kind = kind or kind_for(facts, scheduler)
    if scheduler is None and facts.scheduler is not None and kind == facts.kind:
        scheduler = dict(facts.scheduler)
    objective = with_high_noise_weight(make_objective(kind, shift, scheduler), high_noise_weight)
    if facts.variance == "trained" and isinstance(objective, Diffusion) and objective.kind == "epsilon":
        return LearnedSigma(objective)
    return objective
