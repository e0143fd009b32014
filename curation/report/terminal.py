"""The report for those without a browser: one screen of numbers."""

import numpy as np
import pyarrow.compute as pc

from curation.recipe import Rule
from curation.report.gather import HIDDEN, Gathered, is_judgeable
from curation.schema import Column


def score_lines(output: Gathered) -> str:
    """Return a table of the scores: quantiles of what was measured, what is missing, and the rule."""
    columns = [c for c in output.numbers if is_judgeable(c) and c.name not in HIDDEN]
    heads = f"{'score':<22}{'5 %':>12}{'median':>12}{'95 %':>12}{'missing':>9}   rule"
    return "\n".join([heads, *(_line(output, column) for column in columns)])


def score_values(output: Gathered) -> dict[str, dict[str, float | int | None]]:
    """Return the numbers of `score_lines` by column, for programs: quantiles, count of nulls, bounds of the rule."""
    found = {}
    for column in (c for c in output.numbers if is_judgeable(c) and c.name not in HIDDEN):
        low, middle, high = _quantiles(output, column.name)
        rule = output.rules.get(column.name)
        found[column.name] = {
            "p5": _number(low), "median": _number(middle), "p95": _number(high),
            "missing": output.table[column.name].null_count,
            "min": rule and rule.min, "max": rule and rule.max,
        }  # fmt: skip
    return found


def _number(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else value


def side_by_side(one: Gathered, other: Gathered) -> str:
    """Return a table of medians and totals of two outputs."""
    names = [c.name for c in one.numbers if c.name in {d.name for d in other.numbers} - HIDDEN]
    lines = [f"{'':<22}{'A':>12}{'B':>12}"]
    for word in ("accepted", "rejected", "failed"):
        counts = [pc.sum(pc.equal(o.table["status"], word)).as_py() or 0 for o in (one, other)]
        lines.append(f"{word:<22}{counts[0]:>12}{counts[1]:>12}")
    for name in names:
        medians = [_quantiles(o, name)[1] for o in (one, other)]
        lines.append(f"{name:<22}{_shown(medians[0]):>12}{_shown(medians[1]):>12}")
    return "\n".join(lines)


def _line(output: Gathered, column: Column) -> str:
    low, middle, high = _quantiles(output, column.name)
    missing = output.table[column.name].null_count
    cells = f"{_shown(low):>12}{_shown(middle):>12}{_shown(high):>12}{missing:>9}"
    return f"{_named(column):<22}{cells}   {_rule(output.rules.get(column.name))}".rstrip()


def _named(column: Column) -> str:
    return f"{column.name} [{column.unit}]" if column.unit else column.name


def _quantiles(output: Gathered, name: str) -> tuple[float, float, float]:
    low, middle, high = pc.quantile(output.table[name], q=[0.05, 0.5, 0.95], interpolation="nearest").to_pylist()
    return low, middle, high


def _rule(rule: Rule | None) -> str:
    if rule is None:
        return ""
    if rule.min is None or rule.max is None:
        return f"at most {rule.max:g}" if rule.min is None else f"at least {rule.min:g}"
    return f"{rule.min:g} to {rule.max:g}"


def _shown(value: float | None) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:.4g}"
