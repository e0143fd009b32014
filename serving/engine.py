"""The thread that samples: one job after the other, with one model in memory."""

import contextlib
import gc
import threading
import traceback
from dataclasses import replace

import numpy as np
import torch

from core.digest import digest
from core.errors import RunError, UserError
from core.sanitize import printable, printable_lines, without_secrets
from models.accelerator import free_memory
from models.errors import ModelError
from sampling.files import write_sample
from sampling.model import OpenModel
from sampling.request import Lora
from sampling.settings_file import without_places
from serving.jobs import Cancelled, Jobs, failed
from serving.ledger import Fault, Job, Ledger
from serving.offered import Offered
from serving.wire import MEDIA, request_of

IDLE_S = 0.5
"""how long the thread sleeps before it looks whether it shall end"""


class Engine:
    """Takes jobs from the queue and samples them, in a thread of its own."""

    def __init__(self, jobs: Jobs, ledger: Ledger, models: Offered, threads: int = 1, *, previews: bool = False):
        """Start nothing yet.

        Args:
            jobs: the queue.
            ledger: where jobs lie.
            models: what is offered.
            threads: of the CPU.
            previews: whether small pictures of the running job are kept.
        """
        self._jobs, self._ledger, self._models, self._threads = jobs, ledger, models, threads
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._open: tuple[str, tuple[Lora, ...], OpenModel] | None = None
        self._previews = previews
        self._seen: tuple[str, np.ndarray] | None = None

    def start(self) -> None:
        """Begin to take jobs."""
        self._thread.start()

    def stop(self, timeout_s: float = 30.0) -> None:
        """Take no further job; the running one waits again when the server starts anew."""
        self._ends.set()
        self._thread.join(timeout_s)

    @property
    def is_alive(self) -> bool:
        """Whether jobs are taken."""
        return self._thread.is_alive()

    def preview(self, job_id: str) -> np.ndarray | None:
        """Return small pictures of a job after its last step, uint8 (F, h, w, 3); None where there are none."""
        seen = self._seen
        return seen[1] if seen is not None and seen[0] == job_id else None

    def _run(self) -> None:
        torch.set_num_threads(max(1, self._threads))
        with contextlib.suppress(_Stopped):
            while not self._ends.is_set():
                job = self._jobs.take(IDLE_S)
                if job is not None:
                    self._do(job)

    def _do(self, job: Job) -> None:
        try:
            file, settings, notes = self._sample(job)
        except Cancelled:
            self._jobs.end(job.job_id, lambda ended: replace(ended, status="cancelled"))
        except (UserError, ModelError, RunError, OSError) as error:
            self._jobs.end(job.job_id, failed(error))
        except Exception as bug:  # one job's bug must not end those that wait
            words = printable(without_secrets(f"{type(bug).__name__}: {bug}"), 400)
            fault = Fault(f"internal error: {words}", fix="look at the server's log")
            self._jobs.end(job.job_id, lambda ended: replace(ended, status="failed", fault=fault))
            _log(bug)
        else:
            self._jobs.end(
                job.job_id,
                lambda ended: replace(
                    ended, status="completed", file=file, settings=settings, notes=notes, steps_done=ended.steps
                ),
            )

    def _sample(self, job: Job) -> tuple[str, dict[str, object], tuple[str, ...]]:
        loras = self._models.loras_of(job.asked.get("loras") or {})
        request = request_of(job.asked, self._models.facts(job.model, loras), self._ledger.place(job.job_id))
        model = self._opened(job.model, loras)

        def progress(done: int, steps: int) -> None:
            if self._ends.is_set():
                raise _Stopped
            self._jobs.report(job.job_id, done, steps)

        planned = model.check(request)
        self._jobs.report(job.job_id, 0, 0)  # ends it here if it was cancelled before

        def keep(pictures: np.ndarray) -> None:
            self._seen = (job.job_id, pictures)

        made = model.sample(planned, progress, keep if self._previews else None)
        target = self._ledger.place(job.job_id) / ("result.png" if planned.length == 1 else "result.mp4")
        settings = self._models.under_names(made.settings, job.model)
        if any(name in job.asked for name in MEDIA):
            # Uploads lie with their job under the names of their contents: where they lie must not change the file.
            settings["request_id"] = digest("served", without_places(settings | {"request_id": None}))
        write_sample(replace(made, settings=settings), target)
        return target.name, settings, tuple(model.take_notes())

    def _opened(self, name: str, loras: tuple[Lora, ...]) -> OpenModel:
        if self._open is None or self._open[:2] != (name, loras):
            self._open = None
            gc.collect()  # modules refer to each other in circles
            free_memory()
            self._open = (name, loras, self._models.open(name, loras))
        return self._open[2]


class _Stopped(BaseException):
    """The server ends: raised within a job, between two steps."""


def _log(bug: BaseException) -> None:
    print(printable_lines(without_secrets("".join(traceback.format_exception(bug)))), flush=True)
