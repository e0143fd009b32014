"""Which weights a run starts from: presets, folders or the parts of a pipeline, checked against each other."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLMagvit
from torch import nn

from curation.errors import UserError
from models import video_vae
from models.architecture import Architecture
from models.architectures import build_empty, build_transformer, shape_of
from models.bundle import read_bundle
from models.conditions import takes_condition
from models.text_encoder import TINY_WIDTH, build_tiny, find_encoder
from train_bridge.config import TrainConfig

TINY_TEXT = "tiny"


@dataclass(frozen=True)
class Parts:
    """Where each part comes from; None where a method has no use for it.

    Attributes:
        vae: preset or folder.
        transformer: preset or folder.
        text_encoder: `tiny`, or a folder as `TextEncoder.load` takes it.
        scheduler: the base's `scheduler_config.json`; None: a model of our own.
        widen: the transformer is given condition channels.
        reference_noise: whether a transformer that is trained whole shall have noise on known pixels; None: as it says.
    """

    vae: str
    transformer: str | None = None
    text_encoder: str | None = None
    scheduler: dict[str, Any] | None = None
    widen: bool = False
    reference_noise: bool | None = None


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
    if method == "vae":
        return Parts(vae or "tiny")
    transformer = _inside(settings.transformer, "transformer") or (str(base.transformer) if base else None)
    if transformer is None:
        raise UserError("model.transformer: name a preset (tiny, tiny-inpaint, …) or a folder, or give model.base")
    if vae is None or vae in video_vae.PRESETS:
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
        raise UserError("model.text_encoder: name `tiny` or a folder, or give model.base")
    scheduler = read_json(base.scheduler / "scheduler_config.json") if base else None
    inpaint = method == "inpaint"
    noise = config.inpaint.reference_noise if inpaint and not config.lora.rank else None
    parts = Parts(vae, transformer, text, scheduler, inpaint and config.inpaint.widen, noise)
    _check_channels(config, parts)
    _check_fit(parts)
    return parts


def text_encoder_folder(parts: Parts, run: Path) -> Path:
    """Give the text encoder's folder; the tiny one is built in the run's folder, once."""
    if parts.text_encoder != TINY_TEXT:
        assert parts.text_encoder is not None
        return Path(parts.text_encoder)
    folder = run / "parts"
    if not (folder / "tokenizer").is_dir():  # written last
        build_tiny(folder)
    return folder


def load_vae(parts: Parts, seed: int, dtype: torch.dtype | None = None) -> AutoencoderKLMagvit:
    """Load the VAE, or build a preset with weights that follow from the seed."""
    if parts.vae in video_vae.PRESETS:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return video_vae.build_vae(video_vae.PRESETS[parts.vae])
    return video_vae.load_vae(Path(parts.vae), dtype)


def empty_vae(parts: Parts) -> AutoencoderKLMagvit:
    """Build the trained VAE on the `meta` device: shapes without memory for weights."""
    with torch.device("meta"):
        empty: AutoencoderKLMagvit = AutoencoderKLMagvit.from_config(read_json(Path(parts.vae) / "config.json"))
    return empty


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


def read_json(path: Path) -> dict[str, Any]:
    """Read a small JSON file.

    Raises:
        UserError: it is not there or not JSON.
    """
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({' '.join(str(error).split())})") from None
    return values


def _as_asked(parts: Parts, family: Architecture, model: nn.Module) -> tuple[Architecture, nn.Module]:
    if parts.widen:
        family.widen(model)
    if parts.reference_noise is not None:
        family.set_reference_noise(model, parts.reference_noise)
    return family, model


def _inside(name: str | None, part: str) -> str | None:
    """Take `RUN/model/vae` or `PIPELINE/vae` when the folder above it is named."""
    if name is None:
        return None
    for folder in (Path(name) / "model" / part, Path(name) / part):
        if folder.is_dir():
            return str(folder)
    return name


def _check_channels(config: TrainConfig, parts: Parts) -> None:
    assert parts.transformer is not None
    where = f"model.transformer {parts.transformer}"
    wants, has = config.method == "inpaint", takes_condition(shape_of(parts.transformer))
    if has and not wants:
        raise UserError(f"{where}: an inpaint model, which sees a condition; train it with method: inpaint")
    if has and parts.widen:
        raise UserError(f"{where}: has condition channels already; set inpaint.widen=false")
    if parts.widen and config.lora.rank:
        raise UserError(
            "inpaint.widen: new channels are not trained by adapters; set lora.rank=0, or take another base"
        )
    if wants and not has and not parts.widen:
        raise UserError(
            f"{where}: a text-to-video model without condition channels; take an inpaint model (preset tiny-inpaint), "
            "or set inpaint.widen=true to add channels whose weights begin at zero"
        )


def _check_fit(parts: Parts) -> None:
    assert parts.transformer is not None and parts.text_encoder is not None
    shape = shape_of(parts.transformer)
    latent_channels = read_json(Path(parts.vae) / "config.json").get("latent_channels")
    if shape.out_channels != latent_channels:
        raise UserError(
            f"model.vae {parts.vae}: gives {latent_channels} latent channels, the transformer wants "
            f"{shape.out_channels}; take the VAE that it was trained with"
        )
    hidden: Any = TINY_WIDTH
    if parts.text_encoder != TINY_TEXT:
        text = read_json(find_encoder(Path(parts.text_encoder))[0] / "config.json")
        hidden = text.get("hidden_size") or text.get("text_config", {}).get("hidden_size")
    if hidden != shape.text_dim:
        raise UserError(
            f"model.text_encoder {parts.text_encoder}: its embeddings have {hidden} channels, the transformer wants "
            f"{shape.text_dim}"
        )
