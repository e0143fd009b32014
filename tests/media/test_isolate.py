"""The media process: it may die, hang or swell, and every result comes once."""

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from core.errors import MediaError
from curation.analysis.media_calls import MediaPool, close_media, media_pool, sandbox_of
from curation.recipe import Limits, Recipe, ShotSettings
from curation.types import Source
from curation.work import Plan
from demo.drawing import write_video
from media import sandbox as isolate
from media.sandbox import InternalError, MediaProcess
from media.settings import CutSettings


def draw(path: Path, seconds: int = 8, fps: int = 12) -> Source:
    """Write a video of one moving bar, a keyframe every second."""
    pictures = []
    for i in range(seconds * fps):
        picture = np.full((64, 96, 3), 90, np.uint8)
        picture[:, i % 90 : i % 90 + 6] = 220
        pictures.append(picture)
    write_video(path, pictures, fps, options={"preset": "ultrafast", "g": str(fps)})
    return source_of(path)


def source_of(path: Path) -> Source:
    stat = path.stat()
    return Source(str(path.parent), path.name, stat.st_size, stat.st_mtime_ns)


def plan_of(out: Path, **limits) -> Plan:
    shots = ShotSettings(detector="stride", min_s=0.5, max_s=1.0, segment_s=4.0)
    return Plan(Recipe(shots=shots, cut=CutSettings(mode="none"), limits=Limits(**limits)), str(out), "test")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Source:
    return draw(tmp_path_factory.mktemp("in") / "a.mp4")


@pytest.fixture
def process_of(tmp_path):
    """Return media processes that are ended after the test."""
    started = []

    def start(**limits) -> MediaProcess:
        started.append(MediaProcess(sandbox_of(plan_of(tmp_path, **limits))))
        return started[-1]

    yield start
    for process in started:
        process.close()


@pytest.fixture
def narrow(monkeypatch):
    """Let a child send no more than about one row ahead, so that it is within its task while the test reads."""
    pair = socket.socketpair

    def narrow_pair() -> tuple[socket.socket, socket.socket]:
        ours, theirs = pair()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the kernel makes it the least it allows
        return ours, theirs

    monkeypatch.setattr(isolate.socket, "socketpair", narrow_pair)


def silent(seconds: float) -> None:
    """Take no notice."""


def pid_of(process: MediaProcess) -> int:
    assert process._process is not None
    return process._process.pid


def rows_of(process: MediaProcess, source: Source, on_beat=silent):
    (task, _) = list(process.run(on_beat, "probe", source))
    return process.run(on_beat, "analyse", task)


def test_one_process_serves_task_after_task_and_tells_what_it_cost(process_of, source):
    process, beats = process_of(), []
    rows = list(rows_of(process, source, beats.append))
    first = pid_of(process)
    assert [(r["start_s"], r["end_s"]) for r in rows] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert list(rows_of(process, source)) == rows
    assert pid_of(process) == first
    assert sum(beats) == pytest.approx(4.0, abs=0.01)
    assert process.cpu_s["decode"] > 0


@pytest.mark.usefixtures("narrow")
def test_a_child_killed_in_the_middle_is_replaced_and_every_row_comes_once(process_of, source):
    expected = list(rows_of(process_of(), source))
    process = process_of(tries=2)
    rows, got = rows_of(process, source), []
    for row in rows:
        got.append(row)
        if len(got) == 1:
            killed = pid_of(process)
            os.kill(killed, signal.SIGKILL)
    assert got == expected
    assert pid_of(process) != killed


def test_a_child_that_always_dies_is_given_up_after_the_tries(process_of, source, monkeypatch):
    process, started = process_of(tries=3), []
    start = process._start

    def doomed() -> Connection:
        connection = start()
        started.append(pid_of(process))
        os.kill(started[-1], signal.SIGSEGV)
        return connection

    monkeypatch.setattr(process, "_start", doomed)
    with pytest.raises(MediaError, match=r"crashed \(SIGSEGV\) \(3 tries\)"):
        list(process.run(silent, "probe", source))
    assert len(set(started)) == 3
    monkeypatch.undo()
    assert len(list(process.run(silent, "probe", source))) == 2, "the next source is none the worse"


@pytest.mark.usefixtures("narrow")
def test_a_child_that_hangs_is_killed_after_the_silence(process_of, source):
    process = process_of(tries=1, silence_s=4.0)
    rows = rows_of(process, source)
    next(rows)
    os.kill(pid_of(process), signal.SIGSTOP)
    hung = pid_of(process)
    with pytest.raises(MediaError, match="no sign of life"):
        list(rows)
    assert not Path(f"/proc/{hung}").exists()


BUSY = "any(iter(int, 1))"


def test_a_child_that_computes_for_ever_is_killed(process_of, monkeypatch):
    process = process_of(tries=1, silence_s=0.5)
    fake_child(process, monkeypatch, b"", BUSY)
    with pytest.raises(MediaError, match="no sign of life for 0.5 s"):
        list(process.run(silent, "probe", None))


def test_a_child_that_the_machine_gives_no_time_is_not_silent(process_of, monkeypatch, source):
    """It wants to run all the time and has had next to none of it: whether it hangs is not known yet."""
    process, heard = process_of(tries=1, silence_s=0.2), []

    def waiting(pid: int) -> bool:
        heard.append(pid)
        return True

    monkeypatch.setattr(isolate, "_wants_cpu", waiting)
    monkeypatch.setattr(isolate, "_cpu_s", lambda pid: 0.0)
    monkeypatch.setattr(isolate, "MOST_STARVED", 1e6)
    fake_child(process, monkeypatch, b"", "time.sleep(1.5); os._exit(3)")
    with pytest.raises(MediaError, match=r"ended by itself \(exit 3\)"):
        list(process.run(silent, "probe", None))
    assert len(heard) > 2, "it was looked at again and again until it ended by itself"
    monkeypatch.setattr(isolate, "MOST_STARVED", 3.0)
    fake_child(process, monkeypatch, b"", "time.sleep(1000)")
    with pytest.raises(MediaError, match="no sign of life"):
        list(process.run(silent, "probe", None))


@pytest.mark.usefixtures("narrow")
def test_a_child_that_hung_once_is_replaced_and_every_row_comes_once(process_of, source):
    expected = list(rows_of(process_of(), source))
    process = process_of(tries=2, silence_s=3.0)
    got = []
    for row in rows_of(process, source):
        got.append(row)
        if len(got) == 1:
            hung = pid_of(process)
            os.kill(hung, signal.SIGSTOP)
    assert got == expected
    assert pid_of(process) != hung


def test_a_picture_that_needs_too_much_memory_fails_and_the_process_goes_on(process_of, tmp_path, source):
    Image.new("RGB", (11000, 11000)).save(tmp_path / "big.png", compress_level=1)
    process = process_of(memory_gb=0.45, tries=1)
    with pytest.raises(MediaError, match="memory"):
        list(process.run(silent, "probe", source_of(tmp_path / "big.png")))
    assert len(list(process.run(silent, "probe", source))) == 2


def test_what_cannot_be_read_is_a_media_error_with_its_time(process_of, tmp_path):
    process = process_of()
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(MediaError, match="the file is empty") as caught:
        list(process.run(silent, "probe", source_of(tmp_path / "empty.mp4")))
    assert caught.value.time_s is None
    first = pid_of(process)
    with pytest.raises(MediaError, match="No such file"):
        list(process.run(silent, "probe", Source(str(tmp_path), "gone.mp4", 0, 0)))
    assert pid_of(process) == first


def test_a_bug_of_ours_comes_with_its_place(process_of, source):
    process = process_of()
    with pytest.raises(InternalError, match=r"(?s)Traceback.*child\.py.*KeyError"):
        list(process.run(silent, "no such task"))
    with pytest.raises(InternalError, match="AttributeError"):
        list(process.run(silent, "analyse", "no task"))
    assert len(list(process.run(silent, "probe", source))) == 2


def test_whoever_stops_listening_ends_the_task(process_of, source):
    process = process_of()
    rows = rows_of(process, source)
    next(rows)
    rows.close()
    assert [r["start_s"] for r in rows_of(process, source)] == [0, 1, 2, 3]


def test_a_listener_that_raises_does_not_mix_up_the_next_task(process_of, source):
    """The rest of the interrupted task must not be taken for results of the next one."""
    process = process_of()

    def refuse(seconds: float) -> None:
        if seconds > 0:
            raise ConnectionError("the runner is gone")

    with pytest.raises(ConnectionError):
        list(rows_of(process, source, refuse))
    tasks = list(process.run(silent, "probe", source))
    assert [task.segment.index for task in tasks] == [0, 1]


def fake_child(process: MediaProcess, monkeypatch, sent: bytes, then: str) -> None:
    """Let the process talk to a child that takes a request, sends some bytes and then does as told."""

    def start() -> Connection:
        ours, theirs = socket.socketpair()
        code = f"import os, time; fd = {theirs.fileno()}; os.read(fd, 65536); os.write(fd, {sent!r}); {then}"
        process._process = subprocess.Popen([sys.executable, "-c", code], pass_fds=[theirs.fileno()])
        theirs.close()
        process._connection = Connection(ours.detach())
        return process._connection

    monkeypatch.setattr(process, "_start", start)


HALF = (1000).to_bytes(4, "big") + b"half a message"


def test_a_child_that_dies_within_a_message_has_died(process_of, monkeypatch):
    process = process_of(tries=1)
    fake_child(process, monkeypatch, HALF, "os._exit(3)")
    with pytest.raises(MediaError, match=r"ended by itself \(exit 3\)"):
        list(process.run(silent, "probe", None))


def test_a_child_that_hangs_within_a_message_is_killed_too(process_of, monkeypatch):
    process, ended = process_of(tries=1, silence_s=1.0), []
    fake_child(process, monkeypatch, HALF, "time.sleep(1000)")

    def run() -> None:
        try:
            list(process.run(silent, "probe", None))
        except (MediaError, EOFError, OSError) as error:
            ended.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(120)
    hangs = thread.is_alive()
    if hangs:
        os.kill(pid_of(process), signal.SIGKILL)
        thread.join(120)
    assert not hangs
    assert isinstance(ended[0], MediaError)


# -- the processes of a worker


def test_a_pool_keeps_its_process_for_the_next_task_and_starts_more_only_if_busy(tmp_path, source):
    pool, spent = MediaPool(plan_of(tmp_path)), []
    try:
        task, _ = list(pool.run(silent, spent.append, "probe", source))
        (first,) = pool._idle
        rows = pool.run(silent, spent.append, "analyse", task)
        next(rows)
        assert pool._idle == []
        assert len(list(pool.run(silent, spent.append, "probe", source))) == 2
        assert len([next(rows), *rows]) == 3
        assert len(pool._idle) == 2
        assert first in pool._idle
        assert len(spent) == 3
        assert any("decode" in s for s in spent)
    finally:
        children = [pid_of(p) for p in pool._idle]
        pool.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)


def test_a_new_run_ends_the_processes_of_the_one_before(tmp_path, source):
    one = media_pool(plan_of(tmp_path))
    list(one.run(silent, lambda s: None, "probe", source))
    child = pid_of(one._idle[0])
    assert media_pool(plan_of(tmp_path)) is one
    other = Plan(one.plan.recipe, one.plan.out, "another run")
    assert media_pool(other) is not one
    assert not Path(f"/proc/{child}").exists()
    close_media()


def test_a_hanging_child_ends_with_a_parent_that_is_killed(tmp_path, source):
    code = (
        "import pickle, sys, time; from media.sandbox import MediaProcess\n"
        "from curation.analysis.media_calls import sandbox_of\n"
        "plan, source = pickle.load(sys.stdin.buffer)\n"
        "process = MediaProcess(sandbox_of(plan)); list(process.run(lambda s: None, 'probe', source))\n"
        "print(process._process.pid, flush=True); time.sleep(100)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    parent.stdin.write(pickle.dumps((plan_of(tmp_path), source)))
    parent.stdin.close()
    child = psutil.Process(int(parent.stdout.readline()))
    child.suspend()
    parent.kill()
    parent.wait()
    child.wait(120)


def test_a_child_that_others_kill_has_more_tries(process_of, source, monkeypatch):
    process, started = process_of(tries=1, kills=3), []
    start = process._start

    def doomed() -> Connection:
        connection = start()
        started.append(pid_of(process))
        os.kill(started[-1], signal.SIGKILL)
        return connection

    monkeypatch.setattr(process, "_start", doomed)
    with pytest.raises(MediaError, match=r"killed, as the system does when memory runs out \(3 tries\)"):
        list(process.run(silent, "probe", source))
    assert len(set(started)) == 3


def test_a_child_ends_with_its_parent(process_of, source):
    process = process_of()
    list(process.run(silent, "probe", source))
    assert process._connection is not None
    process._connection.close()
    assert process._process.wait(120) == 0
    process._connection = None
