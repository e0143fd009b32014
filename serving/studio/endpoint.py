"""The page's one public function, `/generate`, for programs that speak Gradio (`gradio_client`).

It takes what most requests need; all else is asked of the HTTP API beside it.
"""

import time
from pathlib import Path
from typing import Any

import gradio as gr
from pydantic import ValidationError

from serving.faults import ApiError, invalid
from serving.ledger import Job
from serving.studio.desk import Desk
from serving.studio.showing import shareable
from serving.wire import VideoRequest

LOOK_EVERY_S = 0.15
AT_ONCE = 16
"""calls that wait for their job, beside the jobs' own queue"""


def add_endpoint(desk: Desk) -> None:
    """Add the function to the page that is being built; nothing of it is shown."""
    with gr.Column(visible=False):
        words = gr.Textbox("", label="prompt")
        more = gr.JSON({}, label="settings: other fields of POST /v1/videos, such as size, seed and num_frames")
        first = gr.File(None, label="image: the first frame", file_types=["image"])
        file = gr.File(None, label="the video (.mp4) or picture (.png)")
        made = gr.JSON(None, label="what it was made with")
        go = gr.Button(visible=False)

    def generate(
        prompt: str,
        settings: dict[str, Any] | None = None,
        image: str | None = None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 Gradio finds it by this default
    ) -> tuple[str, dict[str, Any]]:
        """Make a video from a text, and a first frame if there is one; wait for it and return its file."""
        try:
            request = VideoRequest.model_validate({**(settings or {}), "prompt": prompt})
            files = {} if image is None else {"image": Path(image).read_bytes()}
            job = _ended(desk, desk.intake.submit(request, files), progress)
        except ValidationError as error:
            raise gr.Error(invalid(error, list(VideoRequest.model_fields)).message, print_exception=False) from None
        except ApiError as error:
            raise gr.Error(error.message, print_exception=False) from None
        path = desk.result(job)
        if path is None:
            problem = job.fault.problem if job.fault else f"the job was {job.status}"
            raise gr.Error(problem, print_exception=False)
        return path, shareable(job.settings)

    go.click(
        generate, [words, more, first], [file, made], api_name="generate", api_visibility="public",
        concurrency_limit=AT_ONCE, show_progress="hidden",
    )  # fmt: skip


def _ended(desk: Desk, job: Job, progress: gr.Progress) -> Job:
    """Return a job once it has ended, and tell how far it is.

    Raises:
        ApiError: it was removed.
    """
    while not job.has_ended:
        if job.steps:
            progress((job.steps_done, job.steps), unit="steps")
        time.sleep(LOOK_EVERY_S)
        later = desk.intake.jobs.get(job.job_id)
        if later is None:
            raise ApiError(404, "the job was removed")
        job = later
    return job
