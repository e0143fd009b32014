"""The recipe: a strict YAML file that names shots, operators, rules, captioner and cut."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from core.errors import UserError, nearest
from core.limits import Limits
from core.settings import build, key, plain, truth_in
from core.settings_file import override, read_yaml, render
from curation.dedup.clusters import Clusters
from curation.dedup.duplicates import Duplicates
from curation.schema import (
    BY_NAME,
    CONTROL,
    CONTROL_AMOUNTS,
    STEP_WRITERS,
    Column,
    VectorWriter,
    Writer,
    caption_columns,
)
from curation.shots import BUILT_IN, DETECTORS
from curation.shots.types import ENDINGS, KINDS, ShotDetector
from curation.types import (
    AnyOperator,
    Captioner,
    CaptionScorer,
    Control,
    DeclaresColumns,
    Operator,
    TableOperator,
    WritesVectors,
)
from curation.workers import Workers
from media.settings import CutSettings


@dataclass(frozen=True)
class Tables:
    """The operators, captioners, detectors and controls there are, by name."""

    operators: Mapping[str, type[AnyOperator]]
    captioners: Mapping[str, type[Captioner]]
    detectors: Mapping[str, type[ShotDetector]] = field(default_factory=lambda: DETECTORS)
    controls: Mapping[str, type[Control]] = field(default_factory=dict)


@dataclass(frozen=True)
class ShotSettings:
    """How sources are divided into clips."""

    detector: str = key("fused", f"what finds the cuts: {', '.join(sorted(BUILT_IN))}")
    settings: dict[str, object] = key({}, "the detector's own settings")
    ends_at: tuple[str, ...] = key(ENDINGS, f"kinds of transitions that end a clip, of {', '.join(KINDS)}")
    min_s: float = key(3.0, "shorter clips are rejected (rule on duration_s); no piece of a long shot is shorter")
    max_s: float = key(10.0, "longer shots are taken in pieces of this length; the last two share the rest")
    trim_s: float = key(0.0, "taken off both ends of a shot, as far as min_s remains")
    segment_s: float = key(120.0, "sources are divided at keyframes about this far apart, to be decoded in parallel")

    def __post_init__(self) -> None:
        """Refuse lengths that contradict each other."""
        if not 0 < self.min_s <= self.max_s:
            raise ValueError(f"min_s ({self.min_s}) must be above 0 and at most max_s ({self.max_s})")
        unknown = [kind for kind in self.ends_at if kind not in KINDS]
        if unknown:
            raise ValueError(f"ends_at: {', '.join(unknown)} is no kind of transition; there are {', '.join(KINDS)}")
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
    settings: dict[str, object] = key({}, "its own settings")


@dataclass(frozen=True)
class Recipe:
    """A resolved recipe: everything that decides what an output holds."""

    reader: Literal["pyav", "decord"] = key("pyav", "who decodes: pyav or decord")
    shots: ShotSettings = key(ShotSettings(), "how sources are divided into clips")
    operators: dict[str, Any] = key({}, "scores to measure, with their settings; `false` leaves one out")
    score_rejected: bool = key(
        False, "measure the more expensive scores of clips that a rule has rejected already, too"
    )
    rules: dict[str, Rule] = key({}, "bounds on columns; a clip outside any of them is rejected with the reason")
    caption: CaptionSettings = key(CaptionSettings(), "who writes the captions")
    cut: CutSettings = key(CutSettings(), "how accepted clips become files")
    controls: dict[str, Any] = key(
        {}, "control maps to make of accepted clips, with their settings; `false` leaves out"
    )
    limits: Limits = key(Limits(), "what one source may cost")
    workers: Workers = key(Workers(), "processes for each step")

    @property
    def detector(self) -> ShotDetector:
        """The shot detector with its settings."""
        return build(DETECTORS[self.shots.detector], self.shots.settings, "shots.settings")

    @property
    def columns(self) -> dict[str, Column]:
        """Every column there can be, by name: those of `schema.COLUMNS`, and what this recipe's plug-ins declare."""
        return {**BY_NAME, **{column.name: column for column in self._foreign_columns}}

    @property
    def _foreign_columns(self) -> tuple[Column, ...]:
        declaring = [op for op in self.operators.values() if isinstance(op, DeclaresColumns)]
        return tuple(column for op in declaring for column in op.columns)

    @property
    def writers(self) -> tuple[Writer, ...]:
        """What decides the table's columns, for `schema.table_schema`."""
        ours = {name: op for name, op in self.operators.items() if not isinstance(op, DeclaresColumns)}
        named = [VectorWriter(name, op.dim) if isinstance(op, WritesVectors) else name for name, op in ours.items()]
        controls = (f"{CONTROL}{name}" for name in self.controls)
        return (*named, *caption_columns(self.caption.settings), *controls, *self._foreign_columns)

    @property
    def alignment(self) -> CaptionScorer | None:
        """What compares captions with frames, if the recipe asks for it."""
        return self.operators.get("caption_alignment")

    @property
    def duplicates(self) -> Duplicates | None:
        """What counts as a copy, if the recipe asks for copies to be found."""
        return self.operators.get("duplicates")

    @property
    def clusters(self) -> Clusters | None:
        """What clips are grouped by, if the recipe asks for it."""
        return self.operators.get("clusters")

    @property
    def table_operators(self) -> dict[str, TableOperator]:
        """Operators that compare the rows of the table, in the order in which they do."""
        return {name: self.operators[name] for name in ("duplicates", "clusters") if name in self.operators}

    @property
    def _of_clips(self) -> dict[str, Operator]:
        """Operators that score clips one by one."""
        return {name: op for name, op in self.operators.items() if name not in LATE}

    @property
    def pixel_operators(self) -> dict[str, Operator]:
        """Operators that run beside the decoder, on every clip."""
        return {name: op for name, op in self._of_clips.items() if op.pool is None}

    @property
    def pools(self) -> dict[str, dict[str, Operator]]:
        """Operators that run in worker pools of their own, by pool."""
        pools: dict[str, dict[str, Operator]] = {}
        for name, op in self._of_clips.items():
            if op.pool is not None:
                pools.setdefault(op.pool, {})[name] = op
        return pools

    @property
    def control_amounts(self) -> tuple[str, ...]:
        """Columns that say how much the control maps hold."""
        return tuple(f"{CONTROL}{name}_amount" for name in self.controls)

    @property
    def file_columns(self) -> tuple[str, ...]:
        """Columns that name the files of a clip."""
        return ("clip_path", *(f"{CONTROL}{name}_path" for name in self.controls))

    def writer_of(self, column: str) -> str:
        """Return the step or operator that writes a column."""
        return self.columns[column].writer


LATE = frozenset({"duplicates", "clusters", "caption_alignment", "caption_language", "caption_clusters"})
"""operators that look at the whole table (`TableOperator`), or at a caption with its frames (`CaptionScorer`)"""
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
        name: build(_operator(str(name), tables), None if truth_in(settings) else settings, f"operators.{name}")
        for name, settings in named.items()
        if truth_in(settings) is not False
    }
    controls = _controls(raw.pop("controls", None), tables)
    rules = {} if raw.get("rules") is None else raw["rules"]
    if not isinstance(rules, Mapping):
        raise UserError(f"rules: expected columns with min and max, got {rules!r}")
    recipe = build(
        Recipe, {**raw, "rules": {str(k): v for k, v in rules.items() if truth_in(v) is not False}}, "recipe"
    )
    if recipe.shots.detector not in tables.detectors:
        known = nearest(recipe.shots.detector, list(tables.detectors))
        raise UserError(f"unknown '{recipe.shots.detector}'{known}", field="shots.detector")
    name = recipe.caption.captioner
    if name not in tables.captioners:
        raise UserError(f"unknown '{name}'{nearest(name, list(tables.captioners))}", field="caption.captioner")
    # Settings are kept with every default spelled out: an output follows them though defaults change.
    detector = build(tables.detectors[recipe.shots.detector], recipe.shots.settings, "shots.settings")
    captioner = build(tables.captioners[name], recipe.caption.settings, "caption.settings")
    shots = dataclasses.replace(recipe.shots, settings=plain(detector))
    caption = dataclasses.replace(recipe.caption, settings=plain(captioner))
    recipe = dataclasses.replace(recipe, operators=operators, controls=controls, shots=shots, caption=caption)
    _check_columns(recipe)
    _check_rules(recipe)
    _check_controls(recipe)
    _check_duplicates(recipe)
    _check_crop(recipe)
    _check_clusters(recipe)
    return recipe, captioner


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as plain YAML values; `resolve` takes them back."""
    values: dict[str, Any] = plain(recipe)
    return values


def what_differs(one: Recipe, other: Recipe) -> list[str]:
    """Return the dotted keys in which two recipes would fill an output differently."""
    a, b = recipe_values(one), recipe_values(other)
    return [k for section in a if section not in RUN_SECTIONS for k in _differences(a[section], b[section], section)]


def render_recipe(recipe: Recipe) -> str:
    """Write a recipe as YAML with every key's meaning beside it."""

    def spell(owner: Any, name: str, value: Any) -> Any:
        if isinstance(owner, ShotSettings) and name == "settings" and owner.detector in DETECTORS:
            return build(DETECTORS[owner.detector], value, "shots.settings")  # its fields have meanings
        return value

    columns = recipe.columns
    return render(recipe, spell, lambda key, depth: columns[key].meaning if key in columns and depth == 0 else "")


def _operator(name: str, tables: Tables) -> type[AnyOperator]:
    if name in tables.operators:
        return tables.operators[name]
    raise UserError(f"operators: unknown operator '{name}'{nearest(name, list(tables.operators))}")


def _check_columns(recipe: Recipe) -> None:
    """Refuse two plug-ins that write one column."""
    writers: dict[str, str] = {}
    for column in recipe._foreign_columns:
        other = writers.setdefault(column.name, column.writer)
        if other != column.writer:
            raise UserError(f"operators: {other} and {column.writer} both write the column '{column.name}'; keep one")


def _controls(named: Any, tables: Tables) -> dict[str, Control]:
    named = {} if named is None else named
    if not isinstance(named, Mapping):
        raise UserError(f"controls: expected names and settings, got {named!r}")
    wanted = {str(name): settings for name, settings in named.items() if truth_in(settings) is not False}
    for name in wanted:
        if name not in tables.controls:
            raise UserError(f"controls: unknown control '{name}'{nearest(name, list(tables.controls))}")
    return {
        name: build(tables.controls[name], None if truth_in(settings) else settings, f"controls.{name}")
        for name, settings in wanted.items()
    }


def _check_controls(recipe: Recipe) -> None:
    """Refuse what maps cannot be made with: they are drawn from the pictures that are encoded for the clip's file."""
    if recipe.controls and recipe.cut.mode != "transcode":
        raise UserError(f"controls: nothing is encoded with cut.mode: {recipe.cut.mode}; set cut.mode: transcode")
    if recipe.controls and recipe.cut.hdr == "keep":
        raise UserError("controls: maps are made of 8-bit pictures; set cut.hdr: tone_map")


def _check_rules(recipe: Recipe) -> None:
    columns = recipe.columns
    for name in recipe.rules:
        column = columns.get(name)
        if column is None:
            raise UserError(f"rules: unknown column '{name}'{nearest(name, list(columns))}")
        control = column.writer.removeprefix(CONTROL) if column.writer.startswith(CONTROL) else None
        if control is not None and control not in recipe.controls:
            raise UserError("no control of this recipe writes it", field=f"rules.{name}", fix=f"add controls.{control}")
        if control is None and column.writer not in STEP_WRITERS and column.writer not in recipe.operators:
            raise UserError(
                "no operator of this recipe writes it", field=f"rules.{name}", fix=f"add operators.{column.writer}"
            )
        if not _is_judged(column):
            raise UserError("not a number that is known when clips are judged", field=f"rules.{name}")


def _check_crop(recipe: Recipe) -> None:
    if recipe.cut.crop == "safe" and "overlay" not in recipe.operators:
        raise UserError(
            "safe needs the box that operators.overlay finds", field="cut.crop", fix="add operators.overlay"
        )


def _check_duplicates(recipe: Recipe) -> None:
    settings = recipe.duplicates
    if settings is None:
        return
    if settings.cosine is not None and "embedding" not in recipe.operators:
        raise UserError(
            "no operator writes embeddings", field="operators.duplicates.cosine", fix="add operators.embedding"
        )
    if settings.best is None:
        return
    columns = recipe.columns
    column = columns.get(settings.best)
    if column is None or not _is_judged(column) or column.name in CONTROL_AMOUNTS:
        known = nearest(settings.best, [name for name, column in columns.items() if _is_judged(column)])
        raise UserError(f"'{settings.best}' is no column to judge by{known}", field="operators.duplicates.best")
    if column.writer not in STEP_WRITERS and column.writer not in recipe.operators:
        raise UserError(
            f"no operator writes {column.name}", field="operators.duplicates.best", fix=f"add operators.{column.writer}"
        )


def _check_clusters(recipe: Recipe) -> None:
    settings = recipe.clusters
    if settings is not None and settings.by not in recipe.operators:
        raise UserError("no operator writes it", field="operators.clusters.by", fix=f"add operators.{settings.by}")


def _is_judged(column: Column) -> bool:
    """Return whether a column is a number that is known when clips are judged."""
    return column.dtype in _NUMBERS and column.writer not in ("table", "cut", "caption_alignment")


def _differences(a: Any, b: Any, where: str) -> list[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        return [d for k in sorted({*a, *b}) for d in _differences(a.get(k), b.get(k), f"{where}.{k}")]
    return [] if a == b else [where]


_NUMBERS = frozenset({pa.float64(), pa.int64(), pa.int32()})
