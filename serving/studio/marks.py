"""Errors beside the control that they concern."""

from collections.abc import Mapping
from html import escape

from core.sanitize import printable, without_secrets

MARKED = (
    "model", "prompt", "negative_prompt", "seed", "size", "num_frames", "fps", "num_inference_steps", "guidance_scale",
    "sampler", "image", "end_image", "video", "strength", "mask", "segments", "length", "overlap", "prompts", "loras",
    "control", "control_kind", "control_scale", "reference", "camera", "camera_speed", "trajectory", "general",
)  # fmt: skip
"""fields that have a place for a mark, and that for errors of no field"""
ALSO = {
    "seconds": "num_frames", "input_reference": "image", "camera_file": "camera", "control_start": "control_scale",
    "control_end": "control_scale",
}  # fmt: skip
LONGEST = 600


def place_of(field: str | None) -> str:
    """Return at which place an error of a field is marked; fields of maps have theirs (`loras.red` at `loras`)."""
    name = (field or "").partition(".")[0]
    name = ALSO.get(name, name)
    return name if name in MARKED else "general"


def marks_of(field: str | None, problem: str) -> Mapping[str, str]:
    """Return the HTML of every mark: that of one error, and none of the others."""
    text = escape(printable(without_secrets(_short(problem)), LONGEST))
    here = place_of(field)
    return {name: f'<p role="alert">{text}</p>' if name == here else "" for name in MARKED}


def no_marks() -> Mapping[str, str]:
    """Return the HTML of every mark where nothing is wrong."""
    return dict.fromkeys(MARKED, "")


def _short(problem: str) -> str:
    """Return a message without the dashes of the flag that it begins with, and without backticks around names."""
    return problem.removeprefix("--").replace("`", "")
