"""From a request to a job in the queue: fields checked, files kept, the sampler asked whether it can be."""

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import Request as HttpRequest
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from core.digest import digest
from core.errors import UserError
from core.files import make_folder
from models.errors import ModelError
from serving.faults import ApiError, invalid, refused
from serving.jobs import Jobs, QueueFull
from serving.ledger import Job, Ledger, new_job
from serving.offered import Offered
from serving.uploads import decode_data_url, keep
from serving.wire import MEDIA, VideoRequest, asked_of, request_of

MOST_FIELDS = 64
FILES = (*MEDIA, "input_reference")


@dataclasses.dataclass(frozen=True)
class Intake:
    """What takes requests.

    Attributes:
        offered: models and adapters.
        jobs: the queue.
        ledger: where jobs lie.
    """

    offered: Offered
    jobs: Jobs
    ledger: Ledger

    def submit(self, request: VideoRequest, files: Mapping[str, bytes]) -> Job:
        """Put a request into the queue.

        Args:
            request: its fields.
            files: contents by field; those of the request's data URLs are read here.

        Raises:
            ApiError: it cannot be, or the queue is full.
        """
        return self._queued([self._checked(request, self._contents(request, files))])[0]

    def submit_all(self, requests: Sequence[VideoRequest]) -> list[Job]:
        """Put all of some requests without files into the queue, or none.

        Raises:
            ApiError: one cannot be, or there is no room for all.
        """
        return self._queued([self._checked(request, {}) for request in requests])

    def _checked(self, request: VideoRequest, contents: Mapping[str, bytes]) -> Job:
        """Return a job that can be, with its files in its folder."""
        model = request.model or self.offered.names[0]
        job = new_job(model, {}, "")
        folder = self.ledger.place(job.job_id)
        try:
            asked = asked_of(request, self._keep(contents, folder))
            loras = self.offered.loras_of(request.loras)
            self.offered.plan(model, loras, request_of(asked, self.offered.facts(model, loras), folder))
            return dataclasses.replace(job, asked=asked, key=digest("job", model, asked))
        except (UserError, ModelError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            refusal = refused(error)
            raise dataclasses.replace(refusal, message=refusal.message.replace(f"{folder}/", "")) from None

    def _queued(self, jobs: Sequence[Job]) -> list[Job]:
        try:
            return self.jobs.submit_all(jobs)
        except QueueFull as full:
            for job in jobs:
                shutil.rmtree(self.ledger.place(job.job_id), ignore_errors=True)
            raise ApiError(429, str(full), retry_after_s=full.retry_after_s) from None

    def _contents(self, request: VideoRequest, files: Mapping[str, bytes]) -> dict[str, bytes]:
        try:
            sent = {name: decode_data_url(name, text) for name in FILES if (text := getattr(request, name))}
        except UserError as error:
            raise refused(error) from None
        found = {**sent, **files}
        if "input_reference" in found:
            if "image" in found:
                raise ApiError(400, "input_reference: is the image; send one of them", "input_reference")
            found["image"] = found.pop("input_reference")
        return found

    def _keep(self, contents: Mapping[str, bytes], folder: Path) -> dict[str, str]:
        if contents:
            make_folder(folder)
        return {name: keep(name, content, folder) for name, content in contents.items()}


async def read_request(http: HttpRequest) -> tuple[VideoRequest, dict[str, bytes]]:
    """Read a request for a video, which comes as JSON or as a form.

    Raises:
        ApiError: it is neither, or its fields are not those of the API.
    """
    kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    files: dict[str, bytes] = {}
    if kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
        values: dict[str, Any] = {}
        async with http.form(max_files=len(FILES), max_fields=MOST_FIELDS) as form:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    if name not in FILES:
                        raise ApiError(422, f"{name}: takes no file; files are {', '.join(FILES)}", name)
                    files[name] = await value.read()
                elif name in values:
                    raise ApiError(422, f"{name}: is given twice", name)
                else:
                    values[name] = value
        for name in ("loras", "prompts"):
            if isinstance(values.get(name), str):
                values[name] = _json(values[name].encode(), name)
    elif kind == "application/json":
        values = _json(await http.body(), None)
    else:
        raise ApiError(415, "content-type: send JSON (application/json) or a form (multipart/form-data)")
    if not isinstance(values, dict):
        raise ApiError(422, "the request is no JSON object")
    try:
        return VideoRequest.model_validate(values), files
    except ValidationError as error:
        raise invalid(error, list(VideoRequest.model_fields)) from None


def _json(text: bytes, field: str | None) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ApiError(422, f"{field or 'the request'}: cannot be read as JSON", field) from None
