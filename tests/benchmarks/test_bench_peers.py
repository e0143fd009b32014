from pathlib import Path

import pytest

from benchmarks.corpus import SIZES, size_class
from benchmarks.measure import measured
from benchmarks.peers.task import Agreement, Clip, agreement, is_kept

BUSY = "import time; begin = time.process_time()\nwhile time.process_time() < begin + {seconds}: pass"


@pytest.mark.parametrize(
    ("width_px", "height_px", "size"),
    [(640, 360, 0), (362, 640, 0), (854, 480, 0), (960, 540, 1), (720, 1280, 1), (1920, 800, 2), (3840, 2160, 2)],
)
def test_size_class_is_by_the_short_side(width_px: int, height_px: int, size: int) -> None:
    assert size_class(width_px, height_px) == SIZES[size]


def test_clips_agree_by_frames_and_verdict() -> None:
    reference = [Clip("a", 0, 50, True), Clip("a", 50, 90, False), Clip("b", 0, 30, True), Clip("c", 0, 9, False)]
    found = [Clip("a", 0, 50, True), Clip("a", 50, 91, True), Clip("b", 10, 30, True)]
    assert agreement(found, reference) == Agreement(same_spans=1, near_spans=2, right=1, clips=4)


def test_a_clip_stays_only_within_all_bounds() -> None:
    assert is_kept(2.0, 640, 360, 0.1)
    assert not is_kept(0.9, 640, 360, 0.1)
    assert not is_kept(2.0, 362, 640, 0.1)
    assert not is_kept(2.0, 640, 360, 0.09)


@pytest.mark.slow
def test_cpu_time_of_orphans_and_of_children_nobody_waits_for_is_counted(tmp_path: Path) -> None:
    child = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {BUSY.format(seconds=1.0)!r}]){{end}}"
    orphaning = ["python3", "-c", child.format(end="")]
    assert 1.0 <= measured(orphaning, tmp_path / "log").cpu_s < 2.0
    ignoring = "import signal, time; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n" + child.format(
        end="\ntime.sleep(3)"
    )
    assert 0.6 <= measured(["python3", "-c", ignoring], tmp_path / "log").cpu_s < 2.0


def test_a_command_that_fails_is_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="ended with status 3"):
        measured(["python3", "-c", "raise SystemExit(3)"], tmp_path / "log")
