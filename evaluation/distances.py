"""How far the scores of samples lie from those of training clips, score by score and in one number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from curation.schema import Column
from evaluation.population import Population, applies, numbers

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LEAST_SPREAD = 0.01
"""of a score's typical size, or of 1 where that is smaller: less is no difference that anybody would see"""
MOST_COMPARED = 20_000
"""training clips whose scores are compared; of more, so many are drawn"""
DRAWS = 200
"""sets of training clips drawn to tell what chance alone does"""
MOST_DRAWN = 1000
"""clips in such a set; chance does less to larger ones"""
MOST_STEPS = 1000
"""quantiles that stand for more training clips than that where draws are compared with them"""


@dataclass(frozen=True)
class Distribution:
    """Where the values of one score lie.

    Attributes:
        count: clips that could have it.
        missing: those that have it not.
        quantiles: at QUANTILES; none without values.
        mean: null without values.
    """

    count: int
    missing: int
    quantiles: tuple[float, ...]
    mean: float | None


@dataclass(frozen=True)
class ScoreDistance:
    """One score of the samples beside that of the training clips.

    Attributes:
        column: the score.
        samples: its distribution.
        reference: likewise of the training clips; null: they have no such score, and the rest is null.
        spread: standard deviation of the training clips, in the score's unit; the unit of the distances.
        wasserstein: mean way from one distribution to the other (the earth mover's), in spreads.
        by_chance: what 95 % of equally many training clips, drawn at random, stay below.
        kolmogorov_smirnov: largest difference of the cumulative distributions, 0..1.
        farness: `wasserstein` as 0..1, see `farness`; a sample without the score counts as 1.
    """

    column: Column
    samples: Distribution
    reference: Distribution | None = None
    spread: float | None = None
    wasserstein: float | None = None
    by_chance: float | None = None
    kolmogorov_smirnov: float | None = None
    farness: float | None = None


@dataclass(frozen=True)
class Overall:
    """All scores in one number, 0 (no difference) to 1: the mean farness, every operator counting once.

    Attributes:
        distance: of the samples.
        by_chance: median of equally many training clips drawn at random.
        by_chance_95: what 95 % of such draws stay below.
    """

    distance: float
    by_chance: float
    by_chance_95: float


@dataclass(frozen=True, eq=False)
class _Known:
    """A score of the training clips that are compared: float64 (N,), NaN where it is missing."""

    values: np.ndarray
    rows: np.ndarray

    @property
    def finite(self) -> np.ndarray:
        return self.values[np.isfinite(self.values)]


def compare(
    samples: Population, reference: Population | None, columns: Sequence[Column]
) -> tuple[list[ScoreDistance], Overall | None]:
    """Set the scores of samples beside those of training clips.

    Args:
        samples: what a model made, at least one row.
        reference: the training clips; None: the samples are described alone.
        columns: the scores.

    Returns:
        One entry for each column that the samples have, and the overall distance; None without common scores.
    """
    described = [column for column in columns if samples.table_of(column.name) is not None]
    known = {} if reference is None else _known(reference, described)
    scores = [_compare_one(samples, reference, column, known.get(column.name)) for column in described]
    if not known:
        return scores, None
    chance = _chance(known, min(len(samples.clips), MOST_DRAWN))
    scores = [
        replace(score, by_chance=float(np.nanquantile(chance[score.column.name], 0.95)))
        if score.column.name in chance
        else score
        for score in scores
    ]
    writers = {score.column.name: score.column.writer for score in scores}
    own = {score.column.name: score.farness for score in scores if score.farness is not None}
    draws = [{name: farness(far[i]) for name, far in chance.items() if far[i] == far[i]} for i in range(DRAWS)]
    by_chance = [_mean_by_operator(draw, writers) for draw in draws]
    low, high = np.quantile(by_chance, (0.5, 0.95))
    return scores, Overall(_mean_by_operator(own, writers), float(low), float(high))


def wasserstein(one: np.ndarray, other: np.ndarray) -> float:
    """Return the Wasserstein-1 distance of two sets of values (N,) and (M,): the area between their distributions."""
    steps, difference = _difference(one, other)
    return float((difference[:-1] * np.diff(steps)).sum())


def kolmogorov_smirnov(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest difference of two cumulative distributions, 0..1."""
    return float(_difference(one, other)[1].max())


def _difference(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all values, sorted, and how far apart the two distributions are from each of them on."""
    steps = np.sort(np.concatenate([one, other]))
    shares = [np.searchsorted(np.sort(values), steps, "right") / len(values) for values in (one, other)]
    return steps, np.abs(shares[0] - shares[1])


def spread_of(values: np.ndarray) -> float:
    """Return the standard deviation of a score, or what is too little to matter if that is more."""
    return max(float(values.std()), LEAST_SPREAD * max(1.0, abs(float(np.median(values)))))


def farness(distance: float) -> float:
    """Bring a distance in spreads to 0..1, as d / (1 + d): one score that is off the chart drowns no other."""
    return float(distance / (1 + distance))


def _known(reference: Population, columns: Sequence[Column]) -> dict[str, _Known]:
    """Return the scores of the training clips, of a bounded number of them; those without any value are left out."""
    found: dict[str, _Known] = {}
    for column in columns:
        table = reference.table_of(column.name)
        if table is None:
            continue
        rows = np.arange(len(table))
        if len(rows) > MOST_COMPARED:
            rows = np.sort(np.random.default_rng(0).choice(len(table), MOST_COMPARED, replace=False))
        known = _Known(numbers(table, column.name)[rows], rows)
        if len(known.finite):
            found[column.name] = known
    return found


def _compare_one(
    samples: Population, reference: Population | None, column: Column, known: _Known | None
) -> ScoreDistance:
    """Compare one score; what samples lack more often than training clips do counts as far as can be."""
    own, values = _distribution(samples, column)
    if reference is None or known is None:
        return ScoreDistance(column, own)
    theirs, _ = _distribution(reference, column)
    spread = spread_of(known.finite)
    if not len(values):
        return ScoreDistance(column, own, theirs, spread, farness=1.0 if own.count else None)
    distance = wasserstein(values, known.finite) / spread
    lacking = max(0.0, own.missing / own.count - theirs.missing / theirs.count)
    return ScoreDistance(
        column,
        own,
        theirs,
        spread,
        wasserstein=distance,
        kolmogorov_smirnov=kolmogorov_smirnov(values, known.finite),
        farness=lacking + (1 - lacking) * farness(distance),
    )


def _distribution(population: Population, column: Column) -> tuple[Distribution, np.ndarray]:
    """Describe a score; return its values, too."""
    table = population.table_of(column.name)
    assert table is not None
    values = numbers(table, column.name)[applies(table, column)]
    there = values[np.isfinite(values)]
    quantiles = tuple(float(q) for q in np.quantile(there, QUANTILES)) if len(there) else ()
    mean = float(there.mean()) if len(there) else None
    return Distribution(len(values), len(values) - len(there), quantiles, mean), there


def _chance(known: Mapping[str, _Known], count: int) -> dict[str, np.ndarray]:
    """Return for each score the distances, (DRAWS,) in spreads, of `count` training clips drawn with replacement.

    A draw takes all its scores from the same clips, so that what hangs together does so here. NaN: a draw had none.
    """
    rng = np.random.default_rng(0)
    chosen = {length: rng.integers(length, size=(DRAWS, count)) for length in {len(k.values) for k in known.values()}}
    each = {}
    for name, score in known.items():
        spread, whole = spread_of(score.finite), np.sort(score.finite)
        if len(whole) > MOST_STEPS:
            whole = np.quantile(whole, (np.arange(MOST_STEPS) + 0.5) / MOST_STEPS)
        draws = [score.values[rows] for rows in chosen[len(score.values)]]
        finite = [draw[np.isfinite(draw)] for draw in draws]
        each[name] = np.array([wasserstein(d, whole) / spread if len(d) else np.nan for d in finite])
    return {name: far for name, far in each.items() if np.isfinite(far).any()}


def _mean_by_operator(far: Mapping[str, float], writers: Mapping[str, str]) -> float:
    """Return the mean over operators of the mean over their columns: one that writes four counts as much as others."""
    operators: dict[str, list[float]] = {}
    for name, value in far.items():
        operators.setdefault(writers[name], []).append(value)
    return float(np.mean([np.mean(values) for values in operators.values()])) if operators else 0.0
