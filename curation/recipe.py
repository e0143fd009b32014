"""The recipe: a strict YAML file that names shots, operators, rules, captioner and cut."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from curation.duplicates import Duplicates
from curation.errors import UserError, nearest
from curation.limits import Limits
from curation.schema import BY_NAME, STEP_WRITERS, Column
from curation.settings import build, key, plain
from curation.settings_file import override, read_yaml, render
from curation.shots import DETECTORS
from curation.shots.types import ShotDetector
from curation.types import Captioner, Operator


@dataclass(frozen=True)
class Tables:
    """The operators and captioners there are, by name."""

    operators: Mapping[str, type[Operator]]
    captioners: Mapping[str, type[Captioner]]


@dataclass(frozen=True)
class ShotSettings:
    """How sources are divided into clips."""

    detector: str = key("fused", f"what finds the cuts: {', '.join(sorted(DETECTORS))}")
    settings: dict[str, Any] = key({}, "the detector's own settings")
    min_s: float = key(3.0, "shorter clips are rejected (rule on duration_s); no piece of a long shot is shorter")
    max_s: float = key(10.0, "longer shots are taken in pieces of this length; the last two share the rest")
    trim_s: float = key(0.0, "taken off both ends of a shot, as far as min_s remains")
    segment_s: float = key(120.0, "sources are divided at keyframes about this far apart, to be decoded in parallel")

    def __post_init__(self) -> None:
        """Refuse lengths that contradict each other."""
        if not 0 < self.min_s <= self.max_s:
            raise ValueError(f"min_s ({self.min_s}) must be above 0 and at most max_s ({self.max_s})")
        if self.trim_s < 0 or self.segment_s < 2 * self.max_s:
            raise ValueError("trim_s must not be negative, segment_s at least twice max_s")


@dataclass(frozen=True)
class Rule:
    """Accept a row only if `min <= value <= max`; a missing value rejects."""

    min: float | None = key(None, "lowest value accepted")
    max: float | None = key(None, "highest value accepted")

    def __post_init__(self) -> None:
        """Refuse rules that say nothing or nothing can pass."""
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if any(bound is not None and not math.isfinite(bound) for bound in (self.min, self.max)):
            raise ValueError("a bound must be a finite number; null is none")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")


@dataclass(frozen=True)
class CaptionSettings:
    """Who writes the captions."""

    captioner: str = key("template", "which captioner")
    settings: dict[str, Any] = key({}, "its own settings")


@dataclass(frozen=True)
class CutSettings:
    """How accepted clips become files."""

    mode: Literal["transcode", "copy", "none"] = key(
        "transcode", "transcode (x264, frame-exact), copy (streams as they are, from a keyframe on), none (virtual)"
    )
    crf: int = key(18, "x264 quality: 0 lossless, 18 visually so, 23 usual")
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow"] = key(
        "veryfast", "x264 speed against size"
    )
    short_side_px: int | None = key(None, "scale files down to this short side; null keeps the source's size")
    fps: float | None = key(None, "give files this frame rate, by time; null keeps every frame and its time")
    crop_bars: bool = key(False, "cut off the bars that the letterbox operator found")

    def __post_init__(self) -> None:
        """Refuse values no encoder takes."""
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf {self.crf} is outside 0..51")
        if (self.short_side_px is not None and self.short_side_px < 16) or (self.fps is not None and self.fps <= 0):
            raise ValueError("short_side_px must be at least 16, fps above 0")


@dataclass(frozen=True)
class Workers:
    """How many processes each step gets; null: as many as fit the machine."""

    analyse: int | None = key(None, "decoding and pixel scores")
    score: int | None = key(None, "each pool of pooled operators")
    caption: int | None = key(None, "captioner's workers, where it has its own: engines of vLLM, say")
    cut: int | None = key(None, "second read and encoding")

    def __post_init__(self) -> None:
        """Refuse pools without workers."""
        if any(n is not None and n < 1 for n in (self.analyse, self.score, self.caption, self.cut)):
            raise ValueError("a step needs at least 1 worker")


@dataclass(frozen=True)
class Recipe:
    """A resolved recipe: everything that decides what an output holds."""

    reader: Literal["pyav", "decord"] = key("pyav", "who decodes: pyav or decord")
    shots: ShotSettings = key(ShotSettings(), "how sources are divided into clips")
    operators: dict[str, Any] = key({}, "scores to measure, with their settings; `false` leaves one out")
    score_rejected: bool = key(False, "measure the dearer scores of clips that a rule has rejected already, too")
    rules: dict[str, Rule] = key({}, "bounds on columns; a clip outside any of them is rejected with the reason")
    caption: CaptionSettings = key(CaptionSettings(), "who writes the captions")
    cut: CutSettings = key(CutSettings(), "how accepted clips become files")
    limits: Limits = key(Limits(), "what one source may cost")
    workers: Workers = key(Workers(), "processes for each step")

    @property
    def detector(self) -> ShotDetector:
        """The shot detector with its settings."""
        return build(DETECTORS[self.shots.detector], self.shots.settings, "shots.settings")

    @property
    def writers(self) -> tuple[str, ...]:
        """What decides the table's columns, for `schema.table_schema`."""
        named = [f"{name}[{op.dim}]" if hasattr(op, "dim") else name for name, op in self.operators.items()]
        languages = self.caption.settings.get("asking", {}).get("languages", ())
        return (*named, *(f"caption_{language}" for language in languages))

    @property
    def alignment(self) -> Any | None:
        """What compares captions with frames, if the recipe asks for it."""
        return self.operators.get("caption_alignment")

    @property
    def duplicates(self) -> Duplicates | None:
        """What counts as a copy, if the recipe asks for copies to be found."""
        return self.operators.get("duplicates")

    @property
    def pixel_operators(self) -> dict[str, Operator]:
        """Operators that run beside the decoder, on every clip."""
        return {name: op for name, op in self.operators.items() if op.pool is None and name not in LATE}

    @property
    def pools(self) -> dict[str, dict[str, Operator]]:
        """Operators that run in worker pools of their own, by pool."""
        pools: dict[str, dict[str, Operator]] = {}
        for name, op in self.operators.items():
            if op.pool is not None and name not in LATE:
                pools.setdefault(op.pool, {})[name] = op
        return pools

    def writer_of(self, column: str) -> str:
        """Give the step or operator that writes a column."""
        return BY_NAME[column].writer


LATE = frozenset({"duplicates", "caption_alignment"})
"""operators that look at the whole table, or at captions"""
# Sections that say how a run is carried out, not what an output holds.
RUN_SECTIONS = frozenset({"limits", "workers"})


def load_recipe(path: Path | None, overrides: Sequence[str], tables: Tables) -> tuple[Recipe, Captioner]:
    """Read a recipe file and apply `key=value` overrides.

    Args:
        path: YAML file; None: all defaults.
        overrides: `dotted.key=value` with YAML values, e.g. `rules.motion.min=0.5`.
        tables: the operators and captioners there are.

    Raises:
        UserError: unreadable file, unknown key (with the nearest name), wrong value, or an operator that is
            not available.
    """
    raw = read_yaml(path, "recipe") if path else {}
    for text in overrides:
        override(raw, text, "rules.motion.min=0.5")
    return resolve(raw, tables)


def resolve(raw: Mapping[str, Any], tables: Tables) -> tuple[Recipe, Captioner]:
    """Turn plain YAML values into a recipe and its captioner; raises as `load_recipe` does."""
    raw = dict(raw)
    named = raw.pop("operators", None)
    named = {} if named is None else named
    if not isinstance(named, Mapping):
        raise UserError(f"operators: expected names and settings, got {named!r}")
    operators = {
        name: build(_operator(str(name), tables), None if settings is True else settings, f"operators.{name}")
        for name, settings in named.items()
        if settings is not False
    }
    rules = {} if raw.get("rules") is None else raw["rules"]
    if not isinstance(rules, Mapping):
        raise UserError(f"rules: expected columns with min and max, got {rules!r}")
    recipe = build(Recipe, {**raw, "rules": {str(k): v for k, v in rules.items() if v is not False}}, "recipe")
    if recipe.shots.detector not in DETECTORS:
        known = nearest(recipe.shots.detector, list(DETECTORS))
        raise UserError(f"shots.detector: unknown '{recipe.shots.detector}'{known}")
    name = recipe.caption.captioner
    if name not in tables.captioners:
        raise UserError(f"caption.captioner: unknown '{name}'{nearest(name, list(tables.captioners))}")
    # Settings are kept with every default spelled out: an output follows them though defaults change.
    detector = build(DETECTORS[recipe.shots.detector], recipe.shots.settings, "shots.settings")
    captioner = build(tables.captioners[name], recipe.caption.settings, "caption.settings")
    shots = dataclasses.replace(recipe.shots, settings=plain(detector))
    caption = dataclasses.replace(recipe.caption, settings=plain(captioner))
    recipe = dataclasses.replace(recipe, operators=operators, shots=shots, caption=caption)
    _check_rules(recipe)
    _check_duplicates(recipe)
    return recipe, captioner


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """Give the recipe as plain YAML values; `resolve` takes them back."""
    values: dict[str, Any] = plain(recipe)
    return values


def what_differs(one: Recipe, other: Recipe) -> list[str]:
    """Give the dotted keys in which two recipes would fill an output differently."""
    a, b = recipe_values(one), recipe_values(other)
    return [k for section in a if section not in RUN_SECTIONS for k in _differences(a[section], b[section], section)]


def render_recipe(recipe: Recipe) -> str:
    """Write a recipe as YAML with every key's meaning beside it."""

    def spell(owner: Any, name: str, value: Any) -> Any:
        if isinstance(owner, ShotSettings) and name == "settings":
            return build(DETECTORS[owner.detector], value, "shots.settings")  # its fields have meanings
        return value

    return render(recipe, spell, lambda key, depth: BY_NAME[key].meaning if key in BY_NAME and depth == 0 else "")


def _operator(name: str, tables: Tables) -> type[Operator]:
    if name in tables.operators:
        return tables.operators[name]
    raise UserError(f"operators: unknown operator '{name}'{nearest(name, list(tables.operators))}")


def _check_rules(recipe: Recipe) -> None:
    for name in recipe.rules:
        column = BY_NAME.get(name)
        if column is None:
            raise UserError(f"rules: unknown column '{name}'{nearest(name, list(BY_NAME))}")
        if column.writer not in STEP_WRITERS and column.writer not in recipe.operators:
            raise UserError(f"rules.{name}: no operator of this recipe writes it; add operators.{column.writer}")
        if not _is_judged(column):
            raise UserError(f"rules.{name}: not a number that is known when clips are judged")


def _check_duplicates(recipe: Recipe) -> None:
    settings = recipe.duplicates
    if settings is None:
        return
    if settings.cosine is not None and "embedding" not in recipe.operators:
        raise UserError("operators.duplicates.cosine: no operator writes embeddings; add operators.embedding")
    if settings.best is None:
        return
    column = BY_NAME.get(settings.best)
    if column is None or not _is_judged(column):
        known = nearest(settings.best, [name for name, column in BY_NAME.items() if _is_judged(column)])
        raise UserError(f"operators.duplicates.best: '{settings.best}' is no column to judge by{known}")
    if column.writer not in STEP_WRITERS and column.writer not in recipe.operators:
        raise UserError(f"operators.duplicates.best: no operator writes {column.name}; add operators.{column.writer}")


def _is_judged(column: Column) -> bool:
    """Tell whether a column is a number that is known when clips are judged."""
    return column.dtype in _NUMBERS and column.writer not in ("table", "cut", "caption_alignment")


def _differences(a: Any, b: Any, where: str) -> list[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        return [d for k in sorted({*a, *b}) for d in _differences(a.get(k), b.get(k), f"{where}.{k}")]
    return [] if a == b else [where]


_NUMBERS = frozenset({c.dtype for c in BY_NAME.values() if str(c.dtype) in ("double", "int64", "int32")})
