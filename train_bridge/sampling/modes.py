"""What the network sees and begins from in each mode, for one segment."""

from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKLMagvit

from models.conditions import SAMPLING_NOISE, Known, condition_latents
from models.generate import Source
from models.image_to_video import known_ends, source_of_first
from models.video_to_video import source_of_video
from models.video_vae import to_signed
from train_bridge.sampling.checks import Job
from train_bridge.sampling.media import read_mask
from train_bridge.types import Bucket


@dataclass(frozen=True)
class Pixels:
    """What is given, brought to the size of what is made.

    Attributes:
        first: uint8 (n, H, W, 3), the first frames; or none.
        last: uint8 (1, H, W, 3), the last frame; or none.
        video: uint8 (T, H, W, 3), or none.
        mask: float32 (T, H, W), 1 = to be generated; or none.
    """

    first: np.ndarray | None = None
    last: np.ndarray | None = None
    video: np.ndarray | None = None
    mask: np.ndarray | None = None


def read_pixels(job: Job) -> Pixels:
    """Read the images, the video and the mask of a job.

    Raises:
        UserError: one of them cannot be read after all.
    """
    bucket = job.bucket
    one = Bucket(1, bucket.height_px, bucket.width_px)
    return Pixels(
        job.image.read(one) if job.image else None,
        job.end_image.read(one) if job.end_image else None,
        job.video.read(bucket, job.span_s) if job.video else None,
        read_mask(job.mask, bucket, job.span_s) if job.mask else None,
    )


def beginning(
    vae: AutoencoderKLMagvit,
    job: Job,
    pixels: Pixels,
    has_condition: bool,
    noise: torch.Generator | None,
) -> tuple[torch.Tensor | None, Source | None]:
    """Make what the network sees beside the noise, and what sampling begins from.

    Args:
        vae: encodes pixels, on the device where it computes.
        job: the shape and the strength.
        pixels: what is given for this segment.
        has_condition: whether the model has condition channels; one that has not keeps what is given by being set
            back to it after every step.
        noise: draws the noise on known pixels; None: there is none.

    Returns:
        Condition channels (1, 1+C, f, h, w) or none, and a source or none.
    """
    known = _known(job, pixels)
    condition = None
    if has_condition:
        generators = None if noise is None else [noise]
        condition = condition_latents(vae, known, generators, SAMPLING_NOISE)
    if pixels.video is not None:
        return condition, source_of_video(vae, known, job.strength, blends=not has_condition)
    if pixels.first is not None and not has_condition:
        return None, source_of_first(vae, _signed(pixels.first), job.bucket.num_frames)
    return condition, None


def _known(job: Job, pixels: Pixels) -> Known:
    bucket = job.bucket
    if pixels.video is not None:
        shape = (1, 1, bucket.num_frames, bucket.height_px, bucket.width_px)
        mask = torch.ones(shape) if pixels.mask is None else torch.from_numpy(pixels.mask).reshape(shape)
        return Known(_signed(pixels.video), mask)
    if pixels.first is not None or pixels.last is not None:
        first = None if pixels.first is None else _signed(pixels.first)
        last = None if pixels.last is None else _signed(pixels.last)
        return known_ends(first, last, bucket.num_frames)
    shape = (1, 3, bucket.num_frames, bucket.height_px, bucket.width_px)
    return Known(torch.zeros(shape), torch.ones(1, 1, *shape[2:]))


def _signed(frames: np.ndarray) -> torch.Tensor:
    return to_signed(torch.from_numpy(frames.copy())[None])  # Pillow gives pixels that must not be written
