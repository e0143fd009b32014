"""Rules over scores: a verdict is the list of reasons, and no reason means accepted."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.recipe import Recipe, Rule
from curation.schema import BY_NAME
from curation.types import Row

TRANSITION = "shot:transition"
COPY = "duplicate_of:"
"""begins the reason of a copy; the kept clip's id follows"""


def verdict(row: Mapping[str, Any], rules: Mapping[str, Rule]) -> list[str]:
    """Give the reasons to reject a row, in the order of the rules, missing values last.

    A rule whose column does not exist for the row's type (motion of an image) says nothing; one whose value
    is missing rejects.
    """
    reasons, missing = [], []
    for column, rule in rules.items():
        if row["type"] not in BY_NAME[column].media:
            continue
        value = row.get(column)
        if value is None or value != value:  # not a number is no measurement
            missing.append(f"{column}:missing")
        elif rule.min is not None and value < rule.min - _slack(rule.min):
            reasons.append(f"{column}:low")
        elif rule.max is not None and value > rule.max + _slack(rule.max):
            reasons.append(f"{column}:high")
    return reasons + missing


def judge(row: Row, rules: Mapping[str, Rule]) -> Row:
    """Set status and reasons; a failed row stays failed."""
    if row["status"] == "failed":
        return row
    reasons = [*_of_the_shot(row), *verdict(row, rules)]
    if not reasons and row.get("duplicate_of") is not None:
        reasons = [f"{COPY}{row['duplicate_of']}"]
    if not reasons and row.get("caption_status") not in (None, "ok"):
        reasons = [f"caption:{row['caption_status']}"]
    return {**row, "status": "rejected" if reasons else "accepted", "reasons": reasons}


def judge_table(table: pa.Table, rules: Mapping[str, Rule]) -> pa.Table:
    """Judge a whole table at once; every row as `judge` would."""
    count = len(table)
    names, marks = _broken(table, rules)
    copies = _copies(table, marks)
    flagged = pc.fill_null(pc.not_equal(table["caption_status"], "ok"), False)
    captioned = _flags(flagged, count) & ~_any(marks, count) & ~copies
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
    """Tell which rows rules reject, whatever their captions: bool (N,)."""
    _, marks = _broken(table, rules)
    failed = _flags(pc.equal(table["status"], "failed"), len(table))
    return (_any(marks, len(table)) | _copies(table, marks)) & ~failed


def standing_rows(table: pa.Table, rules: Mapping[str, Rule], pending: Collection[str]) -> np.ndarray:
    """Tell which rows may still be accepted once the columns in `pending` are measured: bool (N,)."""
    names, marks = _broken(table, rules)
    open_reasons = {f"{column}:missing" for column in pending}
    settled = [mark for name, mark in zip(names, marks, strict=True) if name not in open_reasons]
    return ~_any(settled, len(table)) & ~_flags(pc.equal(table["status"], "failed"), len(table))


def _broken(table: pa.Table, rules: Mapping[str, Rule]) -> tuple[list[str], list[np.ndarray]]:
    """Give the reasons there can be, and for each the rows that have it: bool (N,)."""
    count = len(table)
    names, marks = [TRANSITION], [pc.fill_null(pc.equal(table["kind"], "transition"), False)]
    missing = []
    types = {media: pc.is_in(table["type"], pa.array(sorted(media))) for media in {BY_NAME[c].media for c in rules}}
    for column, rule in rules.items():
        values = table[column]
        applies = types[BY_NAME[column].media]
        low = pc.less(values, rule.min - _slack(rule.min)) if rule.min is not None else None
        high = pc.greater(values, rule.max + _slack(rule.max)) if rule.max is not None else None
        for word, mark in (("low", low), ("high", high)):
            if mark is not None:
                names.append(f"{column}:{word}")
                marks.append(pc.and_(applies, pc.fill_null(mark, False)))
        missing.append((f"{column}:missing", pc.and_(applies, pc.is_null(values, nan_is_null=True))))
    names += [name for name, _ in missing]
    marks += [mark for _, mark in missing]
    return names, [_flags(mark, count) for mark in marks]


def _any(marks: Iterable[np.ndarray], count: int) -> np.ndarray:
    """Tell which rows have any of the marks: bool (N,)."""
    found = np.zeros(count, bool)
    for mark in marks:
        found |= mark
    return found


def _copies(table: pa.Table, marks: list[np.ndarray]) -> np.ndarray:
    """Tell which rows are copies of a kept one, and nothing else is wrong with them: bool (N,)."""
    if "duplicate_of" not in table.column_names:
        return np.zeros(len(table), bool)
    return _flags(pc.is_valid(table["duplicate_of"]), len(table)) & ~_any(marks, len(table))


def rules_of(recipe: Recipe) -> dict[str, Rule]:
    """Give the recipe's rules with the minimum clip length, which is one of them."""
    length = recipe.rules.get("duration_s", Rule(min=recipe.shots.min_s))
    return {"duration_s": length, **{k: v for k, v in recipe.rules.items() if k != "duration_s"}}


def still_standing(row: Mapping[str, Any], rules: Mapping[str, Rule], pending: frozenset[str]) -> bool:
    """Tell whether a row may still be accepted once the columns in `pending` are measured."""
    if row["status"] == "failed":
        return False
    open_reasons = {f"{column}:missing" for column in pending}
    return all(reason in open_reasons for reason in [*_of_the_shot(row), *verdict(row, rules)])


def _of_the_shot(row: Mapping[str, Any]) -> list[str]:
    return [TRANSITION] if row.get("kind") == "transition" else []


def _flags(mark: pa.ChunkedArray, count: int) -> np.ndarray:
    flags: np.ndarray = mark.to_numpy(zero_copy_only=False).astype(bool)
    assert flags.shape == (count,)
    return flags


def _slack(bound: float) -> float:
    """Forgive the last digits, so that a bound of 3 accepts a clip of 2.9999999 s."""
    return 1e-6 * max(1.0, abs(bound))
