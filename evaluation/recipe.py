"""The recipe that samples are measured by: the operators of another one, nothing cut, nothing rejected."""

from collections.abc import Callable
from typing import Any

from core.settings import plain
from curation.recipe import Recipe, Tables, recipe_values, resolve
from curation.types import AnyOperator, Captioner
from evaluation.prompts import NAME

WHOLE_S = 3600.0
"""A sample of up to this length is one clip."""
NOT_OF_PICTURES = frozenset((
    *("facts", "bits_per_pixel", "speech", "duplicates", "clusters", "caption_language", "caption_clusters"),
))
"""operators that tell of files or of the whole table, not of pictures"""
NOT_OF_SCORES = frozenset({"device", "dtype", "batch_frames", "min_score"})
"""settings that say how and where a score is computed, or what follows from it, not what it is"""


def judging_recipe(
    base: Recipe, tables: Tables, lacks: Callable[[AnyOperator], str | None]
) -> tuple[Recipe, Captioner]:
    """Return the recipe that measures samples by the operators of another recipe.

    Args:
        base: whose operators are taken; `temporal_hash`, by which the nearest training clip is found, comes with them.
        tables: the operators and captioners there are.
        lacks: says what an operator lacks to run here, None for nothing; such operators are left out.
    """
    values = recipe_values(base)
    kept: dict[str, Any] = {
        name: settings
        for name, settings in values["operators"].items()
        if name not in NOT_OF_PICTURES and lacks(base.operators[name]) is None
    }
    kept.setdefault("temporal_hash", {})
    if "caption_alignment" in kept:
        kept["caption_alignment"] |= {"min_score": -1.0}  # a prompt is not asked for again
    return resolve(
        {
            "reader": values["reader"],
            "shots": {
                "detector": "stride",
                "settings": {"every_s": 2 * WHOLE_S},
                **{"min_s": 1e-3, "max_s": WHOLE_S, "segment_s": 2 * WHOLE_S},
            },
            "operators": kept,
            "score_rejected": True,
            "caption": {"captioner": NAME},
            "cut": {"mode": "none"},
            "limits": values["limits"],
            "workers": values["workers"],
        },
        tables,
    )


def same_scores(one: Recipe, other: Recipe) -> list[str]:
    """Name the operators of the first recipe whose scores mean the same in the second."""
    return [
        name
        for name, operator in one.operators.items()
        if name in other.operators and _meaning(plain(operator)) == _meaning(plain(other.operators[name]))
    ]


def _meaning(settings: Any) -> Any:
    """Leave out of an operator's plain settings what does not change its scores."""
    if isinstance(settings, dict):
        return {name: _meaning(value) for name, value in settings.items() if name not in NOT_OF_SCORES}
    return settings
