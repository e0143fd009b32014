"""Samplers: text, image and video to video through the sampler's own API, so that frames equal those of `sample`."""

from pathlib import Path
from typing import Any

from core.errors import UserError
from integrations.comfyui import host
from integrations.comfyui.models import Choice, opened
from integrations.comfyui.pixels import frames_file, from_image, from_mask, picture_file, to_image, video_file
from integrations.comfyui.ports import MODEL, MOST_SEED, SETTINGS, Node, Out, Port

USUAL = "default"
SAMPLERS = ("flow_euler", "flow_heun", "ddim", "unipc", "pndm", "euler", "euler_a", "dpm++")
"""`models.denoise.samplers.SAMPLERS`, known before diffusers is loaded"""
MOST_PX, MOST_FRAMES, MOST_STEPS = 8192, 10_000, 1000

PROMPTS = (
    Port("model", MODEL, "from the loader"),
    Port("prompt", "STRING", "what the video shall show", "", lines=True),
    Port("negative", "STRING", "what guidance leads away from", "", lines=True),
    Port("seed", "INT", "of the first noise", 0, 0, MOST_SEED, 1, is_seed=True),
)
SIZE = (
    Port(
        "width",
        "INT",
        "pixels, a multiple of 16; 0: as trained, or a picture's aspect",
        0,
        0,
        MOST_PX,
        16,
    ),
    Port("height", "INT", "pixels, a multiple of 16", 0, 0, MOST_PX, 16),
    Port("num_frames", "INT", "as the VAE takes it (V5: 4n+1); 0: as trained, 1: a picture", 0, 0, MOST_FRAMES, 1),
    Port("fps", "FLOAT", "frames a second; 0: as trained", 0.0, 0.0, 240.0, 0.5),
)
STEPS = (
    Port("steps", "INT", "denoising steps; 0: the family's", 0, 0, MOST_STEPS, 1),
    Port("guidance", "FLOAT", "1: none; 0: the family's (V5.1: 6)", 0.0, 0.0, 100.0, 0.1),
    Port(
        "sampler",
        "COMBO",
        "default: the family's, or one that fits",
        USUAL,
        choices=(USUAL, *SAMPLERS),
    ),
)
LONG = (
    Port(
        "length",
        "INT",
        "frames in all, going on from itself; 0: num_frames",
        0,
        0,
        MOST_FRAMES,
        1,
        optional=True,
    ),
    Port("overlap", "INT", "frames that its segments share, 4n+1; 0: 5", 0, 0, MOST_FRAMES, 1, optional=True),
)
OUTPUTS = (
    Out("images", "IMAGE", "the frames"),
    Out("settings", SETTINGS, "all that they were made with, for Save with settings"),
    Out("video", "VIDEO", "the frames at their rate"),
)


def text_to_video(
    model: Choice, prompt: str, negative: str, seed: int, width: int, height: int, num_frames: int, fps: float,
    steps: int, guidance: float, sampler: str, length: int = 0, overlap: int = 0,
) -> tuple[Any, ...]:  # fmt: skip
    """Make a video, or of one frame a picture, from a prompt."""
    asked = asked_of(prompt, negative, seed, width, height, num_frames, fps, steps, guidance, sampler, length, overlap)
    return sampled(model, asked)


def image_to_video(
    model: Choice, image: Any, prompt: str, negative: str, seed: int, width: int, height: int, num_frames: int,
    fps: float, steps: int, guidance: float, sampler: str, end_image: Any = None, length: int = 0, overlap: int = 0,
) -> tuple[Any, ...]:  # fmt: skip
    """Make a video that begins with a picture, and ends with another where one is given."""
    asked = asked_of(prompt, negative, seed, width, height, num_frames, fps, steps, guidance, sampler, length, overlap)
    last = None if end_image is None else picture_file(end_image, "end_image")
    return sampled(model, asked | {"image": picture_file(image, "image"), "end_image": last})


def video_to_video(
    model: Choice, prompt: str, negative: str, seed: int, width: int, height: int, num_frames: int, fps: float,
    steps: int, guidance: float, sampler: str, strength: float, images: Any = None, images_fps: float = 8.0,
    mask: Any = None, video: Any = None,
) -> tuple[Any, ...]:  # fmt: skip
    """Make a video from another one; with a mask, its white part alone."""
    if (video is None) == (images is None):
        raise UserError("connect video or images, one of them", field="video")
    if video is not None:
        file = video_file(video)
        rate = float(video.get_components().frame_rate) if mask is not None and _is_moving(mask) else images_fps
    else:
        file, rate = frames_file(from_image(images), images_fps), images_fps
    masked: Path | None = None if mask is None else frames_file(from_mask(mask), rate)
    asked = asked_of(prompt, negative, seed, width, height, num_frames, fps, steps, guidance, sampler, 0, 0)
    share = None if strength < 0 else strength
    return sampled(model, asked | {"video": file, "mask": masked, "strength": share})


def _is_moving(mask: Any) -> bool:
    return mask.ndim == 3 and len(mask) > 1


def asked_of(
    prompt: str, negative: str, seed: int, width: int, height: int, num_frames: int, fps: float,
    steps: int, guidance: float, sampler: str, length: int, overlap: int,
) -> dict[str, Any]:  # fmt: skip
    """Return the fields of a request; 0 and `default` leave the choice to the model."""
    return {
        "prompt": prompt,
        "negative": negative,
        "seed": seed,
        "width_px": width or None,
        "height_px": height or None,
        "num_frames": num_frames or None,
        "fps": fps or None,
        "steps": steps or None,
        "guidance": guidance or None,
        "sampler": None if sampler == USUAL else sampler,
        "length": length or None,
        "overlap": overlap or None,
    }


def sampled(choice: Choice, asked: dict[str, Any]) -> tuple[Any, ...]:
    """Return what a sampler gives for the fields of a request: images, settings, and the video where there are any."""
    from sampling.request import Request

    model = opened(choice)
    sample = model.sample(model.check(Request(**asked)), host.progress())
    notes = model.take_notes()
    images = to_image(sample.frames)
    for note in notes:
        print(f"Selects: {note}")
    return images, sample.settings, host.video_of(images, sample.fps)


SAMPLER_NODES = (
    Node(
        "SelectsTextToVideo",
        "Text to video (Selects)",
        "A video from a prompt; one frame makes a picture.",
        (*PROMPTS, *SIZE, *STEPS, *LONG),
        OUTPUTS,
        text_to_video,
    ),
    Node(
        "SelectsImageToVideo",
        "Image to video (Selects)",
        "A video that begins with a picture, and with a second one ends with it.",
        (
            PROMPTS[0],
            Port("image", "IMAGE", "the first frame"),
            *PROMPTS[1:],
            *SIZE,
            *STEPS,
            Port("end_image", "IMAGE", "the last frame; needs a model with condition channels", optional=True),
            *LONG,
        ),
        OUTPUTS,
        image_to_video,
    ),
    Node(
        "SelectsVideoToVideo",
        "Video to video (Selects)",
        "A video from another one. With a mask only its white part is made anew, and the rest stays exactly.",
        (
            *PROMPTS,
            *SIZE,
            *STEPS,
            Port(
                "strength",
                "FLOAT",
                "0 gives the video back, 1 forgets it; -1: 0.7, masked 1",
                -1.0,
                -1.0,
                1.0,
                0.05,
            ),
            Port("images", "IMAGE", "the frames of the video, in place of video", optional=True),
            Port("images_fps", "FLOAT", "their rate", 8.0, 0.1, 240.0, 0.5, optional=True),
            Port("mask", "MASK", "as large as the video: one, or one for each frame", optional=True),
            Port("video", "VIDEO", "the video", optional=True),
        ),
        OUTPUTS,
        video_to_video,
    ),
)
