"""What an engine started ends with its owner, however that ends; nothing else is touched."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from captioners.orphans import MARK, marked

OWNER = """
import subprocess, sys, time
from captioners.orphans import marked
sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
with marked() as watcher:
    inside = subprocess.Popen(sleeper, start_new_session=True)
outside = subprocess.Popen(sleeper, start_new_session=True)
print(watcher.pid, inside.pid, outside.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.slow
def test_what_was_started_inside_ends_when_its_owner_is_killed_and_nothing_else_does() -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[2]
    )
    assert owner.stdout is not None
    watcher, inside, outside = (psutil.Process(int(pid)) for pid in owner.stdout.readline().split())
    try:
        time.sleep(1)
        assert watcher.is_running() and inside.is_running() and outside.is_running()
        owner.kill()
        owner.wait()
        inside.wait(timeout=20)
        watcher.wait(timeout=20)
        assert outside.is_running() and outside.status() != psutil.STATUS_ZOMBIE
    finally:
        for process in (inside, outside):
            if process.is_running():
                process.kill()


def test_the_mark_is_taken_off_again() -> None:
    before = dict(os.environ)
    with marked() as watcher:
        assert MARK in os.environ
    watcher.kill()
    watcher.wait()
    assert dict(os.environ) == before
