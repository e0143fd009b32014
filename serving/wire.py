"""The words of the HTTP API, and what they mean to the sampler.

Names are those that OpenAI's video API and the servers after it use (`prompt`, `size`, `seconds`, `input_reference`,
`negative_prompt`, `num_inference_steps`, `guidance_scale`); what they lack has the sampler's own name.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from core.errors import UserError, renamed
from core.sanitize import LONGEST_CAPTION
from models.conditions.camera_path import PRESETS as CAMERAS
from sampling.model_facts import ModelFacts
from sampling.request import Request, SegmentPrompt

MEDIA = ("image", "end_image", "video", "mask", "control", "reference", "trajectory", "camera_file")
"""fields that hold a file"""
SIZE = r"^\d{1,5}x\d{1,5}$"
MOST_FRAMES = 10_000
MOST_STEPS = 1_000
MOST_PICTURES = 10
MOST_SEGMENTS = 1_000

Prompt = Annotated[str, Field(min_length=1, max_length=LONGEST_CAPTION)]
Medium = Annotated[
    str | None, Field(default=None, description="A data URL (`data:image/png;base64,…`), or a file in a form.")
]


class Stretch(BaseModel):
    """What a stretch of a long video shall show."""

    model_config = ConfigDict(extra="forbid")

    prompt: Prompt
    num_frames: int | None = Field(None, ge=1, le=MOST_FRAMES, description="How long; all have a length, or none.")


class VideoRequest(BaseModel):
    """What `POST /v1/videos` takes, as JSON or as the fields of a form."""

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra={"examples": [{"prompt": "a red disc rolls to the right", "size": "672x384", "seed": 3}]},
    )

    prompt: Prompt
    model: str | None = Field(None, max_length=200, description="A name of `GET /v1/models`; default: the first.")
    negative_prompt: str = Field("", max_length=LONGEST_CAPTION, description="What guidance leads away from.")
    seed: int = Field(0, ge=0, lt=1 << 63)
    size: str | None = Field(None, pattern=SIZE, description="WIDTHxHEIGHT in pixels; default: as trained.")
    seconds: float | None = Field(
        None,
        gt=0,
        le=3600,
        description="Length, rounded to what the model takes; in place of `num_frames`.",
    )
    num_frames: int | None = Field(None, ge=1, le=MOST_FRAMES, description="Frames of a segment; 1 makes a picture.")
    fps: float | None = Field(None, gt=0, le=240)
    num_inference_steps: int | None = Field(None, ge=1, le=MOST_STEPS, description="Denoising steps; default 50.")
    guidance_scale: float | None = Field(None, ge=0, le=100, description="1 or less: none; default 6.")
    sampler: str | None = Field(None, max_length=80)
    image: Medium = None
    end_image: Medium = None
    video: Medium = None
    mask: Medium = None
    input_reference: Medium = Field(None, description="The first frame: `image` under OpenAI's name.")
    control: Medium = None
    control_kind: str | None = Field(None, max_length=80, description="The map made of `control`; default: it is one.")
    reference: Medium = None
    camera: str | None = Field(None, description=f"One of {', '.join(CAMERAS)}.")
    camera_file: Medium = Field(None, description="A camera's path as text, or a video that shows one.")
    camera_speed: float | None = Field(None, ge=-100, le=100, description="How many times as far the camera goes.")
    trajectory: Medium = Field(None, description="Points that things follow, as JSON or CSV.")
    control_scale: float | None = Field(None, ge=-100, le=100)
    control_start: float | None = Field(None, ge=0, le=1, description="Share of the steps before which it rests.")
    control_end: float | None = Field(None, ge=0, le=1, description="Share of the steps from which on it rests.")
    strength: float | None = Field(None, ge=0, le=1, description="0 gives the video back, 1 forgets it.")
    segments: int | None = Field(None, ge=1, le=MOST_SEGMENTS)
    length: int | None = Field(None, ge=1, le=MOST_FRAMES, description="Frames in all, in place of `segments`.")
    overlap: int | None = Field(None, ge=1, le=MOST_FRAMES)
    prompts: list[Stretch] = Field(
        [],
        max_length=MOST_SEGMENTS,
        description="Of a long video: what its stretches show, in place of `prompt`; borders fall between segments.",
        examples=[[{"prompt": "a red disc", "num_frames": 49}, {"prompt": "a blue disc", "num_frames": 49}]],
    )
    loras: dict[str, float] = Field({}, max_length=16, description="Adapters of `GET /v1/models` with their strength.")
    user: str | None = Field(None, max_length=200, description="Taken and not used.")

    @model_validator(mode="before")
    @classmethod
    def _take_the_first(cls, values: Any) -> Any:
        """Let the first of `prompts` be the `prompt` where there is none: lists of jobs show it."""
        if not isinstance(values, dict) or not isinstance(values.get("prompts"), list) or values.get("prompt"):
            return values
        first = next((one for one in values["prompts"]), None)
        text = SegmentPrompt.parse(first).prompt if isinstance(first, str) else None
        text = first.get("prompt") if isinstance(first, dict) else text
        return {**values, "prompt": text} if isinstance(text, str) else values

    @field_validator("prompts", mode="before")
    @classmethod
    def _read_lines(cls, value: object) -> object:
        """Take texts as well, which may begin with their length: `49 | a red disc`."""
        if not isinstance(value, list):
            return value
        parsed = (SegmentPrompt.parse(one) if isinstance(one, str) else one for one in value)
        return [{"prompt": p.prompt, "num_frames": p.num_frames} if isinstance(p, SegmentPrompt) else p for p in parsed]

    @field_validator("camera")
    @classmethod
    def _refuse_paths(cls, value: str | None) -> str | None:
        """Take presets alone: a client's path is not opened here."""
        if value is not None and value not in CAMERAS:
            raise ValueError(f"must be one of {', '.join(CAMERAS)}; send a path's text as `camera_file`")
        return value

    @field_validator("fps", "seconds", "num_frames", "seed", "strength", "guidance_scale", mode="before")
    @classmethod
    def _refuse_words(cls, value: object) -> object:
        """Take `"4"` (OpenAI sends seconds so), not true and false."""
        if isinstance(value, bool):
            raise ValueError("must be a number")
        return value


class ImageRequest(BaseModel):
    """What `POST /v1/images/generations` takes."""

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra={"examples": [{"prompt": "a red disc", "size": "512x512", "seed": 3}]},
    )

    prompt: Prompt
    model: str | None = Field(None, max_length=200)
    negative_prompt: str = Field("", max_length=LONGEST_CAPTION)
    seed: int = Field(0, ge=0, lt=1 << 62)
    n: int = Field(1, ge=1, le=MOST_PICTURES, description="Pictures; each has the next seed.")
    size: str | None = Field(None, pattern=SIZE)
    num_inference_steps: int | None = Field(None, ge=1, le=MOST_STEPS)
    guidance_scale: float | None = Field(None, ge=0, le=100)
    sampler: str | None = Field(None, max_length=80)
    loras: dict[str, float] = Field({}, max_length=16)
    response_format: Literal["b64_json"] = "b64_json"
    user: str | None = Field(None, max_length=200, description="Taken and not used.")

    def frames(self) -> list[VideoRequest]:
        """Return a request of one frame for each picture."""
        shared = self.model_dump(exclude={"n", "response_format", "seed"})
        return [VideoRequest(**shared, seed=self.seed + place, num_frames=1) for place in range(self.n)]


def asked_of(request: VideoRequest, media: Mapping[str, str]) -> dict[str, Any]:
    """Return what is kept of a request: fields that were set, and the names of its files."""
    values = request.model_dump(exclude={*MEDIA, "input_reference", "model", "user"}, exclude_defaults=True)
    return {"prompt": request.prompt, **values, **media}


def request_of(asked: Mapping[str, Any], model: ModelFacts, folder: Path) -> Request:
    """Return the sampler's request.

    Args:
        asked: as `asked_of` returns it.
        model: whose rate and length `seconds` are measured with.
        folder: where the files lie that it names.

    Raises:
        UserError: fields that do not go together.
    """
    width, height = map(int, asked["size"].split("x")) if "size" in asked else (None, None)
    frames = {name: asked.get(name) for name in ("num_frames", "length")}
    if "seconds" in asked:
        if frames["num_frames"] or frames["length"] or asked.get("segments"):
            raise UserError("seconds: with num_frames, length or segments both say how long it shall be; give one")
        frames = _frames_of(
            asked["seconds"], float(asked.get("fps") or model.hints["fps"]), model, has_video="video" in asked
        )
    if "camera" in asked and "camera_file" in asked:
        raise UserError("with `camera_file`: both say how the camera moves; give one", field="camera")
    defaults = Request("")
    files = {name: folder / asked[name] if name in asked else None for name in MEDIA}
    return Request(
        prompt=asked["prompt"],
        negative=asked.get("negative_prompt", ""),
        seed=asked.get("seed", 0),
        width_px=width,
        height_px=height,
        fps=asked.get("fps"),
        steps=asked.get("num_inference_steps", defaults.steps),
        guidance=asked.get("guidance_scale", defaults.guidance),
        sampler=asked.get("sampler"),
        strength=asked.get("strength"),
        segments=asked.get("segments"),
        overlap=asked.get("overlap"),
        prompts=tuple(SegmentPrompt(one["prompt"], one.get("num_frames")) for one in asked.get("prompts", ())),
        num_frames=frames["num_frames"],
        length=frames["length"],
        image=files["image"],
        end_image=files["end_image"],
        video=files["video"],
        mask=files["mask"],
        control=files["control"],
        control_kind=asked.get("control_kind", defaults.control_kind),
        reference=files["reference"],
        camera=asked.get("camera") if files["camera_file"] is None else str(files["camera_file"]),
        camera_speed=asked.get("camera_speed", defaults.camera_speed),
        trajectory=files["trajectory"],
        control_scale=asked.get("control_scale", defaults.control_scale),
        control_start=asked.get("control_start", defaults.control_start),
        control_end=asked.get("control_end", defaults.control_end),
    )


def _frames_of(seconds: float, fps: float, model: ModelFacts, *, has_video: bool) -> dict[str, int | None]:
    """Return frames for a time: of one segment where the model makes as many, else of a video that is continued."""
    wanted = max(1, round(seconds * fps))
    if wanted <= int(model.hints["num_frames"]) or has_video:
        below, above = model.grid.nearest_frames(wanted)
        return {"num_frames": below if wanted - below <= above - wanted else above, "length": None}
    return {"num_frames": None, "length": wanted}


FIELDS = {
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "lora": "loras",
    "negative": "negative_prompt",
    "width_px": "size",
    "height_px": "size",
}
"""names that the sampler's own fields have here, where they have others"""


def said(error: Exception) -> tuple[str, str | None]:
    """Return an error of the sampler in the words of this API, and the field of the request that it speaks of."""
    field = FIELDS.get(error.field or "", error.field) if isinstance(error, UserError) else None
    if field is None:  # many texts begin with the field
        first = re.match(r"(?:--)?([a-z][a-z_-]*)", str(error))
        name = first[1].replace("-", "_") if first else ""
        field = FIELDS.get(name, name) if FIELDS.get(name, name) in VideoRequest.model_fields else None
    return error.line(FIELDS) if isinstance(error, UserError) else renamed(str(error), FIELDS), field
