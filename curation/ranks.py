"""Functions of expressions that look at a whole column: ranks, tiers, and what is made of them."""

from typing import Any

import numpy as np
import pyarrow as pa

TQD_STRENGTH = 4.0
"""of `tqd` where none is given: the row that is first in one score and last in the other is tilted by so much"""


def rank(values: Any) -> Any:
    """Return where each number stands among all that are there: 0 the lowest, 1 the highest, equals in the middle.

    Args:
        values: a column of numbers; a constant, or a single number, stands at 0.5.
    """
    if isinstance(values, pa.Scalar):
        return pa.scalar(0.5 if values.is_valid else None, pa.float64())
    numbers = _numbers(values)
    known = np.sort(numbers[~np.isnan(numbers)])
    below, upto = np.searchsorted(known, numbers, "left"), np.searchsorted(known, numbers, "right")
    places = (below + upto - 1) / 2 / max(1, len(known) - 1) if len(known) > 1 else np.full(len(numbers), 0.5)
    return _column(np.where(np.isnan(numbers), np.nan, places))


def tier(values: Any, *steps: Any) -> Any:
    """Return a number by tiers: `tier(motion, 0.25, 1, 1, 5, 1.5)` is 0.25 below 1, 1 from 1 on, 1.5 from 5 on.

    Args:
        values: a column of numbers; where one is missing, so is the result.
        steps: value, bound, value, …; bounds ascend, and each belongs to the tier above it.
    """
    result = np.where(np.isnan(found := _numbers(values)), np.nan, _numbers(steps[0]))
    for bound, value in zip(steps[1::2], steps[2::2], strict=True):
        result = np.where(found >= _numbers(bound), _numbers(value), result)
    return _shaped(result, values, *steps)


def tqd(motion: Any, quality: Any, strength: Any = None) -> Any:
    """Return each row's tilt towards high noise: strength · (rank of its motion − rank of its visual quality).

    Timestep-aware quality decoupling (Luo et al., "Beyond the Golden Data", arXiv 2603.25527) trains on motion-rich
    clips at high noise and on fine-looking clips at low noise; motion is laid down early in sampling and detail late.
    The direction is that paper's. How the two scores become a density is ours: a row with tilt a is drawn at the
    quantile u of the objective's density with probability density a·exp(a·u) / (exp(a) − 1), see
    `models.denoise.densities`; ranks make it independent of the scores' units. Rows whose ranks are equal keep the
    objective's density.

    Args:
        motion: a column, higher for more motion.
        quality: a column, higher for a finer look.
        strength: most tilt, TQD_STRENGTH where none is given.
    """
    factor = pa.scalar(TQD_STRENGTH, pa.float64()) if strength is None else strength
    tilts = _numbers(factor) * (_numbers(rank(motion)) - _numbers(rank(quality)))
    return _shaped(tilts, motion, quality, factor)


def _numbers(data: Any) -> np.ndarray:
    """Return float64 (N,), or (1,) of a constant; NaN where missing."""
    if isinstance(data, pa.Scalar):
        return np.array([data.as_py() if data.is_valid else np.nan], np.float64)
    return np.asarray(data.fill_null(np.nan).to_numpy(zero_copy_only=False), np.float64)


def _shaped(numbers: np.ndarray, *given: Any) -> Any:
    """Return a column, or a constant where all that was given are constants."""
    if all(isinstance(data, pa.Scalar) for data in given):
        return pa.scalar(None if np.isnan(numbers[0]) else float(numbers[0]), pa.float64())
    return _column(numbers)


def _column(numbers: np.ndarray) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(numbers, pa.float64(), mask=np.isnan(numbers))])
