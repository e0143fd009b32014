"""One run from sources to table: plan, run the steps, fold, export. The data flow on one page."""

import json
import platform
import sys
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa

from core.cpu_time import DAEMONS, ENGINE, START, daemons_s, unclaimed
from core.errors import RunError, UserError
from core.files import atomic_write
from core.machine import version_of
from core.packages import code_digest
from core.progress import Display, Tally
from core.sanitize import printable, without_secrets
from core.signals import stoppable
from curation.engine.runners import Runner
from curation.export.refresh import refresh_exports
from curation.inputs.many import PlannedSources, Sources, no_sources
from curation.inputs.passed import PassedOver
from curation.output.compaction import compacting
from curation.output.folder import (
    apply_rules,
    commit_verdicts,
    follow_rules,
    forget_opened_folders,
    judged,
    output_lock,
    prepare_folder,
    write_recipe,
)
from curation.output.folding import Unfinished, drop_parts, fold
from curation.output.owed import REPORT, RUN, owe, owed, settle
from curation.output.planning import UnfinishedClips, Work, no_ids, plan_work
from curation.output.stash import restored, sync_clip_files
from curation.output.table import read_table, reusing_memory
from curation.plugins import packages_of
from curation.recipe import Recipe, recipe_values
from curation.report.gather import gather
from curation.report.summary import Summary, summarise, summarise_table
from curation.report.write import is_stale, pack_output, write_packed, write_report
from curation.step_spec import Step
from curation.steps import source_row, steps_of, unfinished_row
from curation.types import Captioner, Row, Source
from curation.work import Plan

RUN_NAME = "run.json"
MANY_ROWS = 1000
"""from which on small sources share blocks: every worker has enough to do all the same"""
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
    remote_bytes: int = 0
    """size of the sources in buckets that it worked on"""


@dataclass(frozen=True, kw_only=True)
class CurateSettings:
    """How a run is done; nothing of it is in the output.

    Attributes:
        retry_failed: try again what failed in earlier runs.
        whole_process: this process does nothing else: all that it has spent so far is the run's start.
        passed_over: what lay beside the sources and is none, for the summary.
        watch: given what has been done so far, again and again.
    """

    retry_failed: bool = False
    whole_process: bool = False
    passed_over: PassedOver | None = None
    watch: Callable[[Tally], None] | None = None


def curate(
    sources: Sequence[Source],
    out: Path,
    recipe: Recipe,
    captioner: Captioner,
    runner: Runner,
    settings: CurateSettings | None = None,
) -> Outcome:
    """Bring an output up to date with its sources and its recipe; does only what is missing.

    Args:
        sources: what is to be in it.
        out: the output.
        recipe: what is measured and what is accepted.
        captioner: who writes the captions.
        runner: what does the steps.
        settings: how it is done; None: the usual ones.

    Raises:
        UserError: the output cannot be written, is in use, or the run cannot fit the machine.
    """
    settings = settings or CurateSettings()
    begin, before_s, spent = time.monotonic(), daemons_s(), Tally()
    if not settings.whole_process:
        unclaimed()  # what this process did before is none of the run's
    writers = recipe.writers
    plan = Plan(recipe, str(out.resolve()), uuid.uuid4().hex)
    flow = _Flow(plan, captioner, runner, Sources.of(sources), settings.watch)
    for each in flow.passes:
        runner.prepare(each, steps_of(each, captioner))
    spent.spend(unclaimed(START))
    prepare_folder(out)
    with output_lock(out):
        is_owed = bool(owed(out))
        owe(out, [REPORT])
        write_recipe(out, recipe)
        left = fold(out, writers)
        follow_rules(out, recipe)
        forget_opened_folders(out, recipe)
        work = plan_work(out, recipe, captioner, flow.sources, left, retry_failed=settings.retry_failed)
        drop_parts(out, writers, work.sources.started())
        if work.sources or work.clips:
            owe(out, [RUN])
        done = _process_all(flow, work) if recipe.duplicates is None else _score_then_finish(flow, work)
        sync_clip_files(out, read_table(out, writers, recipe.file_columns))
        stale = refresh_exports(out) if recipe.cut.mode != "none" else ()
        wall_s = time.monotonic() - begin
        seen = settings.passed_over or PassedOver()
        summary = replace(summarise(out, writers), passed_over=seen, stale_exports=stale)
        spent.spend(unclaimed(ENGINE) | {DAEMONS: daemons_s() - before_s})
        outcome = Outcome(
            summary, done.tally.plus(spent), wall_s, len(work.sources), done.clips_finished, done.is_complete,
            work.sources.sources.remote_bytes,
        )  # fmt: skip
        is_news = bool(done.tally.rows) or RUN in owed(out) or not (out / RUN_NAME).exists()
        if is_news:
            _write_run(out, recipe, outcome)
        if is_news or is_owed or is_stale(out):
            write_report(out, recipe)
        settle(out)
        return outcome


@dataclass(frozen=True)
class _Flow:
    """What every pass of a run shares."""

    plan: Plan
    captioner: Captioner
    runner: Runner
    sources: Sources
    watch: Callable[[Tally], None] | None = None

    @property
    def passes(self) -> list[Plan]:
        """A recipe that judges the whole table scores all clips before it is known which are captioned and cut."""
        return [self.plan] if self.plan.recipe.duplicates is None else [self.scoring, self.plan]

    @property
    def scoring(self) -> Plan:
        """The pass that scores clips and leaves captions and files to the next one."""
        return replace(self.plan, judges_apart=True)


@dataclass(frozen=True)
class _Done:
    """What passes over the steps have done."""

    tally: Tally = field(default_factory=Tally)
    is_complete: bool = True
    clips_finished: int = 0


def _process_all(flow: _Flow, work: Work) -> _Done:
    """Take sources and unfinished clips through all steps, one pass."""
    rows = _rows_of(flow.plan, work)
    if not len(rows):
        return _Done()
    tally, is_complete = _pass(flow.plan, flow, rows, work)
    return _Done(tally, is_complete, len(work.clips))


def _score_then_finish(flow: _Flow, work: Work) -> _Done:
    """Score everything, judge the whole table, then caption and cut what is accepted.

    Where the best of several copies fails, or finds no caption that fits, the next best takes its place.
    """
    out, recipe = Path(flow.plan.out), flow.plan.recipe
    done = _Done()
    if len(rows := _rows_of(flow.scoring, work)):
        done = _Done(*_pass(flow.scoring, flow, rows, work))
    tried = no_ids()
    while done.is_complete:
        work = _accepted_work(flow)
        rows = _rows_of(flow.plan, work)
        rows = replace(rows, clips=rows.clips.without(tried))
        if not len(rows):
            break
        tally, is_complete = _pass(flow.plan, flow, rows, work)
        done = _Done(done.tally.plus(tally), is_complete, done.clips_finished + len(work.clips))
        tried = pa.chunked_array([*tried.chunks, *rows.clips.ids.chunks], pa.string())
        apply_rules(out, recipe)
    return done


def _accepted_work(flow: _Flow) -> Work:
    """Find what clips of a judged table still need; their sources were analysed before."""
    out, recipe = Path(flow.plan.out), flow.plan.recipe
    work = plan_work(out, recipe, flow.captioner, flow.sources, Unfinished({}), retry_failed=False)
    return replace(work, sources=no_sources())


@dataclass(frozen=True, eq=False)
class _Rows(Collection[Row]):
    """The rows that enter the flow, unfinished clips and planned sources; each is made when it is asked for."""

    clips: UnfinishedClips
    sources: PlannedSources

    def __len__(self) -> int:
        return len(self.clips) + len(self.sources)

    def __iter__(self) -> Iterator[Row]:
        yield from map(unfinished_row, self.clips)
        for source, done in self.sources:
            yield source_row(source, done)

    def __contains__(self, row: object) -> bool:
        return any(row == each for each in self)


def _rows_of(plan: Plan, work: Work) -> _Rows:
    """Return the rows that enter the flow."""
    clips = work.clips
    if plan.recipe.duplicates is not None:  # scores first, then captions and files of what is accepted
        clips = replace(clips, accepted=no_ids()) if plan.judges_apart else replace(clips, rejected=no_ids())
    return _Rows(clips, work.sources)


def _pass(plan: Plan, flow: _Flow, rows: _Rows, work: Work) -> tuple[Tally, bool]:
    """Run the steps over rows and fold what they leave; return what was done, and whether all of it was."""
    out, recipe = Path(plan.out), plan.recipe
    plan = replace(plan, shares_blocks=len(rows) >= MANY_ROWS)
    steps = steps_of(plan, flow.captioner)
    display = Display([step.spec.name for step in steps], work.sources.sources.size_bytes, watch=flow.watch)
    try:
        tally, is_complete = _run(flow.runner, plan, steps, rows, display)
    except RunError:
        with suppress(RunError):  # let the table show what is finished, if the disk has room for it
            fold(out, recipe.writers)
        raise
    fold(out, recipe.writers)
    follow_rules(out, recipe)
    return tally, is_complete


def _run(runner: Runner, plan: Plan, steps: list[Step], rows: _Rows, display: Display) -> tuple[Tally, bool]:
    """Run the steps until they are done or somebody asks to stop; what broke the run leaves the parts for later."""
    with stoppable(plan.stop_file) as stop, compacting(Path(plan.out), plan.writers):
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
    with output_lock(out, media=False), reusing_memory(), ThreadPoolExecutor(2) as meanwhile:
        owe(out, [REPORT])
        fold(out, recipe.writers)
        write_recipe(out, recipe)
        found = judged(out, recipe)
        packed = meanwhile.submit(lambda: pack_output(gather(out, recipe, restored(found.table, found.stashed))))
        commit_verdicts(out, recipe, found)
        moved = meanwhile.submit(sync_clip_files, out, found.table)  # a rename is slow, and there may be many
        stale = refresh_exports(out, found.table) if recipe.cut.mode != "none" else ()
        summary = replace(summarise_table(found.table), stale_exports=stale)
        write_packed(out, packed.result())
        moved.result()
        if RUN not in owed(out):  # else `curate` pays all of it
            settle(out)
    return summary


def _write_run(out: Path, recipe: Recipe, outcome: Outcome) -> None:
    """Write `run.json`: versions, machine, timings, counts."""
    tally = outcome.tally
    run = {
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": [printable(without_secrets(word)) for word in sys.argv],
        "recipe": recipe_values(recipe),
        "versions": {"python": platform.python_version(), **{name: version_of(name) for name in PACKAGES}},
        "code": code_digest(),
        "plugins": packages_of(recipe.operators),
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
    if storage := _storage_facts(tally, outcome.remote_bytes):
        run["storage"] = storage
    atomic_write(out / RUN_NAME, json.dumps(_without_secrets(run), indent=1, ensure_ascii=False) + "\n")


def _storage_facts(tally: Tally, remote_bytes: int) -> dict[str, float]:
    """Return what was read of sources in buckets, as bytes and as a share of them, and how long steps waited for it."""
    found: dict[str, float] = {}
    if tally.fetched_bytes:
        share = round(tally.fetched_bytes / max(1, remote_bytes), 4)
        found |= {"fetched_bytes": tally.fetched_bytes, "fetched_share": share, "waited_s": round(tally.waited_s, 3)}
    if tally.looked_at_bytes:
        share = round(tally.looked_bytes / tally.looked_at_bytes, 6)
        found |= {"looked_bytes": tally.looked_bytes, "looked_share": share}
    return found


def _without_secrets(value: Any) -> Any:
    """Hide what looks like a secret in every text of plain values."""
    if isinstance(value, dict):
        return {key: _without_secrets(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(inner) for inner in value]
    return without_secrets(value) if isinstance(value, str) else value


def need_table(out: Path) -> None:
    """Refuse a folder that is no output.

    Raises:
        UserError: says what to do.
    """
    if not (out / "recipe.yaml").is_file():
        raise UserError(f"{out}: not an output of curate (no recipe.yaml); run run_pipeline.py curate first")
