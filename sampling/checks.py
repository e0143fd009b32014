"""What a request comes to with a certain model, and all that cannot be; known before any weights are loaded."""

import math
from dataclasses import dataclass
from typing import Literal

from core.errors import UserError
from models.denoise.generate import steps_done
from models.denoise.long_video import length_of
from models.denoise.samplers import SAMPLERS, make_scheduler
from models.geometry import Bucket, LatentGrid
from sampling.control import NOTHING, Steering, fitted, look_at_control
from sampling.media import Medium, look, look_at_image, nearest_side, read_mask, size_for
from sampling.model_facts import ModelFacts
from sampling.request import STRENGTH, Request
from sampling.windows import Windows, windows_of

Mode = Literal["text_to_image", "text_to_video", "image_to_video", "video_to_video"]
MOST_CROPPED = 0.1
"""share of a side that may be cut off an image to bring it to a size that was asked for"""
USUAL_OVERLAP = 5


@dataclass(frozen=True)
class Job:
    """A request with every choice made.

    Attributes:
        request: what was asked.
        mode: what it amounts to.
        steps: denoising steps.
        guidance: classifier-free guidance.
        sampler: a name in `models.denoise.samplers.SAMPLERS`.
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
        steering: control maps, camera, points and reference image.
        prompts: of each segment.
    """

    request: Request
    mode: Mode
    steps: int
    guidance: float
    sampler: str
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
    steering: Steering = NOTHING
    prompts: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """The prompt of each segment."""
        return self.prompts or (self.request.prompt,) * self.segments

    @property
    def whole_frames(self) -> int:
        """Frames of all segments together, of which `length` are kept."""
        return length_of(self.segments, self.bucket.num_frames, self.overlap)


def check(request: Request, model: ModelFacts) -> Job:
    """Make every choice that a request leaves open.

    Raises:
        UserError: something that cannot be, in one line with the fix.
        ModelError: a sampler that does not fit.
    """
    usual = model.family.sampler
    steps = usual.steps if request.steps is None else request.steps
    guidance = usual.guidance if request.guidance is None else request.guidance
    sampler = request.sampler or model.default_sampler
    _check_numbers(request, steps, guidance)
    _check_together(request)
    image = look_at_image("image", request.image) if request.image else None
    end_image = look_at_image("end_image", request.end_image) if request.end_image else None
    video = look("video", request.video) if request.video else None
    mask = look("mask", request.mask) if request.mask else None
    if end_image and not model.has_condition:
        raise UserError(
            "this model has no condition channels for masks to see it by",
            field="end_image",
            fix="take an inpaint (InP) model",
        )
    steering = look_at_control(request, model.spec, model.maps)
    width, height = _size(request, model, [*(m for m in (image, end_image, video) if m), *steering.media])
    fps = request.fps or float(model.hints["fps"])
    num_frames, fps, span_s = _frames(request, model, video, fps)
    bucket = _bucket(num_frames, height, width, model.grid)
    if video and mask:
        _check_mask(video, mask)
    if num_frames == 1 and (image or end_image):
        raise UserError(
            "nothing is left to be made", field="image", value="with one frame", fix="ask for more `num_frames`"
        )
    one = Bucket(1, height, width, model.grid)
    for medium in (image, end_image, steering.reference):
        if medium:
            medium.read(one)  # a damaged file is reported now
    if mask and mask.file.kind == "image":
        read_mask(mask, one, None)
    strength = 1.0
    if video:
        strength = request.strength if request.strength is not None else (1.0 if mask else STRENGTH)
    make_scheduler(model.scheduler, steps, sampler)
    done, least = steps_done(steps, strength), SAMPLERS[sampler].min_steps
    if strength > 0 and done < least:
        raise UserError(
            f"leaves {done} of {steps} steps, {least} are needed", field="strength", value=strength, fix="raise it"
        )
    windows = _windows(request, num_frames, model)
    overlap, segments, length = windows.overlap, windows.count, windows.length
    steering = fitted(steering, request, length_of(segments, num_frames, overlap), fps, bucket, model.maps)
    mode: Mode = "text_to_image" if num_frames == 1 else "text_to_video"
    if video:
        mode = "video_to_video"
    elif image or end_image:
        mode = "image_to_video"
    return Job(
        request, mode, steps, guidance, sampler, bucket, fps, strength, segments, overlap, length, image, end_image,
        video, mask, span_s, steering, windows.prompts,
    )  # fmt: skip


def _check_numbers(request: Request, steps: int, guidance: float) -> None:
    if not request.prompt.strip():
        raise UserError("empty", field="prompt", fix="say what the video shall show")
    if steps < 1 or (request.fps is not None and not 0 < request.fps < math.inf):
        raise UserError("`fps` must be above 0 and `steps` at least 1")
    if not math.isfinite(guidance):
        raise UserError("must be a number", field="guidance", value=guidance, fix="1 or less is none, 6 is usual")
    if request.seed < 0 or request.seed >= 1 << 63:
        raise UserError("must be 0 or more, and below 2^63", field="seed", value=request.seed)
    if request.strength is not None and not 0 <= request.strength <= 1:
        raise UserError(
            "must lie between 0 (the video as it is) and 1 (forget it)", field="strength", value=request.strength
        )


def _check_together(request: Request) -> None:
    """Refuse what has no meaning together."""
    is_long = request.segments is not None or request.length is not None or bool(request.prompts)
    clashes = {
        ("strength", "without `video`", "there is nothing to keep", "give a video"): (
            request.strength is not None and not request.video
        ),
        ("mask", "without `video`", "there is nothing that it masks", "give a video, or an image as `video`"): (
            bool(request.mask) and not request.video
        ),
        ("video", "with `image` or `end_image`", "both say how it begins", "give one or the other"): (
            bool(request.video) and bool(request.image or request.end_image)
        ),
        ("video", "with `segments`, `length` or `prompts`", "a video has its own length", "give one or the other"): (
            bool(request.video) and is_long
        ),
        ("segments", "with `length`", "both say how long it shall be", "give one"): (
            request.segments is not None and request.length is not None
        ),
        ("overlap", "without `segments`, `length` or `prompts`", "there is only one segment", "leave it out"): (
            request.overlap is not None and not is_long
        ),
    }
    for (name, other, problem, fix), clash in clashes.items():
        if clash:
            raise UserError(problem, field=name, value=other, fix=fix)


def _size(request: Request, model: ModelFacts, media: list[Medium]) -> tuple[int, int]:
    """Return width and height: as asked, else the first medium's aspect at the area that was trained."""
    hints = model.hints
    if (request.width_px is None) != (request.height_px is None):
        raise UserError("give width and height, or neither of them", field="size")
    asked = None
    if request.width_px is not None and request.height_px is not None:
        asked = (request.width_px, request.height_px)
    if media and not asked:
        width, height = size_for(media[0], hints["width_px"] * hints["height_px"], model.grid.side_px)
        target, whose = media[0].aspect, f"`{media[0].field}` has"
    else:
        width, height = asked or (hints["width_px"], hints["height_px"])
        target, whose = max(1, width) / max(1, height), "`size` has"
    for medium in media:
        if 1 - min(target / medium.aspect, medium.aspect / target) > MOST_CROPPED:
            fitting = "x".join(map(str, size_for(medium, hints["width_px"] * hints["height_px"], model.grid.side_px)))
            fix = f"leave `size` away, or ask for one like {fitting}" if asked else "crop it"
            raise UserError(
                f"{medium.width_px}x{medium.height_px} px is of another aspect than {whose} ({target:.2f}:1)",
                field=medium.field,
                value=medium.file.path,
                fix=fix,
            )
    return width, height


def _frames(request: Request, model: ModelFacts, video: Medium | None, fps: float) -> tuple[int, float, float | None]:
    """Return frames, rate and how much of a video they are taken from."""
    usual = int(model.hints["num_frames"])
    if video is None:
        return usual if request.num_frames is None else request.num_frames, fps, None
    if video.file.kind == "image":
        if request.num_frames not in (None, 1):
            raise UserError(
                "makes one frame",
                field="video",
                value="with an image",
                fix="give it as `image` to begin a video with it",
            )
        return 1, fps, None
    duration_s = video.file.extent.duration_s
    fit = max(1, int(duration_s * fps + 1e-6))
    num_frames = min(usual, model.grid.nearest_frames(fit)[0])
    if request.num_frames is not None:
        num_frames = request.num_frames
    if num_frames / fps <= duration_s:
        return num_frames, fps, num_frames / fps
    if request.fps is None and duration_s > 0:
        return num_frames, num_frames / duration_s, duration_s  # shorter than asked: its frames lie closer
    raise UserError(
        f"lasts {duration_s:.2f} s, {num_frames} frames at {fps:g} fps last {num_frames / fps:.2f} s",
        field="video",
        value=video.file.path,
        fix="ask for fewer `num_frames`, or leave `fps` away",
    )


def _bucket(num_frames: int, height: int, width: int, grid: LatentGrid) -> Bucket:
    try:
        return Bucket(num_frames, height, width, grid)
    except ValueError as error:
        side = grid.side_px
        sizes = f"{nearest_side(width, side)}x{nearest_side(height, side)}"
        nearest = f"; the nearest is {sizes}" if "both sides" in str(error) else ""
        raise UserError(f"{error}{nearest}", field="size" if " px" in str(error) else "num_frames") from None


def _check_mask(video: Medium, mask: Medium) -> None:
    if (mask.width_px, mask.height_px) != (video.width_px, video.height_px):
        raise UserError(
            f"{mask.width_px}x{mask.height_px} px for a video of {video.width_px}x{video.height_px}",
            field="mask",
            value=mask.file.path,
            fix="scale it to the video's size",
        )
    if mask.file.kind == "video" and video.file.kind == "image":
        raise UserError("is a video for an image", field="mask", value=mask.file.path, fix="give one image")
    ours, theirs = mask.file.extent.duration_s, video.file.extent.duration_s
    if mask.file.kind == "video" and abs(ours - theirs) > max(0.1, 0.02 * theirs):
        raise UserError(
            f"lasts {ours:.2f} s, the video {theirs:.2f} s",
            field="mask",
            value=mask.file.path,
            fix="make it as long, or give one image for all frames",
        )


def _windows(request: Request, num_frames: int, model: ModelFacts) -> Windows:
    """Return the segments and what they share."""
    if request.segments is None and request.length is None and not request.prompts:
        return Windows(num_frames, 0, 1, num_frames)
    if num_frames == 1:
        raise UserError("`segments`, `length` and `prompts` continue a video; ask for more than one of `num_frames`")
    grid = model.grid
    # A mask that a VAE of slices encodes hides frame by frame, so any number of frames is handed on. Else they are
    # encoded by themselves; and a causal VAE's mask says of four frames at once whether they are known.
    frame_by_frame = model.has_condition and grid.frames_per_slice > 0
    most = num_frames - 1 if frame_by_frame else grid.nearest_frames(num_frames - 1)[0]  # something is left to be made
    usual = model.family.sampler.overlap or min(grid.nearest_frames(USUAL_OVERLAP - 1)[1], most)
    overlap = min(usual, most) if request.overlap is None else request.overlap
    if 1 <= overlap <= most and (frame_by_frame or grid.takes_frames(overlap)):
        return windows_of(request, num_frames, overlap)
    low, high = (overlap, overlap) if frame_by_frame else grid.nearest_frames(overlap)
    n = max(1, min(most, low if overlap - low < high - overlap else high))
    rule = "" if frame_by_frame else f"{grid.rule} and "
    raise UserError(
        f"must be {rule}at most {most} of {num_frames} frames", field="overlap", value=overlap, fix=f"take {n}"
    )
