"""An output folder: whose recipe it follows, and what its rules make of its table."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from core.errors import UserError
from core.files import atomic_write, tidy, writing
from core.lock import locked, locked_if_free
from curation.folders import CLIPS, CONTROLS, PREVIEWS, RETIRED
from curation.inputs.many import SCHEMA, Sources
from curation.inputs.outputs import HEADER, RECIPE
from curation.judge import judge_table, rejected_rows, rules_of
from curation.output.stash import (
    Stashed,
    read_stashed,
    stash_values,
    stashed_columns,
    sync_clip_files,
    write_stashed,
)
from curation.output.table import (
    clips_folder,
    in_order,
    parts_folder,
    read_table,
    rules_text,
    write_table,
    written_rules,
)
from curation.plugins import remember
from curation.recipe import Recipe, Rule, render_recipe, what_differs
from curation.reviews import read_reviews, stamp_of, with_reviews
from curation.schema import FINISH_COLUMNS
from curation.types import TableOperator


def recipe_file(out: Path) -> Path:
    """Return where an output keeps its recipe."""
    return out / RECIPE


def known_sources(out: Path, recipe: Recipe) -> Sources:
    """Return the sources that an output's table names."""
    table = read_table(out, recipe.writers, SCHEMA.names)
    return Sources(table.group_by(SCHEMA.names).aggregate([]).select(SCHEMA.names))


def check_same_recipe(out: Path, asked: Recipe, kept: Recipe) -> None:
    """Refuse to fill an output by another recipe than the one it was started with.

    Raises:
        UserError: says which keys differ, and what to do.
    """
    different = what_differs(asked, kept)
    if not different:
        return
    if all(k.startswith("rules") for k in different):
        raise UserError(
            f"{out} follows other rules ({', '.join(different)}); to change them: run_pipeline.py select {out} …"
        )
    raise UserError(f"{out} was made with another recipe ({', '.join(different[:6])} differ); give another `output`")


def prepare_folder(out: Path) -> None:
    """Make the output folder and see that it can be written to.

    Raises:
        UserError: it cannot.
    """
    probe = out / f".writable-{os.getpid()}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"cannot be written to ({error.strerror})", field="output", value=out, fix="give another folder"
        ) from None


@contextmanager
def output_lock(out: Path, *, media: bool = True) -> Iterator[None]:
    """Hold an output, so that no second run works on it, and repair what a killed run left.

    Args:
        out: output folder.
        media: whether clips and pictures are made meanwhile: then what those that made them left is removed, too.

    Raises:
        UserError: another run holds it.
    """
    with locked(out), writing(out):
        _tidy(out, media=media)
        yield
        if media:  # workers and media processes may have been killed
            _tidy(out, media=media)


@contextmanager
def output_lock_if_free(out: Path) -> Iterator[None]:
    """Hold an output that is only read but for what is written beside its table, unless a run holds it."""
    with locked_if_free(out) as is_held, writing(out):
        if is_held:
            _tidy(out, media=False)
        yield


def _tidy(out: Path, *, media: bool) -> None:
    """Repair and delete what killed processes left half written."""
    pictures = (out / PREVIEWS).glob("??") if media else ()
    controls = (*(out / CONTROLS).glob("*"), *(out / RETIRED / CONTROLS).glob("*"))
    tidy(out, parts_folder(out), out / CLIPS, out / RETIRED, *controls, *pictures)
    for mark in (*out.glob(".stop-*"), *out.glob(".shared-*"), *out.glob(".writable-*")):
        mark.unlink(missing_ok=True)


def write_recipe(out: Path, recipe: Recipe) -> None:
    """Write the resolved recipe, the truth of this output, and what is to be remembered of plug-ins that it names."""
    atomic_write(
        recipe_file(out),
        f"{HEADER}; change its rules with: run_pipeline.py select\n{render_recipe(recipe)}",
    )
    remember(out, recipe.operators)


@dataclass(frozen=True, eq=False)
class Judged:
    """An output's table as its rules have it.

    Attributes:
        table: every row, in order.
        stashed: what is stashed of them.
        is_news: whether more is stashed than was before.
        rules: text of the rules that the verdicts follow.
    """

    table: pa.Table
    stashed: Stashed
    is_news: bool
    rules: str


def judged(out: Path, recipe: Recipe) -> Judged:
    """Judge the whole table by the recipe's rules, and let it hold just what a fresh run would. Writes nothing.

    Scores of a later step have no place in rows that an earlier one rejects, captions and files none in
    rows that are not accepted: they are stashed, and come back when the rules let them.
    """
    rules, reviews = rules_of(recipe), read_reviews(out)
    table = with_reviews(read_table(out, recipe.writers), reviews)
    pools = [[c for op in pool.values() for c in op.writes] for pool in recipe.pools.values()]
    if recipe.duplicates is not None:
        place = table.schema.get_field_index("duplicate_of")
        table = table.set_column(place, "duplicate_of", pa.nulls(len(table), pa.string()))
    before = stashed = read_stashed(out, table, stashed_columns(recipe))
    for number, pool in enumerate(pools):
        if not recipe.score_rejected:
            later = {c for other in pools[number:] for c in other}
            earlier_rules = {c: r for c, r in rules.items() if c not in later}
            table, stashed = stash_values(table, stashed, pool, rejected_rows(table, earlier_rules))
    if recipe.controls:  # made of what all other rules accept
        earlier_rules = {c: r for c, r in rules.items() if c not in recipe.control_amounts}
        amounts = recipe.control_amounts
        table, stashed = stash_values(table, stashed, amounts, rejected_rows(table, earlier_rules))
    if recipe.table_operators:
        table = _compared(table, rules, recipe.table_operators.values())
    finish = [name for name in FINISH_COLUMNS if name in table.column_names]
    table, stashed = stash_values(table, stashed, finish, rejected_rows(table, rules))
    if looking := caption_operators(recipe):  # captions have their places now: who has none has none to be compared
        table = _compared(table, rules, looking)
    return Judged(in_order(judge_table(table, rules)), stashed, stashed is not before, rules_text(rules, reviews.stamp))


def caption_operators(recipe: Recipe) -> list[TableOperator]:
    """Return the operators that look at the captions of a table, once they are there."""
    return [recipe.operators[name] for name in ("caption_language", "caption_clusters") if name in recipe.operators]


def commit_verdicts(out: Path, recipe: Recipe, found: Judged) -> None:
    """Write a judged table, with what is stashed of it; its clips' files are settled after it."""
    if found.is_news:
        write_stashed(out, found.table, found.stashed, stashed_columns(recipe))
    write_table(out, found.table, found.rules)


def apply_rules(out: Path, recipe: Recipe) -> None:
    """Judge the whole table by the recipe's rules, and write what they make of it. Decodes nothing."""
    found = judged(out, recipe)
    commit_verdicts(out, recipe, found)
    sync_clip_files(out, found.table)


def _compared(table: pa.Table, rules: dict[str, Rule], operators: Iterable[TableOperator]) -> pa.Table:
    """Fill the columns of operators that compare rows, of which they see what nothing else rejects.

    The best of several copies may have lost its place by its caption.
    """
    standing = pc.equal(judge_table(table, rules)["status"], "accepted").to_numpy(zero_copy_only=False).astype(bool)
    for operator in operators:
        found = operator.find(table.select(operator.reads(table.column_names)), standing)
        (name,) = operator.writes
        table = table.set_column(table.schema.get_field_index(name), name, found)
    return table


def follow_rules(out: Path, recipe: Recipe) -> None:
    """Judge again if the table's verdicts follow other rules than the recipe, or not all that people have said."""
    if clips_folder(out).exists() and written_rules(out) != rules_text(rules_of(recipe), stamp_of(out)):
        apply_rules(out, recipe)


def forget_opened_folders(out: Path, recipe: Recipe) -> None:
    """Drop the rows of folders that could not be read and now can: their files are sources of their own."""
    named = read_table(out, recipe.writers, ["source_root", "source_path"])
    folders = named.filter(pc.ends_with(named["source_path"], "/")).to_pylist()
    places = {f["source_path"]: os.path.join(f["source_root"], f["source_path"]) for f in folders}
    opened = sorted(path for path, place in places.items() if os.access(place, os.R_OK | os.X_OK))
    if opened:
        table = read_table(out, recipe.writers)
        stays = pc.invert(pc.is_in(table["source_path"], pa.array(opened, pa.string())))
        write_table(out, table.filter(stays), written_rules(out) or "")
