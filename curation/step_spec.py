"""What a step is to a runner: a name, what it books, and a function from batches of rows to rows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from core.progress import Report
from curation.types import Row
from curation.work import Plan

Process = Callable[[Sequence[Row]], Iterator[Row]]


@dataclass(frozen=True)
class StepSpec:
    """What a runner knows of a step.

    Attributes:
        name: what progress calls it.
        batch: rows it takes at a time; None: as many as are handed to a worker together, to see what comes next.
        holds_models: whether it holds something heavy and so has workers of its own; else any worker may do it.
        at_once: batches that one worker may have under way at a time.
        gpus: that one worker books where there are any.
        gpu_memory_gb: that one worker takes of each GPU; 0: not known, then `gpus` alone is booked.
        fills_gpus: whether it leaves nothing of its GPUs to others, however large they are.
    """

    name: str
    batch: int | None = 1
    holds_models: bool = False
    at_once: int = 1
    gpus: float = 0.0
    gpu_memory_gb: float = 0.0
    fills_gpus: bool = False


class Step(Protocol):
    """One step: settings that travel to the workers; `start` loads what it holds there."""

    @property
    def plan(self) -> Plan:
        """The run that it belongs to."""
        ...

    @property
    def spec(self) -> StepSpec:
        """What a runner knows of it."""
        ...

    def start(self, report: Report) -> Process:
        """Return the function from a batch of rows to rows."""
        ...
