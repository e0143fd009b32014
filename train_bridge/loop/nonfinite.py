"""Steps whose loss or gradient norm is not finite: found before they change a weight, and reported with their rows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import distributed as dist
from torch.distributed.tensor import DTensor

from core.errors import RunError
from train_bridge.loop.parallel import Worker, from_first

SHOWN_ROWS = 8
"""row ids in a line"""


class StoppedError(RunError):
    """The end of a run that every worker raises at the same step, since workers started again would end there too."""


@contextmanager
def first_tells(worker: Worker) -> Iterator[None]:
    """Wait for what the first worker alone does in a block, and stop everywhere where the world broke it.

    Raises:
        StoppedError: at every one of several workers; one alone raises what it met.
    """
    told: str | None = None
    try:
        yield
    except RunError as error:
        if worker.world_size == 1:
            raise
        told = str(error)
    if worker.world_size > 1 and (told := from_first(told)) is not None:
        raise StoppedError(told)


@dataclass
class StepLosses:
    """What a worker computed in one step.

    Attributes:
        losses: network, and the worker's part of the step's loss, of each backward pass.
        row_losses: positions of the rows, and their losses (B,), of each backward pass.
    """

    losses: list[tuple[str, torch.Tensor]] = field(default_factory=list)
    row_losses: list[tuple[tuple[int, ...], torch.Tensor]] = field(default_factory=list)

    def add(self, name: str, loss: torch.Tensor, rows: tuple[int, ...], row_losses: torch.Tensor) -> None:
        """Note a backward pass; nothing is read from the device yet."""
        self.losses.append((name, loss.detach()))
        self.row_losses.append((rows, row_losses.detach()))

    def broken_rows(self, norms: Sequence[torch.Tensor], worker: Worker) -> tuple[int, ...] | None:
        """Return the positions of the rows at fault, or None where every loss and norm of every worker is finite.

        Where each row's loss is finite and their sum or a norm is not, all rows of the step are at fault. Every worker
        calls it and gets the same; one number is read from the device.

        Args:
            norms: of the networks' gradients.
            worker: this one.
        """
        whole = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
        numbers = [*(loss for _, loss in self.losses), *whole]
        finite = torch.stack([number.isfinite().to(worker.device) for number in numbers]).all().float()
        if worker.world_size > 1:
            dist.all_reduce(finite, op=dist.ReduceOp.MIN)
        if bool(finite):
            return None
        mine = [row for rows, losses in self.row_losses for row in _broken(rows, losses)]
        everything = [row for rows, _ in self.row_losses for row in rows]
        found: list[tuple[list[int], list[int]]] = [(mine, everything)]
        if worker.world_size > 1:
            found = [([], [])] * worker.world_size
            dist.all_gather_object(found, (mine, everything))
        broken = sorted({row for some, _ in found for row in some})
        return tuple(broken or sorted({row for _, some in found for row in some}))


def tell_rows(row_ids: Sequence[str], rows: Sequence[int]) -> str:
    """Return the ids of rows in a few words, `row` and position where ids are not known."""
    shown = [row_ids[row] if row < len(row_ids) else f"row {row}" for row in rows[:SHOWN_ROWS]]
    more = f" and {len(rows) - SHOWN_ROWS} more" if len(rows) > SHOWN_ROWS else ""
    return ", ".join(shown) + more


def _broken(rows: tuple[int, ...], losses: torch.Tensor) -> list[int]:
    return [row for row, is_finite in zip(rows, losses.isfinite().tolist(), strict=True) if not is_finite]
