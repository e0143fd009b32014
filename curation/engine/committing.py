"""A runner around another one: what its workers write is committed to a bucket meanwhile."""

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass

from core.errors import RunError
from core.progress import Display, Tally
from curation.engine.runners import Runner
from curation.output.remote import RemoteOutput
from curation.step_spec import Step
from curation.types import Row
from curation.work import Plan


@dataclass(frozen=True)
class CommittingRunner:
    """Does what another runner does.

    Attributes:
        inner: the runner.
        output: what is committed.
    """

    inner: Runner
    output: RemoteOutput

    def prepare(self, plan: Plan, steps: list[Step]) -> None:
        """Get the inner runner ready."""
        self.inner.prepare(plan, steps)

    def run(self, plan: Plan, steps: list[Step], rows: Collection[Row], display: Display) -> Tally:
        """Do the steps; where another process has taken the output, nothing new is started."""
        stop: Callable[[], None] = plan.stop_file.touch
        try:
            with self.output.committing(on_loss=stop):
                tally = self.inner.run(plan, steps, rows, display)
        except (RunError, KeyboardInterrupt):
            with suppress(RunError):  # what other nodes have finished is folded, too
                self.output.receive()
            raise
        self.output.receive()
        return tally
