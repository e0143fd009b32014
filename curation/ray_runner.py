"""The steps as one streaming Ray Data graph: an actor pool for each step, rows in between."""

import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from curation.analyse import Plan
from curation.errors import UserError
from curation.progress import Display, Tally
from curation.schema import work_schema
from curation.steps import Done, Step
from curation.types import Row

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")

import ray  # noqa: E402 - its settings come from the environment

MOST_PROCESSES_PER_CPU = 16


@dataclass(frozen=True)
class Pool:
    """Workers of one step and the share of a CPU that each books."""

    workers: int
    cpus: float


def plan_pools(plan: Plan, steps: list[Step], cpus: float) -> dict[str, Pool]:
    """Fit the steps' worker pools to a machine, so that all of them run at once.

    Ray Data waits for ever, without a word, when pools need more CPUs than there are.

    Raises:
        UserError: more processes than the machine can carry, with the numbers.
    """
    wanted = plan.recipe.workers
    whole = max(1, int(cpus))
    counts = {}
    for step in steps:
        if step.name == "analyse":
            counts[step.name] = wanted.analyse or whole
        elif step.name == "cut":
            counts[step.name] = wanted.cut or whole
        elif step.name in ("probe", "finish"):
            counts[step.name] = max(1, whole // 8)
        else:
            counts[step.name] = wanted.score or max(1, whole // 4)
    total = sum(counts.values())
    share = int(1000 * cpus / total) / 1000
    if total > MOST_PROCESSES_PER_CPU * cpus or share <= 0:
        listed = ", ".join(f"{name} {n}" for name, n in counts.items())
        raise UserError(
            f"the run wants {total} worker processes ({listed}) on {cpus:g} CPUs; "
            f"at most {int(MOST_PROCESSES_PER_CPU * cpus)} fit: lower workers.analyse, workers.score or workers.cut"
        )
    return {name: Pool(n, min(1.0, share)) for name, n in counts.items()}


def start_ray(address: str | None, cpus: int | None = None) -> None:
    """Connect to a cluster, or start Ray within this process; its own log stays out of the terminal.

    Raises:
        UserError: no cluster answers at the address.
    """
    if ray.is_initialized():
        return
    home = Path(__file__).resolve().parents[1]
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if address:
            modules = [str(home / name) for name in ("curation", "operators", "captioners")]
            ray.init(address=address, runtime_env={"py_modules": modules}, **quiet)
        else:
            path = os.pathsep.join([str(home), *filter(None, [os.environ.get("PYTHONPATH")])])
            ray.init(
                num_cpus=cpus or len(os.sched_getaffinity(0)),
                include_dashboard=False,
                object_store_memory=1 << 29,
                runtime_env={"env_vars": {"PYTHONPATH": path}},
                **quiet,
            )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(f"no Ray cluster at '{address}' ({str(error).splitlines()[0]}); leave out --ray-address to run here") from None


def run_on_ray(plan: Plan, steps: list[Step], rows: list[Row], display: Display) -> Tally:
    """Run the steps as actor pools of one Ray Data graph."""
    cpus = ray.cluster_resources().get("CPU", 0.0)
    pools = plan_pools(plan, steps, cpus)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # every row its own block: segments of one film spread over the workers
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    tally = _TallyActor.options(num_cpus=0).remote()
    schema = work_schema(plan.writers)
    table = pa.Table.from_pylist(rows, schema=schema)
    blocks = min(len(table), 10_000)
    bounds = [round(i * len(table) / blocks) for i in range(blocks + 1)]
    dataset = ray.data.from_arrow([table.slice(a, b - a) for a, b in zip(bounds, bounds[1:], strict=False)])
    for step in steps:
        pool = pools[step.name]
        dataset = dataset.map_batches(
            _Worker,
            fn_constructor_args=(step, schema, tally),
            batch_size=step.batch,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=pool.workers),
            num_cpus=pool.cpus,
            zero_copy_batch=True,
        )
    finished = threading.Event()
    watcher = threading.Thread(target=_watch, args=(tally, display, finished), daemon=True)
    watcher.start()
    try:
        for _ in dataset.iter_internal_ref_bundles():
            pass
    finally:
        finished.set()
        watcher.join()
    final: Tally = ray.get(tally.read.remote())
    display.show(final, final=True)
    return final


def _watch(tally: "ray.actor.ActorHandle", display: Display, finished: threading.Event) -> None:
    while not finished.wait(0.5):
        display.show(ray.get(tally.read.remote()))


class _Worker:
    """An actor of one step's pool."""

    def __init__(self, step: Step, schema: pa.Schema, tally: "ray.actor.ActorHandle"):
        logging.getLogger("ray").setLevel(logging.ERROR)
        self._schema = schema
        self._process = step.start(lambda done: tally.add.remote(done))

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for row in self._process(batch.to_pylist()):
            yield pa.Table.from_pylist([row], schema=self._schema)


@ray.remote
class _TallyActor:
    """Adds up the reports of all workers."""

    def __init__(self) -> None:
        self._tally = Tally()

    def add(self, done: Done) -> None:
        self._tally.add(done)

    def read(self) -> Tally:
        return self._tally
