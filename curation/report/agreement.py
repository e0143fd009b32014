"""How well rules agree with people: what they dropped of what a rule rejects, and the threshold that would do best."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.recipe import Rule
from curation.reviews import DROP, KEEP

FEWEST = 5
"""reviewed clips with a value, of which at least one was kept and one dropped, that a suggestion rests on"""


@dataclass(frozen=True)
class Agreement:
    """One bound of a rule beside people's verdicts.

    Attributes:
        column: of the rule.
        side: `min` or `max`.
        threshold: as it stands.
        reviewed: clips that people judged and that have a value.
        rejected: of these, clips that the bound rejects.
        dropped: of the rejected, clips that people dropped; over `rejected` that is the bound's precision.
        missed: clips that people dropped and the bound lets pass.
        suggested: the threshold that agrees with most verdicts, the nearest to the present one; None: too few verdicts.
        agreed: share of verdicts that the present threshold agrees with.
        suggested_agreed: share that the suggested one agrees with; None without one.
    """

    column: str
    side: str
    threshold: float
    reviewed: int
    rejected: int
    dropped: int
    missed: int
    suggested: float | None
    agreed: float | None
    suggested_agreed: float | None

    @property
    def precision(self) -> float | None:
        """Share of the rejected clips that people dropped; None where it rejects none."""
        return self.dropped / self.rejected if self.rejected else None


def agreements(table: pa.Table, rules: Mapping[str, Rule]) -> list[Agreement]:
    """Compare each bound of each rule with the verdicts of people.

    Args:
        table: with the columns of the rules and `review`.
        rules: by column.
    """
    review = pc.fill_null(table["review"], "").to_numpy(zero_copy_only=False)
    said = (review == KEEP) | (review == DROP)
    found = []
    for column, rule in rules.items():
        if not said.any() or column not in table.column_names:
            continue
        values = table[column].cast(pa.float64()).to_numpy(zero_copy_only=False)[said]
        is_drop = review[said] == DROP
        known = np.isfinite(values)
        for side, bound in (("min", rule.min), ("max", rule.max)):
            if bound is not None and known.any():
                found.append(_agreement(column, side, float(bound), values[known], is_drop[known]))
    return found


def _agreement(column: str, side: str, bound: float, values: np.ndarray, is_drop: np.ndarray) -> Agreement:
    sign = 1.0 if side == "min" else -1.0
    rejects = sign * values < sign * bound
    both_kinds = len(values) >= FEWEST and is_drop.any() and not is_drop.all()
    suggested = best_threshold(values, is_drop, bound, side) if both_kinds else None
    better = None if suggested is None else float(((sign * values < sign * suggested) == is_drop).mean())
    return Agreement(
        column=column,
        side=side,
        threshold=bound,
        reviewed=len(values),
        rejected=int(rejects.sum()),
        dropped=int((rejects & is_drop).sum()),
        missed=int((~rejects & is_drop).sum()),
        suggested=suggested,
        agreed=float((rejects == is_drop).mean()),
        suggested_agreed=better,
    )


def best_threshold(values: np.ndarray, is_drop: np.ndarray, bound: float, side: str) -> float:
    """Return the threshold that agrees with most verdicts; of several the nearest to the present one.

    Args:
        values: (N,) finite scores.
        is_drop: bool (N,), people dropped the clip.
        bound: the present threshold, which is kept where none agrees better.
        side: `min`: lower values are rejected; `max`: higher ones.
    """
    sign = 1.0 if side == "min" else -1.0
    order = np.unique(values)
    between = (order[:-1] + order[1:]) / 2
    # Half a step beyond either end rejects nothing or everything.
    ends = np.array([order[0] - 1e-9 * max(1.0, abs(order[0])), order[-1] + 1e-9 * max(1.0, abs(order[-1]))])
    candidates = np.array([bound, *between, *ends])
    ranked = np.argsort(sign * values)
    drops = np.concatenate([[0], np.cumsum(is_drop[ranked])])  # among the first so many
    rejected = np.searchsorted(sign * values[ranked], sign * candidates)
    agreed = drops[rejected] + (len(values) - rejected) - (drops[-1] - drops[rejected])
    best = candidates[agreed == agreed.max()]
    return float(best[np.abs(best - bound).argmin()])
