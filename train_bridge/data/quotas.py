"""Quotas of `data.repeat`: no group of rows has more than its share of what is drawn."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from core.errors import UserError
from curation.grammar import Quota
from train_bridge.types import TrainRow

ROUNDS = 100
"""of several quotas, one after the other, since each changes what the others' shares are of"""
SLACK = 1e-9
"""share above a quota that rounding may leave"""


def with_quotas(rows: Sequence[TrainRow], quotas: Sequence[Quota]) -> tuple[TrainRow, ...]:
    """Return the rows with the repeats that quotas leave them, without their groups.

    A row keeps something of what it has: quotas make repeats smaller, never 0.

    Args:
        rows: those that are trained on, with as many groups as there are quotas.
        quotas: from the expression, in its order.

    Raises:
        UserError: no row is drawn at all.
    """
    repeats = np.array([row.repeat for row in rows], np.float64)
    if not repeats.any():
        raise UserError(
            f"data.repeat: 0 for all {len(rows)} rows to train on, so that none would be drawn; change it, or leave "
            "rows out with data.where"
        )
    if not quotas:
        return tuple(rows)
    codes = [codes_of([row.groups[place] for row in rows]) for place in range(len(quotas))]
    left = limited(repeats, codes, [quota.share for quota in quotas])
    return tuple(replace(row, repeat=value, groups=()) for row, value in zip(rows, left.tolist(), strict=True))


def codes_of(names: Sequence[str | None]) -> np.ndarray:
    """Return numbers of groups by name, int64 (N,); a row without a name is a group by itself."""
    known: dict[tuple[str, str | int], int] = {}
    keys = [("row", i) if name is None else ("name", name) for i, name in enumerate(names)]
    return np.array([known.setdefault(key, len(known)) for key in keys], np.int64)


def limited(repeats: np.ndarray, codes: Sequence[np.ndarray], shares: Sequence[float]) -> np.ndarray:
    """Lower repeats until no group has more than its share of their sum, float64 (N,).

    Groups above a quota are brought down to one common level, and rows of a group by a common factor. Where there
    are fewer groups than a quota needs (three cannot have 2 % each), all of them come to the size of the smallest.

    Args:
        repeats: of the rows (N,), at least one above 0.
        codes: the groups by each quota, (N,) each.
        shares: the quotas.
    """
    left = repeats.copy()
    for _ in range(ROUNDS):
        before = left
        for groups, share in zip(codes, shares, strict=True):
            sums = np.bincount(groups, left)
            level = level_of(sums[sums > 0], share)
            left = left * np.where(sums > level, level / np.maximum(sums, 1e-300), 1.0)[groups]
        if np.allclose(before, left, rtol=SLACK, atol=0):
            break
    return left


def level_of(sums: np.ndarray, share: float) -> float:
    """Return the size that groups are brought down to: the largest L with L = share · Σ min(size, L).

    Args:
        sums: sizes of the groups, above 0 (G,).
        share: of the whole.

    Returns:
        Infinity where no group is above the quota; the smallest size where no L keeps it.
    """
    ordered = np.sort(sums)[::-1]
    if ordered[0] <= share * ordered.sum() * (1 + SLACK):
        return float("inf")
    # With the k largest at L: L = share · (k·L + the rest), which fits where the next one is not above it.
    rest = ordered.sum() - np.cumsum(ordered)
    for k in range(1, len(ordered)):
        if k * share >= 1:
            break
        level = share * rest[k - 1] / (1 - k * share)
        if ordered[k] <= level <= ordered[k - 1]:
            return float(level)
    return float(ordered[-1])
