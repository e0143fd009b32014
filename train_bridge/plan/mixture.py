"""What repeats and tilted noise levels come to: lines of a plan."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from core.sanitize import printable
from curation.grammar import Quota
from train_bridge.types import ALL_LEVELS, TrainRow

SHOWN = 8
"""tiers or groups that have a line each"""


def mixture_notes(rows: Sequence[TrainRow], before: Sequence[TrainRow], quotas: Sequence[Quota]) -> list[str]:
    """Write which rows are drawn how often, and what each group has of the draws.

    Args:
        rows: those that are trained on.
        before: the same ones as they were before quotas, with their groups, and those that are never drawn.
        quotas: of `data.repeat`.
    """
    repeats = np.array([row.repeat for row in rows], np.float64)
    if not quotas and (repeats == 1).all() and len(before) == len(rows):
        return []
    total = float(repeats.sum())
    lines = [f"mixture: {total:.4g} draws an epoch of {len(rows)} rows (data.repeat)"]
    if never := len(before) - len(rows):
        lines[0] += f", {never} more are never drawn, since it is 0 for them"
    lines += [f"  {line}" for line in _tiers(repeats, total)]
    kept = {row.row_id: row.repeat for row in rows}
    for place, quota in enumerate(quotas):
        lines += _groups([(row.groups[place], kept.get(row.row_id, 0.0)) for row in before], quota, total)
    return lines


def level_notes(rows: Sequence[TrainRow]) -> list[str]:
    """Write how the rows' noise levels are tilted and bounded; nothing where they are not."""
    values = np.array([row.levels for row in rows], np.float64).reshape(-1, 3)
    if (values == ALL_LEVELS).all():
        return []
    tilt = values[:, 0]
    up, down = int((tilt > 0).sum()), int((tilt < 0).sum())
    line = (
        f"noise levels: {up} rows are tilted towards much noise, {down} towards little (from {tilt.min():.3g} to "
        f"{tilt.max():.3g}, median {np.median(tilt):.3g})"
    )
    bounded = int(((values[:, 1] > 0) | (values[:, 2] < 1000)).sum())
    return [line + (f"; {bounded} are bounded, to {values[:, 1].min():.4g}..{values[:, 2].max():.4g}" * bool(bounded))]


def _tiers(repeats: np.ndarray, total: float) -> list[str]:
    """Return a line for each number of draws, or for quarters of the rows where there are many."""
    counts = Counter(np.round(repeats, 6).tolist())
    if len(counts) <= SHOWN:
        return [f"{r:g} times: {n} rows, {r * n / total:.1%} of the draws" for r, n in sorted(counts.items())]
    parts = np.array_split(np.sort(repeats), 4)
    return [f"{p[0]:.3g} to {p[-1]:.3g} times: {len(p)} rows, {p.sum() / total:.1%} of the draws" for p in parts]


def _groups(members: Sequence[tuple[str | None, float]], quota: Quota, total: float) -> list[str]:
    """Return the largest groups of a quota, and whether it is kept."""
    rows, draws = Counter[str](), Counter[str]()
    alone = most_alone = 0.0
    for name, repeat in members:
        if name is None:
            alone, most_alone = alone + 1, max(most_alone, repeat)
        else:
            rows[name] += 1
            draws[name] += repeat  # type: ignore[assignment]  # a Counter adds any numbers
    most = max([most_alone, *draws.values()]) / total
    kept = "kept" if most <= quota.share * (1 + 1e-6) else f"not to be kept by so few groups: {most:.1%} at most"
    without = f", {alone:.0f} rows without one" if alone else ""
    lines = [f"  quota({quota.column}, {quota.share:g}): {len(rows)} groups{without}; {kept}"]
    for name, drawn in draws.most_common(SHOWN):
        share = rows[name] / len(members)
        lines.append(f"    {printable(name, 40)}: {rows[name]} rows, {share:.1%}; {drawn / total:.1%} of the draws")
    return lines
