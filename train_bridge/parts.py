"""Which weights a run starts from: presets, folders or the parts of a pipeline, checked against each other."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from core.errors import UserError
from models.bundle import Bundle, read_bundle
from models.conditions.spec import INPAINT, TEXT_TO_VIDEO, ConditionSpec, find_spec, spec_of
from models.geometry import LatentGrid
from models.text.image_encoder import image_folder
from models.text.table import IMAGE_ENCODERS, TEXT_ENCODERS
from models.transformers.architecture import Architecture, Shape
from models.transformers.defaults import FamilyDefaults
from models.transformers.table import build_empty, build_transformer, defaults_of, shape_of
from models.vae import table as autoencoders
from models.vae.start import Inflation, start_from, start_from_network
from models.weights.json_file import read_settings
from train_bridge.config import TrainConfig

TINY_TEXT = "tiny"


@dataclass(frozen=True)
class Parts:
    """Where each part comes from; None where a method has no use for it.

    Attributes:
        vae: preset or folder.
        transformer: preset or folder.
        text_encoder: `tiny`, or a folder as its kind's `load` takes it.
        scheduler: the base's `scheduler_config.json`; None: a model of our own.
        widen: the condition channels that the transformer is given; None: it stays as it is.
        reference_noise: whether a transformer that is trained whole shall have noise on known pixels; None: as it says.
        vae_start: folder of a VAE whose weights the preset begins with.
        inflation: how, if that is one of images.
        text_kind: of the text encoder, as the transformer's family has it: a name in `models.text.table`.
        image_encoder: of condition images: `tiny`, or a folder.
        image_kind: of that one, likewise; None: the family has none.
    """

    vae: str
    transformer: str | None = None
    text_encoder: str | None = None
    scheduler: dict[str, Any] | None = None
    widen: ConditionSpec | None = None
    reference_noise: bool | None = None
    vae_start: str | None = None
    inflation: Inflation = "zero"
    text_kind: str = "qwen2_vl"
    image_encoder: str | None = None
    image_kind: str | None = None


def find_parts(config: TrainConfig) -> Parts:
    """Find the parts that a method needs, and see that they fit each other; builds and loads nothing.

    Args:
        config: the resolved config.

    Raises:
        UserError: a part is not named, not there, or does not fit another.
        ModelError: likewise, told by the models.
    """
    settings, method = config.model, config.method
    base = read_bundle(Path(settings.base)) if settings.base else None
    vae = _inside(settings.vae, "vae") or (str(base.vae) if base else None)
    if config.kind.trains_vae:
        parts = Parts(vae or "tiny", vae_start=_inside(config.vae.start, "vae"), inflation=config.vae.inflation)
        _check_start(parts)
        return parts
    transformer = _inside(settings.transformer, "transformer") or (str(base.transformer) if base else None)
    if transformer is None:
        raise UserError(
            "name a preset (tiny, tiny-inpaint, …) or a folder, or give model.base", field="model.transformer"
        )
    if vae is None or vae in autoencoders.PRESETS:
        raise UserError(
            f"model.vae: {method} needs trained weights; train them first (method: vae) and name that run's folder"
        )
    if settings.text_encoder == TINY_TEXT:
        text = TINY_TEXT
    elif settings.text_encoder:
        inner = Path(settings.text_encoder) / "model"
        text = str(inner if inner.is_dir() else settings.text_encoder)
    elif base:
        text = str(base.folder)
    else:
        raise UserError("name `tiny` or a folder, or give model.base", field="model.text_encoder")
    scheduler = read_settings(base.scheduler / "scheduler_config.json") if base else None
    sees_masks = config.kind.condition == "masks"
    facts = defaults_of(transformer)
    noise = noises_known(config, facts) if sees_masks and not config.lora.rank else None
    parts = Parts(
        vae, transformer, text, scheduler, _widened(config, facts), noise, text_kind=facts.text_encoder,
        image_encoder=_image_encoder(config, facts, base), image_kind=facts.image_encoder,
    )  # fmt: skip
    shape = shape_of(transformer)
    _check_channels(config, parts, shape)
    _check_fit(parts, shape)
    return parts


def grid_of(parts: Parts) -> LatentGrid:
    """Return the compression of the VAE, and with it the numbers of frames that are valid.

    Raises:
        ModelError: neither a preset nor a folder with a VAE.
    """
    presets = autoencoders.PRESETS
    config = presets[parts.vae] if parts.vae in presets else autoencoders.read_vae_config(Path(parts.vae))[1]
    return autoencoders.kind_of_config(config, parts.vae).grid(config)


def check_frames(config: TrainConfig, parts: Parts) -> None:
    """Refuse lengths that the VAE cannot take, and sizes below the smallest picture.

    Raises:
        UserError: with the nearest two lengths that it can.
    """
    grid = grid_of(parts)
    if (smallest := min(config.buckets.sizes_px)) < grid.side_px:
        raise UserError(f"buckets.sizes_px {smallest}: sides are multiples of {grid.side_px}, as the model takes them")
    for n in config.buckets.frames:
        if not grid.takes_frames(n):
            low, high = grid.nearest_frames(n)
            raise UserError(f"buckets.frames {n}: not {grid.rule}, as the VAE takes; the nearest are {low} and {high}")


def text_encoder_folder(parts: Parts, run: Path) -> Path:
    """Return the text encoder's folder; the tiny one is built in the run's folder, once."""
    if parts.text_encoder != TINY_TEXT:
        assert parts.text_encoder is not None
        return Path(parts.text_encoder)
    folder = run / "parts"
    if not (folder / "tokenizer").is_dir():  # written last
        TEXT_ENCODERS[parts.text_kind].build_tiny(folder)
    return folder


def image_encoder_folder(parts: Parts, run: Path) -> Path | None:
    """Return the image encoder's folder, or none; the tiny one is built in the run's folder, once."""
    if parts.image_encoder is None or parts.image_kind is None:
        return None
    if parts.image_encoder != TINY_TEXT:
        return image_folder(Path(parts.image_encoder))
    folder = run / "parts" / "image_encoder"
    if not folder.is_dir():
        IMAGE_ENCODERS[parts.image_kind].build_tiny(run / "parts", shape_with(parts).image_dim)
    return folder


def noises_known(config: TrainConfig, facts: FamilyDefaults) -> bool:
    """Return whether known pixels bear noise in training: where the config and the family have it so."""
    return config.inpaint.reference_noise and facts.reference_noise


def load_vae(parts: Parts, seed: int, dtype: torch.dtype | None = None) -> Any:
    """Load the VAE, or build a preset with weights that follow from the seed or are those of another VAE."""
    if parts.vae in autoencoders.PRESETS:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            vae = autoencoders.build_vae(autoencoders.PRESETS[parts.vae])
        if parts.vae_start is not None:
            start_from(vae, Path(parts.vae_start), parts.inflation)
        return vae
    return autoencoders.load_vae(Path(parts.vae), dtype)


def empty_vae(parts: Parts) -> Any:
    """Build the VAE on the `meta` device, from a preset or a folder: shapes without memory for weights.

    Raises:
        ModelError: neither a preset nor a folder with a VAE, or a config that does not fit.
    """
    if parts.vae in autoencoders.PRESETS:
        with torch.device("meta"):
            return autoencoders.build_vae(autoencoders.PRESETS[parts.vae])
    return autoencoders.empty_vae(Path(parts.vae))


def load_transformer(parts: Parts, seed: int, dtype: torch.dtype | None = None) -> tuple[Architecture, nn.Module]:
    """Load the transformer, or build a preset with weights that follow from the seed."""
    assert parts.transformer is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _as_asked(parts, *build_transformer(parts.transformer, dtype))


def empty_transformer(parts: Parts) -> tuple[Architecture, nn.Module]:
    """Build the transformer on the `meta` device: shapes without memory for weights."""
    assert parts.transformer is not None
    return _as_asked(parts, *build_empty(parts.transformer))


def _as_asked(parts: Parts, family: Architecture, model: nn.Module) -> tuple[Architecture, nn.Module]:
    if parts.widen is not None:
        family.widen(model, parts.widen.channels(family.shape(model).out_channels))
    if parts.reference_noise is not None:
        family.set_reference_noise(model, noisy=parts.reference_noise)
    return family, model


def _inside(name: str | None, part: str) -> str | None:
    """Take `RUN/model/vae` or `PIPELINE/vae` when the folder above it is named."""
    if name is None:
        return None
    for folder in (Path(name) / "model" / part, Path(name) / part):
        if folder.is_dir():
            return str(folder)
    return name


def _check_start(parts: Parts) -> None:
    """Refuse weights to begin with that do not fit, before they are read."""
    if parts.vae_start is None:
        return
    if parts.vae not in autoencoders.PRESETS:
        raise UserError(
            f"vae.start: model.vae {parts.vae} has weights already; name the preset of its kind instead, such as slice"
        )
    other = autoencoders.empty_vae(Path(parts.vae_start))
    with torch.device("meta"):
        start_from_network(empty_vae(parts), other, parts.inflation, f"vae.start {parts.vae_start}")


def _image_encoder(config: TrainConfig, facts: FamilyDefaults, base: Bundle | None) -> str | None:
    """Return where tokens of condition images come from; None: there are none."""
    given = config.model.image_encoder
    if config.kind.condition != "masks" or facts.image_encoder is None:
        if given is not None:
            raise UserError(
                f"{facts.name} trained with method {config.method} sees no tokens of images",
                field="model.image_encoder",
                value=given,
                fix="leave it out, or train V3 or V4 with method: inpaint",
            )
        return None
    if given is None:
        own = base.folder / "image_encoder" if base else None
        return str(own) if own is not None and own.is_dir() else None
    return given if given == TINY_TEXT else _inside(given, "image_encoder")


def _widened(config: TrainConfig, facts: FamilyDefaults) -> ConditionSpec | None:
    """Return the layout that the config adds to a text-to-video transformer."""
    if config.kind.condition == "masks" and config.inpaint.widen:
        return next((kind for kind in facts.kinds if kind.name == INPAINT.name), INPAINT)
    if config.kind.condition == "control" and config.control.widen is not None:
        return find_spec(config.control.widen)
    return None


def condition_spec(parts: Parts) -> ConditionSpec:
    """Return what the trained transformer sees beside the noise.

    Raises:
        ModelError: it has channels of no known kind.
    """
    assert parts.transformer is not None
    return parts.widen or spec_of(shape_of(parts.transformer), defaults_of(parts.transformer).kinds)


def _check_channels(config: TrainConfig, parts: Parts, shape: Shape) -> None:
    assert parts.transformer is not None
    where, given = "model.transformer", parts.transformer
    facts, wants = defaults_of(parts.transformer), config.kind.condition
    spec = spec_of(shape, facts.kinds)
    if wants is not None and not any(_condition_of(kind) == wants for kind in facts.kinds):
        problem = f"{facts.name} has no {'image conditions' if wants == 'masks' else 'control models'}"
        raise UserError(problem, field=where, value=given, fix="train it with method: text_to_video, or take another")
    has = _condition_of(spec)
    key = "inpaint.widen" if wants == "masks" else "control.widen"
    if parts.widen and config.lora.rank:
        raise UserError(f"{key}: new channels are not trained by adapters; set lora.rank=0, or take another base")
    if has is None and wants is not None and not parts.widen:
        kind, preset = ("an inpaint", "tiny-inpaint") if wants == "masks" else ("a control", "tiny-control")
        how = "inpaint.widen=true" if wants == "masks" else "control.widen=control"
        raise UserError(
            "a text-to-video model without condition channels",
            field=where,
            value=given,
            fix=f"take {kind} model (preset {preset}), or set {how} to add channels whose weights begin at zero",
        )
    if has is not None and has != wants and not config.kind.from_prompts:
        kind, method = ("an inpaint", "inpaint") if has == "masks" else ("a control", "control")
        problem = f"{kind} model ({spec.name}), which sees a condition"
        raise UserError(problem, field=where, value=given, fix=f"train it with method: {method}")
    if has is not None and parts.widen:
        fix = f"set {key}={'false' if has == 'masks' else 'null'}"
        raise UserError("has condition channels already", field=where, value=given, fix=fix)


def _condition_of(spec: ConditionSpec) -> Literal["masks", "control"] | None:
    if spec is TEXT_TO_VIDEO:
        return None
    return "masks" if spec.name == INPAINT.name else "control"


def _check_fit(parts: Parts, shape: Shape) -> None:
    assert parts.transformer is not None and parts.text_encoder is not None
    vae = read_settings(Path(parts.vae) / "config.json")
    facts = defaults_of(parts.transformer)
    autoencoders.check_fit(vae, facts.autoencoder, shape.out_channels, f"model.vae {parts.vae}")
    kind = TEXT_ENCODERS[parts.text_kind]
    is_tiny = parts.text_encoder == TINY_TEXT
    hidden = (kind.tiny_widths if is_tiny else kind.widths(Path(parts.text_encoder)))["text"]
    if hidden != shape.text_dim:
        raise UserError(
            f"model.text_encoder {parts.text_encoder}: its embeddings have {hidden} channels, the transformer wants "
            f"{shape.text_dim}"
        )
    if parts.image_kind is not None and parts.image_encoder not in (None, TINY_TEXT):
        width = IMAGE_ENCODERS[parts.image_kind].width(Path(str(parts.image_encoder)))
        wanted = shape_with(parts).image_dim
        if width != wanted:
            raise UserError(
                f"model.image_encoder {parts.image_encoder}: its tokens have {width} channels, the transformer wants "
                f"{wanted}; take the one that it was trained with"
            )


def shape_with(parts: Parts) -> Shape:
    """Return the numbers of the transformer as it is trained, widened where that is asked for."""
    family, model = empty_transformer(parts)
    return family.shape(model)
