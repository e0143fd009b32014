"""The sampler as a Python API: open a model once, sample many times.

from sampling.files import write_sample
from sampling.model import open_model
from sampling.request import Request

model = open_model(Path("runs/video"))
sample = model.sample(Request("a red disc rolls to the right", image=Path("first.png"), seed=3))
write_sample(sample, Path("disc.mp4"))
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch

from core.digest import digest
from core.storage.place import called
from models.denoise.first_block_cache import Skipped, first_block_cache
from models.denoise.generate import Course, Denoiser, Prompted, generate_latents
from models.denoise.long_video import join
from models.denoise.samplers import make_scheduler
from models.denoise.video_to_video import lay_over
from models.errors import ModelError
from models.quiet import quiet_libraries
from models.transformers.conditioning import Conditioning, moved
from models.vae.rough_rgb import RoughRgb, fit_rough_rgb
from models.vae.smooth import decode_smoothly
from models.vae.video_vae import channels_of, decode_pixels
from sampling.checks import Job, check
from sampling.control import control_settings, notes_of
from sampling.files import Sample
from sampling.model_facts import ModelFacts, read_model
from sampling.modes import Pixels, beginning, of_segment, read_pixels, steered
from sampling.networks import Networks
from sampling.request import DEFAULTS, Options, Request

Progress = Callable[[int, int], None]
"""called with denoising steps done and in all"""
Preview = Callable[[np.ndarray], None]
"""called with small pictures of what is expected to come out, uint8 (F, h, w, 3), one per latent frame of a segment"""


def open_model(model: Path, options: Options = DEFAULTS) -> "OpenModel":
    """Open a training run or a pipeline folder.

    All is checked that can be without weights; these are loaded with the first sample.

    Raises:
        UserError: something that cannot be, in one line with the fix.
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
        self._texts: dict[str, Conditioning] = {}
        self._told = False
        self._rough: RoughRgb | None = None

    def check(self, request: Request) -> Job:
        """Return what a request comes to, without weights.

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
        texts = [text for job in jobs for text in (job.request.negative, *job.texts)]
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        self._networks.decide(jobs)
        if not self._told and not self.facts.has_condition and any(j.image or j.mask or j.segments > 1 for j in jobs):
            self._told = True
            self._networks.notes.append(
                "this model sees no masks: what is given is put back after every step; an inpaint model "
                "goes on from it better"
            )
        if self.facts.shape.image_dim and not self.facts.image_encoder and any(job.image for job in jobs):
            self._networks.notes.append(
                f"{self.facts.bundle.folder} has no image_encoder/: the start image is seen by its pixels alone"
            )
        if new:
            self._texts.update(self._networks.encode(new))

    def take_notes(self) -> list[str]:
        """Return what there is to tell since the last call: the memory mode and why, texts cut short, and the like."""
        notes, self._networks.notes = self._networks.notes, []
        return notes

    def sample(
        self, request: Request | Job, progress: Progress | None = None, preview: Preview | None = None
    ) -> Sample:
        """Make one sample; the same request gives the same frames.

        Args:
            request: what to make, or what `check` made of it.
            progress: called with denoising steps done and in all.
            preview: called before it, with small pictures; they change nothing of the sample.

        Raises:
            UserError: something in it that cannot be.
            ModelError: a sampler that does not fit, or memory that has run out.
        """
        job = request if isinstance(request, Job) else self.check(request)
        given = read_pixels(job, self._options.maps)
        self._networks.notes.extend(notes_of(job.steering, given.control))
        self.prepare([job])
        generator = torch.Generator().manual_seed(job.request.seed)
        segments: list[np.ndarray] = []
        counts: list[Skipped] = []
        for place in range(job.segments):
            pixels = of_segment(given, place * (job.bucket.num_frames - job.overlap), job.bucket.num_frames)
            if job.segments > 1:
                before = segments[-1][-job.overlap :] if segments else given.first
                pixels = replace(pixels, first=before, last=given.last if place + 1 == job.segments else None)
            part = _part_of(progress, place, job.segments)
            frames, skipped = self._segment(job, place, pixels, generator, part, preview)
            segments.append(frames)
            counts.append(skipped)
        whole = join(segments, job.overlap)[: job.length]
        if given.video is not None and given.mask is not None:
            whole = lay_over(whole, given.video, given.mask)
        return Sample(whole, job.fps, self._settings(job, counts))

    def _segment(
        self,
        job: Job,
        place: int,
        pixels: Pixels,
        generator: torch.Generator,
        progress: Progress | None,
        preview: Preview | None,
    ) -> tuple[np.ndarray, Skipped]:
        networks, has_condition = self._networks, self.facts.has_condition
        placement, vae = networks.placement, networks.vae
        shape = (channels_of(vae), *job.bucket.latent_shape)
        noise = None
        if has_condition and self.facts.noises_condition:
            # diffusers draws this noise after that of the latents.
            noise = torch.Generator()
            noise.set_state(generator.get_state())
            torch.randn((1, *shape), generator=noise)
        acting = None
        with placement.computing("vae"):
            condition, source = beginning(vae, job, pixels, noise, self.facts.spec, has_condition=has_condition)
            look = self._look(preview)
            if self.facts.spec.parts and not has_condition:
                condition, acting = steered(vae, self.facts.spec, job, pixels)
        scheduler = make_scheduler(self.facts.scheduler, job.steps, job.sampler)
        text, negative = (moved(self._texts[t], networks.device) for t in (job.texts[place], job.request.negative))
        tokens = {} if pixels.first is None else networks.encode_image(pixels.first[0])
        conditioning = replace(text, latents=condition, **tokens)
        with (
            placement.computing("transformer") as transformer,
            first_block_cache(transformer, self._options.cache_threshold) as skipped,
        ):
            latents = generate_latents(
                Denoiser(networks.family, transformer, scheduler),
                Prompted(conditioning, negative, job.guidance),
                shape,
                Course(job.steps, source, self.facts.family.sampler.image_from, acting),
                generator,
                progress=progress,
                look=look,
            )
        if not torch.isfinite(latents).all():
            raise ModelError(
                "sample: the network gave numbers that are not finite; lower `guidance` or a LoRA's scale, or look at "
                "the weights"
            )
        with placement.computing("vae"):
            smooths = self.facts.family.sampler.smooths
            frames: np.ndarray = decode_smoothly(vae, latents) if smooths else decode_pixels(vae, latents)[0]
        return frames, skipped

    def _look(self, preview: Preview | None) -> Callable[[torch.Tensor], None] | None:
        """Return what shows latents (1, C, F, H, W) of a step; the VAE is where it computes."""
        if preview is None:
            return None
        rough = self._rough = self._rough or fit_rough_rgb(self._networks.vae, self._networks.device)
        return lambda latents: preview(rough.frames(latents[0]))

    def request_id(self, job: Job) -> str:
        """Return 128 bits in hex of all that was asked: of the model by its place, of media by place and change."""
        media = [medium.file.path for medium in (job.image, job.end_image, job.video, job.mask) if medium]
        media.extend(job.steering.files)
        states = [[state.st_size, state.st_mtime_ns] for state in (path.stat() for path in media)]
        return digest("sample", called(self._folder.absolute()), self._options.memory, states, self._asked(job))

    def _asked(self, job: Job) -> dict[str, Any]:
        asked, options = job.request, self._options
        media = {"image": job.image, "end_image": job.end_image, "video": job.video, "mask": job.mask}
        return {
            "mode": job.mode,
            "prompt": asked.prompt,
            "negative_prompt": asked.negative,
            "seed": asked.seed,
            "num_frames": job.length,
            "height_px": job.bucket.height_px,
            "width_px": job.bucket.width_px,
            "fps": job.fps,
            "steps": job.steps,
            "guidance": job.guidance,
            "sampler": job.sampler,
            **{name: called(medium.file.path) for name, medium in media.items() if medium},
            **({"strength": job.strength} if job.video else {}),
            **control_settings(asked),
            **({"segments": job.segments, "overlap": job.overlap} if job.segments > 1 else {}),
            **({"prompts": [dataclasses.asdict(one) for one in asked.prompts]} if asked.prompts else {}),
            **({"segment_frames": job.bucket.num_frames} if job.segments > 1 and control_settings(asked) else {}),
            "loras": [{"path": called(lora.path), "scale": lora.scale} for lora, _ in self.facts.loras],
            "fuse_loras": options.fuse_loras,
            "vae_tiling": options.vae_tiling,
            **({"cache_threshold": options.cache_threshold} if options.cache_threshold is not None else {}),
        }

    def _settings(self, job: Job, counts: Sequence[Skipped]) -> dict[str, Any]:
        choice = self._networks.choice
        assert choice is not None
        calls, cached = sum(one.calls for one in counts), sum(one.cached for one in counts)
        caching = {"cached_share": round(cached / max(1, calls), 3)}
        return {
            "model": called(self._folder),
            **self._asked(job),
            "memory": choice.mode,
            "vae_tiling": choice.vae_tiling,
            **(caching if self._options.cache_threshold is not None else {}),
            "device": str(self._networks.device),
            "dtype": str(self._networks.dtype).removeprefix("torch."),
            **({"segment_frames": job.bucket.num_frames} if job.length != job.bucket.num_frames else {}),
            "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
            "request_id": self.request_id(job),
        }


def _part_of(progress: Progress | None, place: int, parts: int) -> Progress | None:
    """Let one of several equal parts tell how far the whole is."""
    if progress is None:
        return None
    return lambda done, total: progress(place * total + done, parts * total)
