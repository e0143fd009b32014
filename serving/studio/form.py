"""The values of the Generate form: to a request, and back from a job or from a file's settings."""

import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from models.conditions.camera_path import PRESETS as CAMERAS
from sampling.request import SegmentPrompt
from serving.faults import ApiError, invalid
from serving.ledger import Job
from serving.offered import Offered
from serving.wire import MEDIA, VideoRequest

PLAIN = (
    "model", "prompt", "negative_prompt", "seed", "width", "height", "num_frames", "fps", "num_inference_steps",
    "guidance_scale", "sampler", "strength", "segments", "length", "overlap", "prompts", "control_kind",
    "control_scale", "control_start", "control_end", "camera", "camera_speed",
)  # fmt: skip
"""fields that hold a text, which may be a number, in the order of the form's controls"""
STEERING = ("control_kind", "control_scale", "control_start", "control_end", "camera", "camera_speed")
NEW_SEEDS = 1 << 31
KEPT_NAME = re.compile(r"[0-9a-f]{32}\.[a-z0-9]{3,4}", re.ASCII)
"""of an upload, as `uploads.keep` gives it"""
Values = dict[str, Any]
"""of the form: PLAIN, MEDIA (paths) and `loras` (strength by name)"""


def blank(model: str) -> Values:
    """Return the values of an empty form."""
    return dict.fromkeys((*PLAIN, *MEDIA)) | {"model": model, "prompt": "", "negative_prompt": "", "loras": {}}


def request_of_form(values: Values) -> VideoRequest:
    """Return the request, without its files; no seed asks for a new one.

    Raises:
        ApiError: fields that are not those of the API.
    """
    sent: dict[str, Any] = {
        name: text for name in PLAIN if (text := text_of(values[name])) and name not in ("width", "height")
    }
    width, height = text_of(values["width"]), text_of(values["height"])
    if width or height:
        if not width or not height:
            raise ApiError(422, "size: give width and height, or neither of them", "size")
        sent["size"] = f"{width}x{height}"
    if "prompts" in sent:
        sent["prompts"] = [line for line in sent["prompts"].splitlines() if line.strip()]
    sent.setdefault("seed", secrets.randbelow(NEW_SEEDS))
    sent["loras"] = {name: scale for name, scale in values["loras"].items() if scale}
    try:
        return VideoRequest.model_validate({"prompt": ""} | sent)
    except ValidationError as error:
        raise invalid(error, list(VideoRequest.model_fields)) from None


def text_of(value: Any) -> str:
    """Return what a control holds for a value: nothing for None, numbers with all their digits."""
    return "" if value is None else str(value).strip()


def files_of_form(values: Values) -> dict[str, bytes]:
    """Return the contents of the files that the form names; a painted mask is bytes already."""
    given = {name: values[name] for name in MEDIA if values[name]}
    return {name: one if isinstance(one, bytes) else Path(one).read_bytes() for name, one in given.items()}


def values_of_job(job: Job, folder: Path) -> Values:
    """Return the form that asks for a job again, exactly.

    Args:
        job: any.
        folder: where its files lie.
    """
    asked = dict(job.asked)
    values = blank(job.model) | {name: asked[name] for name in PLAIN if name in asked}
    if "size" in asked:
        values["width"], values["height"] = map(int, asked["size"].split("x"))
    values["prompts"] = _lines_of(asked.get("prompts"))
    values |= {name: str(folder / asked[name]) for name in MEDIA if name in asked}
    return values | {"seed": str(asked.get("seed", 0)), "loras": dict(asked.get("loras") or {})}


def _lines_of(prompts: Any) -> str | None:
    """Return prompts of segments as the form holds them, one a line; None where there are none."""
    parts = [one for one in prompts or () if isinstance(one, dict)]
    lines = (str(SegmentPrompt(str(one.get("prompt")), one.get("num_frames"))) for one in parts)
    return "\n".join(lines) or None


def values_of_settings(settings: Mapping[str, Any], offered: Offered, media_within: Path) -> tuple[Values, list[str]]:
    """Return the form that makes a file again, from what the file says, and what of it is not offered here.

    Args:
        settings: as `sampling.settings_file.settings_within` returns them.
        offered: models and adapters.
        media_within: the only folder whose files are taken for media.
    """
    left_out: list[str] = []
    model = offered.named(str(settings.get("model", "")))
    if model is None:
        left_out.append(Path(str(settings.get("model", "?"))).name)
    values = blank(model or offered.names[0])
    named = {
        "prompt": "prompt", "negative_prompt": "negative_prompt", "width": "width_px", "height": "height_px",
        "num_frames": "num_frames", "num_inference_steps": "steps", "guidance_scale": "guidance", "sampler": "sampler",
        "strength": "strength", "overlap": "overlap", **{name: name for name in STEERING},
    }  # fmt: skip
    values |= {name: settings[key] for name, key in named.items() if key in settings}
    values["seed"] = str(settings.get("seed", 0))
    if "video" not in settings:  # of a video that is shorter than asked the rate follows by itself
        values["fps"] = settings.get("fps")
    if "segments" in settings or "segment_frames" in settings:
        values |= {"num_frames": settings.get("segment_frames"), "length": settings["num_frames"]}
    values["prompts"] = _lines_of(settings.get("prompts"))
    camera = settings.get("camera")
    if camera is not None and camera not in CAMERAS:
        values["camera"], settings = None, {**settings, "camera_file": camera}
    for name in MEDIA:
        if name in settings:
            found = _medium(str(settings[name]), media_within)
            values[name] = None if found is None else str(found)
            left_out += [] if found else [Path(str(settings[name])).name]
    for lora in settings.get("loras") or []:
        known = offered.lora_named(str(lora.get("path")))
        if known is not None:
            values["loras"] = values["loras"] | {known: lora.get("scale", 1.0)}
        elif model is None or not _is_own(model, str(lora.get("path")), offered):
            left_out.append(Path(str(lora.get("path"))).name)
    return values, left_out


def _medium(text: str, within: Path) -> Path | None:
    """Return an upload of an earlier job, by its place or by its name, which says its content; None: there is none."""
    path = Path(text)
    if KEPT_NAME.fullmatch(text):
        return next(iter(sorted(within.glob(f"*/{text}"))), None)
    return path if path.is_file() and path.resolve().is_relative_to(within.resolve()) else None


def _is_own(model: str, lora: str, offered: Offered) -> bool:
    """Return whether a run brings an adapter along by itself."""
    own = [one.path for one, _ in offered.facts(model, ()).loras]
    return lora in {path.name for path in own} or Path(lora).resolve() in {path.resolve() for path in own}
