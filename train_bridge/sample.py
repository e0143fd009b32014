"""Sampling: prompts in, video files out, each with a contact sheet and the settings that made it."""

import dataclasses
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch

from curation.errors import UserError
from curation.files import atomic_write
from curation.outside_text import printable
from models.architectures import build_transformer
from models.bundle import Bundle, read_bundle
from models.generate import generate_latents
from models.lora import apply_lora
from models.lora_files import DIFFUSERS_FILE, read_lora
from models.quiet import quiet_libraries
from models.samplers import make_scheduler
from models.text_encoder import TextEncoder
from models.video_vae import decode_pixels, load_vae
from train_bridge.parallel import own_device
from train_bridge.parts import read_json
from train_bridge.pictures import contact_sheet, write_image, write_mp4
from train_bridge.types import Bucket

HINTS_FILE = "sampling.json"
# What published weights of the family were made for.
PUBLISHED: dict[str, Any] = {"width_px": 512, "height_px": 512, "num_frames": 49, "fps": 8.0, "text_tokens": 256}


@dataclass(frozen=True)
class Lora:
    """An adapter file and how strongly it acts."""

    path: Path
    scale: float = 1.0

    @staticmethod
    def parse(text: str) -> "Lora":
        """Read `PATH` or `PATH:SCALE`; a run's folder stands for its adapter.

        Raises:
            UserError: there is no such file.
        """
        path, _, scale = text.rpartition(":")
        try:
            found = Lora(Path(path), float(scale)) if path else Lora(Path(text))
        except ValueError:
            found = Lora(Path(text))
        for file in (found.path, found.path / "lora" / DIFFUSERS_FILE, found.path / DIFFUSERS_FILE):
            if file.is_file():
                return dataclasses.replace(found, path=file)
        raise UserError(f"--lora {text}: no such file; name a .safetensors or a run's folder, and `:SCALE` after it")


@dataclass(frozen=True)
class SampleRequest:
    """What to sample; None takes what the model was trained for.

    Attributes:
        model: a pipeline folder in diffusers layout, or a training run.
        prompts: one video each.
        output: a folder, or with one prompt a `.mp4`.
        negative: text that guidance leads away from.
        seed: of the first prompt; the next has the next number.
        width_px: multiple of 16.
        height_px: multiple of 16.
        num_frames: 4n+1.
        fps: of the file.
        steps: denoising steps.
        guidance: classifier-free guidance; 1 or less: none.
        sampler: a name in `models.samplers.SAMPLERS`.
        loras: adapters.
        threads: of the CPU; on a busy machine more than one are slower.
    """

    model: Path
    prompts: tuple[str, ...]
    output: Path
    negative: str = ""
    seed: int = 0
    width_px: int | None = None
    height_px: int | None = None
    num_frames: int | None = None
    fps: float | None = None
    steps: int = 50
    guidance: float = 6.0
    sampler: str | None = None
    loras: tuple[Lora, ...] = ()
    threads: int = 1


def read_prompts(file: Path) -> tuple[str, ...]:
    """Read a file of prompts, one a line; empty lines are passed over.

    Raises:
        UserError: it cannot be read.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--prompts {file}: cannot be read as text ({error})") from None
    return tuple(line.strip() for line in lines if line.strip())


def sample(request: SampleRequest) -> list[Path]:
    """Sample every prompt.

    Returns:
        The video files; beside each lie `.png` (contact sheet) and `.json` (settings).

    Raises:
        UserError: something in the request that cannot be.
        ModelError: weights that do not fit the request or each other.
    """
    quiet_libraries()
    torch.set_num_threads(max(1, request.threads))
    bundle, hints, loras = _open(request)
    for prompt in request.prompts:
        if not prompt.strip():
            raise UserError("--prompt: empty; say what the video shall show")
    if not request.prompts:
        raise UserError("sample: give at least one --prompt, or --prompts FILE with one a line")
    try:
        bucket = Bucket(*(getattr(request, n) or hints[n] for n in ("num_frames", "height_px", "width_px")))
    except ValueError as error:
        raise UserError(f"sample: {error}") from None
    fps = request.fps or hints["fps"]
    if fps <= 0 or request.steps < 1:
        raise UserError("--fps must be above 0 and --steps at least 1")
    scheduler = make_scheduler(
        read_json(bundle.scheduler / "scheduler_config.json"), request.steps, request.sampler
    )  # fails before anything is loaded
    targets = _targets(request)
    device = own_device()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    texts = _encode(bundle, [request.negative, *request.prompts], hints["text_tokens"], dtype, device)
    family, transformer = build_transformer(str(bundle.transformer), dtype)
    for place, lora in enumerate(loras):
        apply_lora(transformer, read_lora(lora.path), f"lora_{place}", lora.scale)
    transformer = transformer.to(device).eval()
    vae = load_vae(bundle.vae, dtype).to(device).eval()
    shape = (vae.config.latent_channels, *bucket.latent_shape)
    for place, (prompt, target) in enumerate(zip(request.prompts, targets, strict=True)):
        generator = torch.Generator().manual_seed(request.seed + place)
        latents = generate_latents(
            family, transformer, scheduler, texts[1 + place : 2 + place], texts[:1], shape, request.steps,
            request.guidance, generator, _progress(place, len(targets)),
        )  # fmt: skip
        frames = decode_pixels(vae, latents)[0]
        settings = {
            "model": str(request.model),
            "prompt": prompt,
            "negative_prompt": request.negative,
            "seed": request.seed + place,
            "num_frames": bucket.num_frames,
            "height_px": bucket.height_px,
            "width_px": bucket.width_px,
            "fps": fps,
            "steps": request.steps,
            "guidance": request.guidance,
            "sampler": request.sampler or type(scheduler).__name__,
            "loras": [{"path": str(lora.path), "scale": lora.scale} for lora in loras],
            "device": str(device),
            "dtype": str(dtype).removeprefix("torch."),
            "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
        }
        write_sample(frames, fps, prompt, settings, target)
    return targets


def write_sample(frames: np.ndarray, fps: float, prompt: str, settings: dict[str, Any], target: Path) -> None:
    """Write one video, its contact sheet and its settings; one frame becomes a picture only."""
    write_image(contact_sheet([frames], [prompt]), target.with_suffix(".png"))
    write_mp4(frames, fps, target)
    atomic_write(target.with_suffix(".json"), json.dumps(settings, indent=2, ensure_ascii=False) + "\n")


def _open(request: SampleRequest) -> tuple[Bundle, dict[str, Any], tuple[Lora, ...]]:
    """Find the pipeline, what it was trained for, and the adapters; a LoRA run brings its own."""
    bundle = read_bundle(request.model)
    file = bundle.folder / HINTS_FILE
    hints = PUBLISHED | (read_json(file) if file.is_file() else {})
    own = request.model / "lora" / DIFFUSERS_FILE
    loras = request.loras
    if own.is_file() and own.resolve() not in {lora.path.resolve() for lora in loras}:
        loras = (Lora(own), *loras)
    return bundle, hints, loras


def _encode(
    bundle: Bundle, prompts: Sequence[str], positions: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Encode all texts, then let go of the encoder, which is larger than the rest in small models."""
    encoder = TextEncoder.load(bundle.folder, positions, dtype, device)
    for prompt, cut in zip(prompts, encoder.truncated(prompts), strict=True):
        if cut:
            print(
                f"warning: longer than {positions} tokens, its end is not seen: {printable(prompt, 60)}",
                file=sys.stderr,
            )
    return encoder.encode(prompts).to(dtype)


def _targets(request: SampleRequest) -> list[Path]:
    output = request.output
    if output.suffix.lower() == ".mp4":
        if len(request.prompts) > 1:
            raise UserError(f"--output {output}: is one file for {len(request.prompts)} prompts; name a folder")
        output.parent.mkdir(parents=True, exist_ok=True)
        return [output]
    output.mkdir(parents=True, exist_ok=True)
    names = [re.sub(r"[^\w-]+", "_", prompt).strip("_")[:40] or "sample" for prompt in request.prompts]
    return [output / f"{place:03d}_{name}.mp4" for place, name in enumerate(names)]


def _progress(place: int, count: int) -> Any:
    def show(done: int, total: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done == total else ""
            print(f"\r\x1b[Ksample {place + 1}/{count}  step {done}/{total}", end=end, file=sys.stderr, flush=True)

    return show
