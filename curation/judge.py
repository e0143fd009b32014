"""Rules over scores: a verdict is the list of reasons, and no reason means accepted."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.recipe import Recipe, Rule
from curation.reviews import DROP, KEEP
from curation.schema import BOTH, BY_NAME, CONTROL_AMOUNTS
from curation.types import Row

TRANSITION = "shot:transition"
DROPPED = "review:drop"
"""the reason of a clip that a person dropped"""
COPY = "duplicate_of:"
"""begins the reason of a copy; the kept clip's id follows"""


@dataclass(frozen=True)
class ForeignRule(Rule):
    """A rule on a column of a plug-in, which `schema.BY_NAME` does not know; `media`: the types of row that have it."""

    media: frozenset[str] = BOTH


def verdict(row: Mapping[str, Any], rules: Mapping[str, Rule]) -> list[str]:
    """Return the reasons to reject a row, in the order of the rules, missing values last.

    A rule whose column does not exist for the row's type (motion of an image) says nothing; one whose value
    is missing rejects, but for control maps, which are made of accepted clips only: their rules wait for them.
    """
    reasons, missing = [], []
    for column, rule in rules.items():
        if row["type"] not in _media_of(column, rule):
            continue
        value = row.get(column)
        if value is None or value != value:  # not a number is no measurement
            if column not in CONTROL_AMOUNTS:
                missing.append(f"{column}:missing")
        elif rule.min is not None and value < rule.min - _slack(rule.min):
            reasons.append(f"{column}:low")
        elif rule.max is not None and value > rule.max + _slack(rule.max):
            reasons.append(f"{column}:high")
    return reasons + missing


def judge(row: Row, rules: Mapping[str, Rule]) -> Row:
    """Set status and reasons; a failed row stays failed; a person's verdict wins over all else."""
    if row["status"] == "failed":
        return row
    if _is_kept(row):
        return {**row, "status": "accepted", "reasons": []}
    reasons = [*_said_of(row), *verdict(row, rules)]
    if not reasons and row.get("duplicate_of") is not None:
        reasons = [f"{COPY}{row['duplicate_of']}"]
    if not reasons and row.get("caption_status") not in (None, "ok") and row.get("caption_by_hand") is None:
        reasons = [f"caption:{row['caption_status']}"]
    return {**row, "status": "rejected" if reasons else "accepted", "reasons": reasons}


def judge_table(table: pa.Table, rules: Mapping[str, Rule]) -> pa.Table:
    """Judge a whole table at once; every row as `judge` would."""
    count = len(table)
    names, marks = _broken(table, rules)
    copies = _copies(table, marks)
    flagged = pc.fill_null(pc.not_equal(table["caption_status"], "ok"), False)
    if "caption_by_hand" in table.column_names:
        flagged = pc.and_(flagged, pc.is_null(table["caption_by_hand"]))
    captioned = _flags(flagged, count) & ~_any(marks, count) & ~copies & ~_kept_rows(table)
    failed = _flags(pc.equal(table["status"], "failed"), count)
    for status in pc.unique(table["caption_status"].filter(pa.array(captioned))).to_pylist():
        names.append(f"caption:{status}")
        same = _flags(pc.fill_null(pc.equal(table["caption_status"], status), False), count)
        marks.append(captioned & same)
    words = pa.array(names)
    fallen = (_any(marks, count) | copies) & ~failed
    copies &= ~failed
    judged = np.flatnonzero(fallen)
    places, columns = np.nonzero(np.stack([mark[judged] for mark in marks], axis=1))
    rows = judged[places]
    if copies.any():  # each has a reason of its own: the id of the clip that was kept
        own = np.flatnonzero(copies)
        kept = table["duplicate_of"].take(pa.array(own)).combine_chunks()
        columns = np.concatenate([columns, len(words) + np.arange(len(own))])
        rows = np.concatenate([rows, own])
        order = np.argsort(rows, kind="stable")
        rows, columns = rows[order], columns[order]
        words = pa.concat_arrays([words, pc.binary_join_element_wise(COPY, kept, "")])
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=count))]).astype(np.int32)
    reasons = pa.ListArray.from_arrays(pa.array(offsets), words.take(pa.array(columns)))
    kinds = pa.array(["accepted", "rejected", "failed"])
    status = kinds.take(pa.array(np.where(failed, 2, fallen.astype(np.int64))))
    table = table.set_column(table.schema.get_field_index("status"), "status", status)
    return table.set_column(table.schema.get_field_index("reasons"), "reasons", reasons)


def rejected_rows(table: pa.Table, rules: Mapping[str, Rule]) -> np.ndarray:
    """Return which rows rules reject, whatever their captions: bool (N,)."""
    _, marks = _broken(table, rules)
    failed = _flags(pc.equal(table["status"], "failed"), len(table))
    return (_any(marks, len(table)) | _copies(table, marks)) & ~failed


def undecided_rows(table: pa.Table, rules: Mapping[str, Rule], pending: Collection[str]) -> np.ndarray:
    """Return which rows may still be accepted once the columns in `pending` are measured: bool (N,)."""
    names, marks = _broken(table, rules)
    open_reasons = {f"{column}:missing" for column in pending}
    settled = [mark for name, mark in zip(names, marks, strict=True) if name not in open_reasons]
    return ~_any(settled, len(table)) & ~_flags(pc.equal(table["status"], "failed"), len(table))


def _broken(table: pa.Table, rules: Mapping[str, Rule]) -> tuple[list[str], list[np.ndarray]]:
    """Return the reasons there can be, and for each the rows that have it: bool (N,)."""
    count = len(table)
    names, marks = [TRANSITION], [pc.fill_null(pc.equal(table["kind"], "transition"), False)]
    if "review" in table.column_names:
        names.append(DROPPED)
        marks.append(pc.fill_null(pc.equal(table["review"], DROP), False))
    missing = []
    kinds = {column: _media_of(column, rule) for column, rule in rules.items()}
    types = {media: pc.is_in(table["type"], pa.array(sorted(media))) for media in {*kinds.values()}}
    for column, rule in rules.items():
        values = table[column]
        applies = types[kinds[column]]
        low = pc.less(values, rule.min - _slack(rule.min)) if rule.min is not None else None
        high = pc.greater(values, rule.max + _slack(rule.max)) if rule.max is not None else None
        for word, mark in (("low", low), ("high", high)):
            if mark is not None:
                names.append(f"{column}:{word}")
                marks.append(pc.and_(applies, pc.fill_null(mark, False)))
        if column not in CONTROL_AMOUNTS:
            missing.append((f"{column}:missing", pc.and_(applies, pc.is_null(values, nan_is_null=True))))
    names += [name for name, _ in missing]
    marks += [mark for _, mark in missing]
    decided = ~_kept_rows(table)
    return names, [_flags(mark, count) & decided for mark in marks]


def _kept_rows(table: pa.Table) -> np.ndarray:
    """Return which rows a person keeps: bool (N,)."""
    if "review" not in table.column_names:
        return np.zeros(len(table), bool)
    kept = pc.and_(pc.equal(table["review"], KEEP), pc.fill_null(pc.not_equal(table["kind"], "transition"), True))
    return _flags(pc.fill_null(kept, False), len(table))


def _any(marks: Iterable[np.ndarray], count: int) -> np.ndarray:
    """Return which rows have any of the marks: bool (N,)."""
    found = np.zeros(count, bool)
    for mark in marks:
        found |= mark
    return found


def _copies(table: pa.Table, marks: list[np.ndarray]) -> np.ndarray:
    """Return which rows are copies of a kept one, and nothing else is wrong with them: bool (N,)."""
    if "duplicate_of" not in table.column_names:
        return np.zeros(len(table), bool)
    return _flags(pc.is_valid(table["duplicate_of"]), len(table)) & ~_any(marks, len(table)) & ~_kept_rows(table)


def rules_of(recipe: Recipe) -> dict[str, Rule]:
    """Return the recipe's rules with those that its other sections imply.

    These are the minimum clip length and, where clips are cut to what is free of overlays, the least share of it; a
    rule of the recipe's own on the same column takes the place of either.
    """
    implied = {"duration_s": Rule(min=recipe.shots.min_s)}
    if recipe.cut.crops == "safe":
        implied["safe_share"] = Rule(min=recipe.cut.min_safe_share)
    return implied | {column: _placed(recipe, column, rule) for column, rule in recipe.rules.items()}


def _placed(recipe: Recipe, column: str, rule: Rule) -> Rule:
    return rule if column in BY_NAME else ForeignRule(rule.min, rule.max, recipe.columns[column].media)


def _media_of(column: str, rule: Rule) -> frozenset[str]:
    return rule.media if isinstance(rule, ForeignRule) else BY_NAME[column].media


def still_undecided(row: Mapping[str, Any], rules: Mapping[str, Rule], pending: frozenset[str]) -> bool:
    """Return whether a row may still be accepted once the columns in `pending` are measured."""
    if row["status"] == "failed":
        return False
    if _is_kept(row):
        return True
    open_reasons = {f"{column}:missing" for column in pending}
    return all(reason in open_reasons for reason in [*_said_of(row), *verdict(row, rules)])


def _said_of(row: Mapping[str, Any]) -> list[str]:
    """Return the reasons that no rule gives: of the shot, and of people."""
    is_dropped = row.get("review") == DROP
    return [TRANSITION] * (row.get("kind") == "transition") + [DROPPED] * is_dropped


def _is_kept(row: Mapping[str, Any]) -> bool:
    return row.get("review") == KEEP and row.get("kind") != "transition"


def _flags(mark: pa.ChunkedArray, count: int) -> np.ndarray:
    flags: np.ndarray = mark.to_numpy(zero_copy_only=False).astype(bool)
    assert flags.shape == (count,)
    return flags


def _slack(bound: float) -> float:
    """Forgive the last digits, so that a bound of 3 accepts a clip of 2.9999999 s."""
    return 1e-6 * max(1.0, abs(bound))
