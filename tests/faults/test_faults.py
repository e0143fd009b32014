"""What the world does to a run: sources that crash, hang, swell or change, models that die, full disks, two runs."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import assert_same_output, rows_of
from troubles import ODD_WIDTH_PX, Crashes, Deletes, Dies, Hangs, IsKilled, Mortal, Swells, Touches

import run_pipeline
from captioners import CAPTIONERS
from core import retry as patience
from core.errors import MediaError, OutputError, RunError
from core.limits import Limits
from core.retry import pauses_s, write_with_retries
from core.signals import stoppable
from curation.analysis.media_calls import sandbox_of
from curation.engine.ray_runner import RayRunner
from curation.engine.runners import InlineRunner, Runner
from curation.inputs.sources import find_sources
from curation.pipeline import Outcome, curate
from curation.recipe import Recipe, Tables, resolve
from curation.work import Plan
from demo.drawing import write_video
from media.sandbox import MediaProcess
from operators import OPERATORS
from operators.brightness import Brightness


def draw(path: Path, width: int = 96, seconds: int = 4, shade: int = 90) -> Path:
    """Write a video of one moving bar."""
    pictures = []
    for i in range(seconds * 10):
        picture = np.full((64, width, 3), shade, np.uint8)
        picture[:, i % 80 : i % 80 + 6] = 220
        pictures.append(picture)
    write_video(path, pictures, 10, options={"preset": "ultrafast", "g": "10"})
    return path


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four sources; the second is odd."""
    folder = tmp_path_factory.mktemp("footage")
    for number in range(4):
        draw(folder / f"{number}.mp4", ODD_WIDTH_PX if number == 1 else 96, shade=80 + 10 * number)
    return folder


def recipe_of(**operators: Any) -> tuple[Recipe, Any]:
    """Return a small recipe with operators of this file."""
    tables = Tables(OPERATORS | {"brightness": operators["kind"]}, CAPTIONERS)
    limits = {"silence_s": 60.0, "memory_gb": 2.0, "worker_deaths": 2} | operators.get("limits", {})
    settings = {k: v for k, v in operators.items() if k not in ("kind", "limits")}
    values = {"operators": {"brightness": settings or True}, "cut": {"preset": "ultrafast"}, "limits": limits}
    return resolve(values, tables)


def run(footage: Path, out: Path, recipe: tuple[Recipe, Any], runner: Runner) -> Outcome:
    return curate(find_sources([str(footage)]), out, recipe[0], recipe[1], runner)


@pytest.fixture(params=["inline", pytest.param("ray", marks=pytest.mark.slow)])
def runner(request: pytest.FixtureRequest) -> Runner:
    if request.param == "inline":
        return InlineRunner()
    request.getfixturevalue("ray_here")
    return RayRunner()


# -- sources that take their decoder with them


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        (Crashes, "analyse: the decoder crashed (SIGSEGV) (2 tries)"),
        (Hangs, "analyse: the decoder gave no sign of life for 3 s (2 tries)"),
        (Swells, "analyse: needs more than the 2 GB of limits.memory_gb"),
        (IsKilled, "analyse: the decoder was killed, as the system does when memory runs out (5 tries)"),
    ],
)
def test_a_source_that_takes_its_decoder_with_it_fails_alone(
    footage: Path, tmp_path: Path, kind: type, cause: str, runner: Runner
) -> None:
    limits = {"silence_s": 3.0} if kind is Hangs else {}  # a busy machine's time does not count
    outcome = run(footage, tmp_path, recipe_of(kind=kind, limits=limits), runner)
    rows = rows_of(tmp_path).values()
    assert sorted((r["source_path"], r["status"], r["error"]) for r in rows) == [
        ("0.mp4", "accepted", None),
        ("1.mp4", "failed", cause),
        ("2.mp4", "accepted", None),
        ("3.mp4", "accepted", None),
    ]
    assert outcome.tally.problems == []


@pytest.mark.slow
def test_what_is_alive_but_takes_too_long_is_given_up(footage: Path, tmp_path: Path) -> None:
    recipe, captioner = recipe_of(kind=Brightness, limits={"task_s": 1e-9, "silence_s": 60.0})
    curate(find_sources([str(footage)]), tmp_path, recipe, captioner, InlineRunner())
    for row in rows_of(tmp_path).values():
        assert row["status"] == "failed"
        assert "took more than the 1e-09 s of limits.task_s" in row["error"]


# -- models that die


@pytest.mark.slow
def test_a_model_that_dies_starts_again_and_nothing_is_lost(footage: Path, tmp_path: Path, ray_here: None) -> None:
    (tmp_path / "marks").mkdir()
    recipe = recipe_of(kind=Dies, marks=str(tmp_path / "marks"), deaths=2)
    run(footage, tmp_path / "out", recipe, RayRunner())
    assert len(list((tmp_path / "marks").iterdir())) == 2
    run(footage, tmp_path / "calm", recipe, InlineRunner())  # the marks are there: it does not die any more
    assert_same_output(tmp_path / "out", tmp_path / "calm")


@pytest.mark.slow
def test_a_model_that_always_dies_ends_the_run_which_can_go_on(footage: Path, tmp_path: Path, ray_here: None) -> None:
    (tmp_path / "marks").mkdir()
    recipe = recipe_of(kind=Dies, marks=str(tmp_path / "marks"), deaths=4)
    with pytest.raises(RunError, match=r"Ray gave up after repeated deaths of workers.*run the same command to resume"):
        run(footage, tmp_path / "out", recipe, RayRunner())
    run(footage, tmp_path / "out", recipe, RayRunner())
    assert [r["status"] for r in rows_of(tmp_path / "out").values()] == ["accepted"] * 4


@pytest.mark.slow
def test_a_captioner_that_dies_loses_no_caption_and_mixes_none_up(
    footage: Path, tmp_path: Path, ray_here: None
) -> None:
    tables = Tables(OPERATORS, CAPTIONERS | {"mortal": Mortal})
    caption = {"captioner": "mortal", "settings": {"mark": str(tmp_path / "mark")}}
    run(footage, tmp_path / "out", resolve({"caption": caption, "cut": {"mode": "none"}}, tables), RayRunner())
    assert (tmp_path / "mark").exists()
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 4
    assert all(row["caption"].startswith(f"{clip_id}: ") for clip_id, row in rows.items())


# -- storage


def failing(times: int, error: Exception) -> Callable[[], int]:
    """Return a function that fails so many times before it gives 7."""
    left = itertools.count(times, -1)

    def act() -> int:
        if next(left) > 0:
            raise error
        return 7

    return act


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr(patience.time, "sleep", pauses.append)
    return pauses


def test_a_storage_that_fails_for_the_moment_is_asked_again_ever_more_slowly(slept: list[float]) -> None:
    limits = Limits(storage_tries=4, storage_pause_s=0.5)
    assert write_with_retries(limits, failing(3, OutputError("busy", is_transient=True))) == 7
    assert slept == list(pauses_s(limits)) == [0.5, 1.0, 2.0]
    with pytest.raises(OutputError, match="busy"):
        write_with_retries(limits, failing(4, OutputError("busy", is_transient=True)))
    with pytest.raises(OutputError, match="full"):
        write_with_retries(limits, failing(1, OutputError("full")))
    assert len(slept) == 6, "a full disk is not asked again"


@pytest.mark.parametrize(
    "error", [MediaError("Input/output error", 1.0, is_transient=True), OutputError("busy", is_transient=True)]
)
def test_media_tasks_are_tried_again_without_giving_a_result_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slept: list[float], error: Exception
) -> None:
    process = MediaProcess(sandbox_of(Plan(Recipe(limits=Limits(storage_tries=3)), str(tmp_path))))
    tries = iter([[1, error], [1, 2, error], [1, 2, 3]])

    def once(on_beat: object, name: str, arguments: object) -> Iterator[int]:
        for item in next(tries):
            if isinstance(item, Exception):
                raise item
            yield item

    monkeypatch.setattr(process, "_once", once)
    assert list(process.run(lambda seconds: None, "probe")) == [1, 2, 3]
    assert slept == [1.0, 2.0]
    tries = iter([[1, error]] * 3)
    with pytest.raises(type(error)):
        list(process.run(lambda seconds: None, "probe"))


@pytest.mark.slow
@pytest.mark.parametrize("runner_name", ["inline", "ray"])
def test_a_storage_that_takes_no_more_ends_the_run_which_can_go_on(
    footage: Path, tmp_path: Path, runner_name: str
) -> None:
    """Files of a decoder may have 3 kB here: previews fit, clips do not."""
    out = tmp_path / "out"
    config = tmp_path / "recipe.yaml"
    config.write_text("operators: {brightness: true}\ncut: {crf: 0}\n")
    settings = ["--config", str(config)]
    (tmp_path / "sitecustomize.py").write_text(
        "import resource, sys\nif 'curation.analysis.tasks' in sys.orig_argv:\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
    )
    command = [sys.executable, run_pipeline.__file__, "curate", str(footage), "--output", str(out), *settings]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ['PYTHONPATH']}"}
    command += ["--runner", runner_name]
    broken = subprocess.run(command, capture_output=True, text=True, timeout=550, env=environment, check=False)
    assert broken.returncode == 1, broken.stderr[-3000:]
    last = broken.stderr.strip().splitlines()[-1]
    assert "train" in last
    assert "cannot be written (File too large); free space" in last
    assert "Traceback" not in broken.stderr
    assert not list((out / "train").glob("*")), "no clip under its final name, nothing half written"
    again = ["curate", str(footage), "--runner", "inline", "--output"]
    assert run_pipeline.main([*again, str(out)]) == 0
    assert run_pipeline.main([*again, str(tmp_path / "calm"), *settings]) == 0
    assert_same_output(tmp_path / "calm", out)
    assert any(row["clip_path"] for row in rows_of(out).values())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_ends_the_run_which_goes_on_when_there_is_room(footage: Path, tmp_path: Path) -> None:
    disk, sources = tmp_path / "disk", tmp_path / "in"
    disk.mkdir()
    sources.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    try:
        recipe = recipe_of(kind=Brightness)
        with pytest.raises(OutputError, match="No space left on device"):
            for number in range(40):  # until it is full
                draw(sources / f"{number}.mp4", shade=60 + number)
                run(sources, disk / "out", recipe, InlineRunner())
        for file in (disk / "out" / "train").glob("*"):
            assert not file.name.startswith("."), "half a clip is left"
        assert len(rows_of(disk / "out")) > 0, "what was finished can be read"
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        run(sources, disk / "out", recipe, InlineRunner())
        run(sources, tmp_path / "calm", recipe, InlineRunner())
        assert_same_output(tmp_path / "calm", disk / "out")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# -- sources and clocks that move


@pytest.mark.parametrize(
    ("kind", "words"), [(Touches, "the source changed while it was read"), (Deletes, "the file is gone")]
)
def test_a_source_that_changes_during_the_run_fails_and_is_done_again(tmp_path: Path, kind: type, words: str) -> None:
    source = tmp_path / "in"
    source.mkdir()
    draw(source / "odd.mp4", ODD_WIDTH_PX)
    recipe = recipe_of(kind=kind, path=str(source / "odd.mp4"))
    run(source, tmp_path / "out", recipe, InlineRunner())
    failed = [row for row in rows_of(tmp_path / "out").values() if row["status"] == "failed"]
    assert failed
    assert all(words in row["error"] for row in failed)
    if kind is Touches:
        again = run(source, tmp_path / "out", recipe, InlineRunner())
        assert again.sources_done == 1, "its new content is another source"


def test_clocks_that_jump_change_nothing(footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(kind=Brightness)
    run(footage, tmp_path / "calm", recipe, InlineRunner())
    jumps = itertools.cycle([10**18, 2 * 10**18, 10**9, 5])
    monkeypatch.setattr(time, "time_ns", lambda: next(jumps))
    monkeypatch.setattr(time, "time", lambda: next(jumps) / 1e9)
    run(footage, tmp_path / "out", recipe, InlineRunner())
    assert_same_output(tmp_path / "calm", tmp_path / "out")
    assert not [p for p in (tmp_path / "out").rglob(".*") if p.name != ".lock"]


# -- two runs


def test_the_second_run_on_an_output_says_who_holds_it_and_a_dead_one_holds_nothing(
    footage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code = "import sys, time; from pathlib import Path; from curation.output.folder import output_lock; "
    code += (
        "out = Path(sys.argv[1]); out.mkdir(); lock = output_lock(out); lock.__enter__(); print('held', flush=True); "
    )
    code += "time.sleep(100)"
    other = subprocess.Popen([sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        words = ["curate", str(footage), "--output", str(out), "--runner", "inline", "operators.text_area=false"]
        words.append("rules.text_area=false")
        assert run_pipeline.main(words) == 2
        assert f"is in use by process {other.pid} on" in capsys.readouterr().err
        other.kill()
        other.wait()
        assert run_pipeline.main(words) == 0
    finally:
        other.kill()
        other.wait()


# -- stopping


def test_what_is_begun_is_waited_for_but_not_for_ever(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plan = Plan(Recipe(), str(tmp_path), "this")
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt), stoppable(plan.stop_file, grace_s=0.5) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked
        assert plan.stop_file.exists()
        time.sleep(100)
    assert stop.is_overdue
    assert 0.4 < time.monotonic() - begin < 100
    assert not plan.stop_file.exists()
    assert "0.5 s at most" in capfd.readouterr().err
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_asking_twice_ends_at_once(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), stoppable(Plan(Recipe(), str(tmp_path), "this").stop_file) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(100)
    assert not stop.is_overdue


# -- Ray


def test_rays_ports_take_nobody_without_the_token(ray_here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    ask = f"import ray._raylet as r; r.GcsClient(address={address!r}).get_all_node_info(); print('let in')"
    token = {name: os.environ[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    assert token["RAY_AUTH_MODE"] == "token"
    outcomes = {}
    for name, given in {
        "the run's token": token,
        "none": {"RAY_AUTH_MODE": "disabled"},
        "another": {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64},
    }.items():
        environment = {k: v for k, v in os.environ.items() if k not in token} | given
        outcomes[name] = subprocess.run(
            [sys.executable, "-c", ask], env=environment, capture_output=True, text=True, timeout=300
        )
    assert "let in" in outcomes["the run's token"].stdout, outcomes["the run's token"].stderr[-2000:]
    for name in ("none", "another"):
        assert "let in" not in outcomes[name].stdout
        assert "InvalidAuthToken" in outcomes[name].stderr
