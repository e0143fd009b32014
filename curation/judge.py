"""Rules over scores: a verdict is the list of reasons, and no reason means accepted."""

from collections.abc import Mapping
from typing import Any

from curation.recipe import Recipe, Rule
from curation.schema import BY_NAME
from curation.types import Row

SHORT = "duration_s:low"
TRANSITION = "shot:transition"


def verdict(row: Mapping[str, Any], rules: Mapping[str, Rule]) -> list[str]:
    """Give the reasons to reject a row, in the order of the rules.

    A rule whose column does not exist for the row's type (motion of an image) says nothing; one whose value
    is missing rejects.
    """
    reasons = []
    for column, rule in rules.items():
        if row["type"] not in BY_NAME[column].media:
            continue
        value = row.get(column)
        if value is None:
            reasons.append(f"{column}:missing")
        elif rule.min is not None and value < rule.min - _slack(rule.min):
            reasons.append(f"{column}:low")
        elif rule.max is not None and value > rule.max + _slack(rule.max):
            reasons.append(f"{column}:high")
    return reasons


def rules_of(recipe: Recipe) -> dict[str, Rule]:
    """Give the recipe's rules with the minimum clip length, which is one of them."""
    length = recipe.rules.get("duration_s", Rule(min=recipe.shots.min_s))
    return {"duration_s": length, **{k: v for k, v in recipe.rules.items() if k != "duration_s"}}


def own_reasons(row: Mapping[str, Any]) -> list[str]:
    """Give the reasons that steps, not rules, have put on a row: they outlast a change of rules."""
    return [r for r in row.get("reasons") or () if r == TRANSITION or r.startswith("caption:")]


def judge(row: Row, rules: Mapping[str, Rule]) -> Row:
    """Set status and reasons; a failed row stays failed."""
    if row["status"] == "failed":
        return row
    reasons = [*own_reasons(row), *verdict(row, rules)]
    return {**row, "status": "rejected" if reasons else "accepted", "reasons": reasons}


def still_standing(row: Mapping[str, Any], rules: Mapping[str, Rule], pending: frozenset[str]) -> bool:
    """Tell whether a row may still be accepted once the columns in `pending` are measured."""
    if row["status"] == "failed":
        return False
    open_reasons = {f"{column}:missing" for column in pending}
    return all(reason in open_reasons for reason in [*own_reasons(row), *verdict(row, rules)])


def _slack(bound: float) -> float:
    """Forgive the last digits, so that a bound of 3 accepts a clip of 2.9999999 s."""
    return 1e-6 * max(1.0, abs(bound))
