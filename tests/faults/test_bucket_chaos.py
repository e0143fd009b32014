"""Runs into a bucket that are killed at any time, over a network that breaks: the output is that of an undisturbed run.

SELECTS_KILLS says how many kills there are in all (5; more in the full suite).
"""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from buckets import make_bucket, point_at
from faulty_proxy import Fault, faulty_proxy
from footage import pan, write
from runs import assert_same_output, curate

from core.storage.object_store import open_object_store
from core.storage.store import Store
from curation.output.bucket import pull
from curation.output.commits import COMMITS, last_commit, leftovers
from curation.output.remote import place_for

KILLS = int(os.environ.get("SELECTS_KILLS", "5"))
FAULTY = 0.05
"""of all requests"""
FAULTS: tuple[Fault, ...] = ("500", "503", "reset", "truncate", "lost")
PROGRAM = Path(__file__).resolve().parents[2] / "run_pipeline.py"
FILMS = 10
RECIPE = "shots: {min_s: 1.0, max_s: 3.0}\noperators: {facts: , brightness: }\nrules: {brightness: {min: 0.02}}\n"

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]


class Disturbed:
    """The proxy's mood: some requests break, and at a number of requests the run is killed, or one of its workers."""

    def __init__(self, chance: random.Random, kills: Counter[str]):
        self.chance, self.left, self.done, self.kills = chance, 0, Counter[str](), kills
        self.process: subprocess.Popen[bytes] | None = None
        self.lock = threading.Lock()

    def start(self, words: list[str], log: Path, kill_after: int) -> int:
        """Run the program; return its exit code. It is killed after so many requests, unless they are none."""
        self.left = kill_after
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAM), *words], start_new_session=True, stdout=file, stderr=file
            )
        return self.process.wait(600)

    def fault_of(self, number: int, method: str, path: str) -> Fault:
        """Say what is done to a request."""
        with self.lock:
            self.done[method] += 1
            self.left -= 1
            if self.left == 0 and self.process is not None and self.process.poll() is None:
                self.kill(self.process)
            return self.chance.choice(FAULTS) if self.chance.random() < FAULTY else ""

    def kill(self, process: "subprocess.Popen[bytes]") -> None:
        """Kill a worker of Ray or a media process where there is any, else or as often the whole run."""
        workers = workers_of(process.pid)
        if workers and self.chance.random() < 0.5:
            self.chance.choice(workers).kill()
            self.kills["worker"] += 1
        else:
            os.killpg(process.pid, signal.SIGKILL)


def test_kills_and_a_broken_network_change_nothing(
    s3_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    footage, recipe = tmp_path / "films", tmp_path / "recipe.yaml"
    footage.mkdir()
    recipe.write_text(RECIPE)
    for number in range(FILMS):
        write(footage / f"{number}.mp4", list(pan(96, seed=number)))
    (footage / "broken.mp4").write_bytes(b"no film at all" * 100)
    local = tmp_path / "local"
    curate(footage, "--config", recipe, out=local)
    monkeypatch.setenv("SELECTS_STAGE", str(tmp_path / "stage"))
    monkeypatch.setenv("SELECTS_COMMIT_S", "0.2")
    chance, kills, rounds = random.Random(22), Counter[str](), 0
    while kills.total() < KILLS:
        url = f"s3://{make_bucket(s3_address)}/out"
        one_output(url, [str(footage), "--config", str(recipe)], (s3_address, monkeypatch), chance, kills, tmp_path)
        point_at(s3_address, monkeypatch, tmp_path)
        store = open_object_store(url)
        copy = tmp_path / f"copy-{rounds}"
        pull(store, copy)
        assert_same_output(local, copy)
        assert_nothing_half_lost_or_orphaned(store)
        rounds += 1
    print(f"{kills.total()} kills in {rounds} outputs: {dict(kills)}")


def one_output(
    url: str,
    words: list[str],
    server: tuple[str, pytest.MonkeyPatch],
    chance: random.Random,
    kills: Counter[str],
    folder: Path,
) -> None:
    """Curate into a bucket until it is done, with kills on the way; now and then all that this machine has is lost."""
    address, patch = server
    log = folder / "log.txt"
    disturbed = Disturbed(chance, kills)
    with faulty_proxy(address, disturbed.fault_of) as (proxy, traffic):
        code = None
        while code != 0:
            point_at(proxy, patch, folder)
            runner = chance.choice(("inline", "inline", "ray"))
            kill_after = chance.randint(1, 150) if kills.total() < KILLS else 0
            code = disturbed.start(["curate", *words, "--output", url, "--runner", runner], log, kill_after)
            assert code in (0, -signal.SIGKILL), log.read_text()[-3000:]
            if code:
                expect_no_media_processes(folder)
                is_lost = chance.random() < 0.4
                kills["folder lost" if is_lost else "killed"] += 1
                point_at(address, patch, folder)
                assert_readers_see_it_whole(open_object_store(url), folder / "seen")
                if is_lost:
                    shutil.rmtree(place_for(url))
    print(f"{traffic.requests.total()} requests, {dict(traffic.faults)}")


def workers_of(pid: int) -> list[psutil.Process]:
    """Return the processes of a run that may die without an end of it."""
    try:
        children = psutil.Process(pid).children(recursive=True)
        return [child for child in children if is_worker(child)]
    except psutil.Error:
        return []


def is_worker(process: psutil.Process) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    is_ray = bool(words) and words[0].startswith("ray::") and "Agent" not in words[0]  # agents are Ray's own
    return is_ray or "curation.analysis.tasks" in words


def expect_no_media_processes(folder: Path) -> None:
    """Wait for what the killed run has left, which would write into its folder still."""
    left = [p for p in psutil.process_iter() if belongs_to(p, folder)]
    psutil.wait_procs(left, timeout=60)


def belongs_to(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.pid != os.getpid() and process.environ().get("SELECTS_STAGE", "").startswith(str(folder))
    except psutil.Error:
        return False


def assert_readers_see_it_whole(store: Store, folder: Path) -> None:
    """Every clip that the committed table names is in the commit."""
    commit = last_commit(store)
    if not commit.number:
        return
    shutil.rmtree(folder, ignore_errors=True)
    pull(store, folder)
    for file in (folder / "clips").glob("part-*.parquet"):
        assert set(pq.read_table(file)["clip_path"].drop_null().to_pylist()) <= set(commit.files)


def assert_nothing_half_lost_or_orphaned(store: Store) -> None:
    """What lies there is the last commit, under its files' own names, too, and nothing else."""
    commit = last_commit(store)
    assert leftovers(store) == []
    assert {entry.key for entry in store.list() if not entry.key.startswith(COMMITS)} == set(commit.files)
    for path, pushed in commit.files.items():
        for key in {path, pushed.object}:
            assert hashlib.sha256(store.read(key)).hexdigest() == pushed.digest, key
    assert not [path for path in commit.files if path.startswith("_parts/")]
    assert len([path for path in commit.files if path.startswith("train/")]) > FILMS
