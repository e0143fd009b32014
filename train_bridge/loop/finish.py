"""What a finished run leaves: a pipeline folder that samples, and LoRA files that were read back and compared."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from core.errors import UserError
from core.files import atomic_folder, atomic_write
from models.accelerator import own_device
from models.bundle import CONTROL_CLASS, INPAINT_CLASS, PIPELINE_CLASS, place_component, write_model_index
from models.lora.adapters import export_lora, verify_exports
from models.text.table import IMAGE_ENCODERS, TEXT_ENCODERS
from models.transformers.architecture import Architecture
from models.vae.table import PRESETS, kind_of_config, read_vae_config
from models.vae.video_vae import scaling_factor_of
from sampling.request import HINTS_FILE
from train_bridge.config import TrainConfig
from train_bridge.data.rows_file import read_rows
from train_bridge.loop.checkpoint import checkpoints, load_weights, put_weights, save_weights
from train_bridge.loop.job import ROWS_FILE
from train_bridge.loop.latent_scale import measure_scale
from train_bridge.loop.sharded import convert, is_sharded, read_sharded
from train_bridge.loop.trained import add_adapter, config_of
from train_bridge.noise_levels import objective_for
from train_bridge.parts import (
    Parts,
    empty_transformer,
    grid_of,
    image_encoder_folder,
    load_transformer,
    load_vae,
    text_encoder_folder,
)

PIPELINE_CLASSES = {None: PIPELINE_CLASS, "masks": INPAINT_CLASS, "control": CONTROL_CLASS}
"""diffusers' classes, by what the transformer sees beside the noise"""


def export_run(config: TrainConfig, run: Path, parts: Parts) -> Path:
    """Write `RUN/model` (and `RUN/lora`) from the last checkpoint; the running mean where there is one.

    Raises:
        UserError: there is no checkpoint, or an exported adapter does not come back as it went out.
    """
    found = checkpoints(run)
    if not found:
        raise UserError(f"{run}: no checkpoint yet; train first")
    main = config.kind.trains
    last = found[-1]
    model = run / "model"
    model.mkdir(exist_ok=True)
    if config.kind.trains_vae:
        vae = load_vae(parts, config.train.seed)
        put_weights(vae, {name.removeprefix("vae."): tensor for name, tensor in _weights(last, main).items()})
        _replace(model / "vae", vae, scaling_factor=_exported_scale(config, run, parts, vae))
        return model
    # Shapes alone: what is exported are the checkpoint's tensors, and the base's files as they are.
    family, transformer = empty_transformer(parts)
    if config.lora.rank:
        _export_adapter(config, run, family, transformer, _weights(last, main))
        if Path(str(parts.transformer)).is_dir():
            place_component(Path(str(parts.transformer)), model / "transformer")
        else:
            _replace(model / "transformer", load_transformer(parts, config.train.seed)[1])
    else:
        with atomic_folder(model / "transformer") as temporary:
            if is_sharded(last):
                convert(last, main, temporary, config_of(transformer))
            else:
                save_weights(temporary, _weights(last, main), config_of(transformer))
    place_component(Path(parts.vae), model / "vae")
    if config.kind.condition is not None and _reads_causal_note(model / "vae"):
        _note_causal(model / "vae" / "config.json")
    text = TEXT_ENCODERS[parts.text_kind]
    for component, place in text.find(text_encoder_folder(parts, run)).items():
        place_component(place, model / component)
    images = image_encoder_folder(parts, run)
    if images is not None:
        place_component(images, model / "image_encoder")
    scheduler = objective_for(config, parts).scheduler_config()
    with atomic_folder(model / "scheduler") as folder:
        (folder / "scheduler_config.json").write_text(json.dumps(scheduler, indent=2) + "\n", encoding="utf-8")
    write_model_index(
        model,
        {
            "transformer": ("diffusers", type(transformer).__name__),
            "vae": ("diffusers", str(read_vae_config(model / "vae")[1]["_class_name"])),
            **text.classes,
            **(IMAGE_ENCODERS[str(parts.image_kind)].classes if images is not None else {}),
            "scheduler": ("diffusers", scheduler["_class_name"]),
        },
        PIPELINE_CLASSES[config.kind.condition],
    )
    atomic_write(model / HINTS_FILE, json.dumps(_hints(config, run, parts), indent=2) + "\n")
    return model


def _weights(checkpoint: Path, network: str) -> dict[str, torch.Tensor]:
    """Read a network's weights, or their running mean where there is one."""
    if is_sharded(checkpoint):
        return read_sharded(checkpoint, network)
    averaged = checkpoint / "ema" / network
    return load_weights(averaged if averaged.is_dir() else checkpoint / network)


def _hints(config: TrainConfig, run: Path, parts: Parts) -> dict[str, float]:
    """Return what the model was trained for: the shape of most rows, and their rate."""
    prepared = read_rows(run / ROWS_FILE, grid_of(parts))
    bucket = prepared.train_buckets.commonest
    lengths = [row.duration_s for row in prepared.train if row.duration_s]
    fps = round(bucket.num_frames / float(np.median(lengths)), 3) if lengths else 8.0
    return {
        "width_px": bucket.width_px,
        "height_px": bucket.height_px,
        "num_frames": bucket.num_frames,
        "fps": config.buckets.fps or fps,
        "text_tokens": config.model.text_tokens,
    }


def _exported_scale(config: TrainConfig, run: Path, parts: Parts, vae: Any) -> float:
    """Return the factor of the exported VAE: a given one's own, which other models count on, or a measured one."""
    given = parts.vae not in PRESETS or parts.vae_start is not None
    if not (config.vae.measure_scale if config.vae.measure_scale is not None else not given):
        kept = float(scaling_factor_of(vae))
        print(f"scaling_factor {kept:.4g}, {'that of the given VAE' if given else 'not measured'}")
        return kept
    scale = measure_scale(vae, run, config.vae.scale_clips, own_device(), _progress)
    print(f"scaling_factor {scale:.4g}, measured on at most {config.vae.scale_clips} clips")
    return scale


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done >= total else ""
        print(f"\r\x1b[Kmeasuring the latents' scale {done}/{total}", end=end, file=sys.stderr, flush=True)


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


def _reads_causal_note(vae: Path) -> bool:
    """Return whether a VAE is of the kind that diffusers' inpaint pipeline has."""
    return "cache_mag_vae" in kind_of_config(read_vae_config(vae)[1]).fields


def _note_causal(file: Path) -> None:
    """Add a key to a VAE's configuration that diffusers' inpaint pipeline reads and its VAE does not write."""
    atomic_write(file, json.dumps(json.loads(file.read_text(encoding="utf-8")) | {"cache_mag_vae": True}, indent=2))


def _replace(folder: Path, network: nn.Module, scaling_factor: float | None = None) -> None:
    with atomic_folder(folder) as temporary:
        config = config_of(network)
        if scaling_factor is not None:
            config["scaling_factor"] = scaling_factor
        save_weights(temporary, dict(network.state_dict()), config)
