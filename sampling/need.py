"""What sampling needs of memory, by a model's facts: predicted without weights."""

from collections.abc import Sequence

from models.memory.sampling_need import Need, SampledParts, sampling_need
from models.text.table import IMAGE_ENCODERS, TEXT_ENCODERS
from models.vae.table import empty_vae
from sampling.checks import Job
from sampling.model_facts import ModelFacts


def need_of(facts: ModelFacts, jobs: Sequence[Job], *, half: bool, encoder_stays: bool) -> Need:
    """Predict what the largest of some jobs needs; it takes a second or two.

    Args:
        facts: of the model.
        jobs: one or more.
        half: weights and activations have 16 bits, else 32.
        encoder_stays: the text encoder is kept beside the other parts.
    """
    folder, text_kind = facts.bundle, TEXT_ENCODERS[facts.family.text_encoder]
    largest = max(jobs, key=lambda job: job.bucket.tokens)
    return sampling_need(
        SampledParts(
            facts.shape,
            facts.empty,
            empty_vae(folder.vae),
            text_kind.empty(folder.folder),
            text_kind,
            _image_bytes(facts, jobs, half=half),
        ),
        largest.bucket,
        int(facts.hints["text_tokens"]),
        half=half,
        guided=any(job.guidance > 1 for job in jobs),
        encodes=any(_encodes(job) or _smooths(facts, job) for job in jobs),
        encoder_stays=encoder_stays,
    )


def _image_bytes(facts: ModelFacts, jobs: Sequence[Job], *, half: bool) -> int:
    """Return the bytes of encoding a start image to tokens; 0 where no job does."""
    folder, name = facts.image_encoder, facts.family.image_encoder
    if folder is None or name is None or not any(job.image or job.segments > 1 for job in jobs):
        return 0
    return IMAGE_ENCODERS[name].need(folder, 2 if half else 4).total


def _smooths(facts: ModelFacts, job: Job) -> bool:
    """Return whether the VAE encodes what it decoded, to soften the borders between slices."""
    return facts.family.sampler.smooths and job.bucket.num_frames >= 2 * max(1, facts.grid.frames_per_slice)


def _encodes(job: Job) -> bool:
    """Return whether the VAE encodes pixels for a job."""
    pixels = (job.image, job.end_image, job.video, job.steering.trajectory, *job.steering.media)
    return job.segments > 1 or any(one is not None for one in pixels)
