"""What a request comes to with a certain model, and all that cannot be; known before any weights are loaded."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from curation.errors import UserError
from models.architecture import Shape
from models.architectures import build_empty
from models.bundle import Bundle, read_bundle
from models.caching import check_threshold
from models.conditions import takes_condition
from models.generate import steps_done
from models.long_video import length_of, segments_for
from models.lora import apply_lora
from models.lora_files import DIFFUSERS_FILE, LoraWeights, read_lora
from models.memory import check_mode
from models.objectives import objective_of
from models.samplers import SAMPLERS, make_scheduler
from models.video_vae import TEMPORAL_STRIDE
from train_bridge.parts import read_json
from train_bridge.sampling.media import Medium, look, look_at_image, nearest_16, read_mask, size_for
from train_bridge.sampling.request import HINTS_FILE, PUBLISHED, STRENGTH, Lora, Options, Request
from train_bridge.types import Bucket

Mode = Literal["text_to_image", "text_to_video", "image_to_video", "video_to_video"]
MOST_CROPPED = 0.1
"""share of a side that may be cut off an image to bring it to a size that was asked for"""
USUAL_OVERLAP = 5


@dataclass(frozen=True, eq=False)
class ModelFacts:
    """What is known of a model without its weights.

    Attributes:
        bundle: its folders.
        hints: shape, rate and text length that it was trained for.
        scheduler: its `scheduler_config.json`.
        default_sampler: the first that fits it.
        shape: the transformer's numbers.
        empty: the transformer with its adapters on the meta device.
        has_condition: whether it sees masks and masked videos.
        noises_condition: whether known pixels get noise, as in its training.
        loras: adapters with their scales and names.
    """

    bundle: Bundle
    hints: dict[str, Any]
    scheduler: dict[str, Any]
    default_sampler: str
    shape: Shape
    empty: nn.Module
    has_condition: bool
    noises_condition: bool
    loras: tuple[tuple[Lora, LoraWeights], ...]


@dataclass(frozen=True)
class Job:
    """A request with every choice made.

    Attributes:
        request: what was asked.
        mode: what it amounts to.
        bucket: frames and size of a segment.
        fps: of the file.
        strength: share of the denoising steps that are done.
        segments: how many.
        overlap: frames that they share.
        length: frames in all.
        image: first frame, or none.
        end_image: last frame, or none.
        video: what to begin from, or none.
        mask: of that, or none.
        span_s: how much of the video is used, from its begin.
    """

    request: Request
    mode: Mode
    bucket: Bucket
    fps: float
    strength: float
    segments: int
    overlap: int
    length: int
    image: Medium | None
    end_image: Medium | None
    video: Medium | None
    mask: Medium | None
    span_s: float | None


def read_model(model: Path, options: Options) -> ModelFacts:
    """Look at a pipeline folder or a run; a run that trained an adapter brings it along.

    Raises:
        UserError: parts that do not fit each other, or an option that cannot be.
        ModelError: likewise, told by the models.
    """
    check_mode(options.memory)
    check_threshold(options.cache_threshold)
    bundle = read_bundle(model)
    file = bundle.folder / HINTS_FILE
    hints = PUBLISHED | (read_json(file) if file.is_file() else {})
    own, loras = model / "lora" / DIFFUSERS_FILE, options.loras
    if own.is_file() and own.resolve() not in {lora.path.resolve() for lora in loras}:
        loras = (Lora(own), *loras)
    family, empty = build_empty(str(bundle.transformer))
    shape = family.shape(empty)
    _check_parts(bundle, shape.out_channels, shape.text_dim)
    read = tuple((lora, read_lora(lora.path)) for lora in loras)
    for place, (lora, weights) in enumerate(read):
        apply_lora(empty, weights, f"lora_{place}", lora.scale)  # says what does not fit
    scheduler = read_json(bundle.scheduler / "scheduler_config.json")
    kind = objective_of(scheduler)
    return ModelFacts(
        bundle,
        hints,
        scheduler,
        next(name for name, sampler in SAMPLERS.items() if kind in sampler.objectives),
        shape,
        empty,
        takes_condition(shape),
        bool(read_json(bundle.transformer / "config.json").get("add_noise_in_inpaint_model", True)),
        read,
    )


def check(request: Request, model: ModelFacts) -> Job:
    """Make every choice that a request leaves open.

    Raises:
        UserError: something that cannot be, in one line with the mend.
        ModelError: a sampler that does not fit.
    """
    _check_numbers(request)
    _check_together(request)
    image = look_at_image("--image", request.image) if request.image else None
    end_image = look_at_image("--end-image", request.end_image) if request.end_image else None
    video = look("--video", request.video) if request.video else None
    mask = look("--mask", request.mask) if request.mask else None
    if end_image and not model.has_condition:
        raise UserError("--end-image: this model has no condition channels to see it by; take an inpaint (InP) model")
    width, height = _size(request, model, [m for m in (image, end_image, video) if m])
    fps = request.fps or float(model.hints["fps"])
    num_frames, fps, span_s = _frames(request, model, video, fps)
    bucket = _bucket(num_frames, height, width)
    if video and mask:
        _check_mask(video, mask)
    if num_frames == 1 and (image or end_image):
        raise UserError("--image with one frame: nothing is left to be made; ask for more --frames")
    one = Bucket(1, height, width)
    for medium in (image, end_image):
        if medium:
            medium.read(one)  # a damaged file is told of now
    if mask and mask.row.kind == "image":
        read_mask(mask, one, None)
    strength = 1.0
    if video:
        strength = request.strength if request.strength is not None else (1.0 if mask else STRENGTH)
    make_scheduler(model.scheduler, request.steps, request.sampler)
    done, least = steps_done(request.steps, strength), SAMPLERS[request.sampler].min_steps if request.sampler else 1
    if strength > 0 and done < least:
        raise UserError(f"--strength {strength}: leaves {done} of {request.steps} steps, {least} are needed; raise it")
    overlap, segments, length = _segments(request, num_frames)
    mode: Mode = "text_to_image" if num_frames == 1 else "text_to_video"
    if video:
        mode = "video_to_video"
    elif image or end_image:
        mode = "image_to_video"
    return Job(
        request, mode, bucket, fps, strength, segments, overlap, length, image, end_image, video, mask, span_s
    )  # fmt: skip


def _check_parts(bundle: Bundle, latent_channels: int, text_dim: int) -> None:
    vae = read_json(bundle.vae / "config.json").get("latent_channels")
    if vae != latent_channels:
        raise UserError(
            f"{bundle.vae}: gives {vae} latent channels, the transformer makes {latent_channels}; take the VAE that it "
            "was trained with"
        )
    text = read_json(bundle.text_encoder / "config.json")
    hidden = text.get("hidden_size") or text.get("text_config", {}).get("hidden_size")
    if hidden != text_dim:
        raise UserError(
            f"{bundle.text_encoder}: gives {hidden} channels, the transformer reads {text_dim}; take the text encoder "
            "that it was trained with"
        )


def _check_numbers(request: Request) -> None:
    if not request.prompt.strip():
        raise UserError("--prompt: empty; say what the video shall show")
    if request.steps < 1 or (request.fps is not None and not 0 < request.fps < math.inf):
        raise UserError("--fps must be above 0 and --steps at least 1")
    if not math.isfinite(request.guidance):
        raise UserError(f"--guidance {request.guidance}: must be a number; 1 or less is none, 6 is usual")
    if request.seed < 0 or request.seed >= 1 << 63:
        raise UserError(f"--seed {request.seed}: must be 0 or more, and below 2^63")
    if request.strength is not None and not 0 <= request.strength <= 1:
        raise UserError(f"--strength {request.strength}: must lie between 0 (the video as it is) and 1 (forget it)")


def _check_together(request: Request) -> None:
    """Refuse what has no meaning together."""
    is_long = request.segments is not None or request.length is not None
    clashes = {
        "--strength without --video: there is nothing to keep; give a video": (
            request.strength is not None and not request.video
        ),
        "--mask without --video: there is nothing that it masks; give a video, or an image as --video": (
            bool(request.mask) and not request.video
        ),
        "--video with --image or --end-image: give one or the other": (
            bool(request.video) and bool(request.image or request.end_image)
        ),
        "--video with --segments or --length: a video has its own length; give one or the other": (
            bool(request.video) and is_long
        ),
        "--segments with --length: both say how long it shall be; give one": (
            request.segments is not None and request.length is not None
        ),
        "--overlap without --segments or --length: there is only one segment": (
            request.overlap is not None and not is_long
        ),
    }
    for words, clash in clashes.items():
        if clash:
            raise UserError(words)


def _size(request: Request, model: ModelFacts, media: list[Medium]) -> tuple[int, int]:
    """Give width and height: as asked, else the first medium's aspect at the area that was trained."""
    hints = model.hints
    if (request.width_px is None) != (request.height_px is None):
        raise UserError("sample: give width and height, or neither of them")
    asked = None
    if request.width_px is not None and request.height_px is not None:
        asked = (request.width_px, request.height_px)
    if media and not asked:
        width, height = size_for(media[0], hints["width_px"] * hints["height_px"])
        target, whose = media[0].aspect, f"{media[0].option} has"
    else:
        width, height = asked or (hints["width_px"], hints["height_px"])
        target, whose = max(1, width) / max(1, height), "--size has"
    for medium in media:
        if 1 - min(target / medium.aspect, medium.aspect / target) > MOST_CROPPED:
            fitting = "x".join(map(str, size_for(medium, hints["width_px"] * hints["height_px"])))
            mend = f"leave --size away, or ask for one like {fitting}" if asked else "crop it"
            raise UserError(
                f"{medium.option} {medium.row.path}: {medium.width_px}x{medium.height_px} px is of another aspect than "
                f"{whose} ({target:.2f}:1); {mend}"
            )
    return width, height


def _frames(request: Request, model: ModelFacts, video: Medium | None, fps: float) -> tuple[int, float, float | None]:
    """Give frames, rate and how much of a video they are taken from."""
    usual = int(model.hints["num_frames"])
    if video is None:
        return usual if request.num_frames is None else request.num_frames, fps, None
    if video.row.kind == "image":
        if request.num_frames not in (None, 1):
            raise UserError("--video with an image makes one frame; give it as --image to begin a video with it")
        return 1, fps, None
    duration_s = video.row.duration_s or 0.0
    fit = max(1, int(duration_s * fps + 1e-6))
    num_frames = min(usual, (fit - 1) // TEMPORAL_STRIDE * TEMPORAL_STRIDE + 1)
    if request.num_frames is not None:
        num_frames = request.num_frames
    if num_frames / fps <= duration_s:
        return num_frames, fps, num_frames / fps
    if request.fps is None and duration_s > 0:
        return num_frames, num_frames / duration_s, duration_s  # shorter than asked: its frames lie closer
    raise UserError(
        f"--video {video.row.path}: lasts {duration_s:.2f} s, {num_frames} frames at {fps:g} fps last "
        f"{num_frames / fps:.2f} s; ask for fewer --frames, or leave --fps away"
    )


def _bucket(num_frames: int, height: int, width: int) -> Bucket:
    try:
        return Bucket(num_frames, height, width)
    except ValueError as error:
        nearest = f"; the nearest is {nearest_16(width)}x{nearest_16(height)}" if "16" in str(error) else ""
        raise UserError(f"sample: {error}{nearest}") from None


def _check_mask(video: Medium, mask: Medium) -> None:
    if (mask.width_px, mask.height_px) != (video.width_px, video.height_px):
        raise UserError(
            f"--mask {mask.row.path}: {mask.width_px}x{mask.height_px} px for a video of "
            f"{video.width_px}x{video.height_px}; scale it to the video's size"
        )
    if mask.row.kind == "video" and video.row.kind == "image":
        raise UserError(f"--mask {mask.row.path}: is a video for an image; give one image")
    ours, theirs = mask.row.duration_s or 0.0, video.row.duration_s or 0.0
    if mask.row.kind == "video" and abs(ours - theirs) > max(0.1, 0.02 * theirs):
        raise UserError(
            f"--mask {mask.row.path}: lasts {ours:.2f} s, the video {theirs:.2f} s; make it as long, or give one image "
            "for all frames"
        )


def _segments(request: Request, num_frames: int) -> tuple[int, int, int]:
    """Give overlap, segments and length in all."""
    if request.segments is None and request.length is None:
        return 0, 1, num_frames
    if num_frames == 1:
        raise UserError("--segments and --length continue a video; ask for more than one of --frames")
    overlap = request.overlap if request.overlap is not None else min(USUAL_OVERLAP, num_frames - TEMPORAL_STRIDE)
    if not 1 <= overlap < num_frames or (overlap - 1) % TEMPORAL_STRIDE:
        most = num_frames - TEMPORAL_STRIDE
        n = min(most, max(1, round((overlap - 1) / TEMPORAL_STRIDE) * TEMPORAL_STRIDE + 1))
        raise UserError(f"--overlap {overlap}: must be 4n+1 and at most {most} of {num_frames} frames; take {n}")
    if request.length is not None:
        if request.length < 1:
            raise UserError(f"--length {request.length}: must be at least 1 frame")
        return overlap, segments_for(request.length, num_frames, overlap), request.length
    segments = request.segments or 0
    if segments < 1:
        raise UserError(f"--segments {segments}: must be at least 1")
    return overlap, segments, length_of(segments, num_frames, overlap)
