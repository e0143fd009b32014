"""Which step gets how many workers, and what each books of the machine, so that all of them can run."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from core.errors import UserError
from curation.steps import Step, StepSpec
from curation.work import Plan

MODEL_CPUS = 0.1
"""What a model worker books of a CPU: it computes while the others wait, and the system shares fairly."""

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
    """

    workers: int
    cpus: float
    gpus: float = 0.0
    most: int | None = None

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


def book_workers(plan: Plan, steps: list[Step], cpus: float, gpus: float = 0.0) -> dict[str, Booking]:
    """Fit the steps to a machine, so that all of them can run.

    Ray Data waits for ever, without a word, when pools book more than there is; here the pools book at most
    half of the CPUs, and a task needs no more than what is left for one.

    Raises:
        UserError: it cannot fit, with the numbers and the fix.
    """
    wanted = plan.recipe.workers
    whole = max(1, int(cpus))
    specs = [step.spec for step in steps]
    pools = [spec for spec in specs if spec.holds_models]
    counts = {step.name: _workers(plan, step, pools, whole, gpus) for step in pools}
    booked = sum(counts.values()) * MODEL_CPUS
    if booked > cpus / 2:
        each = max(counts.values())
        names = ", ".join(counts)
        raise UserError(
            f"{len(pools)} pools of {each} model workers ({names}) book {booked:.1f} CPUs of {cpus:g}; "
            f"at most half may be booked: set workers.score to {int(cpus / 2 / MODEL_CPUS / len(pools))} or less"
        )
    if gpus and sum(counts[step.name] * step.gpus for step in pools) > gpus:
        shares = ", ".join(f"{counts[s.name]} × {s.gpus:g} for {s.name}" for s in pools if s.gpus)
        raise UserError(
            f"the models book {shares} GPUs, and there are {gpus:g}: set workers.score, workers.caption or "
            f"tensor_parallel lower, device=cpu where that will do, or caption through a server (captioner endpoint)"
        )
    # All but equal shares: equal ones would let Ray fuse a film's segments into a single task.
    tasks = whole + SPARE_TASKS
    share = (cpus - booked) / tasks
    limits = {"analyse": wanted.analyse or tasks, "cut": wanted.cut or tasks}
    bookings = {}
    for number, step in enumerate(specs):
        if step.holds_models:
            count = counts[step.name]
            bookings[step.name] = Booking(count, MODEL_CPUS, step.gpus if gpus else 0.0, most=count)
        else:
            count = limits.get(step.name, tasks)
            bookings[step.name] = Booking(count, round(min(1.0, share) - 0.01 * (number + 1), 3), most=count)
    return bookings


def _workers(plan: Plan, step: StepSpec, pools: list[StepSpec], cpus: int, gpus: float) -> int:
    """Return the workers of a pool: as the recipe says, else as many as fit beside one of each other pool."""
    wanted = plan.recipe.workers
    if step.name == "cut":  # its networks are small beside its encoder, which wants a CPU for each worker
        return wanted.cut or max(1, min(cpus, int(gpus / step.gpus / len(pools)) if gpus and step.gpus else cpus // 2))
    if step.name == "finish":
        if wanted.caption is not None:
            return wanted.caption
        others = sum(other.gpus for other in pools if other is not step)
        return max(1, int((gpus - others) / step.gpus)) if gpus and step.gpus else 1
    if wanted.score is not None:
        return wanted.score
    captions = next((other.gpus for other in pools if other.name == "finish"), 0.0)
    if gpus and step.gpus:
        return 1 if captions else max(1, min(cpus // 4, int(gpus / step.gpus / len(pools))))
    return max(1, cpus // 4)
