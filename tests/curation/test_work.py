"""Rows of what was lost have ids of their own."""

from pathlib import Path

from core.errors import MediaError
from curation.analysis.analyse import probe_source, sample_again
from curation.recipe import Recipe
from curation.types import Sampling, Source
from curation.work import Plan, Task, failed_row, task_from_json, task_to_json
from demo.drawing import pan, write_video
from demo.landscapes import scene
from media.types import Segment, SourceFacts, no_heartbeat


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


def test_a_second_read_gives_the_frames_of_the_first(tmp_path: Path) -> None:
    """Whoever reads a clip again, operators or captioner, gets the grid's frames inside its span."""
    write_video(tmp_path / "a.mp4", pan(scene(4, 900, 360), 10.0, 100, 25), 25, options={"preset": "ultrafast"})
    stat = (tmp_path / "a.mp4").stat()
    source = Source(str(tmp_path), "a.mp4", stat.st_size, stat.st_mtime_ns)
    plan = Plan(Recipe(), str(tmp_path / "out"))
    (task,) = probe_source(plan, source, no_heartbeat)
    row = {"type": "video", "start_s": 1.2, "end_s": 3.2, "start_frame": 30, "num_frames": 50}
    asked = {"grid": Sampling(rate_fps=2.0, short_side_px=72), "nothing": Sampling(rate_fps=0.2)}
    taken = sample_again(plan, row, task, asked, no_heartbeat)
    assert list(taken) == ["grid"]
    assert taken["grid"].times_s.tolist() == [1.52, 2.0, 2.52, 3.0]
