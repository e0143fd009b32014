"""Jobs as they lie on disk: one folder a job, whose files appear whole, so that jobs outlive the server."""

import json
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from core.files import atomic_write, make_folder, read_bounded

Status = Literal["queued", "in_progress", "completed", "failed", "cancelled"]
ENDED: frozenset[Status] = frozenset({"completed", "failed", "cancelled"})
FACTS = "job.json"
MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Fault:
    """Why a job failed, or what of a request cannot be.

    Attributes:
        problem: one line.
        field: the field of the request at fault, where one is.
        fix: what to do about it, where known.
    """

    problem: str
    field: str | None = None
    fix: str | None = None


@dataclass(frozen=True)
class Job:
    """One thing to be made, and how far it is.

    Attributes:
        job_id: its name, in addresses too.
        model: name of the model.
        asked: the request as fields and values; media by the names under which they were uploaded.
        key: equal for requests that make the same file.
        status: how far it is.
        created_s: Unix time.
        started_s: Unix time; None before.
        ended_s: Unix time; None before.
        steps_done: denoising steps.
        steps: denoising steps in all; 0 before it is known.
        file: name of the result within the job's folder; None before it is there.
        settings: what the result was made with.
        notes: what there is to tell of it: the memory mode and why, texts cut short.
        fault: why it failed; None where it did not.
    """

    job_id: str
    model: str
    asked: dict[str, Any]
    key: str
    status: Status = "queued"
    created_s: float = 0.0
    started_s: float | None = None
    ended_s: float | None = None
    steps_done: int = 0
    steps: int = 0
    file: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    fault: Fault | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.status in ENDED

    @property
    def progress(self) -> int:
        """Percent of the steps that are done."""
        if self.status == "completed":
            return 100
        return min(99, 100 * self.steps_done // self.steps) if self.steps else 0


def new_job(model: str, asked: dict[str, Any], key: str) -> Job:
    """Return a job that waits; its name cannot be guessed."""
    return Job(f"video_{uuid.uuid4().hex}", model, asked, key, created_s=time.time())


class Ledger:
    """The jobs' folders under one folder."""

    def __init__(self, folder: Path):
        """Make the folder where it is missing."""
        self._folder = folder
        make_folder(folder)

    @property
    def folder(self) -> Path:
        """Where the jobs' folders lie."""
        return self._folder

    def place(self, job_id: str) -> Path:
        """Return a job's folder."""
        return self._folder / job_id

    def write(self, job: Job) -> None:
        """Write a job, so that a kill leaves it as it was before or as it is now."""
        make_folder(self.place(job.job_id))
        atomic_write(self.place(job.job_id) / FACTS, json.dumps(asdict(job), ensure_ascii=False))

    def remove(self, job_id: str) -> None:
        """Remove a job with its files."""
        (self.place(job_id) / FACTS).unlink(missing_ok=True)  # first: without it the rest is no job
        shutil.rmtree(self.place(job_id), ignore_errors=True)

    def result(self, job: Job) -> Path | None:
        """Return a job's file, None where it is not there."""
        path = self.place(job.job_id) / job.file if job.file else None
        return path if path and path.is_file() else None

    def read(self) -> list[Job]:
        """Return the jobs of an earlier server, oldest first; what ran then waits again.

        A job whose file is gone has failed; a folder without a readable job is left alone.
        """
        return sorted(self._each(), key=lambda job: job.created_s)

    def _each(self) -> Iterator[Job]:
        for folder in self._folder.iterdir():
            try:
                job = _read(json.loads(read_bounded(folder / FACTS, MOST_BYTES)))
            except (OSError, ValueError, TypeError, KeyError, RecursionError):
                continue
            if job.job_id != folder.name:
                continue
            if job.status == "in_progress":
                job = replace(job, status="queued", started_s=None, steps_done=0)
                self.write(job)
            elif job.status == "completed" and self.result(job) is None:
                job = replace(job, status="failed", fault=Fault("its file is gone", fix="ask for it again"))
                self.write(job)
            yield job


def _read(values: dict[str, Any]) -> Job:
    fault = values.pop("fault")
    return Job(**values | {"notes": tuple(values["notes"]), "fault": Fault(**fault) if fault else None})
