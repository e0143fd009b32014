"""The media tasks of curation: probe, analyse, sample again, cut; run in a process of their own (`media.sandbox`)."""

from collections.abc import Iterator
from typing import Any

from core.cpu_time import StepClock
from curation.analysis import analyse
from curation.analysis.look import look_at_source
from curation.analysis.samples import encode_samples
from curation.cut import cut_clip
from curation.work import Plan
from media.sandbox_child import Tasks, run_child
from media.types import Heartbeat


def media_tasks(plan: Plan, beat: Heartbeat, clock: StepClock) -> Tasks:
    """Return the tasks by name, for one run."""

    def look(source: Any, budget_bytes: int) -> Iterator[Any]:
        with clock.step("probe"):
            found = look_at_source(plan, source, budget_bytes, beat)
        yield found

    def probe(source: Any) -> Iterator[Any]:
        with clock.step("probe"):
            tasks = analyse.probe_source(plan, source, beat)
        yield from tasks

    def segment(task: Any) -> Iterator[Any]:
        yield from analyse.analyse(plan, task, beat, clock)

    def again(row: Any, task: Any) -> Iterator[Any]:
        with clock.step("samples"):
            samplings = analyse.pooled_samplings(plan, task.facts.type)
            packed = encode_samples(analyse.sample_again(plan, row, task, samplings, beat))
            analyse.expect_unchanged(task.source)
        yield packed

    def cut(row: Any, task: Any, sampling: Any) -> Iterator[Any]:
        with clock.step("cut"):
            done = cut_clip(plan, row, task, sampling, beat)
            analyse.expect_unchanged(task.source)
        yield done

    return {"look": look, "probe": probe, "analyse": segment, "sample": again, "cut": cut}


if __name__ == "__main__":
    run_child(media_tasks)
