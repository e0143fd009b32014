"""What the routes answer with."""

from typing import Any, Literal

from pydantic import BaseModel

from sampling.settings_file import is_place
from serving.faults import as_json
from serving.ledger import Job, Status


class Video(BaseModel):
    """A job and how far it is.

    Attributes:
        id: its name in addresses.
        object: `video`.
        model: which makes it.
        status: `queued`, `in_progress`, `completed`, `failed` or `cancelled`.
        progress: percent.
        prompt: what was asked for.
        created_at: Unix time.
        started_at: Unix time.
        completed_at: Unix time at which it ended, however it did.
        size: WIDTHxHEIGHT, once it is known.
        seconds: length, once it is known.
        settings: what the file was made with, as it is written in it.
        notes: what there is to say about it.
        error: why it failed.
    """

    id: str
    object: Literal["video"] = "video"
    model: str
    status: Status
    progress: int
    prompt: str
    created_at: int
    started_at: int | None = None
    completed_at: int | None = None
    size: str | None = None
    seconds: str | None = None
    settings: dict[str, Any] | None = None
    notes: list[str] = []
    error: dict[str, Any] | None = None


class Videos(BaseModel):
    """A page of jobs, newest first."""

    object: Literal["list"] = "list"
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Removed(BaseModel):
    """A job that is gone, with its files."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: bool = True


class ModelEntry(BaseModel):
    """A model that is served.

    Attributes:
        id: its name.
        object: `model`.
        owned_by: who serves it.
        created: Unix time; of no meaning here.
        width_px: what it was trained for.
        height_px: what it was trained for.
        num_frames: what it was trained for.
        fps: what it was trained for.
        takes: modes.
        loras: adapters that requests may name.
    """

    id: str
    object: Literal["model"] = "model"
    owned_by: str = "selects"
    created: int = 0
    width_px: int
    height_px: int
    num_frames: int
    fps: float
    takes: list[str]
    loras: list[str]


class ModelList(BaseModel):
    """The models that are served."""

    object: Literal["list"] = "list"
    data: list[ModelEntry]


class Picture(BaseModel):
    """A PNG in base64."""

    b64_json: str


class Pictures(BaseModel):
    """Pictures that were made."""

    created: int
    data: list[Picture]


class Health(BaseModel):
    """How the server is.

    Attributes:
        status: `ok`.
        waiting: jobs in the queue.
    """

    status: Literal["ok"] = "ok"
    waiting: int


def video_of(job: Job) -> Video:
    """Return a job as clients see it."""
    made = job.settings
    has_size = "width_px" in made and "height_px" in made
    return Video(
        id=job.job_id,
        model=job.model,
        status=job.status,
        progress=job.progress,
        prompt=job.asked["prompt"],
        created_at=int(job.created_s),
        started_at=None if job.started_s is None else int(job.started_s),
        completed_at=None if job.ended_s is None else int(job.ended_s),
        size=f"{made['width_px']}x{made['height_px']}" if has_size else None,
        seconds=f"{made['num_frames'] / made['fps']:g}" if "fps" in made else None,
        settings=_without_paths(made) or None,
        notes=list(job.notes),
        error=as_json(job.fault) if job.fault else None,
    )


def _without_paths(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings without the places of this machine's folders."""
    return {name: value for name, value in settings.items() if name != "loras" and not is_place(name, value)}
