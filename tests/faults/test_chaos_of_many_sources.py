"""Runs over many sources, whose media is made up, that are killed again and again: the output is as if nothing was.

SELECTS_KILLS says how many kills there are in all (5; 50 in the full suite), SELECTS_SIMULATED how many sources (2000).
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from runs import assert_same_output, rows_of
from test_chaos import kind_of

from curation.output.compaction import level_of
from curation.output.table import part_files

KILLS = int(os.environ.get("SELECTS_KILLS", "5"))
SOURCES = int(os.environ.get("SELECTS_SIMULATED", "2000"))
ROOT = Path(__file__).resolve().parents[2]
LONGEST_RUN_S = 600 + SOURCES / 20
KINDS = ("inline driver", "ray worker", "ray driver", "inline driver", "merging driver")

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(4 * 3600)]


class Run:
    """A simulated run in a process of its own."""

    def __init__(self, out: Path, runner: str):
        """Start it."""
        words = ["benchmarks.simulated", out, "--sources", SOURCES, "--runner", runner, "--merge-early"]
        self.out, self.log = out, out.with_suffix(".log")
        self._before = set(part_files(out))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *map(str, words)], stdout=log, stderr=log, cwd=ROOT, start_new_session=True
            )

    def wait_for_parts(self, count: int, *, merged: bool = False) -> bool:
        """Wait until it has written so many parts, or merged some; False: it ended before."""
        end_s, seen = time.monotonic() + LONGEST_RUN_S, set()
        while self.process.poll() is None:
            seen |= {part for part in part_files(self.out) if not merged or level_of(part)} - self._before
            if len(seen) >= count:
                return True
            assert time.monotonic() < end_s, self.log.read_text()[-3000:]
            time.sleep(0.002)
        return False

    def kill_worker(self, chance: random.Random) -> bool:
        """Kill one of Ray's workers, if there is one."""
        with suppress(psutil.NoSuchProcess, IndexError):
            workers = [p for p in psutil.Process(self.process.pid).children(recursive=True) if kind_of(p) == "worker"]
            chance.choice(workers).kill()
            return True
        return False

    def kill(self) -> None:
        """Kill the driver."""
        self.process.kill()
        self.process.wait(30)

    def end(self) -> None:
        """Wait for its end and see that it was a good one."""
        assert self.process.wait(LONGEST_RUN_S) == 0, self.log.read_text()[-3000:]


def disturb(out: Path, kills: Counter, chance: random.Random) -> None:
    """Run until the output is complete, killing on the way as often as is still to be."""
    while True:
        kind = KINDS[kills.total() % len(KINDS)] if kills.total() < KILLS else "ray worker"
        run = Run(out, "inline" if kind.startswith(("inline", "merging")) else "ray")
        while kills.total() < KILLS and run.wait_for_parts(chance.randint(1, 8), merged=kind.startswith("merging")):
            if kind == "ray worker":
                kills[kind] += run.kill_worker(chance)
                kind = KINDS[kills.total() % len(KINDS)]
                continue
            run.kill()
            kills[kind] += 1
            break
        if run.process.poll() != -signal.SIGKILL:
            return run.end()


def test_kills_change_nothing_of_a_run_over_many_sources(tmp_path: Path) -> None:
    undisturbed = Run(tmp_path / "undisturbed", "inline")
    chance, kills, rounds = random.Random(22), Counter[str](), 0
    undisturbed.end()
    rows = rows_of(undisturbed.out).values()
    failed = sum(row["status"] == "failed" for row in rows)
    assert 0.01 * SOURCES < failed < 0.06 * SOURCES and len(rows) > 1.5 * SOURCES
    while kills.total() < KILLS:
        rounds += 1
        out = tmp_path / f"out-{rounds}"
        disturb(out, kills, chance)
        assert_same_output(undisturbed.out, out)
        assert not list((out / "_parts").iterdir()) and not [p for p in out.rglob(".*") if p.name != ".lock"]
    assert set(kills) == set(KINDS) or len(KINDS) > KILLS
    print(f"{kills.total()} kills in {rounds} outputs of {SOURCES} sources: {dict(kills)}")
