"""Conditions on a validation's numbers that stop a run: `watch.stop_when`."""

from collections.abc import Collection, Sequence

import pyarrow as pa

from curation.expressions import keep_mask, parse
from train_bridge.loop.nonfinite import StoppedError
from train_bridge.types import Metrics

WHAT = "watch.stop_when"


class ReachedError(StoppedError):
    """The end of a run by a condition of `watch.stop_when`; its weights are sound, and are exported."""


def check_stop_when(conditions: Sequence[str], known: Collection[str] | None = None) -> None:
    """Refuse conditions that cannot be read.

    Args:
        conditions: of the config.
        known: the numbers that there will be; None: they are not known yet.

    Raises:
        UserError: with the part at fault, or the nearest name.
    """
    for text in conditions:
        expression = parse(text, WHAT)
        if known is not None:
            expression.check(known)


def reached(conditions: Sequence[str], metrics: Metrics) -> str | None:
    """Return the first condition that holds, with the numbers that it reads; None where none does.

    Raises:
        UserError: a condition reads a number that there is not, or is none.
    """
    table = pa.table({name: [value] for name, value in metrics.items()})
    for text in conditions:
        expression = parse(text, WHAT)
        if bool(keep_mask(table, expression)[0]):
            numbers = ", ".join(f"{name} {metrics[name]:.4g}" for name in sorted(expression.columns))
            return f"{text} ({numbers})"
    return None
