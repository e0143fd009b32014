"""What the family of a run's transformer states, for the plan and for training."""

from collections.abc import Mapping

from models.transformers.table import defaults_of
from train_bridge.config import TrainConfig
from train_bridge.method_settings import InpaintSettings
from train_bridge.methods.conditions import mask_probabilities
from train_bridge.noise_levels import objective_for
from train_bridge.parts import Parts, grid_of


def masks_for(settings: InpaintSettings, parts: Parts) -> Mapping[str, float]:
    """Return the share of each kind of mask: as the config names them, else the family's, else V5's."""
    stated = defaults_of(parts.transformer).masks if parts.transformer else {}
    return settings.masks or dict(stated) or mask_probabilities(settings)


def family_notes(config: TrainConfig, parts: Parts) -> list[str]:
    """Write the line of a plan that names the family's facts; none for a VAE, which belongs to none.

    Raises:
        ModelError: as `objective_for`.
    """
    if parts.transformer is None:
        return []
    facts, grid = defaults_of(parts.transformer), grid_of(parts)
    learns = {"none": "", "trained": " with learned variance", "ignored": ", variance ignored"}
    kind = objective_for(config, parts).kind
    variance = learns[facts.objective.variance] if kind == facts.objective.kind else ""
    encoders = " and ".join(name for name in (parts.text_kind, facts.image_encoder) if name)
    sampled = facts.sampler
    return [
        f"family {facts.name}: VAE {facts.autoencoder} ({grid.rule} frames), conditioned by {encoders}, objective "
        f"{kind}{variance}; published weights are sampled with {sampled.name}, {sampled.steps} steps, guidance "
        f"{sampled.guidance:g}, {sampled.num_frames} frames at {sampled.fps:g} fps"
    ]
