"""What a family of models states as facts: with which parts, objective and conditions it is trained and sampled."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from models.conditions.spec import ConditionSpec
from models.denoise.objectives import Kind

Variance = Literal["none", "trained", "ignored"]


@dataclass(frozen=True)
class ObjectiveFacts:
    """What a family predicts, and over which noise levels.

    Attributes:
        kind: what is predicted.
        scheduler: content of the `scheduler_config.json` of new models: class, betas, spacing; None: that of the
            objective without settings.
        variance: what becomes of output channels beyond the latent's: there are none, they learn the variance of a
            denoising step, or they are there and mean nothing.
    """

    kind: Kind
    scheduler: Mapping[str, Any] | None = None
    variance: Variance = "none"


@dataclass(frozen=True)
class SamplerFacts:
    """How published weights are sampled.

    Attributes:
        name: one of `models.denoise.samplers.SAMPLERS`.
        steps: denoising steps.
        guidance: scale of classifier-free guidance.
        num_frames: of a sample.
        fps: frames a second.
        image_from: share of the steps, from the first on, without the tokens of a condition image.
        width_px: of a sample.
        height_px: of a sample.
        overlap: frames that the segments of a long video share; None: as the VAE takes them.
        smooths: whether borders between slices are softened where a sample is decoded (`models.vae.smooth`).
    """

    name: str
    steps: int
    guidance: float
    num_frames: int
    fps: float
    image_from: float = 0.0
    width_px: int = 512
    height_px: int = 512
    overlap: int | None = None
    smooths: bool = False


@dataclass(frozen=True)
class FamilyDefaults:
    """A family's facts.

    Attributes:
        name: for people.
        autoencoder: name of its kind in `models.vae.table`.
        text_encoder: name of its kind in `models.text.table`.
        text_tokens: positions of a text, where the kind has one number.
        objective: what is predicted.
        kinds: the layouts of condition channels after the noisy latents that its models have.
        masks: share of each kind of mask in training with conditions (`models.conditions.masks`).
        sampler: how it is sampled.
        image_encoder: name of the kind that gives tokens of a condition image (`models.text.image_encoder`); None:
            there are none.
        reference_noise: whether known pixels bear noise, in training and where a `config.json` says nothing of it.
    """

    name: str
    autoencoder: str
    text_encoder: str
    text_tokens: int
    objective: ObjectiveFacts
    kinds: tuple[ConditionSpec, ...]
    masks: Mapping[str, float] = field(default_factory=dict)
    sampler: SamplerFacts = SamplerFacts("flow_euler", 50, 6.0, 49, 8.0)
    image_encoder: str | None = None
    reference_noise: bool = True
