"""Which step gets how many workers, and what each books of the machines, so that all of them can run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from core.errors import UserError
from curation.engine.capacity import MODEL_CPUS, ROUNDING, NodeCapacity, Pool, misfit, pool_of
from curation.step_spec import Step, StepSpec
from curation.work import Plan

SPARE_TASKS = 1
"""Tasks more than CPUs: Ray takes a tenth of a second to hand out the next one, and no core should wait for it."""

CLUSTER_CPUS = 0.9
"""What a task books at most where nodes differ: beside it a node of one CPU has room for a model worker, too."""


@dataclass(frozen=True)
class Booking:
    """How many workers a step has and what each books of CPUs and GPUs.

    Attributes:
        workers: with which it begins.
        cpus: of each.
        gpus: of each.
        most: workers that it may come to have as nodes join; null: as many as find room.
        avoids: ids of nodes whose GPUs are too small for it.
    """

    workers: int
    cpus: float
    gpus: float = 0.0
    most: int | None = None
    avoids: tuple[str, ...] = ()

    @property
    def is_fixed(self) -> bool:
        """Return whether the step has the same number of workers from beginning to end."""
        return self.most == self.workers


def elastic(bookings: Mapping[str, Booking], plan: Plan, steps: list[Step]) -> dict[str, Booking]:
    """Let the workers of steps come and go with the nodes of a cluster.

    Tasks book no more than nearly a whole CPU each, so that nodes of any size are filled. Pools on GPUs take what GPUs
    there are, others grow as far as the recipe says: of the memory for their models nobody knows how much is free.
    """
    wanted = plan.recipe.workers
    most = {"analyse": wanted.analyse, "cut": wanted.cut, "finish": wanted.caption_max}
    found = {}
    for number, step in enumerate(steps):
        name, booking = step.spec.name, bookings[step.spec.name]
        if not step.spec.holds_models:
            cpus = min(booking.cpus, CLUSTER_CPUS - 0.01 * (number + 1))
            found[name] = replace(booking, cpus=round(cpus, 3), most=most.get(name))
        elif (limit := most.get(name, wanted.score_max)) is not None:
            found[name] = replace(booking, most=max(limit, booking.workers))
        else:
            found[name] = replace(booking, most=None if booking.gpus else booking.workers)
    return found


def book_workers(plan: Plan, steps: list[Step], nodes: Sequence[NodeCapacity]) -> dict[str, Booking]:
    """Fit the steps to the nodes there are, so that all of them can run.

    Ray Data waits for ever, without a word, when pools book more than there is; here the pools book at most
    half of the CPUs, a task needs no more than what is left for one, and every worker has a node that holds it.

    Raises:
        UserError: it cannot fit, with the numbers and the fix.
    """
    wanted = plan.recipe.workers
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    whole = max(1, int(cpus))
    specs = [step.spec for step in steps]
    pools = [pool_of(spec, nodes) for spec in specs if spec.holds_models]
    counts = {pool.spec.name: _workers(plan, pool, pools, whole, gpus) for pool in pools}
    booked = sum(counts.values()) * MODEL_CPUS
    if booked > cpus / 2:
        each = max(counts.values())
        names = ", ".join(counts)
        raise UserError(
            f"{len(pools)} pools of {each} model workers ({names}) book {booked:.1f} CPUs of {cpus:g}; "
            f"at most half may be booked: set workers.score to {int(cpus / 2 / MODEL_CPUS / len(pools))} or less"
        )
    if gpus and sum(counts[pool.spec.name] * pool.gpus for pool in pools) > gpus + ROUNDING:
        shares = ", ".join(f"{counts[p.spec.name]} × {p.gpus:g} for {p.spec.name}" for p in pools if p.gpus)
        raise UserError(
            f"the models book {shares} GPUs, and there are {gpus:g}: set workers.score, workers.caption or "
            f"tensor_parallel lower, device=cpu where that will do, or caption through a server (captioner endpoint)"
        )
    if len(nodes) > 1 or any(pool.gpus != pool.spec.gpus for pool in pools if pool.gpus):
        counts = _placed(plan, pools, counts, nodes)
        booked = sum(counts.values()) * MODEL_CPUS
    # All but equal shares: equal ones would let Ray fuse a film's segments into a single task.
    tasks = whole + SPARE_TASKS
    share = (cpus - booked) / tasks
    limits = {"analyse": wanted.analyse or tasks, "cut": wanted.cut or tasks}
    by_name = {pool.spec.name: pool for pool in pools}
    bookings = {}
    for number, step in enumerate(specs):
        if step.holds_models:
            pool, count = by_name[step.name], counts[step.name]
            bookings[step.name] = Booking(count, MODEL_CPUS, pool.gpus, most=count, avoids=pool.avoids)
        else:
            count = limits.get(step.name, tasks)
            bookings[step.name] = Booking(count, round(min(1.0, share) - 0.01 * (number + 1), 3), most=count)
    return bookings


def _placed(plan: Plan, pools: list[Pool], counts: dict[str, int], nodes: Sequence[NodeCapacity]) -> dict[str, int]:
    """Return as many workers as find a place node by node, fewer where the recipe does not say how many.

    Raises:
        UserError: they do not fit, be they as few as they may.
    """
    counts = dict(counts)
    while (told := misfit(pools, counts, nodes)) is not None:
        free = [p.spec for p in pools if p.gpus and _wanted(plan, p.spec) is None and counts[p.spec.name] > 1]
        if not free:
            raise UserError(told)
        name = max(free, key=lambda spec: counts[spec.name]).name
        counts[name] -= max(1, counts[name] // 16)
    return counts


def _wanted(plan: Plan, step: StepSpec) -> int | None:
    """Return the workers that the recipe says a pool has; None where it says none."""
    wanted = plan.recipe.workers
    return {"cut": wanted.cut, "finish": wanted.caption}.get(step.name, wanted.score)


def _workers(plan: Plan, pool: Pool, pools: list[Pool], cpus: int, gpus: float) -> int:
    """Return the workers of a pool: as the recipe says, else as many as fit beside one of each other pool."""
    wanted = _wanted(plan, pool.spec)
    if wanted is not None:
        return wanted
    each = int(gpus / pool.gpus / len(pools)) if gpus and pool.gpus else None
    if pool.spec.name == "cut":  # its networks are small beside its encoder, which wants a CPU for each worker
        return max(1, min(cpus, cpus // 2 if each is None else each))
    if pool.spec.name == "finish":
        if each is None:
            return 1
        others = sum(other.gpus for other in pools if other is not pool)
        count = int((gpus - others) / pool.gpus)
        return max(1, min(count, int(gpus)) if pool.spec.gpus >= 1 else count)  # one captioner computes on a GPU
    captions = next((other.gpus for other in pools if other.spec.name == "finish"), 0.0)
    if each is None:
        return max(1, cpus // 4)
    return 1 if captions else max(1, min(cpus // 4, each))
