"""The sampler as a Python API: open a model once, sample many times.

from train_bridge.sampling.files import write_sample
from train_bridge.sampling.model import open_model
from train_bridge.sampling.request import Request

model = open_model(Path("runs/video"))
sample = model.sample(Request("a red disc rolls to the right", image=Path("first.png"), seed=3))
write_sample(sample, Path("disc.mp4"))
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch

from models.caching import Skipped, first_block_cache
from models.errors import ModelError
from models.generate import generate_latents
from models.long_video import join
from models.quiet import quiet_libraries
from models.samplers import make_scheduler
from models.video_to_video import lay_over
from models.video_vae import decode_pixels
from train_bridge.sampling.checks import Job, ModelFacts, check, read_model
from train_bridge.sampling.files import Sample
from train_bridge.sampling.modes import Pixels, beginning, read_pixels
from train_bridge.sampling.networks import Networks
from train_bridge.sampling.request import DEFAULTS, Options, Request

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
        self._networks = Networks(facts, options)
        self._texts: dict[str, torch.Tensor] = {}
        self._told = False

    def check(self, request: Request) -> Job:
        """Say what a request comes to, without weights.

        Raises:
            UserError: something in it that cannot be.
            ModelError: a sampler that does not fit.
        """
        return check(request, self.facts)

    def prepare(self, jobs: Sequence[Job]) -> None:
        """Decide about memory by the largest job, and encode the texts of all.

        Without it `sample` does so for its own; then the text encoder is loaded for every new text, unless
        `Options.keep_text_encoder` keeps it.

        Raises:
            ModelError: memory has run out, or weights that cannot be read.
        """
        texts = [text for job in jobs for text in (job.request.negative, job.request.prompt)]
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        self._networks.decide(jobs)
        if not self._told and not self.facts.has_condition and any(j.image or j.mask or j.segments > 1 for j in jobs):
            self._told = True
            self._networks.notes.append(
                "this model has no condition channels: what is given is put back after every step; an inpaint model "
                "goes on from it better"
            )
        if new:
            self._texts.update(self._networks.encode(new))

    def take_notes(self) -> list[str]:
        """Give what there is to tell since the last call: the memory mode and why, texts cut short, and the like."""
        notes, self._networks.notes = self._networks.notes, []
        return notes

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
        self.prepare([job])
        generator = torch.Generator().manual_seed(job.request.seed)
        segments: list[np.ndarray] = []
        counts: list[Skipped] = []
        for place in range(job.segments):
            pixels = given
            if job.segments > 1:
                before = segments[-1][-job.overlap :] if segments else given.first
                pixels = replace(given, first=before, last=given.last if place + 1 == job.segments else None)
            frames, skipped = self._segment(job, pixels, generator, _part_of(progress, place, job.segments))
            segments.append(frames)
            counts.append(skipped)
        whole = join(segments, job.overlap)[: job.length]
        if given.video is not None and given.mask is not None:
            whole = lay_over(whole, given.video, given.mask)
        return Sample(whole, job.fps, self._settings(job, counts))

    def _segment(
        self, job: Job, pixels: Pixels, generator: torch.Generator, progress: Progress | None
    ) -> tuple[np.ndarray, Skipped]:
        asked, networks, has_condition = job.request, self._networks, self.facts.has_condition
        placement, vae = networks.placement, networks.vae
        shape = (int(vae.config.latent_channels), *job.bucket.latent_shape)
        noise = None
        if has_condition and self.facts.noises_condition:
            # diffusers draws this noise after that of the latents.
            noise = torch.Generator()
            noise.set_state(generator.get_state())
            torch.randn((1, *shape), generator=noise)
        with placement.computing("vae"):
            condition, source = beginning(vae, job, pixels, has_condition, noise)
        scheduler = make_scheduler(self.facts.scheduler, asked.steps, asked.sampler)
        text, negative = (self._texts[t].to(networks.device) for t in (asked.prompt, asked.negative))
        with (
            placement.computing("transformer") as transformer,
            first_block_cache(transformer, self._options.cache_threshold) as skipped,
        ):
            latents = generate_latents(
                networks.family, transformer, scheduler, text, negative, shape, asked.steps, asked.guidance, generator,
                progress, condition, source,
            )  # fmt: skip
        if not torch.isfinite(latents).all():
            raise ModelError(
                "sample: the network gave numbers that are not finite; lower --guidance or a LoRA's scale, or look at "
                "the weights"
            )
        with placement.computing("vae"):
            frames: np.ndarray = decode_pixels(vae, latents)[0]
        return frames, skipped

    def _settings(self, job: Job, counts: Sequence[Skipped]) -> dict[str, Any]:
        asked, options, choice = job.request, self._options, self._networks.choice
        assert choice is not None
        media = {"image": job.image, "end_image": job.end_image, "video": job.video, "mask": job.mask}
        calls, cached = sum(one.calls for one in counts), sum(one.cached for one in counts)
        caching = {"cache_threshold": options.cache_threshold, "cached_share": round(cached / max(1, calls), 3)}
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
            "sampler": asked.sampler or self.facts.default_sampler,
            **{name: str(medium.row.path) for name, medium in media.items() if medium},
            **({"strength": job.strength} if job.video else {}),
            **({"segments": job.segments, "overlap": job.overlap} if job.segments > 1 else {}),
            "loras": [{"path": str(lora.path), "scale": lora.scale} for lora, _ in self.facts.loras],
            "fuse_loras": options.fuse_loras,
            "memory": choice.mode,
            "vae_tiling": choice.vae_tiling,
            **(caching if options.cache_threshold is not None else {}),
            "device": str(self._networks.device),
            "dtype": str(self._networks.dtype).removeprefix("torch."),
            "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
        }


def _part_of(progress: Progress | None, place: int, parts: int) -> Progress | None:
    """Let one of several equal parts tell how far the whole is."""
    if progress is None:
        return None
    return lambda done, total: progress(place * total + done, parts * total)
