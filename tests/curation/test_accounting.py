"""Tests of `core.cpu_time` and of what a run tells of its CPU: every second once, under a name."""

import json
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from benchmarks.plots import cost_by_step, round_step, scale_plot
from cli.common import TABLES
from core.cpu_time import ENGINE, START, StepClock, unclaimed
from curation.engine.blocks import (
    BLOCK_BYTES,
    BLOCK_ROWS,
    SHARED_BYTES,
    SHARED_ROWS,
    blocks_of,
    few_together,
    many_together,
)
from curation.recipe import load_recipe
from curation.steps import SMALL_BYTES, needs_a_worker
from curation.work import Plan

ROOT = Path(__file__).resolve().parents[2]


def burn(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_steps_and_what_no_step_claims_add_up_to_the_process() -> None:
    unclaimed()
    begin = time.process_time()
    clock = StepClock()
    with clock.step("look"):
        inside = time.process_time()
        burn(0.1)
        inside = time.process_time() - inside  # other threads of the process may work, too
    burn(0.05)
    for _ in clock.each("read", iter(range(2))):
        burn(0.05)
    spent = clock.take() | unclaimed()
    whole = time.process_time() - begin
    assert inside >= 0.1 and spent["look"] == pytest.approx(inside, abs=0.01)
    assert spent[ENGINE] == pytest.approx(whole - inside, abs=0.02) and spent[ENGINE] >= 0.15
    assert sum(spent.values()) == pytest.approx(whole, abs=0.01)
    assert clock.take() == {}


def test_the_work_of_other_threads_is_the_steps_and_counted_once() -> None:
    clock, begin = StepClock(), time.process_time()

    def caption() -> None:
        with clock.step("caption"):
            worker = threading.Thread(target=burn, args=(0.1,))  # as an encoder's or a network's
            worker.start()
            worker.join()

    threads = [threading.Thread(target=caption) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.take()["caption"] == pytest.approx(time.process_time() - begin, abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["inline", "ray"])
def test_a_runs_accounting_adds_up_to_what_its_processes_spent(runner: str, demo_footage: Path, tmp_path: Path) -> None:
    files = sorted(demo_footage.rglob("*.mp4"))[:2]
    command = [sys.executable, "run_pipeline.py", "curate", *files, "--output", tmp_path / "out", "--runner", runner]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        list(map(str, command)), cwd=ROOT, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seen_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    told = run["cpu_s"]
    assert sum(told.values()) == pytest.approx(run["cpu_total_s"], abs=0.05)
    assert told[START] > 0.3 and told[ENGINE] > 0 and told["decode"] > 0
    if runner == "inline":  # Ray's workers are nobody's children when they end
        assert run["cpu_total_s"] == pytest.approx(seen_s, rel=0.1)
        assert told["ray"] == 0
    else:
        assert told["ray"] > 0.3


def test_small_sources_share_a_block_where_there_are_many() -> None:
    small = [{"source_size_bytes": 1000}] * 100
    large = [{"source_size_bytes": BLOCK_BYTES + 1}] * 3
    assert [len(block) for block in blocks_of(small[:7], 2)] == [1] * 7, "few sources spread over the workers"
    blocks = list(blocks_of(small + large, 2))
    assert [len(block) for block in blocks[-3:]] == [1, 1, 1] and max(map(len, blocks)) == BLOCK_ROWS
    assert [row for block in blocks for row in block] == small + large
    assert len(list(blocks_of([{"source_size_bytes": 0}] * 100_000, 2))) <= 100_000 / BLOCK_ROWS + 1


def test_plots_show_what_was_measured() -> None:
    floor = {"720p": {"ratio": [1.3, 1.2, 1.4], "steps": {"decode": 1.0, "shots": 0.2, "motion": 0.1}}}
    drawn = cost_by_step(floor)
    assert "720p" in drawn and "1.30 ×" in drawn and "shots: 0.20 of a bare decode" in drawn
    at = {"video s": [60.0] * 3, "peak mb": [2000.0] * 3, "wall s per video s": [0.05] * 3}
    drawn = scale_plot({"many files": {"1": at, "2": at | {"video s": [120.0] * 3}}})
    assert "many files, 2 min: 2 GB" in drawn and "minutes of footage" in drawn
    assert [round_step(value) for value in (0.013, 0.5, 7)] == pytest.approx([0.02, 0.5, 10])


def test_of_many_small_sources_each_block_is_worth_a_task() -> None:
    small, clip = {"clip_id": None, "source_size_bytes": SHARED_BYTES // 4}, {"clip_id": "a", "source_size_bytes": 5}
    blocks = [len(block) for block in many_together([small] * 10, lambda row: False)]
    assert blocks == [4, 4, 2], "as many as are analysed in a few seconds"
    assert [len(block) for block in many_together([clip] * 100, lambda row: False)] == [SHARED_ROWS, 100 - SHARED_ROWS]
    rows = [{"clip_id": str(i), "source_size_bytes": 1} for i in range(9)]
    blocks = list(many_together(rows, lambda row: row["clip_id"] == "4"))
    assert [rows[4]] in blocks and sum(map(len, blocks)) == 9, "what is much to do is alone"
    assert [len(block) for block in few_together([clip] * 20, lambda row: False)] == [8, 8, 4]


def test_small_sources_share_blocks_only_where_a_run_has_many() -> None:
    recipe, _ = load_recipe(None, [], TABLES)
    few, many = Plan(recipe, "out"), Plan(recipe, "out", shares_blocks=True)
    segment = few.blank() | {"source_path": "a.mp4", "source_size_bytes": SMALL_BYTES}
    assert needs_a_worker(few, segment) and not needs_a_worker(many, segment)
    assert needs_a_worker(many, segment | {"source_size_bytes": SMALL_BYTES + 1})
