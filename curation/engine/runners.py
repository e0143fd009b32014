"""Two ways to run the same steps: a plain loop, and one streaming Ray Data graph (in `ray_runner`)."""

import threading
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import Protocol

from core.progress import Display, Done, Tally
from curation.analysis.media_calls import close_media
from curation.step_spec import Process, Step
from curation.types import Row
from curation.work import Plan

ROWS_TOGETHER = 64
"""for a step that wants to see what comes next"""


class Runner(Protocol):
    """Pushes rows through the steps and returns when all parts are written."""

    def prepare(self, plan: Plan, steps: list[Step]) -> None:
        """Get ready, before anything is written; raises UserError when the run cannot fit the machine."""
        ...

    def run(self, plan: Plan, steps: list[Step], rows: Collection[Row], display: Display) -> Tally:
        """Do the steps on the rows."""
        ...


class InlineRunner:
    """Does the steps one row after another in this process (media still in its child)."""

    def prepare(self, plan: Plan, steps: list[Step]) -> None:
        """Fit any machine."""

    def run(self, plan: Plan, steps: list[Step], rows: Collection[Row], display: Display) -> Tally:
        """Chain the steps as generators."""
        return run_inline(steps, rows, display)


def run_inline(steps: list[Step], rows: Collection[Row], display: Display) -> Tally:
    """Chain the steps as generators over the rows."""
    tally = Tally()

    lock = threading.Lock()  # what is read ahead reports from threads of its own

    def report(done: Done) -> None:
        with lock:
            tally.add(done)
            display.show(tally)

    flow: Iterable[Row] = rows
    for step in steps:
        flow = _through(step.start(report), flow, step.spec.batch or ROWS_TOGETHER)
    try:
        for _ in flow:
            pass
    finally:
        close_media()
    display.show(tally, final=True)
    return tally


def _through(process: Process, rows: Iterable[Row], batch: int) -> Iterator[Row]:
    iterator = iter(rows)
    while chunk := list(islice(iterator, batch)):
        yield from process(chunk)
