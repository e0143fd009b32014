"""What a finished run leaves: a pipeline folder that samples, and LoRA files that were read back and compared."""

import json
import math
from pathlib import Path

import numpy as np
import torch
from torch import nn

from curation.errors import UserError
from curation.files import atomic_folder, atomic_write
from models.architecture import Architecture
from models.bundle import INPAINT_CLASS, PIPELINE_CLASS, place_component, write_model_index
from models.lora import export_lora, verify_exports
from models.objectives import make_objective
from models.text_encoder import CLASS_NAME as TEXT_CLASS
from models.text_encoder import find_encoder
from models.video_vae import encode_moments, to_signed
from train_bridge.batches import VideoFrames
from train_bridge.checkpoint import checkpoints, load_weights, put_weights, save_weights
from train_bridge.config import TrainConfig
from train_bridge.job import ROWS_FILE, add_adapter, config_of
from train_bridge.parts import Parts, load_transformer, load_vae, text_encoder_folder
from train_bridge.rows_file import read_rows
from train_bridge.sampling.request import HINTS_FILE
from train_bridge.types import MicroBatch

SCALE_ROWS = 64
"""rows on which the deviation of latents is measured"""


def export_run(config: TrainConfig, run: Path, parts: Parts) -> Path:
    """Write `RUN/model` (and `RUN/lora`) from the last checkpoint; the running mean where there is one.

    Raises:
        UserError: there is no checkpoint, or an exported adapter does not come back as it went out.
    """
    found = checkpoints(run)
    if not found:
        raise UserError(f"{run}: no checkpoint yet; train first")
    main = "vae" if config.method == "vae" else "transformer"
    averaged = found[-1] / "ema" / main
    weights = load_weights(averaged if averaged.is_dir() else found[-1] / main)
    model = run / "model"
    model.mkdir(exist_ok=True)
    if config.method == "vae":
        vae = load_vae(parts, config.train.seed)
        put_weights(vae, {name.removeprefix("vae."): tensor for name, tensor in weights.items()})
        _replace(model / "vae", vae, scaling_factor=latent_scale(vae, run))
        return model
    family, transformer = load_transformer(parts, config.train.seed)
    if config.lora.rank:
        _export_adapter(config, run, family, transformer, weights)
        if Path(str(parts.transformer)).is_dir():
            place_component(Path(str(parts.transformer)), model / "transformer")
        else:
            _replace(model / "transformer", load_transformer(parts, config.train.seed)[1])
    else:
        put_weights(transformer, weights)
        _replace(model / "transformer", transformer)
    place_component(Path(parts.vae), model / "vae")
    if config.method == "inpaint":
        _note_causal(model / "vae" / "config.json")
    encoder, tokenizer = find_encoder(text_encoder_folder(parts, run))
    place_component(encoder, model / "text_encoder")
    place_component(tokenizer, model / "tokenizer")
    objective = make_objective(config.objective.kind, config.objective.shift, parts.scheduler)
    scheduler = parts.scheduler or objective.scheduler_config()
    with atomic_folder(model / "scheduler") as folder:
        (folder / "scheduler_config.json").write_text(json.dumps(scheduler, indent=2) + "\n", encoding="utf-8")
    write_model_index(
        model,
        {
            "transformer": ("diffusers", type(transformer).__name__),
            "vae": ("diffusers", "AutoencoderKLMagvit"),
            "text_encoder": ("transformers", TEXT_CLASS),
            "tokenizer": ("transformers", "Qwen2Tokenizer"),
            "scheduler": ("diffusers", scheduler["_class_name"]),
        },
        INPAINT_CLASS if config.method == "inpaint" else PIPELINE_CLASS,
    )
    atomic_write(model / HINTS_FILE, json.dumps(_hints(config, run), indent=2) + "\n")
    return model


def _hints(config: TrainConfig, run: Path) -> dict[str, float]:
    """Say what the model was trained for: the shape of most rows, and their rate."""
    prepared = read_rows(run / ROWS_FILE)
    bucket = prepared.train_buckets.commonest
    lengths = [row.duration_s for row in prepared.train if row.duration_s]
    return {
        "width_px": bucket.width_px,
        "height_px": bucket.height_px,
        "num_frames": bucket.num_frames,
        "fps": round(bucket.num_frames / float(np.median(lengths)), 3) if lengths else 8.0,
        "text_tokens": config.model.text_tokens,
    }


@torch.no_grad()
def latent_scale(vae: nn.Module, run: Path) -> float:
    """Give 1 / deviation of the latents of training rows, so that the transformer sees unit variance.

    As latent diffusion does (arXiv 2112.10752, appendix G).
    """
    prepared = read_rows(run / ROWS_FILE)
    read = VideoFrames(prepared.train)
    count, total, squares = 0, 0.0, 0.0
    for row in range(min(SCALE_ROWS, len(prepared.train))):
        bucket = prepared.train_buckets.buckets[int(prepared.train_buckets.options[row].max())]
        batch = read(MicroBatch(bucket, (row,), (1.0,)), (0,))
        if float(batch.weights.sum()) == 0:
            continue
        assert batch.frames is not None
        mean, logvar = encode_moments(vae, to_signed(batch.frames))
        count += mean.numel()
        total += float(mean.double().sum())
        squares += float((mean.double().square() + logvar.double().exp()).sum())
    if not count:
        raise UserError(f"{run}: none of the first {SCALE_ROWS} rows can be read; the latents' scale is unknown")
    return 1.0 / math.sqrt(max(squares / count - (total / count) ** 2, 1e-12))


def _export_adapter(
    config: TrainConfig, run: Path, family: Architecture, transformer: nn.Module, weights: dict[str, torch.Tensor]
) -> None:
    add_adapter(transformer, family, config)
    put_weights(transformer, weights)
    folder = run / "lora"
    with atomic_folder(folder) as temporary:
        export_lora(transformer, "default", temporary)
        difference = verify_exports(transformer, "default", temporary)
        if difference:
            raise UserError(f"{folder}: an exported adapter read back differs by {difference:g}; please report this")


def _note_causal(file: Path) -> None:
    """Add a key to a VAE's configuration that diffusers' inpaint pipeline reads and its VAE does not write."""
    atomic_write(file, json.dumps(json.loads(file.read_text(encoding="utf-8")) | {"cache_mag_vae": True}, indent=2))


def _replace(folder: Path, network: nn.Module, scaling_factor: float | None = None) -> None:
    with atomic_folder(folder) as temporary:
        config = config_of(network)
        if scaling_factor is not None:
            config["scaling_factor"] = scaling_factor
        save_weights(temporary, dict(network.state_dict()), config)
