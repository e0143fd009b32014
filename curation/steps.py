"""The steps of the flow as functions over batches of rows; a runner chains them on Ray or in a plain loop.

    probe → analyse → one step per pool of operators → cut → finish
                                                     → record, where the whole table is judged before the rest
A row enters as a planned source, or as a clip that an earlier run left unfinished; it leaves in a part.
"""

import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from core.cpu_time import StepClock
from core.errors import MediaError
from core.progress import Done, Report
from core.retry import write_with_retries
from core.sanitize import without_secrets
from curation.analysis.media_calls import MediaCalls, SourceFailed, Stopped
from curation.analysis.samples import decode_samples
from curation.captions import caption_rows, has_no_caption, load_writer
from curation.cut import judged_by_maps
from curation.gpus import SCORE_GPUS, FillsGpus, booked_gpus, taken_gb
from curation.judge import judge, rules_of, still_undecided
from curation.output.folder import caption_operators
from curation.output.table import rules_text, write_part
from curation.recipe import Rule
from curation.step_spec import Process, Step, StepSpec
from curation.types import Captioner, ClipInput, Operator, Row, Sampling, Scorer, Scores, Source
from curation.work import Plan, Task, failed_row, source_columns, source_of, span_of, task_from_json, task_to_json
from media.types import SourceFacts

SMALL_BYTES = 1_000_000
"""of a source that half a second of one core's work will do"""


def steps_of(plan: Plan, captioner: Captioner) -> list[Step]:
    """Return the steps of a run in order."""
    pools: list[Step] = []
    later = [op for pool in plan.recipe.pools.values() for op in pool.values()]
    for name, operators in plan.recipe.pools.items():
        pending = frozenset(c for op in later for c in op.writes)
        pools.append(ScoreStep(plan, name, operators, pending))
        later = [op for op in later if op not in operators.values()]
    first: list[Step] = [ProbeStep(plan), AnalyseStep(plan), *pools]
    last: list[Step] = [CutStep(plan, captioner), FinishStep(plan, captioner)]
    if plan.recipe.duplicates is None:
        return [*first, *last]
    return [*first, RecordStep(plan)] if plan.judges_apart else last


def source_row(source: Source, done_segments: Sequence[int] = ()) -> Row:
    """Return what the first step is handed of a planned source; segments already done are not done again."""
    return source_columns(source) | ({"_done_segments": list(done_segments)} if done_segments else {})


def unfinished_row(row: Row) -> Row:
    """Return what the first step is handed of a clip that an earlier run left: just what is known of it."""
    return {name: value for name, value in row.items() if value is not None}


@dataclass(frozen=True)
class ProbeStep:
    """Sources become segments: hash, facts, borders. Unfinished clips pass."""

    plan: Plan
    spec: ClassVar[StepSpec] = StepSpec("probe", batch=None)

    def start(self, report: Report) -> Process:
        """Start the media process."""
        media = MediaCalls(self.plan, self.spec.name, report, begins=True)

        def process(rows: Sequence[Row]) -> Iterator[Row]:
            filled = [self.plan.blank() | planned for planned in rows]
            with media.reading_ahead([source_of(row) for row in filled if row["clip_id"] is None]):
                yield from segments(filled)

        def segments(rows: Sequence[Row]) -> Iterator[Row]:
            for row in rows:
                if row["clip_id"] is not None:
                    yield row
                    continue
                source = source_of(row)
                try:
                    tasks = list(media.run("probe", source))
                except Stopped:
                    continue
                except SourceFailed as failed:
                    yield failed_row(self.plan, source, self.spec.name, failed.error)
                    report(Done(self.spec.name, 1, share=source.size_bytes))
                    continue
                done = set(row["_done_segments"] or ())
                for task in tasks:
                    if task.segment.index not in done:
                        yield row | {"_task": task_to_json(task), "_done_segments": None}
                report(Done(self.spec.name, 1))

        return process


@dataclass(frozen=True)
class AnalyseStep:
    """Segments become clips with their pixel scores; unfinished clips get their frames again if need be."""

    plan: Plan
    spec: ClassVar[StepSpec] = StepSpec("analyse")

    def start(self, report: Report) -> Process:
        """Start the media process."""
        media = MediaCalls(self.plan, self.spec.name, report, begins=True)
        rules = rules_of(self.plan.recipe)
        pooled = frozenset(c for ops in self.plan.recipe.pools.values() for op in ops.values() for c in op.writes)

        def process(rows: Sequence[Row]) -> Iterator[Row]:
            for row in rows:
                if row["status"] == "failed":
                    yield row
                    continue
                with suppress(Stopped):  # an unfinished segment leaves no trace in the table
                    if row["clip_id"] is not None:
                        yield self._again(row, rules, pooled, media)
                    else:
                        yield from self._segment(task_from_json(row["_task"]), media, report)

        return process

    def _segment(self, task: Task, media: MediaCalls, report: Report) -> Iterator[Row]:
        count = 0
        try:
            for row in media.run("analyse", task):
                count += 1
                report(Done(self.spec.name, 1))
                yield row
        except SourceFailed as failed:
            yield failed_row(self.plan, task.source, self.spec.name, failed.error, task) | {"_segment_rows": count + 1}
        report(Done(self.spec.name, share=task.source.size_bytes / task.segment.count))

    def _again(self, row: Row, rules: dict[str, Rule], pooled: frozenset[str], media: MediaCalls) -> Row:
        if not (pooled and still_undecided(row, rules, pooled) and any(row[c] is None for c in pooled)):
            return row
        try:
            task = media.task_of(row)
            return row | {"_task": task_to_json(task), "_samples": media.one("sample", row, task)}
        except SourceFailed as failed:
            return _failed(row, self.spec.name, failed.error)


@dataclass(frozen=True)
class ScoreStep:
    """Operators of one pool score the clips that no rule has rejected yet."""

    plan: Plan
    pool: str
    operators: dict[str, Operator]
    pending: frozenset[str]

    @property
    def spec(self) -> StepSpec:
        """Named by its pool; its networks share what the largest of them books."""
        booked = [booked_gpus(operator, SCORE_GPUS) for operator in self.operators.values()]
        taken = taken_gb(operator for operator, gpus in zip(self.operators.values(), booked, strict=True) if gpus)
        return StepSpec(self.pool, batch=8, holds_models=True, gpus=max(booked), gpu_memory_gb=taken)

    def start(self, report: Report) -> Process:
        """Load the operators."""
        scorers = {name: op.load() for name, op in self.operators.items()}
        rules = rules_of(self.plan.recipe)
        clock = StepClock()

        def process(rows: Sequence[Row]) -> Iterator[Row]:
            scored = list(rows)
            for name, score in scorers.items():
                operator = self.operators[name]
                chosen, inputs = [], []
                for index, row in enumerate(scored):
                    frames = decode_samples(row["_samples"], name) if self._wants(row, operator, rules) else None
                    if frames is not None:
                        chosen.append(index)
                        inputs.append(ClipInput(_facts(row), span_of(row), frames))
                with clock.step(name):
                    scores = _scores(score, inputs, name, report)
                for index, values in zip(chosen, scores, strict=True):
                    scored[index] |= values if isinstance(values, dict) else _failed(scored[index], name, values)
            report(Done(self.spec.name, len(rows), sum(r["duration_s"] or 0.0 for r in rows), cpu_s=clock.take()))
            yield from scored

        return process

    def _wants(self, row: Row, operator: Operator, rules: dict[str, Rule]) -> bool:
        if row["status"] == "failed" or row["type"] not in operator.media:
            return False
        if any(row[column] is not None for column in operator.writes):
            return False
        return self.plan.recipe.score_rejected or still_undecided(row, rules, self.pending)


@dataclass(frozen=True)
class RecordStep:
    """Writes scored rows as parts, for the whole table to be judged before anything is captioned and cut."""

    plan: Plan

    @property
    def spec(self) -> StepSpec:
        """Rows are written some at a time, since each part costs."""
        return StepSpec("record", batch=_rows_of_part(self.plan))

    def start(self, report: Report) -> Process:
        """Get ready to write."""
        rules, out = rules_of(self.plan.recipe), Path(self.plan.out)

        def process(rows: Sequence[Row]) -> Iterator[Row]:
            judged = [judge(row | {"_samples": None}, rules) for row in rows]
            # No stamp: these verdicts know nothing of the rest of the table, and must be judged again.
            write_with_retries(self.plan.recipe.limits, partial(write_part, out, self.plan.writers, judged, ""))
            report(Done(self.spec.name, len(rows), sum(r["duration_s"] or 0.0 for r in rows)))
            for row in judged:
                yield self.plan.blank() | {"clip_id": row["clip_id"], "status": row["status"]}

        return process


@dataclass(frozen=True)
class CutStep:
    """Judges; accepted clips are read again, for their files and the captioner's frames."""

    plan: Plan
    captioner: Captioner

    @property
    def spec(self) -> StepSpec:
        """Networks that draw control maps on a GPU book a share of one, so the step has workers of its own."""
        drawing = [control for control in self.plan.recipe.controls.values() if booked_gpus(control, 0.0)]
        gpus = min(1.0, sum(booked_gpus(control, 0.0) for control in drawing))
        return StepSpec("cut", holds_models=gpus > 0, gpus=gpus, gpu_memory_gb=taken_gb(drawing))

    def start(self, report: Report) -> Process:
        """Start the media process."""
        media = MediaCalls(self.plan, self.spec.name, report)
        rules = rules_of(self.plan.recipe)
        frames = self._frames

        def process(rows: Sequence[Row]) -> Iterator[Row]:
            for row in rows:
                row = judge(self.plan.blank() | row | {"_samples": None}, rules)
                if row["status"] == "accepted" and self._needs_reading(row):
                    try:
                        task = task_from_json(row["_task"]) if row["_task"] else media.task_of(row)
                        cut = media.one("cut", row, task, frames)
                        row = judged_by_maps(self.plan, row | cut.columns | {"_samples": cut.samples}, rules)
                        report(Done(self.spec.name, 1, row["duration_s"] or 0.0))
                    except SourceFailed as failed:
                        row = _failed(row, self.spec.name, failed.error)
                yield row

        return process

    def _needs_reading(self, row: Row) -> bool:
        wants_file = self.plan.recipe.cut.mode != "none" and row["clip_path"] is None
        return wants_file or (has_no_caption(row) and self._frames is not None)

    @property
    def _frames(self) -> Sampling | None:
        """What the captioner looks at; without, what its captions are compared with."""
        alignment = self.plan.recipe.alignment
        return self.captioner.sampling or (alignment.sampling if alignment else None)


@dataclass(frozen=True)
class FinishStep:
    """Captions accepted clips, lets caption checks judge once more, and writes finished rows as parts."""

    plan: Plan
    captioner: Captioner

    @property
    def spec(self) -> StepSpec:
        """A captioner that asks for a pool has workers of its own, and so has the model that compares captions.

        Their GPUs are those of the captioner, else of what compares its captions. Small batches come for every slot
        and as many again, which wait in the worker for slots that become free.
        """
        batch, slots, alignment = 8, self.captioner.slots, self.plan.recipe.alignment
        captioner_gpus = booked_gpus(self.captioner, 1.0)
        alignment_gpus = 0.0 if alignment is None else booked_gpus(alignment, SCORE_GPUS)
        holders = [*([self.captioner] if captioner_gpus else []), *([alignment] if alignment_gpus else [])]
        if self.captioner.pool is None and alignment is None and slots == 1:
            batch = _rows_of_part(self.plan)
        return StepSpec(
            "finish",
            batch,
            holds_models=self.captioner.pool is not None or alignment is not None,
            at_once=2 * slots // batch + 2 if slots > 1 else 1,
            gpus=captioner_gpus or alignment_gpus,
            gpu_memory_gb=taken_gb(holders),
            fills_gpus=captioner_gpus > 0 and isinstance(self.captioner, FillsGpus),
        )

    def start(self, report: Report) -> Process:
        """Load the captioner."""
        writer = load_writer(self.captioner, self.plan.recipe.alignment)
        recipe, out = self.plan.recipe, Path(self.plan.out)
        # Without a stamp the whole table is looked at once more, when all rows are there.
        compares = recipe.clusters is not None or bool(caption_operators(recipe))
        rules = "" if compares else rules_text(rules_of(recipe))

        def process(rows: Sequence[Row]) -> Iterator[Row]:
            clock = StepClock()
            with clock.step("caption"):
                finished = caption_rows(rows, writer, out)
            with clock.step("table"):
                write_with_retries(
                    self.plan.recipe.limits, partial(write_part, out, self.plan.writers, finished, rules)
                )
            footage_s = sum(r["duration_s"] or 0.0 for r in rows)
            rejects = Counter(row["reasons"][0] for row in finished if row["status"] == "rejected" and row["reasons"])
            report(Done(self.spec.name, len(rows), footage_s, cpu_s=clock.take(), rejects=dict(rejects)))
            for row in finished:
                yield self.plan.blank() | {"clip_id": row["clip_id"], "status": row["status"]}

        return process


def _rows_of_part(plan: Plan) -> int:
    """Return how many rows are written at a time: a kill costs what was done for those that wait."""
    return 64 if plan.shares_blocks else 8


def needs_a_worker(plan: Plan, row: Row) -> bool:
    """Return whether a row gives the next step much to do: a segment to analyse, or a clip to cut.

    Of many sources the small ones are soon done: handing each on by itself would cost as much as the work.
    """
    if plan.shares_blocks and (row["source_size_bytes"] or 0) <= SMALL_BYTES:
        return False
    if row["clip_id"] is None:
        return True
    is_open = row["source_path"] is not None and row["status"] in (None, "accepted")
    return is_open and still_undecided(row, rules_of(plan.recipe), frozenset())


def _facts(row: Row) -> SourceFacts:
    if row["_task"]:
        return task_from_json(row["_task"]).facts
    return SourceFacts(row["type"], row["width_px"], row["height_px"], row["codec"], row["fps"])


def _scores(score: Scorer, inputs: list[ClipInput], step: str, report: Report) -> list[Scores | MediaError]:
    """Score a batch; should an operator break on it, one clip after another, so that one alone is lost."""
    try:
        return list(score(inputs)) if inputs else []
    except Exception as bug:  # a bug of ours, reported with its traceback; the run goes on
        if len(inputs) > 1:
            return [result for one in inputs for result in _scores(score, [one], step, report)]
        report(Done(step, problems=(without_secrets(traceback.format_exc()),)))
        return [MediaError(f"internal error: {type(bug).__name__}: {bug}")]


def _failed(row: Row, step: str, error: MediaError) -> Row:
    return row | {"status": "failed", "reasons": [], "error": f"{step}: {error}", "_samples": None}
