"""What is known of a model before any of its weights are loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from core.errors import UserError
from models.bundle import Bundle, read_bundle
from models.conditions.spec import ConditionSpec, spec_of
from models.denoise.first_block_cache import check_threshold
from models.denoise.objectives import Kind, objective_of
from models.denoise.samplers import SAMPLERS
from models.geometry import LatentGrid
from models.lora.adapters import apply_lora
from models.lora.files import DIFFUSERS_FILE, LoraWeights, read_lora
from models.memory.modes import check_mode
from models.text.table import IMAGE_ENCODERS, TEXT_ENCODERS
from models.transformers.architecture import Shape
from models.transformers.defaults import FamilyDefaults
from models.transformers.table import build_empty, defaults_of
from models.vae.table import check_fit, kind_of_config
from models.weights.json_file import read_settings
from sampling.request import HINTS_FILE, Lora, MapMaker, Options


@dataclass(frozen=True, eq=False)
class ModelFacts:
    """What is known of a model without its weights.

    Attributes:
        bundle: its folders.
        hints: shape, rate and text length that it was trained for.
        scheduler: its `scheduler_config.json`.
        default_sampler: the first that fits it.
        shape: the transformer's numbers.
        empty: the transformer with its adapters on the meta device.
        spec: what it sees beside the noise.
        noises_condition: whether known pixels get noise, as in its training.
        loras: adapters with their scales and names.
        family: what models of its family are sampled with.
        grid: of its VAE.
        maps: what makes control maps of footage, by kind.
    """

    bundle: Bundle
    hints: dict[str, Any]
    scheduler: dict[str, Any]
    default_sampler: str
    shape: Shape
    empty: nn.Module
    spec: ConditionSpec
    noises_condition: bool
    loras: tuple[tuple[Lora, LoraWeights], ...]
    family: FamilyDefaults
    grid: LatentGrid
    maps: Mapping[str, MapMaker] = field(default_factory=dict)

    @property
    def image_encoder(self) -> Path | None:
        """Folder of what makes tokens of a start image; None: there is none, or the model sees none."""
        folder = self.bundle.folder / "image_encoder"
        return folder if self.shape.image_dim and folder.is_dir() else None

    @property
    def has_condition(self) -> bool:
        """Whether it sees masks and masked videos."""
        return "masked_video" in self.spec


def read_model(model: Path, options: Options) -> ModelFacts:
    """Look at a pipeline folder or a run; a run that trained an adapter brings it along.

    Raises:
        UserError: parts that do not fit each other, or an option that cannot be.
        ModelError: likewise, told by the models.
    """
    check_mode(options.memory)
    check_threshold(options.cache_threshold)
    bundle = read_bundle(model)
    file = bundle.folder / HINTS_FILE
    defaults = defaults_of(str(bundle.transformer))
    hints = _published(defaults) | (read_settings(file) if file.is_file() else {})
    own, loras = model / "lora" / DIFFUSERS_FILE, options.loras
    if own.is_file() and own.resolve() not in {lora.path.resolve() for lora in loras}:
        loras = (Lora(own), *loras)
    family, empty = build_empty(str(bundle.transformer))
    shape = family.shape(empty)
    _check_parts(bundle, shape, defaults)
    read = tuple((lora, read_lora(lora.path)) for lora in loras)
    for place, (lora, weights) in enumerate(read):
        apply_lora(empty, weights, f"lora_{place}", lora.scale)  # says what does not fit
    scheduler = read_settings(bundle.scheduler / "scheduler_config.json")
    kind = objective_of(scheduler)
    config = read_settings(bundle.transformer / "config.json")
    return ModelFacts(
        bundle,
        hints,
        scheduler,
        _default_sampler(kind, defaults),
        shape,
        empty,
        spec_of(shape, defaults.kinds),
        bool(config.get("add_noise_in_inpaint_model", defaults.reference_noise)),
        read,
        defaults,
        _grid_of(bundle),
        options.maps,
    )


def _published(defaults: FamilyDefaults) -> dict[str, Any]:
    """Return what published weights of the family were trained for."""
    sampler = defaults.sampler
    return {
        "width_px": sampler.width_px,
        "height_px": sampler.height_px,
        "num_frames": sampler.num_frames,
        "fps": sampler.fps,
        "text_tokens": defaults.text_tokens,
    }


def _default_sampler(kind: Kind, defaults: FamilyDefaults) -> str:
    """Return the family's sampler where it integrates what the weights predict, else the first that does."""
    fitting = [name for name, sampler in SAMPLERS.items() if kind in sampler.objectives]
    return defaults.sampler.name if defaults.sampler.name in fitting else fitting[0]


def _check_parts(bundle: Bundle, shape: Shape, defaults: FamilyDefaults) -> None:
    check_fit(read_settings(bundle.vae / "config.json"), defaults.autoencoder, shape.out_channels, str(bundle.vae))
    if defaults.image_encoder and shape.image_dim and (bundle.folder / "image_encoder").is_dir():
        width = IMAGE_ENCODERS[defaults.image_encoder].width(bundle.folder)
        if width != shape.image_dim:
            raise UserError(
                f"{bundle.folder / 'image_encoder'}: gives {width} channels, the transformer reads {shape.image_dim}; "
                "take the image encoder that it was trained with"
            )
    hidden = TEXT_ENCODERS[defaults.text_encoder].widths(bundle.folder)["text"]
    if hidden != shape.text_dim:
        raise UserError(
            f"{bundle.text_encoder}: gives {hidden} channels, the transformer reads {shape.text_dim}; take the text "
            "encoder that it was trained with"
        )


def _grid_of(bundle: Bundle) -> LatentGrid:
    config = read_settings(bundle.vae / "config.json")
    return kind_of_config(config, str(bundle.vae)).grid(config)
