"""What the steps ask of the media processes, with an eye on failures, bugs and the wish to stop."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from curation.errors import MediaError
from curation.isolate import InternalError, media_pool
from curation.outside_text import without_secrets
from curation.progress import Done, Report
from curation.types import Row, Source
from curation.work import Plan, Task, source_of


class SourceFailed(Exception):
    """A media task ended without a result, for a reason that becomes a failed row."""

    def __init__(self, error: MediaError):
        """Keep what was said of the source."""
        self.error = error


class Stopped(Exception):
    """The run is to end and this task was not worth waiting for."""


class MediaTasks:
    """Media tasks that report what they do; bugs of ours become failed rows that are told of.

    Tasks that begin something new are not started, or given up midway, once the run is to stop.
    """

    def __init__(self, plan: Plan, step: str, report: Report, begins: bool = False):
        """Serve one step; `begins` says that its tasks begin something new."""
        self._plan, self._report, self._step, self._begins = plan, report, step, begins
        self._tasks = lru_cache(64)(self._probe_again)

    def run(self, name: str, *arguments: object) -> Iterator[Any]:
        """Run a task of `curation.child` and give its results as they come.

        Raises:
            SourceFailed: the source cannot be read, or a bug of ours was told of.
            OutputError: what the task makes cannot be written.
            Stopped: the run is to end.
        """
        self._look_for_stop()
        try:
            yield from media_pool(self._plan).run(self._beat, self._spent, name, *arguments)
        except MediaError as error:
            raise SourceFailed(error) from None
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

    def _look_for_stop(self) -> None:
        if self._begins and self._plan.stop_file.exists():
            raise Stopped

    def _beat(self, seconds: float) -> None:
        self._look_for_stop()
        if seconds:
            self._report(Done(self._step, video_s=seconds))

    def _spent(self, cpu_s: dict[str, float]) -> None:
        self._report(Done(self._step, cpu_s=cpu_s))
