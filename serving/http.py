"""The routes of the HTTP API: jobs that make videos, in the shape that has become common.

`POST /v1/videos` (JSON or a form) puts a job into the queue; `GET /v1/videos/{id}` tells how far it is and
`/content` returns the file. `POST /v1/videos/sync` waits for it. OpenAI's client works with these routes.
"""

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
from fastapi import FastAPI, Query, Request
from fastapi.responses import FileResponse
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from core.machine import version_of
from serving.aliases import add_aliases
from serving.answers import (
    Health,
    ModelEntry,
    ModelList,
    Picture,
    Pictures,
    Removed,
    Video,
    Videos,
    video_of,
)  # fmt: skip
from serving.engine import Engine
from serving.faults import ERRORS, NOT_FOUND, ApiError, answer_errors, invalid
from serving.intake import Intake, read_request
from serving.ledger import Job
from serving.wire import ImageRequest, VideoRequest

LOOK_EVERY_S = 0.1
"""how often an answer that waits looks whether its job has ended"""
TYPES = {".mp4": "video/mp4", ".png": "image/png"}
JSON_OR_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            kind: {"schema": {"$ref": "#/components/schemas/VideoRequest"}}
            for kind in ("application/json", "multipart/form-data")
        },
    }
}
FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": {kind: {} for kind in TYPES.values()}, "description": "The file."}
}


def build_app(intake: Intake, engine: Engine) -> FastAPI:
    """Return the application; the engine runs as long as it does.

    Args:
        intake: takes requests.
        engine: samples.
    """
    app = FastAPI(title="Selects", version=version_of("selects-video") or "0", lifespan=_while_running(engine))
    answer_errors(app)
    _add_videos(app, intake)
    _add_rest(app, intake, engine)
    add_aliases(app, intake, _ended)
    describe = app.openapi
    app.openapi = lambda: _with_form(describe())  # type: ignore[method-assign]
    return app


def _while_running(engine: Engine) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        await run_in_threadpool(engine.stop)

    return run


def _add_videos(app: FastAPI, intake: Intake) -> None:
    jobs = intake.jobs

    @app.post("/v1/videos", responses=ERRORS, openapi_extra=JSON_OR_FORM)
    async def create_video(http: Request) -> Video:
        """Put a video into the queue."""
        request, files = await read_request(http)
        return video_of(await run_in_threadpool(intake.submit, request, files))

    @app.post("/v1/videos/sync", responses=ERRORS | FILE, openapi_extra=JSON_OR_FORM, response_class=FileResponse)
    async def create_video_and_wait(http: Request) -> FileResponse:
        """Make a video and return the file; whoever hangs up cancels it."""
        request, files = await read_request(http)
        job = await run_in_threadpool(intake.submit, request, files)
        return _file(intake, await _ended(http, intake, job))

    @app.get("/v1/videos", responses=ERRORS)
    def list_videos(
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        after: Annotated[str | None, Query(max_length=100, description="The `last_id` of the page before.")] = None,
        order: Literal["asc", "desc"] = "desc",
    ) -> Videos:
        """List videos, newest first."""
        every = jobs.newest_first()
        every = every if order == "desc" else every[::-1]
        names = [job.job_id for job in every]
        begin = names.index(after) + 1 if after in names else 0
        page = every[begin : begin + limit]
        first, last = (page[0].job_id, page[-1].job_id) if page else (None, None)
        more = begin + limit < len(every)
        return Videos(data=[video_of(job) for job in page], first_id=first, last_id=last, has_more=more)

    @app.get("/v1/videos/{video_id}", responses=ERRORS | NOT_FOUND)
    def retrieve_video(video_id: str) -> Video:
        """Report how far a video is."""
        return video_of(_known(intake, video_id))

    @app.get("/v1/videos/{video_id}/content", responses=ERRORS | NOT_FOUND | FILE, response_class=FileResponse)
    def download_video(video_id: str, variant: Literal["video", "thumbnail", "spritesheet"] = "video") -> FileResponse:
        """Return the file, or a contact sheet of it."""
        return _file(intake, _known(intake, video_id), variant)

    @app.post("/v1/videos/{video_id}/cancel", responses=ERRORS | NOT_FOUND)
    def cancel_video(video_id: str) -> Video:
        """Cancel a video: one that runs stops before its next step."""
        _known(intake, video_id)
        job = jobs.cancel(video_id)
        return video_of(job or _known(intake, video_id))

    @app.delete("/v1/videos/{video_id}", responses=ERRORS | NOT_FOUND)
    def delete_video(video_id: str) -> Removed:
        """Cancel a video and remove it with its files."""
        if not jobs.remove(video_id):
            raise _unknown(video_id)
        return Removed(id=video_id)


def _add_rest(app: FastAPI, intake: Intake, engine: Engine) -> None:
    @app.post("/v1/images/generations", responses=ERRORS)
    async def create_images(request: ImageRequest, http: Request) -> Pictures:
        """Make pictures and return them."""
        try:
            frames = request.frames()
        except ValidationError as error:
            raise invalid(error, list(ImageRequest.model_fields)) from None
        most = intake.jobs.most_waiting
        if request.n > most:
            raise ApiError(400, f"n: {request.n} are more than may wait here; ask for at most {most} at once", "n")
        made = await run_in_threadpool(intake.submit_all, frames)
        try:
            ended = [await _ended(http, intake, job) for job in made]
        except ApiError:
            for job in made:  # nobody gets the others
                intake.jobs.cancel(job.job_id)
            raise
        files = [_path(intake, job) for job in ended]
        pictures = [Picture(b64_json=base64.b64encode(path.read_bytes()).decode()) for path in files]
        return Pictures(created=int(ended[0].created_s), data=pictures)

    @app.get("/v1/models", responses=ERRORS)
    def list_models() -> ModelList:
        """List the models, the first of which is the default, with the adapters that requests may name."""
        return ModelList(data=[_entry(intake, name) for name in intake.offered.names])

    @app.get("/health", responses=ERRORS)
    def health() -> Health:
        """Report whether jobs are taken."""
        if not engine.is_alive:
            raise ApiError(503, "the server takes no jobs; start it again")
        return Health(waiting=intake.jobs.waiting)


async def _ended(http: Request, intake: Intake, job: Job) -> Job:
    """Return a job once it has ended.

    Raises:
        ApiError: it failed, was cancelled or removed.
    """
    while not job.has_ended:
        if await http.is_disconnected():
            intake.jobs.cancel(job.job_id)
            raise ApiError(400, "nobody waits for the answer any more")
        await anyio.sleep(LOOK_EVERY_S)
        job = _known(intake, job.job_id)
    if job.fault is not None:
        raise ApiError(400, job.fault.problem, job.fault.field)
    return job


def _known(intake: Intake, video_id: str) -> Job:
    job = intake.jobs.get(video_id)
    if job is None:
        raise _unknown(video_id)
    return job


def _unknown(video_id: str) -> ApiError:
    return ApiError(404, f"video '{video_id[:60]}': there is none; GET /v1/videos lists them", "video_id")


def _path(intake: Intake, job: Job) -> Path:
    path = intake.ledger.result(job)
    if path is None:
        raise ApiError(404, f"video '{job.job_id}' is {job.status}: it has no file", "video_id")
    return path


def _file(intake: Intake, job: Job, variant: str = "video") -> FileResponse:
    path = _path(intake, job)
    if variant != "video":
        path = path.with_suffix(".png")  # the contact sheet lies beside it
    return FileResponse(path, media_type=TYPES[path.suffix], filename=f"{job.job_id}{path.suffix}")


def _entry(intake: Intake, name: str) -> ModelEntry:
    facts = intake.offered.facts(name, ())
    takes = ["text", "image", "end_image", "video", "mask"] if facts.has_condition else ["text", "image", "video"]
    takes += [part for part in ("control", "camera", "reference") if part in facts.spec]
    hints = {key: facts.hints[key] for key in ("width_px", "height_px", "num_frames", "fps")}
    return ModelEntry(id=name, takes=takes, loras=list(intake.offered.lora_names), **hints)


def _with_form(description: dict[str, Any]) -> dict[str, Any]:
    """Add the request that two routes read themselves, since it comes as JSON or as a form."""
    schemas = description.setdefault("components", {}).setdefault("schemas", {})
    schemas.setdefault("VideoRequest", VideoRequest.model_json_schema(ref_template="#/components/schemas/{model}"))
    return description
