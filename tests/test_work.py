"""Rows of what was lost have ids of their own."""

from curation.errors import MediaError
from curation.recipe import Recipe
from curation.types import Segment, Source, SourceFacts
from curation.work import Plan, Task, failed_row, task_from_json, task_to_json


def task_of(segment: int) -> Task:
    facts = SourceFacts("video", 64, 48, "h264", fps=25.0)
    return Task(Source("/footage", "a.mp4", 10, 1), "abc", facts, Segment(segment, 3, None, None))


def test_segments_that_fail_alike_are_rows_of_their_own() -> None:
    plan, error = Plan(Recipe(), "out"), MediaError("the decoder crashed (SIGSEGV)")
    rows = [failed_row(plan, task_of(i).source, "analyse", error, task_of(i)) for i in range(3)]
    assert len({row["clip_id"] for row in rows}) == 3
    assert [row["_segment"] for row in rows] == [0, 1, 2]
    assert all(row["status"] == "failed" and row["error"].startswith("analyse: ") for row in rows)


def test_a_task_survives_the_way_in_a_row() -> None:
    assert task_from_json(task_to_json(task_of(2))) == task_of(2)
