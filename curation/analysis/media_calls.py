"""What the steps ask of the media processes, with an eye on failures, bugs and the wish to stop."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

from core.errors import MediaError
from core.progress import Done, Report
from core.sanitize import without_secrets
from core.storage.staging import staged
from core.storage.store import StoreError
from curation.analysis.look import budget_bytes, expect_size
from curation.analysis.read_ahead import ReadAhead
from curation.gpus import booked_gpus
from curation.inputs.sources import name_problem
from curation.types import Row, Source
from curation.work import Plan, Task, source_of
from media.sandbox import InternalError, MediaProcess, Sandbox
from media.types import Heartbeat

GPU_MEMORY_GB = 8.0
"""what torch and the GPU's libraries allocate of the machine's memory, beside the decoder"""
TASKS = "curation.analysis.tasks"
"""module that media processes of a run serve"""


def sandbox_of(plan: Plan) -> Sandbox:
    """Return what the media processes of a run are; one that draws maps on a GPU may allocate more."""
    limits = plan.recipe.limits
    if any(booked_gpus(control, 0.0) for control in plan.recipe.controls.values()):
        limits = replace(limits, memory_gb=limits.memory_gb + GPU_MEMORY_GB)
    return Sandbox(TASKS, plan, limits)


class MediaPool:
    """The media processes of one worker: an idle one serves the next task, of whatever step."""

    def __init__(self, plan: Plan):
        """Start with none."""
        self.plan = plan
        self._idle: list[MediaProcess] = []
        self._lock = threading.Lock()

    def run(
        self, on_beat: Heartbeat, on_cpu: Callable[[dict[str, float]], None], name: str, *args: Any
    ) -> Iterator[Any]:
        """Run a task as `MediaProcess.run` does; `on_cpu` is told its CPU seconds by step at the end."""
        with self._lock:
            process = self._idle.pop() if self._idle else None
        process = process or MediaProcess(sandbox_of(self.plan))
        try:
            yield from process.run(on_beat, name, *args)
        finally:
            spent, process.cpu_s = process.cpu_s, {}
            on_cpu(spent)
            self._idle.append(process)

    def close(self) -> None:
        """End the processes."""
        while self._idle:
            self._idle.pop().close()


_pools: list[MediaPool] = []  # of this process; at most one, of the run that it works for
_pools_lock = threading.Lock()


def media_pool(plan: Plan) -> MediaPool:
    """Return this worker's media processes for a run; those of an earlier run are ended."""
    with _pools_lock:
        if not _pools or _pools[0].plan.run != plan.run:
            close_media()
            _pools.append(MediaPool(plan))
        return _pools[0]


def close_media() -> None:
    """End this worker's media processes."""
    while _pools:
        _pools.pop().close()


class SourceFailed(Exception):
    """A media task ended without a result, for a reason that becomes a failed row."""

    def __init__(self, error: MediaError):
        """Keep what was said of the source."""
        self.error = error


class Stopped(Exception):
    """The run is to end and this task was not worth waiting for."""


class MediaCalls:
    """Media tasks that report what they do; bugs of ours become failed rows that are reported.

    Tasks that begin something new are not started, or given up midway, once the run is to stop.
    """

    def __init__(self, plan: Plan, step: str, report: Report, *, begins: bool = False):
        """Serve one step; `begins` says that its tasks begin something new."""
        self._plan, self._report, self._step, self._begins = plan, report, step, begins
        self._tasks = lru_cache(64)(self._probe_again)
        self._ahead: ReadAhead | None = None
        self._is_given_up = False

    def run(self, name: str, *arguments: object) -> Iterator[Any]:
        """Run a task of `curation.analysis.tasks` and give its results as they come.

        Raises:
            SourceFailed: the source cannot be read, or a bug of ours was reported.
            OutputError: what the task makes cannot be written.
            Stopped: the run is to end.
        """
        self._look_for_stop()
        try:
            with self._at_hand(name, arguments):
                yield from media_pool(self._plan).run(self._beat, self._spent, name, *arguments)
        except MediaError as error:
            raise SourceFailed(error) from None
        except StoreError as error:
            raise SourceFailed(MediaError(str(error), is_transient=error.is_transient)) from None
        except InternalError as bug:
            self._report(Done(self._step, problems=(without_secrets(str(bug)),)))
            raise SourceFailed(MediaError(f"internal error: {str(bug).strip().splitlines()[-1]}")) from None

    def one(self, name: str, *arguments: object) -> Any:
        """Run a task that has one result; raises as `run` does."""
        return list(self.run(name, *arguments))[0]

    def task_of(self, row: Row) -> Task:
        """Probe the source of a clip that an earlier run analysed; it must still hold the same content."""
        task = self._tasks(source_of(row))
        if task.source_id != row["source_id"]:
            raise SourceFailed(MediaError("the source has changed since it was analysed; curate it again"))
        return task

    def _probe_again(self, source: Source) -> Task:
        task: Task = list(self.run("probe", source))[0]
        return task

    @contextmanager
    def reading_ahead(self, sources: Sequence[Source]) -> Iterator[None]:
        """While the block runs and probes sources in this order, fetch those in buckets ahead of their turns."""
        ahead = [source for source in sources if _is_fetched(source)]
        if not ahead:
            yield
            return
        self._ahead, self._is_given_up = ReadAhead(self._fetching, ahead), False
        try:
            yield
        finally:
            self._is_given_up = True
            self._ahead.close()
            self._ahead, self._is_given_up = None, False

    @contextmanager
    def _at_hand(self, name: str, arguments: tuple[object, ...]) -> Iterator[None]:
        """Have the task's source on this node's disk while it runs; a local one is where it is."""
        sources = [each.source if isinstance(each, Task) else each for each in arguments]
        with ExitStack() as stack:
            for source in sources:
                if isinstance(source, Source) and _is_fetched(source):
                    if name != "probe":
                        stack.enter_context(staged(source.url, source.mtime_ns, self._fetched))
                    elif self._ahead is None:
                        stack.enter_context(self._fetching(source))
                    else:
                        stack.enter_context(self._ahead.at_hand(source))
            yield

    @contextmanager
    def _fetching(self, source: Source) -> Iterator[None]:
        """Look at a source in a bucket, and have it on this node's disk while the block runs.

        Raises:
            MediaError: it cannot be read, as fetching all of it would show.
            StoreError: the storage refuses.
        """
        self._look(source)
        with staged(source.url, source.mtime_ns, self._fetched):
            yield

    def _look(self, source: Source) -> None:
        if source.size_bytes:  # 0 where it could not be looked for: fetching tells why
            expect_size(source, self._plan.recipe.limits.max_file_gb)
        if not (most_bytes := budget_bytes(source)):
            return
        try:
            ((refusal, count),) = media_pool(self._plan).run(self._beat, self._spent, "look", source, most_bytes)
        except (MediaError, InternalError):  # whatever it is, it shows again once all of the source is here
            return
        self._report(Done(self._step, looked_bytes=count, looked_at_bytes=source.size_bytes))
        if refusal is not None:
            raise MediaError(refusal)

    def _fetched(self, count: int) -> None:
        if self._is_given_up:
            raise Stopped
        self._look_for_stop()
        self._report(Done(self._step, fetched_bytes=count))

    def _look_for_stop(self) -> None:
        if self._begins and self._plan.stop_file.exists():
            raise Stopped

    def _beat(self, seconds: float) -> None:
        self._look_for_stop()
        if seconds:
            self._report(Done(self._step, video_s=seconds))

    def _spent(self, cpu_s: dict[str, float]) -> None:
        self._report(Done(self._step, cpu_s=cpu_s))


def _is_fetched(source: Source) -> bool:
    """Return whether a source is copied to this node's disk before it is read."""
    return source.is_remote and name_problem(source) is None
