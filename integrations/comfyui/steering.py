"""Samplers for models that see more than a text: control maps, camera paths and trajectories."""

from pathlib import Path
from typing import Any

from core.errors import UserError
from core.files import atomic_write
from integrations.comfyui.host import temporary_folder
from integrations.comfyui.models import Choice
from integrations.comfyui.pixels import content_name, frames_file, from_image, picture_file, video_file
from integrations.comfyui.ports import Node, Port
from integrations.comfyui.samplers import OUTPUTS, PROMPTS, SIZE, STEPS, asked_of, sampled

AS_IS = "as_is"
KINDS = (AS_IS, "canny", "lines", "soft_edges", "trajectory", "gray", "blur", "tile", "depth", "pose", "hed", "mlsd")
"""maps that are drawn of footage; `as_is`: it is a map"""
FROM_FILE = "file"
CAMERAS = (
    *("static", "pan_left", "pan_right", "pan_up", "pan_down", "zoom_in", "zoom_out", "roll_left", "roll_right"),
    FROM_FILE,
)
"""`models.conditions.camera_path.PRESETS`, known before torch is loaded, and a file"""
LOOK = Port("reference", "IMAGE", "whose look the video shall have; needs a model that sees one", optional=True)
STRENGTHS = (
    Port("control_scale", "FLOAT", "how strongly it acts; 0: not at all", 1.0, 0.0, 10.0, 0.05),
    Port("control_start", "FLOAT", "share of the steps before which it does not act", 0.0, 0.0, 1.0, 0.01),
    Port("control_end", "FLOAT", "share of the steps from which on it does not", 1.0, 0.0, 1.0, 0.01),
)


def control_to_video(
    model: Choice, prompt: str, negative: str, seed: int, width: int, height: int, num_frames: int, fps: float,
    steps: int, guidance: float, sampler: str, control_kind: str, control_scale: float, control_start: float,
    control_end: float, images: Any = None, images_fps: float = 8.0, reference: Any = None, video: Any = None,
) -> tuple[Any, ...]:  # fmt: skip
    """Make a video that follows a control map, or the map of footage."""
    if (video is None) == (images is None):
        raise UserError("connect video or images, one of them", field="control")
    file = video_file(video) if video is not None else frames_file(from_image(images), images_fps)
    asked = asked_of(prompt, negative, seed, width, height, num_frames, fps, steps, guidance, sampler, 0, 0)
    asked |= {"control": file, "control_kind": control_kind, "reference": _look(reference)}
    return sampled(model, asked | _strengths(control_scale, control_start, control_end))


def camera_to_video(
    model: Choice, prompt: str, negative: str, seed: int, width: int, height: int, num_frames: int, fps: float,
    steps: int, guidance: float, sampler: str, camera: str, camera_speed: float, control_scale: float,
    control_start: float, control_end: float, camera_file: str = "", reference: Any = None,
) -> tuple[Any, ...]:  # fmt: skip
    """Make a video whose camera moves by a preset, or along the path of a file."""
    if camera == FROM_FILE and not camera_file.strip():
        raise UserError("no file is named", field="camera_file", fix="name one, or choose a preset")
    asked = asked_of(prompt, negative, seed, width, height, num_frames, fps, steps, guidance, sampler, 0, 0)
    path = camera_file.strip() if camera == FROM_FILE else camera
    asked |= {"camera": path, "camera_speed": camera_speed, "reference": _look(reference)}
    return sampled(model, asked | _strengths(control_scale, control_start, control_end))


def trajectory_to_video(
    model: Choice, prompt: str, negative: str, seed: int, width: int, height: int, num_frames: int, fps: float,
    steps: int, guidance: float, sampler: str, points: str, control_scale: float, control_start: float,
    control_end: float, reference: Any = None,
) -> tuple[Any, ...]:  # fmt: skip
    """Make a video in which things follow points, as JSON: of a spline editor, or `[[x, y], …]`."""
    file = temporary_folder() / f"{content_name(points.encode())}.json"
    if not file.is_file():
        atomic_write(file, points)
    asked = asked_of(prompt, negative, seed, width, height, num_frames, fps, steps, guidance, sampler, 0, 0)
    asked |= {"trajectory": file, "reference": _look(reference)}
    return sampled(model, asked | _strengths(control_scale, control_start, control_end))


def _look(reference: Any) -> Path | None:
    return None if reference is None else picture_file(reference, "reference")


def _strengths(scale: float, start: float, end: float) -> dict[str, float]:
    return {"control_scale": scale, "control_start": start, "control_end": end}


STEERED = (
    Node(
        "SelectsControlToVideo",
        "Control to video (Selects)",
        "A video that follows a control map; footage is turned into one. Needs a control model.",
        (
            *PROMPTS,
            *SIZE,
            *STEPS,
            Port("control_kind", "COMBO", "the map made of the footage; as_is: it is one", AS_IS, choices=KINDS),
            *STRENGTHS,
            Port("images", "IMAGE", "map or footage, in place of video; one picture holds for all", optional=True),
            Port("images_fps", "FLOAT", "their rate", 8.0, 0.1, 240.0, 0.5, optional=True),
            LOOK,
            Port("video", "VIDEO", "map or footage", optional=True),
        ),
        OUTPUTS,
        control_to_video,
    ),
    Node(
        "SelectsCameraToVideo",
        "Camera to video (Selects)",
        "A video whose camera moves as it is told. Needs a camera model.",
        (
            *PROMPTS,
            *SIZE,
            *STEPS,
            Port("camera", "COMBO", "how it moves; file: as in camera_file", "zoom_in", choices=CAMERAS),
            Port("camera_speed", "FLOAT", "how many times as far", 1.0, 0.0, 20.0, 0.1),
            *STRENGTHS,
            Port("camera_file", "STRING", "a path (.txt), or a video that shows one", "", optional=True),
            LOOK,
        ),
        OUTPUTS,
        camera_to_video,
    ),
    Node(
        "SelectsTrajectoryToVideo",
        "Trajectory to video (Selects)",
        "A video in which things follow points. Needs a control model that was trained on trajectories.",
        (
            *PROMPTS,
            *SIZE,
            *STEPS,
            Port("points", "STRING", "JSON of points in pixels: [[x, y], …], or a spline editor's", "", lines=True),
            *STRENGTHS,
            LOOK,
        ),
        OUTPUTS,
        trajectory_to_video,
    ),
)
