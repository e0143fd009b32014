"""What killed commands owe is paid, and what they left is removed, by whichever command comes next."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from runs import curate

import run_pipeline
from core import files
from core.files import temporary_path, tidy
from core.lock import locked, locked_if_free
from curation import pipeline
from curation.output import owed

SETTINGS = ("operators.text_area=false", "rules.text_area=false")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An output of two pictures."""
    (tmp_path / "in").mkdir()
    for number in range(2):
        Image.new("RGB", (512, 384), (90 * number + 60, 90, 120)).save(tmp_path / "in" / f"{number}.png")
    curate(tmp_path / "in", *SETTINGS, out=tmp_path / "out")
    return tmp_path / "out"


def again(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    curate(out.parent / "in", *SETTINGS, out=out)
    assert "up to date" in capsys.readouterr().out


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def left_by(pid: int, path: Path, host: str = files.HOST) -> Path:
    """Write what a process would leave if it were killed while it writes `path`."""
    left = path.with_name(f".{path.stem}.tmp-{pid}-{host}0000{path.suffix}")
    left.write_bytes(b"half")
    return left


# -- what is owed


def test_a_run_killed_after_its_last_fold_is_completed_by_the_next(
    out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    Image.new("RGB", (512, 384), (250, 90, 120)).save(out.parent / "in" / "2.png")
    before = (out / "run.json").read_text()
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(pipeline, "_write_run", die)
        curate(out.parent / "in", *SETTINGS, out=out)
    assert json.loads((out / "_owed.json").read_text()) == ["report", "run"]
    assert (out / "run.json").read_text() == before, "it tells of another run"
    again(out, capsys)
    run, earlier = json.loads((out / "run.json").read_text()), json.loads(before)
    assert run["summary"] != earlier["summary"], "it counts the clips that the killed run folded"
    assert (out / "report.html").stat().st_mtime_ns > (out / "clips").stat().st_mtime_ns
    assert not (out / "_owed.json").exists()


@pytest.mark.parametrize("name", ["run.json", "report.html", "json_of_internal_datasets.json"])
def test_what_is_gone_is_written_though_nothing_was_missing(
    out: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (out / name).unlink()
    again(out, capsys)
    assert (out / name).is_file()


def test_a_run_that_owes_nothing_leaves_its_facts_and_its_page_alone(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [(out / name).read_bytes() for name in ("run.json", "report.html")]
    again(out, capsys)
    assert [(out / name).read_bytes() for name in ("run.json", "report.html")] == before


def test_a_select_that_was_killed_leaves_its_page_to_the_next_command(
    out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "write_packed", die)
        assert run_pipeline.main(["select", str(out), "rules.brightness.max=0.9"]) == 1
    assert owed.owed(out) == {"report"}
    page = (out / "report.html").read_bytes()
    capsys.readouterr()
    again(out, capsys)
    assert (out / "report.html").read_bytes() != page
    assert not owed.owed(out)


@pytest.mark.parametrize("content", [b"", b"[", b"{}", b"[1, null, [2]]", b"[" * 100_000, b"x" * 100_000])
def test_a_list_that_cannot_be_read_owes_everything_known(tmp_path: Path, content: bytes) -> None:
    (tmp_path / owed.NAME).write_bytes(content)
    assert owed.owed(tmp_path) <= {"report", "run"}
    owed.owe(tmp_path, ["run"])
    assert "run" in owed.owed(tmp_path)
    owed.settle(tmp_path)
    assert owed.owed(tmp_path) == frozenset()


# -- what is left


@pytest.mark.parametrize(
    "command", [["export"], ["export", "--format", "diffusers"], ["report"], ["select", "rules.brightness.max=0.9"]]
)
def test_every_command_removes_what_dead_processes_left(out: Path, command: list[str]) -> None:
    pid = dead_pid()
    places = ("report.html", "webvid.csv", "train/metadata.jsonl", "train/a.mp4", "_parts/1.parquet", "_retired/a.mp4")
    left = []
    for place in places:
        (out / place).parent.mkdir(exist_ok=True)
        left.append(left_by(pid, out / place))
    folder = out / f".webdataset.tmp-{pid}-{files.HOST}0001"
    folder.mkdir()
    (out / ".webdataset.swap-old").mkdir()
    assert run_pipeline.main([command[0], str(out), *command[1:]]) == 0
    assert not [path for path in [*left, folder, out / ".webdataset.swap-old"] if path.exists()]


def test_what_a_living_process_writes_stays_and_a_page_elsewhere_is_cleaned_too(out: Path, tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as writer:
        living = [left_by(writer.pid, folder / "report.html") for folder in (out, pages)]
        dead = left_by(dead_pid(), pages / "page.html")
        strange = left_by(1, pages / "other.html", host="0000" if files.HOST != "0000" else "1111")
        assert run_pipeline.main(["report", str(out), "--page", str(pages / "page.html")]) == 0
        assert all(path.exists() for path in living)
        assert not dead.exists()
        assert strange.exists(), "another machine may be writing it just now, and nobody holds this folder"
        writer.communicate()
    assert run_pipeline.main(["report", str(out), "--page", str(pages / "page.html")]) == 0
    assert not any(path.exists() for path in living)


def test_a_zombie_and_a_successor_to_its_number_write_nothing(tmp_path: Path) -> None:
    zombie = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert zombie.stdout is not None
    zombie.stdout.read()  # it has ended, and is not waited for
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    left = [left_by(zombie.pid, tmp_path / "a.mp4"), left_by(os.getppid(), tmp_path / "b.mp4")]
    os.utime(left[1], (0, 0))  # long before the process that has this number now began
    tidy(tmp_path, tmp_path / "absent")
    assert not any(path.exists() for path in left)
    zombie.wait()


def test_a_name_is_never_given_twice(tmp_path: Path) -> None:
    assert len({temporary_path(tmp_path / "a.mp4") for _ in range(10_000)}) == 10_000


def test_an_output_in_use_is_reported_and_exported_without_touching_what_its_run_writes(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left = left_by(dead_pid(), out / "_parts" / "1.parquet")
    with locked(out):
        assert run_pipeline.main(["report", str(out)]) == 0
        assert run_pipeline.main(["export", str(out)]) == 0
        assert left.exists(), "that is the business of who holds it"
        with locked_if_free(out) as is_held:
            assert not is_held
    with locked_if_free(out) as is_held:
        assert is_held
