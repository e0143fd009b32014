"""What the network sees and begins from in each mode, for one segment."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from models.conditions.camera_path import CameraPath
from models.conditions.control import control_latents, reference_latents
from models.conditions.inpaint import SAMPLING_NOISE, Known, condition_latents
from models.conditions.plucker import camera_channels
from models.conditions.spec import INPAINT, ConditionSpec, PartName
from models.denoise.generate import Acting, Source
from models.denoise.image_to_video import known_ends, source_of_first
from models.denoise.video_to_video import source_of_video
from models.geometry import Bucket
from models.vae.video_vae import channels_of, to_signed
from sampling.checks import Job
from sampling.control import read_control
from sampling.media import read_mask
from sampling.request import MapMaker


@dataclass(frozen=True)
class Pixels:
    """What is given, brought to the size of what is made.

    Attributes:
        first: uint8 (n, H, W, 3), the first frames; or none.
        last: uint8 (1, H, W, 3), the last frame; or none.
        video: uint8 (T, H, W, 3), or none.
        mask: float32 (T, H, W), 1 = to be generated; or none.
        control: uint8 (T, H, W, 3), the control map; or none.
        camera: a pose for each frame; or none.
        reference: uint8 (1, H, W, 3), or none.
    """

    first: np.ndarray | None = None
    last: np.ndarray | None = None
    video: np.ndarray | None = None
    mask: np.ndarray | None = None
    control: np.ndarray | None = None
    camera: CameraPath | None = None
    reference: np.ndarray | None = None


def read_pixels(job: Job, maps: Mapping[str, MapMaker]) -> Pixels:
    """Read the images, the video, the mask and the control of a job; the last for all of its segments.

    Args:
        job: the request.
        maps: what makes control maps of footage, by kind.

    Raises:
        UserError: one of them cannot be read after all.
    """
    bucket = job.bucket
    one = Bucket(1, bucket.height_px, bucket.width_px, bucket.grid)
    return Pixels(
        job.image.read(one) if job.image else None,
        job.end_image.read(one) if job.end_image else None,
        job.video.read(bucket, job.span_s) if job.video else None,
        read_mask(job.mask, bucket, job.span_s) if job.mask else None,
        read_control(job.steering, job.whole_frames, job.fps, bucket, maps),
        job.steering.camera,
        job.steering.reference.read(one) if job.steering.reference else None,
    )


def of_segment(pixels: Pixels, begin: int, num_frames: int) -> Pixels:
    """Return what a segment sees of the control of the whole video."""
    places = np.arange(begin, begin + num_frames)
    return replace(
        pixels,
        control=None if pixels.control is None else pixels.control[places],
        camera=None if pixels.camera is None else pixels.camera.taken(places),
    )


def steered(vae: Any, spec: ConditionSpec, job: Job, pixels: Pixels) -> tuple[torch.Tensor, Acting]:
    """Make what a control model sees beside the noise, for one segment.

    Args:
        vae: encodes pixels, on the device where it computes.
        spec: what the model sees.
        job: the shape, and how the control acts.
        pixels: what is given for this segment.

    Returns:
        Condition channels (1, channels, f, h, w), float32 on the CPU, and when they act.
    """
    bucket, steering = job.bucket, job.steering
    given: dict[PartName, torch.Tensor] = {}
    if pixels.control is not None:
        given["control"] = control_latents(vae, _signed(pixels.control)).float().cpu()
    if pixels.camera is not None:
        given["camera"] = camera_channels(pixels.camera, bucket.height_px, bucket.width_px, bucket.latent_shape)
    if pixels.reference is not None:
        reference = reference_latents(vae, _signed(pixels.reference), bucket.latent_shape[0])
        given["reference"] = reference.float().cpu()
    channels = channels_of(vae)
    condition = spec.join(given, (1, channels, *bucket.latent_shape))
    scaled = spec.changed(condition, channels, {"control": steering.scale, "camera": steering.scale})
    without = spec.changed(condition, channels, {"control": 0.0, "camera": 0.0})
    return scaled, Acting(steering.start, steering.end, without)


def beginning(
    vae: Any,
    job: Job,
    pixels: Pixels,
    noise: torch.Generator | None,
    spec: ConditionSpec = INPAINT,
    *,
    has_condition: bool,
) -> tuple[torch.Tensor | None, Source | None]:
    """Make what the network sees beside the noise, and what sampling begins from.

    Args:
        vae: encodes pixels, on the device where it computes.
        job: the shape and the strength.
        pixels: what is given for this segment.
        has_condition: whether the model has condition channels; one that has not keeps what is given by being set
            back to it after every step.
        noise: draws the noise on known pixels; None: there is none.
        spec: the condition channels.

    Returns:
        Condition channels (1, channels of the spec, f, h, w) or none, and a source or none.
    """
    known = _known(job, pixels)
    condition = None
    if has_condition:
        generators = None if noise is None else [noise]
        condition = condition_latents(vae, known, generators, SAMPLING_NOISE, spec=spec)
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
