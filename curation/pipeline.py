"""One run from sources to table: plan, run the steps, fold, export. The data flow on one page."""

import json
import platform
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from curation.clock import DAEMONS, ENGINE, START, daemons_s, unclaimed
from curation.errors import RunError, UserError
from curation.export import export
from curation.files import atomic_write
from curation.output import (
    Work,
    apply_rules,
    follow_rules,
    forget_opened_folders,
    held,
    judged,
    keep,
    plan_work,
    prepare_folder,
    write_recipe,
)
from curation.outside_text import printable, without_secrets
from curation.progress import Display, Tally
from curation.recipe import Recipe, recipe_values
from curation.report.gather import gather
from curation.report.write import is_stale, pack_output, write_packed, write_report
from curation.retire import restored, settle_files
from curation.runners import Runner
from curation.steps import Step, source_row, steps_of, unfinished_row
from curation.stop import stoppable
from curation.summary import Summary, summarise, summarise_table
from curation.table import Unfinished, drop_parts, fold, read_table, reusing_memory
from curation.types import Captioner, Row, Source
from curation.work import Plan

PACKAGES = ("ray", "av", "scenedetect-headless", "opencv-python-headless", "rapidocr", "numpy", "pyarrow")


@dataclass(frozen=True)
class Outcome:
    """What a run did and what its output now holds."""

    summary: Summary
    tally: Tally
    wall_s: float
    sources_done: int
    clips_finished: int
    is_complete: bool = True
    """False: it was asked to stop before its end"""


def curate(
    sources: list[Source],
    out: Path,
    recipe: Recipe,
    captioner: Captioner,
    runner: Runner,
    retry_failed: bool = False,
    whole_process: bool = False,
) -> Outcome:
    """Bring an output up to date with its sources and its recipe; does only what is missing.

    Args:
        sources: what is to be in it.
        out: the output.
        recipe: what is measured and what is accepted.
        captioner: who writes the captions.
        runner: what does the steps.
        retry_failed: try again what failed in earlier runs.
        whole_process: this process does nothing else: all that it has spent so far is the run's start.

    Raises:
        UserError: the output cannot be written, is in use, or the run cannot fit the machine.
    """
    begin, before_s, spent = time.monotonic(), daemons_s(), Tally()
    if not whole_process:
        unclaimed()  # what this process did before is none of the run's
    writers = recipe.writers
    plan = Plan(recipe, str(out.resolve()), uuid.uuid4().hex)
    # A recipe that judges the whole table scores all clips first; only then is it known which are captioned and cut.
    passes = [plan] if recipe.duplicates is None else [replace(plan, judges_apart=True), plan]
    for each in passes:
        runner.prepare(each, steps_of(each, captioner))
    spent.spend(unclaimed(START))
    prepare_folder(out)
    with held(out):
        write_recipe(out, recipe)
        left = fold(out, writers)
        follow_rules(out, recipe)
        forget_opened_folders(out, recipe)
        work = plan_work(out, recipe, captioner, sources, left, retry_failed)
        drop_parts(out, writers, {(s.path, s.size_bytes, s.mtime_ns) for s, _ in work.sources})
        sources_done, tally, is_complete, clips_finished = len(work.sources), Tally(), True, 0
        if recipe.duplicates is not None:
            if rows := _rows_of(passes[0], work):
                tally, is_complete = _pass(passes[0], captioner, runner, rows, work)
            work = _accepted_work(out, recipe, captioner, sources)
        tried: set[str] = set()
        while is_complete and (rows := [row for row in _rows_of(plan, work) if row["clip_id"] not in tried]):
            more, is_complete = _pass(plan, captioner, runner, rows, work)
            tally, clips_finished = tally.plus(more), clips_finished + len(work.clips)
            if recipe.duplicates is None:
                break
            # Where the best of several copies fails, or finds no caption that fits, the next best is wanted.
            tried |= {row["clip_id"] for row in rows}
            apply_rules(out, recipe)
            work = _accepted_work(out, recipe, captioner, sources)
        settle_files(out, read_table(out, writers, ["clip_path"]))
        if recipe.cut.mode != "none":
            export(out, "internal", refuse_without_files=False)
        wall_s = time.monotonic() - begin
        summary = summarise(out, writers)
        spent.spend(unclaimed(ENGINE) | {DAEMONS: daemons_s() - before_s})
        outcome = Outcome(summary, tally.plus(spent), wall_s, sources_done, clips_finished, is_complete)
        if tally.rows:
            _write_run(out, recipe, outcome)
        if tally.rows or is_stale(out):
            write_report(out, recipe)
        return outcome


def _accepted_work(out: Path, recipe: Recipe, captioner: Captioner, sources: list[Source]) -> Work:
    """Find what clips of a judged table still want; sources were dealt with before."""
    return replace(plan_work(out, recipe, captioner, sources, Unfinished({}), False), sources=[])


def _rows_of(plan: Plan, work: Work) -> list[Row]:
    """Give the rows that enter the flow: unfinished clips and planned sources."""
    clips = work.clips
    if plan.recipe.duplicates is not None:  # scores first, then captions and files of what is accepted
        clips = [row for row in clips if (row["status"] == "accepted") != plan.judges_apart]
    rows = [unfinished_row(plan, row) for row in clips]
    return rows + [source_row(plan, source, done) for source, done in work.sources]


def _pass(plan: Plan, captioner: Captioner, runner: Runner, rows: list[Row], work: Work) -> tuple[Tally, bool]:
    """Run the steps over rows and fold what they leave; tell what was done, and whether all of it."""
    out, recipe = Path(plan.out), plan.recipe
    steps = steps_of(plan, captioner)
    display = Display([step.name for step in steps], sum(source.size_bytes for source, _ in work.sources))
    try:
        tally, is_complete = _run(runner, plan, steps, rows, display)
    except RunError:
        with suppress(RunError):  # let the table show what is finished, if the disk has room for it
            fold(out, recipe.writers)
        raise
    fold(out, recipe.writers)
    follow_rules(out, recipe)
    return tally, is_complete


def _run(runner: Runner, plan: Plan, steps: list[Step], rows: list[Row], display: Display) -> tuple[Tally, bool]:
    """Run the steps until they are done or somebody asks to stop; what broke the run leaves the parts for later."""
    with stoppable(plan) as stop:
        try:
            tally = runner.run(plan, steps, rows, display)
        except KeyboardInterrupt:
            if not stop.is_overdue:
                raise
            tally = Tally()
    return tally, not stop.asked


def select(out: Path, recipe: Recipe) -> Summary:
    """Judge an output again by the recipe's rules; decodes nothing.

    Raises:
        UserError: the output is in use or cannot be written.
    """
    prepare_folder(out)
    with held(out, media=False), reusing_memory(), ThreadPoolExecutor(2) as meanwhile:
        fold(out, recipe.writers)
        write_recipe(out, recipe)
        found = judged(out, recipe)
        packed = meanwhile.submit(lambda: pack_output(gather(out, recipe, restored(found.table, found.aside))))
        keep(out, recipe, found)
        moved = meanwhile.submit(settle_files, out, found.table)  # a rename is slow, and there may be many
        if recipe.cut.mode != "none":
            export(out, "internal", refuse_without_files=False, table=found.table)
        summary = summarise_table(found.table)
        write_packed(out, packed.result())
        moved.result()
    return summary


def _write_run(out: Path, recipe: Recipe, outcome: Outcome) -> None:
    """Write `run.json`: versions, machine, timings, counts."""
    tally = outcome.tally
    run = {
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": [printable(without_secrets(word)) for word in sys.argv],
        "recipe": recipe_values(recipe),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "machine": {
            "cpus": psutil.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "system": platform.platform(),
        },
        "wall_s": round(outcome.wall_s, 3),
        "cpu_total_s": round(sum(tally.cpu_s.values()), 3),
        "cpu_s": {name: round(seconds, 3) for name, seconds in sorted(tally.cpu_s.items(), key=lambda i: -i[1])},
        "footage_s": {name: round(seconds, 3) for name, seconds in tally.video_s.items()},
        "rows": dict(tally.rows),
        "is_complete": outcome.is_complete,
        "sources_done": outcome.sources_done,
        "clips_finished": outcome.clips_finished,
        "summary": asdict(outcome.summary),
        "problems": tally.problems,
    }
    atomic_write(out / "run.json", json.dumps(_without_secrets(run), indent=1, ensure_ascii=False) + "\n")


def _without_secrets(value: Any) -> Any:
    """Hide what looks like a secret in every text of plain values."""
    if isinstance(value, dict):
        return {key: _without_secrets(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(inner) for inner in value]
    return without_secrets(value) if isinstance(value, str) else value


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def need_table(out: Path) -> None:
    """Refuse a folder that is no output.

    Raises:
        UserError: says what to do.
    """
    if not (out / "recipe.yaml").is_file():
        raise UserError(f"{out}: not an output of curate (no recipe.yaml); run run_pipeline.py curate first")
