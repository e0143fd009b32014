"""The sampler as a Python API: open a model once, sample many times.

model = open_model(Path("runs/video"))
sample = model.sample(Request("a red disc rolls to the right", image=Path("first.png"), seed=3))
write_sample(sample, Path("disc.mp4"))
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from torch import nn

from curation.outside_text import printable
from models.architecture import Architecture
from models.architectures import build_transformer
from models.generate import generate_latents
from models.long_video import join
from models.lora import apply_lora, fuse
from models.quiet import quiet_libraries
from models.samplers import make_scheduler
from models.text_encoder import TextEncoder
from models.video_to_video import lay_over
from models.video_vae import decode_pixels, load_vae
from train_bridge.parallel import own_device
from train_bridge.sample_checks import Job, ModelFacts, check, read_model
from train_bridge.sample_files import Sample
from train_bridge.sample_modes import Pixels, beginning, read_pixels
from train_bridge.sample_request import DEFAULTS, Options, Request

Progress = Callable[[int, int], None]
"""called with denoising steps done and in all"""


def open_model(model: Path, options: Options = DEFAULTS) -> "OpenModel":
    """Open a training run or a pipeline folder.

    All is checked that can be without weights; these are loaded with the first sample.

    Raises:
        UserError: something that cannot be, in one line with the mend.
        ModelError: likewise, told by the models.
    """
    quiet_libraries()
    return OpenModel(model, options, read_model(model, options))


class OpenModel:
    """A model to sample from; `open_model` makes it. One sample at a time."""

    def __init__(self, folder: Path, options: Options, facts: ModelFacts):
        """Load nothing yet."""
        self.facts = facts
        self._folder, self._options = folder, options
        self._device = own_device()
        self._dtype = torch.bfloat16 if self._device.type == "cuda" else torch.float32
        self._texts: dict[str, torch.Tensor] = {}
        self._encoder: TextEncoder | None = None
        self._networks: tuple[Architecture, nn.Module, Any] | None = None

    def check(self, request: Request) -> Job:
        """Say what a request comes to, without weights.

        Raises:
            UserError: something in it that cannot be.
            ModelError: a sampler that does not fit.
        """
        return check(request, self.facts)

    def prepare(self, texts: Sequence[str]) -> None:
        """Encode texts, so that the encoder need not be there with the other networks at once.

        Args:
            texts: prompts and negative prompts that will be sampled.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if not new:
            return
        positions = int(self.facts.hints["text_tokens"])
        encoder = self._encoder or TextEncoder.load(self.facts.bundle.folder, positions, self._dtype, self._device)
        for text, cut in zip(new, encoder.truncated(new), strict=True):
            if cut:
                print(
                    f"warning: longer than {positions} tokens, its end is not seen: {printable(text, 60)}",
                    file=sys.stderr,
                )
        for text in new:  # one at a time: how it is encoded must not depend on what else is
            self._texts[text] = encoder.encode([text]).to(self._dtype)
        if self._options.keep_text_encoder:
            self._encoder = encoder

    def sample(self, request: Request | Job, progress: Progress | None = None) -> Sample:
        """Make one sample; the same request gives the same frames.

        Args:
            request: what to make, or what `check` made of it.
            progress: called with denoising steps done and in all.

        Raises:
            UserError: something in it that cannot be.
            ModelError: a sampler that does not fit, or memory that has run out.
        """
        job = request if isinstance(request, Job) else self.check(request)
        given = read_pixels(job)
        asked = job.request
        self.prepare([asked.negative, asked.prompt])
        self._load()
        generator = torch.Generator().manual_seed(asked.seed)
        segments: list[np.ndarray] = []
        for place in range(job.segments):
            pixels = given
            if job.segments > 1:
                before = segments[-1][-job.overlap :] if segments else given.first
                pixels = replace(given, first=before, last=given.last if place + 1 == job.segments else None)
            segments.append(self._segment(job, pixels, generator, _part_of(progress, place, job.segments)))
        frames = join(segments, job.overlap)[: job.length]
        if given.video is not None and given.mask is not None:
            frames = lay_over(frames, given.video, given.mask)
        return Sample(frames, job.fps, self._settings(job))

    def _segment(self, job: Job, pixels: Pixels, generator: torch.Generator, progress: Progress | None) -> np.ndarray:
        assert self._networks is not None
        family, transformer, vae = self._networks
        asked, has_condition = job.request, self.facts.has_condition
        shape = (int(vae.config.latent_channels), *job.bucket.latent_shape)
        noise = None
        if has_condition and self.facts.noises_condition:
            # diffusers draws this noise after that of the latents.
            noise = torch.Generator()
            noise.set_state(generator.get_state())
            torch.randn((1, *shape), generator=noise)
        condition, source = beginning(vae, job, pixels, has_condition, noise)
        scheduler = make_scheduler(self.facts.scheduler, asked.steps, asked.sampler)
        latents = generate_latents(
            family, transformer, scheduler, self._text(asked.prompt), self._text(asked.negative), shape, asked.steps,
            asked.guidance, generator, progress, condition, source,
        )  # fmt: skip
        frames: np.ndarray = decode_pixels(vae, latents)[0]
        return frames

    def _text(self, text: str) -> torch.Tensor:
        return self._texts[text].to(self._device)

    def _load(self) -> None:
        """Load transformer, adapters and VAE, once."""
        if self._networks is not None:
            return
        family, transformer = build_transformer(str(self.facts.bundle.transformer), self._dtype)
        for place, (lora, weights) in enumerate(self.facts.loras):
            apply_lora(transformer, weights, f"lora_{place}", lora.scale)
        if self._options.fuse_loras and self.facts.loras:
            fuse(transformer)
        vae = load_vae(self.facts.bundle.vae, self._dtype).to(self._device).eval()
        self._networks = family, transformer.to(self._device).eval(), vae

    def _settings(self, job: Job) -> dict[str, Any]:
        asked = job.request
        media = {"image": job.image, "end_image": job.end_image, "video": job.video, "mask": job.mask}
        scheduler = make_scheduler(self.facts.scheduler, asked.steps, asked.sampler)
        return {
            "model": str(self._folder),
            "mode": job.mode,
            "prompt": asked.prompt,
            "negative_prompt": asked.negative,
            "seed": asked.seed,
            "num_frames": job.length,
            "height_px": job.bucket.height_px,
            "width_px": job.bucket.width_px,
            "fps": job.fps,
            "steps": asked.steps,
            "guidance": asked.guidance,
            "sampler": asked.sampler or type(scheduler).__name__,
            **{name: str(medium.row.path) for name, medium in media.items() if medium},
            **({"strength": job.strength} if job.video else {}),
            **({"segments": job.segments, "overlap": job.overlap} if job.segments > 1 else {}),
            "loras": [{"path": str(lora.path), "scale": lora.scale} for lora, _ in self.facts.loras],
            "fuse_loras": self._options.fuse_loras,
            "device": str(self._device),
            "dtype": str(self._dtype).removeprefix("torch."),
            "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
        }


def _part_of(progress: Progress | None, place: int, parts: int) -> Progress | None:
    """Let one of several equal parts tell how far the whole is."""
    if progress is None:
        return None
    return lambda done, total: progress(place * total + done, parts * total)
