"""The queue: its order, its bound, equal requests, and what a kill leaves."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.answers import video_of
from serving.jobs import Cancelled, Jobs, QueueFull
from serving.ledger import Job, Ledger, new_job


def job(key: str) -> Job:
    return new_job("tiny", {"prompt": key}, key)


def jobs_in(folder: Path, most: int = 3, kept: int = 100) -> Jobs:
    return Jobs(Ledger(folder), most, kept)


def make(jobs: Jobs, folder: Path, content: bytes = b"video") -> Job | None:
    """Do what the engine does for the next job, without a model."""
    taken = jobs.take(0)
    if taken is not None:
        place = Ledger(folder).place(taken.job_id)
        (place / "result.mp4").write_bytes(content)
        (place / "result.png").write_bytes(b"sheet")
        jobs.end(taken.job_id, lambda ended: replace(ended, status="completed", file="result.mp4"))
    return taken


def test_jobs_are_taken_in_the_order_they_came_and_no_more_wait_than_may(tmp_path):
    jobs = jobs_in(tmp_path)
    names = [jobs.submit(job(key)).job_id for key in "abc"]
    with pytest.raises(QueueFull) as full:
        jobs.submit(job("d"))
    assert full.value.retry_after_s >= 1
    assert [make(jobs, tmp_path).job_id for _ in names] == names
    assert jobs.take(0) is None


def test_equal_requests_share_the_work_but_not_the_file(tmp_path):
    jobs = jobs_in(tmp_path)
    first, second, other = (jobs.submit(job(key)) for key in "aab")
    make(jobs, tmp_path, b"the same")
    assert jobs.get(second.job_id).status == "completed"
    assert jobs.get(other.job_id).status == "queued"
    at_once = jobs.submit(job("a"))
    assert at_once.status == "completed"
    jobs.remove(first.job_id)
    for done in (second, at_once):
        place = Ledger(tmp_path).place(done.job_id)
        assert (place / "result.mp4").read_bytes() == b"the same"
        assert (place / "result.png").exists(), "with what lies beside it"


def test_a_cancelled_job_ends_at_once_or_before_its_next_step(tmp_path):
    jobs = jobs_in(tmp_path)
    waits, runs = jobs.submit(job("a")), jobs.submit(job("b"))
    jobs.cancel(waits.job_id)
    assert jobs.get(waits.job_id).status == "cancelled"
    assert jobs.take(0).job_id == runs.job_id
    jobs.report(runs.job_id, 1, 10)
    jobs.cancel(runs.job_id)
    with pytest.raises(Cancelled):
        jobs.report(runs.job_id, 2, 10)
    jobs.end(runs.job_id, lambda ended: replace(ended, status="cancelled"))
    assert jobs.get(runs.job_id).steps_done == 1


def test_a_job_removed_while_it_runs_leaves_nothing(tmp_path):
    jobs = jobs_in(tmp_path)
    name = jobs.submit(job("a")).job_id
    jobs.take(0)
    jobs.remove(name)
    with pytest.raises(Cancelled):
        jobs.report(name, 1, 10)
    jobs.end(name, lambda ended: replace(ended, status="cancelled"))
    assert jobs.get(name) is None
    assert not list(tmp_path.iterdir())


def test_the_oldest_ended_jobs_go(tmp_path):
    jobs = jobs_in(tmp_path, kept=2)
    names = []
    for key in "abcd":
        names.append(jobs.submit(job(key)).job_id)
        make(jobs, tmp_path)
    assert [one.job_id for one in jobs.newest_first()] == names[:1:-1]
    assert {path.name for path in tmp_path.iterdir()} == set(names[2:])


@given(st.lists(st.sampled_from(["submit", "same", "take", "make", "cancel", "remove", "restart"]), max_size=25))
@settings(max_examples=60, deadline=None)
def test_whatever_happened_a_new_server_finds_every_job_as_it_was(tmp_path_factory, steps):
    """What ran waits again; all else is as the last answer said."""
    folder = tmp_path_factory.mktemp("jobs")
    jobs = jobs_in(folder, most=100)
    for count, step in enumerate(steps):
        if step in ("submit", "same"):
            jobs.submit(job("same" if step == "same" else str(count)))
        elif step == "take":
            jobs.take(0)
        elif step == "make":
            make(jobs, folder)
        elif step in ("cancel", "remove") and jobs.newest_first():
            (jobs.cancel if step == "cancel" else jobs.remove)(jobs.newest_first()[-1].job_id)
        else:
            before = jobs.newest_first()
            jobs = jobs_in(folder, most=100)
            expected = [
                replace(one, status="queued", started_s=None) if one.status == "in_progress" else one for one in before
            ]
            assert jobs.newest_first() == expected


def test_a_folder_that_is_no_job_is_left_alone(tmp_path):
    for name, content in (("empty", None), ("broken", "{"), ("other", "[1]"), ("deep", "[" * 10_000)):
        (tmp_path / name).mkdir()
        if content is not None:
            (tmp_path / name / "job.json").write_text(content)
    assert jobs_in(tmp_path).newest_first() == []
    assert len(list(tmp_path.iterdir())) == 4


def test_a_completed_job_without_its_file_has_failed(tmp_path):
    jobs = jobs_in(tmp_path)
    name = jobs.submit(job("a")).job_id
    make(jobs, tmp_path)
    (Ledger(tmp_path).place(name) / "result.mp4").unlink()
    again = jobs_in(tmp_path).get(name)
    assert (again.status, again.fault.problem) == ("failed", "its file is gone")


def test_many_threads_lose_no_job(tmp_path):
    jobs, refused = jobs_in(tmp_path, most=40), []

    def ask(number: int) -> None:
        try:
            jobs.submit(job(str(number)))
        except QueueFull:
            refused.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (jobs.waiting, len(refused)) == (40, 20)
    assert len(jobs_in(tmp_path).newest_first()) == 40


def test_no_place_of_this_machine_is_told():
    paths = dict.fromkeys(("model", "image", "mask", "control", "reference", "trajectory"), "/srv/jobs/video_1/a.png")
    for camera, shown in (("pan_left", True), ("/srv/jobs/video_1/path.txt", False)):
        made = {"seed": 3, "camera": camera, **paths}
        told = video_of(replace(job("a"), settings=made)).settings
        assert told == {"seed": 3} | ({"camera": camera} if shown else {})
