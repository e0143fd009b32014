"""What the report knows of an output: its recipe, its rules, and every row with all scores ever measured."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from curation.judge import rules_of
from curation.output.stash import read_stashed, restored, stashed_columns
from curation.output.table import read_table
from curation.recipe import Recipe, Rule
from curation.reviews import caption_of
from curation.schema import BY_NAME, STEP_WRITERS, Column

ALWAYS = ("start_s", "end_s", "duration_s", "width_px", "height_px", "short_side_px", "fps", "num_frames")
HIDDEN = frozenset({"start_s", "end_s"})
"""numbers that a card shows and no histogram is wanted of"""
TEXTS = (
    *("clip_id", "type", "kind", "status", "source_path", "error", "caption", "caption_status", "clip_path"),
    *("caption_by_hand", "review"),
)
NUMBERS = frozenset({"double", "int64", "int32"})


@dataclass(frozen=True)
class Gathered:
    """An output as the report sees it.

    Attributes:
        out: its folder.
        recipe: what it follows.
        rules: its rules in the order in which they are tried.
        stages: columns that pools of operators write, in the order of the pools: what an earlier rule
            rejects is not measured by a later pool.
        table: (N rows) the columns of `numbers`, TEXTS and `reasons`; scores and captions that changed
            rules stashed are back in their places.
        numbers: columns with a number for each row.
    """

    out: Path
    recipe: Recipe
    rules: dict[str, Rule]
    stages: list[list[str]]
    table: pa.Table
    numbers: list[Column]


def gather(out: Path, recipe: Recipe, table: pa.Table | None = None) -> Gathered:
    """Read what the report shows of an output; no media is opened.

    Args:
        out: the output.
        recipe: what it follows.
        table: its table with everything that was stashed in its place, where known already; null: it is read.
    """
    rules = rules_of(recipe)
    stages = [[c for op in pool.values() for c in op.writes] for pool in recipe.pools.values()]
    numbers = _numbers(recipe, rules)
    names = list(dict.fromkeys([*(c.name for c in numbers), *TEXTS, "reasons"]))
    if table is None:
        table = read_table(out, recipe.writers, names)
        table = restored(table, read_stashed(out, table, [c for c in stashed_columns(recipe) if c in names]))
    return Gathered(out, recipe, rules, stages, _with_hands(table.select(names)), numbers)


def _with_hands(table: pa.Table) -> pa.Table:
    """Let a person's caption stand where the captioner's does; nothing is wrong with it."""
    by_hand = pc.is_valid(table["caption_by_hand"])
    if not pc.any(by_hand).as_py():
        return table
    status = pc.if_else(by_hand, "ok", table["caption_status"])
    for name, values in (("caption", caption_of(table)), ("caption_status", status)):
        table = table.set_column(table.schema.get_field_index(name), name, values)
    return table


def _numbers(recipe: Recipe, rules: Iterable[str]) -> list[Column]:
    """Return the columns of numbers that a person may want to see or to judge by, those under rules first."""
    measured = [c for name in recipe.operators for c in recipe.columns.values() if c.writer == name]
    measured += [BY_NAME[name] for name in recipe.control_amounts]
    wanted = [*(recipe.columns[name] for name in rules), *measured, *(BY_NAME[name] for name in ALWAYS)]
    return list({c.name: c for c in wanted if str(c.dtype) in NUMBERS}.values())


def is_judgeable(column: Column) -> bool:
    """Return whether a rule may stand on a column."""
    return column.writer not in (STEP_WRITERS & {"table", "cut"})
