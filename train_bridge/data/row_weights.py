"""How much each row counts in the loss: its weight against the mean over the data set."""

from collections.abc import Sequence

import numpy as np

from core.errors import UserError
from train_bridge.types import TrainRow


def relative_weights(rows: Sequence[TrainRow]) -> tuple[float, ...]:
    """Divide the weights of the rows that are trained on by their mean over the draws, which is 1 afterwards.

    So a weight counts in whatever step its row falls, even alone, and a factor on all weights changes nothing.

    Raises:
        UserError: all weights are 0.
    """
    weights = np.array([row.weight for row in rows], np.float64)
    if not weights.any():
        raise UserError(
            f"0 for all {len(rows)} rows to train on, so that nothing would be learned",
            field="data.weight",
            fix="change it, or leave rows out with data.where",
        )
    weights /= weights.max()  # so that no sum is too large for a number
    repeats = np.array([row.repeat for row in rows], np.float64)
    mean = weights.mean() if (repeats == 1).all() else (weights * repeats).sum() / repeats.sum()
    return tuple((weights / mean).tolist())
