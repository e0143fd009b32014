"""EasyAnimate's own three routes with their field names, for clients that were written for them.

Its server (EasyAnimate, `api/api.py`) answers errors with status 200 and a message; here they have their status. Media
are base64 in JSON, and the sample comes back so. What chooses files of the server's machine is taken where it names
what is served, and refused where it does not.
"""

import base64
from typing import Any

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from models.denoise.objectives import objective_of
from models.denoise.samplers import SAMPLERS
from serving.faults import ERRORS, ApiError, invalid
from serving.intake import Intake
from serving.ledger import Job
from serving.offered import Offered
from serving.wire import VideoRequest

IGNORED_NONE = ("", "none", "None")


class Forward(BaseModel):
    """What `/easyanimate/infer_forward` takes; fields of its page that do nothing here are taken and not used."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, protected_namespaces=())

    prompt_textbox: str
    negative_prompt_textbox: str = ""
    base_model_path: str = "none"
    lora_model_path: str = "none"
    lora_alpha_slider: float = 0.55
    sampler_dropdown: str = ""
    sample_step_slider: int = 30
    width_slider: int = 672
    height_slider: int = 384
    is_image: bool = False
    generation_method: str = "Video Generation"
    length_slider: int = 49
    overlap_video_length: int | None = None  # None: the family's own; its page's 4 is none that V2, V5 and V5.1 take
    partial_video_length: int = 72
    cfg_scale_slider: float = 6.0
    start_image: str | None = None
    end_image: str | None = None
    validation_video: str | None = None
    validation_video_mask: str | None = None
    denoise_strength: float = 0.7
    seed_textbox: int | str = 43

    def request(self, offered: Offered) -> VideoRequest:
        """Return the request in our words.

        Args:
            offered: names of models and adapters.

        Raises:
            ApiError: it names a model or an adapter that is not served.
        """
        picture = self.is_image or self.generation_method == "Image Generation"
        long = self.generation_method == "Long Video Generation"
        video = _data_url(self.validation_video, "video/mp4")
        values: dict[str, Any] = {
            "prompt": self.prompt_textbox,
            "negative_prompt": self.negative_prompt_textbox,
            "num_inference_steps": self.sample_step_slider,
            "guidance_scale": self.cfg_scale_slider,
            "size": f"{self.width_slider}x{self.height_slider}",
            "seed": max(0, int(self.seed_textbox)),
            "num_frames": 1 if picture else self.partial_video_length if long else self.length_slider,
            "length": self.length_slider if long and not picture else None,
            "overlap": self.overlap_video_length if long and not picture else None,
            "image": _data_url(self.start_image, "image/png"),
            "end_image": _data_url(self.end_image, "image/png"),
            "video": video,
            "mask": _data_url(self.validation_video_mask, "image/png"),
            "strength": self.denoise_strength if video else None,
        }
        model = offered.names[0]
        if self.base_model_path not in IGNORED_NONE:
            values["model"] = model = _named(self.base_model_path, offered.names, "base_model_path")
        if self.lora_model_path not in IGNORED_NONE:
            adapter = _named(self.lora_model_path, offered.lora_names, "lora_model_path")
            values["loras"] = {adapter: self.lora_alpha_slider}
        kind = objective_of(offered.facts(model, ()).scheduler)
        sampler = SAMPLER_NAMES.get(self.sampler_dropdown)
        if sampler is not None and kind in SAMPLERS[sampler].objectives:
            values["sampler"] = sampler
        return VideoRequest(**{name: value for name, value in values.items() if value is not None})


SAMPLER_NAMES = {"Euler": "euler", "Euler A": "euler_a", "DPM++": "dpm++", "PNDM": "pndm", "DDIM": "ddim"}
"""its names of samplers; where one does not fit the weights (its own default does not) their first is taken"""


class ForwardAnswer(BaseModel):
    """What `/easyanimate/infer_forward` answers.

    Attributes:
        message: `Success`.
        save_sample_path: the file's address on this server, without the host.
        base64_encoding: the file.
    """

    message: str
    save_sample_path: str
    base64_encoding: str


class Update(BaseModel):
    """What the other two routes take."""

    model_config = ConfigDict(extra="ignore")

    edition: str | None = Field(None, max_length=200)
    diffusion_transformer_path: str | None = Field(None, max_length=1000)


class UpdateAnswer(BaseModel):
    """What they answer."""

    message: str


def add_aliases(app: FastAPI, intake: Intake, ended: Any) -> None:
    """Add the three routes.

    Args:
        app: to which.
        intake: takes requests.
        ended: an async function from the HTTP request, the intake and a job to the job once it has ended.
    """

    @app.post("/easyanimate/infer_forward", responses=ERRORS)
    async def infer_forward(request: Forward, http: Request) -> ForwardAnswer:
        """Make a video and return it in base64."""
        try:
            asked = request.request(intake.offered)
        except ValidationError as error:
            raise invalid(error, list(VideoRequest.model_fields)) from None
        except ValueError:
            raise ApiError(422, "seed_textbox: must be a number", "seed_textbox") from None
        job: Job = await ended(http, intake, await run_in_threadpool(intake.submit, asked, {}))
        file = intake.ledger.result(job)
        if file is None:
            raise ApiError(400, f"the sample was {job.status}")
        content = await run_in_threadpool(file.read_bytes)
        address = f"/v1/videos/{job.job_id}/content"
        text = base64.b64encode(content).decode()
        return ForwardAnswer(message="Success", save_sample_path=address, base64_encoding=text)

    @app.post("/easyanimate/update_edition", responses=ERRORS)
    def update_edition(request: Update) -> UpdateAnswer:
        """Accept an edition; models bring their own facts, so that nothing has to be chosen."""
        return UpdateAnswer(message="Success")

    @app.post("/easyanimate/update_diffusion_transformer", responses=ERRORS)
    def update_diffusion_transformer(request: Update) -> UpdateAnswer:
        """Accept the name of a model that is served; requests name theirs as `base_model_path`."""
        if request.diffusion_transformer_path not in (None, *IGNORED_NONE):
            _named(request.diffusion_transformer_path, intake.offered.names, "diffusion_transformer_path")
        return UpdateAnswer(message="Success")


def _named(path: str, names: tuple[str, ...], field: str) -> str:
    name = path.rstrip("/").rpartition("/")[2]
    for known in names:
        if name in (known, f"{known}.safetensors"):
            return known
    raise ApiError(400, f"{field}: is not served here (served: {', '.join(names) or 'none'})", field)


def _data_url(text: str | None, kind: str) -> str | None:
    if not text:
        return None
    return text if text.startswith("data:") else f"data:{kind};base64,{text}"
