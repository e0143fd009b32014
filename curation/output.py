"""An output folder: whose recipe it follows, and what in it is unfinished."""

import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.compute as pc

from curation.errors import UserError
from curation.files import atomic_write
from curation.judge import judge_table, rules_of, still_standing
from curation.recipe import Recipe, render_recipe, what_differs
from curation.retire import retire, settle_files
from curation.schema import BY_NAME
from curation.table import Unfinished, clips_folder, read_table, rules_text, write_table, written_rules
from curation.types import Captioner, Row, Source

RECIPE = "recipe.yaml"


@dataclass(frozen=True)
class Work:
    """What a run has to do: sources to curate, with segments that are done, and clips to finish."""

    sources: list[tuple[Source, Sequence[int]]]
    clips: list[Row]
    known: int
    """sources that need nothing more"""


def recipe_file(out: Path) -> Path:
    """Give where an output keeps its recipe."""
    return out / RECIPE


def check_same_recipe(out: Path, asked: Recipe, kept: Recipe) -> None:
    """Refuse to fill an output by another recipe than the one it was begun with.

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
    raise UserError(f"{out} was made with another recipe ({', '.join(different[:6])} differ); give another --output")


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
        raise UserError(f"--output {out}: cannot be written to ({error.strerror}); give another folder") from None


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Hold an output, so that no second run works on it.

    Raises:
        UserError: another run holds it.
    """
    lock = out / ".lock"
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}
    while True:
        try:
            descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            break
        except FileExistsError:
            try:
                owner = json.loads(lock.read_text())
            except (OSError, ValueError):
                owner = {}
            if _is_alive(owner):
                who = f"process {owner.get('pid')} on {owner.get('host')}"
                raise UserError(f"{out} is in use by {who}; wait for it, or delete {lock} if it is gone") from None
            lock.unlink(missing_ok=True)
    try:
        os.write(descriptor, json.dumps(mine).encode())
        os.close(descriptor)
        yield
    finally:
        lock.unlink(missing_ok=True)


def write_recipe(out: Path, recipe: Recipe) -> None:
    """Write the resolved recipe: the truth of this output."""
    atomic_write(
        recipe_file(out),
        f"# The recipe of this output; change its rules with: run_pipeline.py select\n{render_recipe(recipe)}",
    )


def apply_rules(out: Path, recipe: Recipe) -> pa.Table:
    """Judge the whole table by the recipe's rules, and set captions and files accordingly. Decodes nothing.

    Returns:
        The judged table, as it was written.
    """
    rules = rules_of(recipe)
    table = judge_table(read_table(out, recipe.operators), rules)
    by_rules = pc.and_(
        pc.equal(table["status"], "rejected"),
        pc.invert(pc.fill_null(pc.starts_with(pc.list_element(_padded(table["reasons"]), 0), "caption:"), False)),
    )
    table = judge_table(retire(out, table, by_rules), rules)
    write_table(out, table, rules)
    settle_files(out, table)
    return table


def follow_rules(out: Path, recipe: Recipe) -> None:
    """Judge again if the table's verdicts follow other rules than the recipe (a `select` that was cut short)."""
    if clips_folder(out).exists() and written_rules(out) != rules_text(rules_of(recipe)):
        apply_rules(out, recipe)


def plan_work(
    out: Path, recipe: Recipe, captioner: Captioner, sources: list[Source], left: Unfinished, retry_failed: bool
) -> Work:
    """Find what a run has to do, from names, sizes and times alone: no source is opened."""
    keys = ["source_path", "source_size_bytes", "source_mtime_ns", "status"]
    table = read_table(out, recipe.operators, keys)
    per_source = table.group_by(keys[:3]).aggregate([("status", "distinct")]).to_pylist()
    known = {(r["source_path"], r["source_size_bytes"], r["source_mtime_ns"]): r["status_distinct"] for r in per_source}
    todo: list[tuple[Source, Sequence[int]]] = []
    for source in sources:
        key = (source.path, source.size_bytes, source.mtime_ns)
        if key not in known or (retry_failed and "failed" in known[key]):
            todo.append((source, left.segments.get(key, ())))
    again = {source.path for source, _ in todo}
    here = {source.path: source for source in sources}
    clips = [
        row | ({"source_root": here[row["source_path"]].root} if row["source_path"] in here else {})
        for row in _unfinished_clips(out, recipe, captioner)
        if row["source_path"] not in again
    ]
    return Work(todo, clips, len(sources) - len(todo))


def _unfinished_clips(out: Path, recipe: Recipe, captioner: Captioner) -> list[Row]:
    """Give accepted rows without caption or file, and rows that lack only scores not measured yet."""
    rules = rules_of(recipe)
    pooled = {c: op.media for ops in recipe.pools.values() for op in ops.values() for c in op.writes}
    needed = ["clip_id", "type", "kind", "status", "reasons", "caption", "caption_status", "clip_path"]
    columns = list(dict.fromkeys([*needed, *rules, *pooled]))
    table = read_table(out, recipe.operators, columns)
    accepted = pc.equal(table["status"], "accepted")
    bare = pc.is_null(table["caption"])
    if recipe.cut.mode != "none":
        bare = pc.or_(bare, pc.is_null(table["clip_path"]))
    wanted = pc.and_(accepted, bare)
    ids = set(table.filter(wanted)["clip_id"].to_pylist())
    unscored = pc.and_(pc.equal(table["status"], "rejected"), _any_null(table, pooled))
    for row in table.filter(unscored).to_pylist() if pooled else []:
        open_columns = frozenset(c for c in pooled if row[c] is None and row["type"] in BY_NAME[c].media)
        if open_columns and still_standing(row, rules, open_columns):
            ids.add(row["clip_id"])
    if not ids:
        return []
    full = read_table(out, recipe.operators)
    return full.filter(pc.is_in(full["clip_id"], pa.array(sorted(ids)))).to_pylist()  # type: ignore[no-any-return]


def _any_null(table: pa.Table, columns: dict[str, frozenset[str]]) -> pa.ChunkedArray:
    mark = pa.chunked_array([pa.array([False] * len(table), pa.bool_())])
    for column in columns:
        mark = pc.or_(mark, pc.is_null(table[column]))
    return mark


def _padded(reasons: pa.ChunkedArray) -> pa.ChunkedArray:
    """Give lists of exactly one element, the first reason or null."""
    return pc.list_slice(reasons, 0, 1, return_fixed_size_list=True)


def _is_alive(owner: dict[str, object]) -> bool:
    if owner.get("host") != socket.gethostname():
        return bool(owner)  # another machine's run: only a person can tell
    try:
        process = psutil.Process(int(str(owner.get("pid"))))
        return abs(process.create_time() - float(str(owner.get("started")))) < 1.0
    except (psutil.NoSuchProcess, ValueError):
        return False
