"""Kill anything at any time: after `curate` runs again its output is that of an undisturbed run.

SELECTS_KILLS says how many kills there are in all (5; 50 in the full suite).
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
import pytest
from runs import assert_same_output, curate, internal_json, rows_of

KILLS = int(os.environ.get("SELECTS_KILLS", "5"))
PROGRAM = Path(__file__).resolve().parents[2] / "run_pipeline.py"
LONGEST_RUN_S = 240

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]

FINISHING = ("clips/", ".clips.", "._parts.", ".json_of_internal_datasets.")
"""Names that appear in an output while it is folded and exported."""


@pytest.fixture(scope="module")
def footage(demo_footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's footage, several times over."""
    folder = tmp_path_factory.mktemp("much")
    for number in range(3):
        shutil.copytree(demo_footage, folder / f"reel-{number}")
    return folder


@pytest.fixture(scope="module")
def undisturbed(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    curate(footage, out=out)
    return out


class Driver:
    """A run of `curate` in a process of its own."""

    def __init__(self, footage: Path, out: Path, runner: str):
        """Start it."""
        command = [sys.executable, str(PROGRAM), "curate", str(footage), "--output", str(out), "--runner", runner]
        self.log = out.with_suffix(".log")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self.seen: dict[int, psutil.Process] = {}

    def family(self) -> list[psutil.Process]:
        """Return the processes that belong to the run, without the driver."""
        with contextlib.suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.process.pid).children(recursive=True)
            self.seen |= {p.pid: p for p in found}
            return found
        return []

    def of_kind(self, kind: str) -> list[psutil.Process]:
        """Return the family's members of a kind: `child` (media), `actor` (models, the tally) or `worker`."""
        return [p for p in self.family() if kind_of(p) == kind]

    def wait(self, seconds: float) -> int | None:
        """Wait for its end; null while it runs."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def expect_no_orphans(self) -> None:
        """See that nothing that touches media outlives the run, and nothing of Ray's for long."""
        media = [p for p in self.seen.values() if kind_of(p) == "child"]
        assert not living(media, 15), "media processes outlived their run"
        assert not living(self.seen.values(), 150), "processes outlived their run"


def living(processes: Iterable[psutil.Process], patience_s: float) -> list[psutil.Process]:
    """Wait for processes to end; return those that do not."""
    _, alive = psutil.wait_procs(list(processes), timeout=patience_s)
    return [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]


def kind_of(process: psutil.Process) -> str | None:
    try:
        words = process.cmdline()
    except psutil.Error:
        return None
    if "curation.analysis.tasks" in words:
        return "child"
    if words and words[0].startswith("ray::"):
        is_actor = "MapWorker" in words[0] or "TallyActor" in words[0]
        return "actor" if is_actor else None if "Agent" in words[0] else "worker"  # agents are Ray's own
    return None


def kill(driver: Driver, out: Path, chance: random.Random, kills: Counter) -> None:
    """Kill something of the kind that was killed least so far, if there is such a thing now; count it."""
    kinds = ["driver", "finishing", "child", "worker", "actor"]
    chance.shuffle(kinds)
    kind = min(kinds, key=lambda kind: kills[kind])
    driver.family()
    if kind in ("driver", "finishing"):
        if kind == "driver" or wait_until_finishing(out, driver):
            driver.process.kill()
            driver.wait(30)
            kills[kind] += 1
    elif victims := driver.of_kind(kind):
        with contextlib.suppress(psutil.NoSuchProcess):
            chance.choice(victims).kill()
            kills[kind] += 1


def wait_until_finishing(out: Path, driver: Driver) -> bool:
    """Wait for the moment at which the table is replaced or exported."""
    end = time.monotonic() + 20
    while time.monotonic() < end and driver.process.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            if any(entry.name.startswith(FINISHING) for entry in os.scandir(out)):
                return True
        time.sleep(0.001)
    return False


def disturbed_runs(footage: Path, out: Path, chance: random.Random, kills: Counter) -> Iterator[Driver]:
    """Run until the output is complete, with kills on the way; return the runs."""
    while True:
        driver = Driver(footage, out, chance.choice(("ray", "ray", "inline")))
        begin = time.monotonic()
        while driver.process.poll() is None:
            assert time.monotonic() - begin < LONGEST_RUN_S, driver.log.read_text()[-3000:]
            if kills.total() < KILLS and driver.wait(chance.uniform(0.2, 4.0)) is None:
                kill(driver, out, chance, kills)
            else:
                driver.wait(0.5)
        assert not living([p for p in driver.seen.values() if kind_of(p) == "child"], 15), "decoders outlived their run"
        yield driver
        if driver.process.returncode == 0:
            return
        assert driver.process.returncode in (1, -signal.SIGKILL), driver.log.read_text()[-3000:]


def test_kills_at_any_time_change_nothing(undisturbed: Path, footage: Path, tmp_path: Path) -> None:
    chance, kills, rounds = random.Random(20), Counter(), 0
    drivers: list[Driver] = []
    while kills.total() < KILLS:
        rounds += 1
        out = tmp_path / f"out-{rounds}"
        drivers += disturbed_runs(footage, out, chance, kills)
        assert_same_output(undisturbed, out)
        assert_no_leftovers(out)
    for driver in drivers:
        driver.expect_no_orphans()
    assert kills.keys() == {"driver", "finishing", "child", "worker", "actor"} or KILLS < 20
    print(f"{kills.total()} kills in {rounds} outputs: {dict(kills)}")


def assert_no_leftovers(out: Path) -> None:
    """No part is left, no temporary file, no clip without a row."""
    hidden = [p for p in out.rglob(".*") if p.name != ".lock"]
    assert not hidden
    assert not list((out / "_parts").glob("*"))
    named = {row["clip_path"] for row in rows_of(out).values()} - {None}
    assert {f"train/{p.name}" for p in (out / "train").iterdir()} == named
    assert {item["file_path"] for item in internal_json(out)} == named


@pytest.mark.parametrize("runner", ["inline", "ray"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_once_it_stops_soon_and_goes_on_later(
    undisturbed: Path, footage: Path, tmp_path: Path, runner: str, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    driver = Driver(footage, out, runner)
    wait_for_parts(out, driver)
    driver.family()
    begin = time.monotonic()
    os.killpg(driver.process.pid, number)  # as a terminal does: to the whole family
    code = driver.wait(60)
    log = driver.log.read_text()
    assert code == 1, log[-3000:]
    assert "run the same command to resume" in log
    assert "Traceback" not in log
    assert time.monotonic() - begin < 45
    driver.expect_no_orphans()
    some = rows_of(out)
    assert 0 < len(some) < len(rows_of(undisturbed)), "what was finished is in the table"
    assert {item["clip_id"] for item in internal_json(out)} <= some.keys()
    again = Driver(footage, out, "inline")
    assert again.wait(LONGEST_RUN_S) == 0
    assert_same_output(undisturbed, out)
    assert_no_leftovers(out)


def test_asked_twice_it_stops_at_once(footage: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    driver = Driver(footage, out, "ray")
    wait_for_parts(out, driver)
    driver.family()
    driver.process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    driver.process.send_signal(signal.SIGINT)
    assert driver.wait(20) == 1, driver.log.read_text()[-3000:]
    assert "Traceback" not in driver.log.read_text()
    driver.expect_no_orphans()


def wait_for_parts(out: Path, driver: Driver) -> None:
    """Wait until something is finished."""
    end = time.monotonic() + 120
    while time.monotonic() < end and not list((out / "_parts").glob("[!.]*.parquet")):
        assert driver.process.poll() is None, driver.log.read_text()[-3000:]
        time.sleep(0.05)
