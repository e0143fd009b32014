"""What runs in Ray's workers: a step on a batch of rows, and the counts of what was done."""

import pickle
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from core.cpu_time import unclaimed
from core.progress import Done, Tally
from core.storage.urls import is_url
from curation.engine.blocks import few_together, many_together
from curation.output.deliveries import Delivery, Handoff, delivery_of
from curation.step_spec import Process, Step
from curation.steps import needs_a_worker
from curation.types import Row
from curation.work import Plan

REPORT_EVERY_S = 0.5
NEAR_BYTES = 100 * 1024 + 1
"""Ray keeps an object of this size on the node that made it, and places a task on the node that has its arguments if it
is not busy. So what is done next with a source in a bucket is done where its copy lies."""


@dataclass(frozen=True)
class Job:
    """What a worker knows beside its step.

    Attributes:
        tally: actor handle of the `TallyActor`.
        handoff: where it leaves files if it does not see the run's folder.
        is_on_cluster: whether there may be other nodes.
    """

    tally: Any
    handoff: Handoff | None = None
    is_on_cluster: bool = False


def packed(groups: Sequence[Sequence[Row]], ballast_bytes: int = 0) -> pa.Table:
    """Put each group of rows into one value: a table of all their columns costs Ray milliseconds wherever it passes.

    Ray makes a block of each value, so that the rows of a group stay together.

    Args:
        groups: the rows.
        ballast_bytes: by which the block is larger than they are.
    """
    ballast = [bytes(ballast_bytes), *[b""] * (len(groups) - 1)]
    columns = {"rows": [pickle.dumps(rows) for rows in groups], "ballast": ballast[: len(groups)]}
    return pa.table({name: pa.array(values, pa.large_binary()) for name, values in columns.items()})


class Reports:
    """Collects a worker's reports and hands them on at the end of a batch, and now and then: each call of Ray costs."""

    def __init__(self, tally: Any, stop_file: Path | None = None):
        """Begin with nothing.

        Args:
            tally: actor handle of the `TallyActor`.
            stop_file: made once the run is to stop, for a worker that does not see the driver's.
        """
        self._tally, self._stop_file = tally, stop_file
        self._lock = threading.Lock()
        self._held, self._sent = Tally(), time.monotonic()

    def add(self, done: Done) -> None:
        """Count one report."""
        with self._lock:
            self._held.add(done)
            is_due = time.monotonic() - self._sent > REPORT_EVERY_S
        if is_due:
            self.send()

    def send(self) -> None:
        """Hand on what was counted."""
        with self._lock:
            held, self._held, self._sent = self._held, Tally(), time.monotonic()
        held.spend(unclaimed())
        answer = self._tally.add.remote(held)
        if self._stop_file is not None:
            answer.future().add_done_callback(self._look_for_stop)

    def _look_for_stop(self, answer: Any) -> None:
        if self._stop_file is not None and answer.exception() is None and answer.result():
            self._stop_file.touch()


@dataclass(frozen=True)
class _Started:
    """A step that is ready in this worker."""

    plan: Plan
    process: Process
    reports: Reports
    delivery: Delivery | None
    is_on_cluster: bool
    rows_at_once: int | None

    @classmethod
    def of(cls, step: Step, job: Job) -> "_Started":
        delivery = _delivery_for(step.plan, job.handoff)
        if delivery is not None:
            step = replace(step, plan=replace(step.plan, out=delivery.out))  # type: ignore[type-var]
        reports = Reports(job.tally, None if delivery is None else step.plan.stop_file)
        return cls(step.plan, step.start(reports.add), reports, delivery, job.is_on_cluster, step.spec.batch)

    def tables(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Do the step on a batch; what keeps a worker busy is a block of its own, the rest shares some: each costs."""
        try:
            rows = self._done(batch)
            if self.plan.shares_blocks:
                yield from (self._handed_on([block]) for block in many_together(rows, self._needs_a_worker))
                return
            for block in few_together(rows, self._needs_a_worker):
                is_near = self.is_on_cluster and self._needs_a_worker(block[0]) and is_url(block[0]["source_root"])
                yield self._handed_on([[row] for row in block], NEAR_BYTES if is_near else 0)
        finally:
            self.reports.send()

    def _done(self, batch: pa.Table) -> Iterator[Row]:
        """Yield the rows that the step makes of those of a batch, of which it takes as many at once as it asks for."""
        groups = (pickle.loads(group) for group in batch["rows"].to_pylist())  # noqa: S301 - our own worker packed it
        rows = (row for group in groups for row in group)
        while some := list(islice(rows, self.rows_at_once)):
            yield from self.process(some)

    def _needs_a_worker(self, row: Row) -> bool:
        return needs_a_worker(self.plan, row)

    def _handed_on(self, groups: Sequence[Sequence[Row]], ballast_bytes: int = 0) -> pa.Table:
        """Return rows as a block, once their files are where the driver finds them."""
        if self.delivery is not None:
            self.delivery.deliver()
        return packed(groups, ballast_bytes)


_started: dict[tuple[str, str], _Started] = {}  # of this worker: steps by run and name, started once
_deliveries: dict[str, Delivery | None] = {}  # of this worker, by run: its steps share one


def _delivery_for(plan: Plan, handoff: Handoff | None) -> Delivery | None:
    if plan.run not in _deliveries:
        _deliveries.clear()
        _deliveries[plan.run] = delivery_of(plan, handoff)
    return _deliveries[plan.run]


def do_step(batch: pa.Table, step: Step, job: Job) -> Iterator[pa.Table]:
    """Do a step on a batch, in whichever worker is free."""
    run = step.plan.run
    if (run, step.spec.name) not in _started:
        for other in [key for key in _started if key[0] != run]:
            del _started[other]
        _started[run, step.spec.name] = _Started.of(step, job)
    yield from _started[run, step.spec.name].tables(batch)


class Worker:
    """An actor of a pool that holds models."""

    def __init__(self, step: Step, job: Job):
        """Start the step."""
        self._started = _Started.of(step, job)
        self._started.reports.send()

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Do the step on a batch."""
        yield from self._started.tables(batch)


class TallyActor:
    """Adds up the reports of all workers, and tells them when the run is to stop."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._life, self._tally, self._stops = uuid.uuid4().hex, Tally(), False

    def add(self, reported: Tally) -> bool:
        """Count what a worker reports; return whether the run is to stop."""
        self._tally = self._tally.plus(reported)
        return self._stops

    def read(self, *, stops: bool) -> tuple[str, Tally]:
        """Return which life of the actor this is, and the sum.

        Args:
            stops: whether the run is to stop.
        """
        self._stops = self._stops or stops
        self._tally.spend(unclaimed())
        return self._life, self._tally
