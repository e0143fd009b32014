"""The steps as one streaming Ray Data graph, from sources to parts.

Steps without models are Ray tasks, one more at a time than there are CPUs, so that any idle worker does what
is waiting; steps that hold models are actor pools of fixed size that book a small share of a CPU each.
"""

import contextlib
import logging
import os
import re
import secrets
import sys
import threading
import time
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what matters reaches us as an exception

import ray  # noqa: E402 - Ray takes its settings from the environment
from ray.data._internal.execution.backpressure_policy import (  # noqa: E402
    ENABLED_BACKPRESSURE_POLICIES,
    ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY,
    BackpressurePolicy,
)
from ray.exceptions import RayError, RayTaskError  # noqa: E402
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: E402

from core.errors import RunError, UserError  # noqa: E402
from core.files import make_folder  # noqa: E402
from core.packages import HOME, PACKAGES  # noqa: E402
from core.plugins import folders_to_ship  # noqa: E402
from core.progress import Display, Tally  # noqa: E402
from curation.engine.blocks import BLOCK_ROWS, SHARED_ROWS, blocks_of  # noqa: E402
from curation.engine.booking import Booking, book_workers, elastic  # noqa: E402
from curation.engine.capacity import away_from  # noqa: E402
from curation.engine.connecting import expect_answer, not_joined, quiet_stderr  # noqa: E402
from curation.engine.node_look import RunNeeds  # noqa: E402
from curation.engine.ray_nodes import capacities, expect_fit_nodes  # noqa: E402
from curation.engine.ray_worker import Job, TallyActor, Worker, do_step, packed  # noqa: E402
from curation.output.deliveries import Handoff, shared_mark  # noqa: E402
from curation.step_spec import Step  # noqa: E402
from curation.types import Row  # noqa: E402
from curation.work import Plan  # noqa: E402

BLOCKS_HANDED_OVER = 64
"""Blocks that a task may have waiting for Ray Data, which looks ten times a second; the task stands still above it."""

CLUSTER_LOOK_S = 5.0
"""between two looks at how large the cluster is"""

UNWATCHED = {
    "RAY_task_events_report_interval_ms": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_event_stats": "0",
    "RAY_io_context_monitor_probe_interval_ms": "5000",
}
"""Settings that spare each process of Ray what it would gather and send every second for a dashboard."""


def start_ray(address: str | None, cpus: int | None = None, plugins: Sequence[str] = ()) -> None:
    """Connect to a cluster, or start Ray within this process; its own log stays out of the terminal.

    Ray's ports listen on every interface: a Ray started here takes requests only with a token made for it
    (unless RAY_AUTH_MODE says otherwise), and has no dashboard.

    Args:
        address: the cluster's; null: within this process.
        cpus: how many to have here; null: all.
        plugins: folders of plug-ins in use, for the workers of a cluster; those here find them where this process does.

    Raises:
        UserError: no cluster answers at the address.
    """
    if ray.is_initialized():
        return
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address:
        expect_answer(address)
        modules = [str(HOME / name) for name in PACKAGES] + list(plugins)
        told = {name: value for name, value in os.environ.items() if name == "SELECTS_WEIGHTS"}
        options |= {"address": address, "runtime_env": {"py_modules": modules, "env_vars": told}}
    else:
        path = os.pathsep.join([str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])])
        os.environ["PYTHONPATH"] = path  # inherited by the workers; a runtime_env would cost seconds to set up
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        os.environ.setdefault("RAY_task_oom_retries", "8")  # Ray's own default is without end
        for name, value in UNWATCHED.items():
            os.environ.setdefault(name, value)
        count = cpus or len(os.sched_getaffinity(0))
        options |= {"address": "local", "num_cpus": count, "include_dashboard": False, "object_store_memory": 1 << 29}
    try:
        with quiet_stderr():
            ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        if not address:
            raise
        raise not_joined(address, error) from None


@dataclass(frozen=True)
class RayRunner:
    """Does the steps on Ray: at an address, or within this process.

    Attributes:
        address: the cluster's; null: within this process.
        handoff: of an output in a bucket, where nodes that do not see the folder here leave what they make.
        needs: what each node of a cluster must have and reach.
    """

    address: str | None = None
    handoff: Handoff | None = None
    needs: RunNeeds = RunNeeds()

    def prepare(self, plan: Plan, steps: list[Step]) -> None:
        """Start or join Ray, and see that the steps fit."""
        if not ray.is_initialized():
            print(f"joining Ray at {self.address} …" if self.address else "starting Ray …", file=sys.stderr)
        start_ray(self.address, plugins=_plugins_of(plan, steps))
        if self.address and (plan.judges_apart or plan.recipe.duplicates is None):  # the first pass
            expect_fit_nodes(Path(plan.out), self.needs)
        self.book(plan, steps)

    def run(self, plan: Plan, steps: list[Step], rows: Collection[Row], display: Display) -> Tally:
        """Run the steps as one graph."""
        return _run_graph(self, plan, steps, rows, display)

    def book(self, plan: Plan, steps: list[Step]) -> dict[str, Booking]:
        """Fit the steps to what Ray has; on a cluster they may grow and shrink with it.

        Raises:
            UserError: they do not fit.
        """
        bookings = book_workers(plan, steps, capacities())
        return elastic(bookings, plan, steps) if self.address else bookings


def _plugins_of(plan: Plan, steps: list[Step]) -> list[str]:
    """Return the folders of the plug-ins that a run uses."""
    captioners = [step.captioner for step in steps if hasattr(step, "captioner")]
    used = [*plan.recipe.operators.values(), plan.recipe.detector, *captioners]
    return folders_to_ship(type(part).__module__ for part in used)


def _run_graph(runner: RayRunner, plan: Plan, steps: list[Step], rows: Collection[Row], display: Display) -> Tally:
    """Run the steps as one streaming graph; Ray must have been started.

    Raises:
        RunError: workers died more often than the limits say, or could not write the output.
    """
    bookings = runner.book(plan, steps)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    tally = ray.remote(TallyActor).options(num_cpus=0, max_restarts=-1, scheduling_strategy=here).remote()
    total = _Total(tally, plan.stop_file)
    mark = shared_mark(plan)
    make_folder(mark.parent)
    mark.touch()
    finished = threading.Event()
    watcher = threading.Thread(target=_watch, args=(total, display, finished), daemon=True)
    watcher.start()
    context = _context(steps, bookings, grows=runner.address is not None)
    try:
        with ray.data.DataContext.current(context), warnings.catch_warnings():
            # Of few sources, which need fewer workers than there may be.
            warnings.filterwarnings("ignore", message="The maximum number of concurrent tasks")
            for _ in _graph(
                plan, steps, rows, bookings, Job(tally, runner.handoff, is_on_cluster=runner.address is not None)
            ).iter_internal_ref_bundles():
                pass
    except RayError as error:
        raise _cause(error) from error
    finally:
        finished.set()
        watcher.join()
        mark.unlink(missing_ok=True)
    final = total.read()
    display.show(final, final=True)
    return final


def _context(steps: list[Step], bookings: dict[str, Booking], *, grows: bool) -> ray.data.DataContext:
    """Return the settings of this graph alone: other graphs of the process keep their own."""
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = 1  # blocks stay as they are given: segments of one film spread over the workers
    context._max_num_blocks_in_streaming_gen_buffer = BLOCKS_HANDED_OVER
    context.memory_usage_poll_interval_s = None
    context.op_resource_reservation_enabled = False  # shares kept for steps without work leave cores idle
    context.set_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, [*ENABLED_BACKPRESSURE_POLICIES, _FewAhead])
    context.set_config(_FewAhead.GROWS, grows)
    context.set_config(_FewAhead.ROWS, [_rows_ahead(step, bookings[step.spec.name].workers) for step in steps])
    return context


def _rows_ahead(step: Step, workers: int) -> int:
    """Return how many rows or blocks of them may wait for a step, so that its workers find their next batches there."""
    wanted = (step.spec.at_once + 1) * (_batch(step) or 1) * workers
    return wanted if step.plan.shares_blocks else max(8, wanted)


def _batch(step: Step) -> int | None:
    """Return how many values Ray hands a worker at a time: each is a row, or where rows share blocks many of them.

    None: all of a block.
    """
    return 1 if step.plan.shares_blocks else step.spec.batch


def _graph(
    plan: Plan, steps: list[Step], rows: Collection[Row], bookings: dict[str, Booking], job: Job
) -> ray.data.Dataset:
    """Chain the steps over the rows."""
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what ends a run comes as an exception
    deaths = plan.recipe.limits.worker_deaths
    most = SHARED_ROWS if plan.shares_blocks else BLOCK_ROWS
    planned = blocks_of(rows, bookings[steps[0].spec.name].workers, most)
    dataset = ray.data.from_blocks([packed([block]) for block in planned])
    for step in steps:
        booking = bookings[step.spec.name]
        usual: dict[str, Any] = {"num_cpus": booking.cpus, "batch_size": _batch(step), "batch_format": "pyarrow"}
        with warnings.catch_warnings():  # Ray wants to name its remote arguments, but has no names for these yet
            warnings.filterwarnings("ignore", message=".*ray_remote_args")
            if step.spec.holds_models:
                pool = ray.data.ActorPoolStrategy(
                    min_size=booking.workers if booking.is_fixed else 1,
                    max_size=booking.most,
                    initial_size=booking.workers,
                    max_concurrent_calls_per_actor=step.spec.at_once,
                )
                usual |= {"compute": pool, "num_gpus": booking.gpus, "max_restarts": deaths, "max_task_retries": -1}
                usual |= away_from(booking.avoids)
                dataset = dataset.map_batches(Worker, fn_constructor_args=(step, job), **usual)
            else:
                tasks = ray.data.TaskPoolStrategy(size=booking.most)
                usual |= {"compute": tasks, "max_retries": deaths}
                if job.is_on_cluster:
                    usual["scheduling_strategy"] = "DEFAULT"  # near the arguments, see `ray_worker.NEAR_BYTES`
                dataset = dataset.map_batches(do_step, fn_kwargs={"step": step, "job": job}, **usual)
    return dataset


_TOLD = re.compile(r"^(?:core|models|curation)\.errors\.\w+: (.+)$", re.MULTILINE)
"""an error of one line that a worker met when it loaded a model, as Ray hands it on: within a traceback"""


def _cause(error: RayError) -> Exception:
    """Return what broke a graph: an error that a worker reported, what Ray lost, or a bug of ours (as it is)."""
    if isinstance(error, RayTaskError):
        return error.cause if isinstance(error.cause, RunError | UserError) else error
    if getattr(error, "actor_init_failed", False):
        told = _TOLD.findall(str(error))
        return UserError(told[-1]) if told else error
    words = " ".join(str(error).split())[:300]
    fix = "what is finished is kept; run the same command to resume"
    return RunError(f"Ray gave up after repeated deaths of workers: {type(error).__name__}: {words}; {fix}")


class _FewAhead(BackpressurePolicy):
    """Lets no step run further ahead of the next than keeps that one busy, so that what is started is soon finished.

    Ray Data counts bytes only, and our rows are small: it would probe and analyse all sources of a long run
    before the first clip is finished, and a kill would cost all of that work.
    """

    ROWS = "selects.rows_waiting"
    """most rows that wait for each step, in order; every row is a block"""
    GROWS = "selects.grows"
    """whether nodes may join: Ray within this process is never asked, since one that is going down would not answer"""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        rows = self._data_context.get_config(self.ROWS)
        self._most = dict(zip(list(self._topology)[-len(rows) :], rows, strict=True))
        self._grows = self._data_context.get_config(self.GROWS)
        self._cpus_at_first = self._cpus = ray.cluster_resources().get("CPU", 1.0)
        self._looked = time.monotonic()

    def can_add_input(self, op: Any) -> bool:
        share = self._growth()
        return all(
            self._topology[after].total_enqueued_input_blocks() < self._most[after] * share
            for after in op.output_dependencies
        )

    def _growth(self) -> float:
        """Return by how much the cluster is larger than it was at first: more workers find their batches waiting."""
        if self._grows and time.monotonic() - self._looked > CLUSTER_LOOK_S:
            self._cpus, self._looked = ray.cluster_resources().get("CPU", 1.0), time.monotonic()
        return max(1.0, self._cpus / self._cpus_at_first)


class _Total:
    """What the tally actor has counted, over all of its lives."""

    def __init__(self, tally: "ray.actor.ActorHandle", stop_file: Path):
        self._tally, self._stop_file = tally, stop_file
        self._has_gpus = bool(_gpus())
        self._life: str | None = None
        self._before, self._now = Tally(), Tally()

    def read(self) -> Tally:
        with contextlib.suppress(RayError):  # it died, and is started again
            life, now = ray.get(self._tally.read.remote(stops=self._stop_file.exists()), timeout=10)
            if life != self._life:
                self._before, self._life = self._before.plus(self._now), life
            self._now = now
            self._now.gpus = _gpus() if self._has_gpus else {}  # asked only of a cluster that answers: it would hang
        return self._before.plus(self._now)


def _gpus() -> dict[str, float]:
    """Return the GPUs of the cluster and how much of them is booked; nothing where there are none."""
    if not (there := ray.cluster_resources().get("GPU", 0.0)):
        return {}
    return {"there": there, "booked": there - ray.available_resources().get("GPU", 0.0)}


def _watch(total: _Total, display: Display, finished: threading.Event) -> None:
    while not finished.wait(0.5):
        display.show(total.read())
