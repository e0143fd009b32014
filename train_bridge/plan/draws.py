"""How often the rows of an index are drawn, epoch by epoch: a pure function of their ids and repeats."""

import math
from collections.abc import Sequence

import numpy as np

from core.errors import UserError

ONCE = 1 << 32
"""a row that is drawn once an epoch, in the unit that repeats are counted in"""
ROUNDED = 1e-6
"""draws that rounding to units may cost"""
PHASE = np.uint64(5)
"""keeps what is decided here apart from what the planner decides by hashes"""


def units_of(repeats: Sequence[float]) -> np.ndarray | None:
    """Return repeats in units of 1 / ONCE, uint64 (N,), at least 1 for what is above 0; None where all are 1."""
    values = np.array(repeats, np.float64)
    if not len(values) or (values == 1).all():
        return None
    return np.where(values > 0, np.maximum(np.round(values * ONCE), 1), 0).astype(np.uint64)


def is_whole(units: np.ndarray | None) -> bool:
    """Return whether every epoch draws the same rows: repeats (in units of 1 / ONCE) are whole numbers, or none.

    Raises:
        UserError: they come to less than one row an epoch.
    """
    if units is None:
        return True
    total = float(units.sum(dtype=np.float64)) / ONCE
    if total < 1 - ROUNDED:
        raise UserError(
            f"data.repeat: draws {total:.3g} rows an epoch from {len(units)}; an epoch needs one or more, so make all "
            f"repeats larger by a factor of {math.ceil(1 / total) if total else 1} or more"
        )
    return not (units % np.uint64(ONCE)).any()


def drawn(keys: np.ndarray, repeats: np.ndarray, epoch: int) -> np.ndarray:
    """Return the positions of the rows of an epoch, ascending int64 (D,): each as often as it is drawn.

    Args:
        keys: hash of each row's id, uint64 (N,).
        repeats: in units of 1 / ONCE, uint64 (N,).
        epoch: counts from 0.
    """
    phase = mix(keys ^ PHASE) >> np.uint64(32)
    begin, end = (((repeats * np.uint64(n)) + phase) >> np.uint64(32) for n in (epoch, epoch + 1))
    return np.repeat(np.arange(len(keys)), (end - begin).astype(np.int64))


def places_of_draws(places: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Return where each draw comes: the first of a row where the row does without repeats, others anywhere else.

    Args:
        places: of the rows, uint64 (N,).
        drawn: ascending positions of rows (D,), from `Index.drawn`.
    """
    firsts = np.searchsorted(drawn, drawn)
    ordinals = (np.arange(len(drawn)) - firsts).astype(np.uint64)
    return np.where(ordinals > 0, mix(mix(places[drawn]) + ordinals), places[drawn])


def mix(values: np.ndarray) -> np.ndarray:
    """Scatter uint64 evenly: splitmix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
