"""Pipelines of tiny, untrained parts, and media to sample from."""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image

from models.text.qwen2_vl import build_tiny
from models.transformers.easyanimate_v5 import EasyAnimate
from models.vae.video_vae import PRESETS, build_vae
from sampling.pictures import write_mp4

FAMILY = EasyAnimate()
HINTS = {"width_px": 48, "height_px": 48, "num_frames": 9, "fps": 8.0, "text_tokens": 64}


def write_pipeline(folder: Path, in_channels: int = 16, seed: int = 0) -> Path:
    """Write a pipeline of two layers, whose weights are drawn wide enough that what they see matters."""
    torch.manual_seed(seed)
    changes = {"num_layers": 2, "mmdit_layers": 2, "in_channels": in_channels}
    transformer = FAMILY.build(dict(FAMILY.presets["tiny"]) | changes)
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if name.startswith(("proj.", "proj_out.")) and parameter.ndim > 1:
                parameter.mul_(3.0)
    transformer.save_pretrained(folder / "transformer")
    vae = build_vae(PRESETS["tiny"])
    if in_channels != 16:
        vae.register_to_config(cache_mag_vae=True)  # as in pipelines that diffusers' inpaint class can sample with
    vae.save_pretrained(folder / "vae")
    build_tiny(folder)
    write_index(folder)
    (folder / "sampling.json").write_text(json.dumps(HINTS))
    return folder


def write_index(folder: Path) -> None:
    """Write the scheduler, and the list of a pipeline's parts."""
    FlowMatchEulerDiscreteScheduler(shift=2.0).save_pretrained(folder / "scheduler")
    classes = {
        "transformer": ["diffusers", "EasyAnimateTransformer3DModel"], "vae": ["diffusers", "AutoencoderKLMagvit"],
        "text_encoder": ["transformers", "Qwen2VLForConditionalGeneration"],
        "tokenizer": ["transformers", "Qwen2Tokenizer"], "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    }  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "EasyAnimatePipeline", **classes}))


def picture(path: Path, width: int = 48, height: int = 48, seed: int = 0) -> Path:
    """Write smooth colours as a PNG."""
    draw = np.random.default_rng(seed).integers(0, 255, (3, 3, 3), dtype=np.uint8)
    Image.fromarray(draw).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


def moving(path: Path, num_frames: int = 24, fps: float = 8.0, size: int = 48) -> Path:
    """Write a video of a square that moves over colours."""
    frames = np.repeat(np.asarray(Image.open(picture(path.with_suffix(".bmp"), size, size)))[None], num_frames, axis=0)
    for place in range(num_frames):
        left = 2 + place * (size - 20) // num_frames
        frames[place, 10:22, left : left + 12] = 250
    write_mp4(frames, fps, path)
    return path


def half_mask(path: Path, width: int = 48, height: int = 48) -> Path:
    """Write a mask whose right half is generated."""
    mask = np.zeros((height, width), np.uint8)
    mask[:, width // 2 :] = 255
    Image.fromarray(mask).save(path)
    return path


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio of two uint8 pictures or videos."""
    error = np.square(a.astype(np.float64) - b.astype(np.float64)).mean()
    return float("inf") if error == 0 else float(10 * np.log10(255.0**2 / error))
