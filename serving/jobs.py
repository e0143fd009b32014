"""The queue of jobs: bounded, in the order they came; equal requests are computed once."""

import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

from core.files import atomic_path, make_folder
from serving.ledger import Fault, Job, Ledger
from serving.wire import said

KEPT = 1000
"""ended jobs whose files are kept; the oldest go first"""
WRITE_EVERY_S = 1.0
"""how often the steps of a running job reach the disk"""


class QueueFull(Exception):
    """No room for another job.

    Attributes:
        retry_after_s: when there may be some.
    """

    def __init__(self, retry_after_s: int):
        """Keep when to ask again."""
        super().__init__(f"the queue is full; ask again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class Cancelled(Exception):
    """A running job was cancelled: raised within it, between two steps."""


class Jobs:
    """All jobs, safe to be asked by several threads.

    Every change is on disk before anybody hears of it.
    """

    def __init__(self, ledger: Ledger, most_waiting: int, kept: int = KEPT):
        """Take up the jobs that an earlier server left.

        Args:
            ledger: where jobs lie.
            most_waiting: jobs that may wait; one more is refused.
            kept: ended jobs that are kept.
        """
        self._ledger, self._most_waiting, self._kept = ledger, most_waiting, kept
        self._jobs: OrderedDict[str, Job] = OrderedDict((job.job_id, job) for job in ledger.read())
        self._lock = threading.RLock()
        self._came = threading.Condition(self._lock)
        self._cancelled: set[str] = set()
        self._written_s = 0.0
        self._lasted_s: list[float] = []

    def submit(self, job: Job) -> Job:
        """Let a job wait, or answer it at once with the file of an equal one.

        Raises:
            QueueFull: as many wait as may.
        """
        return self.submit_all([job])[0]

    def submit_all(self, jobs: Sequence[Job]) -> list[Job]:
        """Let all of some jobs wait, or none; those that have an equal one are answered at once with its file.

        Raises:
            QueueFull: they are more than may wait.
        """
        with self._lock:
            done = [self._equal(job) for job in jobs]
            if self.waiting + done.count(None) > self._most_waiting:
                raise QueueFull(self._retry_after_s())
            taken = [self._answer(job, other) if other else job for job, other in zip(jobs, done, strict=True)]
            for job, other in zip(jobs, done, strict=True):
                if other is None:
                    self._put(job)
            self._came.notify()
            return taken

    @property
    def most_waiting(self) -> int:
        """How many may wait."""
        return self._most_waiting

    def get(self, job_id: str) -> Job | None:
        """Return a job, None where there is none of that name."""
        with self._lock:
            return self._jobs.get(job_id)

    def newest_first(self) -> list[Job]:
        """Return all jobs, newest first."""
        with self._lock:
            return list(reversed(self._jobs.values()))

    @property
    def waiting(self) -> int:
        """How many wait."""
        with self._lock:
            return sum(job.status == "queued" for job in self._jobs.values())

    def cancel(self, job_id: str) -> Job | None:
        """Cancel a job: one that waits ends at once, one that runs between two steps, one that ended stays so."""
        with self._lock:
            job = self._jobs.get(job_id)
            if job is not None and job.status == "queued":
                self._put(job := replace(job, status="cancelled", ended_s=time.time()))
            elif job is not None and job.status == "in_progress":
                self._cancelled.add(job_id)
            return job

    def remove(self, job_id: str) -> bool:
        """Cancel a job and remove it with its files; return whether there was one."""
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None:
                return False
            self._cancelled.add(job_id)
            del self._jobs[job_id]
            self._ledger.remove(job_id)
            return True

    # -- what the engine asks

    def take(self, timeout_s: float) -> Job | None:
        """Return the job that has waited longest, now running; None where none came."""
        with self._lock:
            self._came.wait_for(lambda: self.waiting > 0, timeout_s)
            for job in self._jobs.values():
                if job.status == "queued":
                    self._put(job := replace(job, status="in_progress", started_s=time.time()))
                    return job
            return None

    def report(self, job_id: str, steps_done: int, steps: int) -> None:
        """Note how far a running job is.

        Raises:
            Cancelled: it shall not go on.
        """
        with self._lock:
            if job_id in self._cancelled:
                raise Cancelled
            job = replace(self._jobs[job_id], steps_done=steps_done, steps=steps)
            self._jobs[job_id] = job
            now = time.monotonic()
            if now - self._written_s >= WRITE_EVERY_S:
                self._written_s = now
                self._ledger.write(job)

    def end(self, job_id: str, change: Callable[[Job], Job]) -> None:
        """Note how a running job ended; jobs equal to it that wait get its file. One that was removed is gone."""
        with self._lock:
            self._cancelled.discard(job_id)
            running = self._jobs.get(job_id)
            if running is None:
                self._ledger.remove(job_id)
                return
            done = replace(change(running), ended_s=time.time())
            self._put(done)
            if done.status == "completed":
                self._lasted_s = [*self._lasted_s[-9:], (done.ended_s or 0.0) - (done.started_s or 0.0)]
                for job in list(self._jobs.values()):
                    if job.status == "queued" and job.key == done.key:
                        self._answer(job, done)
            self._forget_oldest()

    # -- within

    def _put(self, job: Job) -> None:
        self._ledger.write(job)
        self._jobs[job.job_id] = job

    def _equal(self, job: Job) -> Job | None:
        for other in self._jobs.values():
            if other.key == job.key and other.status == "completed" and self._ledger.result(other):
                return other
        return None

    def _answer(self, job: Job, done: Job) -> Job:
        """Complete a job with the file of an equal one, which may be removed without harm to this one."""
        source = self._ledger.result(done)
        assert source is not None and done.file is not None
        folder = self._ledger.place(job.job_id)
        make_folder(folder)
        for path in sorted(source.parent.glob(f"{source.stem}.*")):
            with atomic_path(folder / path.name) as temporary:
                shutil.copyfile(path, temporary)
        now = time.time()
        job = replace(done, job_id=job.job_id, asked=job.asked, created_s=job.created_s, started_s=now, ended_s=now)
        self._put(job)
        return job

    def _retry_after_s(self) -> int:
        usual = sum(self._lasted_s) / len(self._lasted_s) if self._lasted_s else 10.0
        return max(1, min(600, round(usual)))

    def _forget_oldest(self) -> None:
        ended = [job.job_id for job in self._jobs.values() if job.has_ended]
        for job_id in ended[: max(0, len(ended) - self._kept)]:
            del self._jobs[job_id]
            self._ledger.remove(job_id)


def failed(error: Exception) -> Callable[[Job], Job]:
    """Return what a job becomes that an error of the request or the world ended."""
    words, field = said(error)
    return lambda job: replace(job, status="failed", fault=Fault(words, field))
