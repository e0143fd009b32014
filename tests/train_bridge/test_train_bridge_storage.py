"""A storage that takes no more while a run trains: one line, and the same command goes on once there is room."""

import errno
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from caches import FakeEncoders, build, clip_items
from clips import CLIPS, write_clips
from regression import lines, make_job
from safetensors import SafetensorError

import run_pipeline
from core.errors import OutputError, RunError
from models.vae.video_vae import PRESETS, build_vae
from train_bridge.cache import build as cache_build
from train_bridge.cache.cache import CacheReader
from train_bridge.loop import nonfinite
from train_bridge.loop.checkpoint import checkpoints, write_checkpoint
from train_bridge.loop.nonfinite import StoppedError, first_tells
from train_bridge.loop.parallel import Worker
from train_bridge.loop.trainer import Trainer
from train_bridge.storage import storing

torch.set_num_threads(1)
CONFIGS = Path(run_pipeline.__file__).parent / "configs"


@contextmanager
def files_end_at(size_bytes: int) -> Iterator[None]:
    """Let no file grow beyond a size, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("what", ["weights", "moments"])
def test_a_checkpoint_that_finds_no_room_is_one_line_and_leaves_nothing_half(tmp_path: Path, what: str) -> None:
    large, small = {"a": torch.zeros(1 << 18)}, {"a": torch.zeros(1)}
    weights, moments = (large, small) if what == "weights" else (small, large)
    write_checkpoint(tmp_path, 1, {"n": (small, None)}, {"n": small}, {"data_id": "d"}, 2)
    with files_end_at(1 << 19), pytest.raises(OutputError, match=r"step-00000002: cannot be written \(File too large"):
        write_checkpoint(tmp_path, 2, {"n": (weights, None)}, {"n": moments}, {"data_id": "d"}, 2)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
    write_checkpoint(tmp_path, 2, {"n": (weights, None)}, {"n": moments}, {"data_id": "d"}, 2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000001", "step-00000002"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_log_that_finds_no_room_is_one_line_and_the_run_goes_on_later(tmp_path: Path) -> None:
    Trainer.start(make_job(tmp_path, 4), Worker()).run()
    log = tmp_path / "log.jsonl"
    log.rename(tmp_path / "kept.jsonl")
    log.symlink_to("/dev/full")
    with pytest.raises(OutputError, match="cannot be written .No space left on device"), storing(tmp_path):
        Trainer.start(make_job(tmp_path, 8), Worker()).run()
    log.unlink()
    (tmp_path / "kept.jsonl").rename(log)
    Trainer.start(make_job(tmp_path, 8), Worker()).run()
    assert list(lines(tmp_path, "train")) == list(range(1, 9))


def test_only_a_storage_of_the_run_is_told_of_as_one(tmp_path: Path) -> None:
    denied = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "a"))
    with pytest.raises(OutputError, match="a: cannot be written"), storing(tmp_path):
        raise denied
    with pytest.raises(PermissionError), storing(tmp_path / "run"):
        raise denied  # data elsewhere, which are read
    with pytest.raises(OutputError, match="run: cannot be written"), storing(tmp_path / "run"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OutputError, match="Read-only"), storing(tmp_path):
        raise SafetensorError("Error while serializing: I/O error: Read-only file system (os error 30)")
    with pytest.raises(SafetensorError), storing(tmp_path):
        raise SafetensorError("Error while deserializing header: InvalidHeader")
    with pytest.raises(RuntimeError, match="a bug"), storing(tmp_path):
        raise RuntimeError("a bug")
    with pytest.raises(ConnectionResetError), storing(tmp_path):
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset")


def test_workers_stop_together_where_the_first_finds_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError), first_tells(Worker()):
        raise OutputError("full")
    sent: list[object] = []

    def from_first(value: object) -> object:
        sent.append(value)
        return "full"

    monkeypatch.setattr(nonfinite, "from_first", from_first)
    with pytest.raises(StoppedError, match="full"), first_tells(Worker(0, 2)):
        raise OutputError("full")
    with pytest.raises(StoppedError, match="full"), first_tells(Worker(1, 2)):
        pass
    assert sent == ["full", None]
    with pytest.raises(ZeroDivisionError), first_tells(Worker(0, 2)):
        raise ZeroDivisionError


def test_a_worker_says_what_it_met_through_ray() -> None:
    from ray.train.v2._internal.exceptions import UserExceptionWithTraceback
    from ray.train.v2.api.exceptions import WorkerGroupError

    from train_bridge.loop.launch import _told

    full = OutputError("full")
    group = WorkerGroupError("…", {0: ValueError("collateral"), 1: UserExceptionWithTraceback(full, "")})
    assert _told(group) is full
    bug = WorkerGroupError("…", {0: UserExceptionWithTraceback(ValueError("a bug"), "")})
    assert _told(bug) is bug


def test_a_complete_cache_may_be_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items, encoders = clip_items(tmp_path / "clips", 4), FakeEncoders(str(tmp_path / "log"))
    build(tmp_path / "cache", items, encoders)
    (tmp_path / "cache" / "files.parquet").unlink()  # so that it would have to be written

    def refuse(*_: object, **__: object) -> object:
        raise OutputError("read-only")

    monkeypatch.setattr(cache_build, "can_write", lambda _: False)
    monkeypatch.setattr(cache_build, "hold_cache", lambda *_: pytest.fail("the cache is held"))
    monkeypatch.setattr("train_bridge.cache.fingerprint._write_memo", refuse)
    report = build(tmp_path / "cache", items, encoders)
    assert (report.encoded, report.reused, report.failed) == (0, 7, [])
    assert len(CacheReader(tmp_path / "cache")) == 7
    with pytest.raises(RunError, match=r"[1-9]\d* of \d+ entries are missing, and it cannot be written to; give"):
        build(tmp_path / "cache", clip_items(tmp_path / "more", 6), encoders)


def read_only(command: list[str], folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    """Run a command for which a folder is read-only or full: in a namespace of its own, so nothing else sees it."""
    mount = f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder}"
    if options:
        mount = f"mount -t tmpfs -o {','.join(options)} none {folder}"
    script = f'{mount} && exec "$@"'
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *command], capture_output=True, text=True, check=False, timeout=500
    )


@pytest.mark.slow
def test_the_command_tells_of_a_storage_in_one_line(tmp_path: Path) -> None:
    probe = tmp_path / "probe"
    probe.mkdir()
    if shutil.which("unshare") is None or read_only(["true"], probe).returncode:
        pytest.skip("no namespaces of mounts here")
    write_clips(tmp_path / "clips", CLIPS)
    torch.manual_seed(0)
    build_vae(PRESETS["tiny"]).save_pretrained(tmp_path / "vae")
    run, cache = tmp_path / "run", tmp_path / "cache"
    command = [
        sys.executable, run_pipeline.__file__, "train", str(CONFIGS / "train_tiny.yaml"), "--data",
        str(tmp_path / "clips" / "metadata.json"), "--output", str(run), "--runner", "inline",
        f"model.vae={tmp_path / 'vae'}", f"train.cache={cache}", "watch.log_every=1", "watch.sample_every=0",
    ]  # fmt: skip
    assert subprocess.run([*command, "train.steps=2"], check=False, capture_output=True).returncode == 0
    # A finished cache that is read-only changes nothing.
    fine = read_only([*command, "train.steps=3"], cache)
    assert fine.returncode == 0, fine.stderr[-3000:]
    assert [path.name for path in checkpoints(run)] == ["step-00000002", "step-00000003"]
    for folder, options in ((run, ()), (tmp_path / "other", ("size=300k",))):
        folder.mkdir(exist_ok=True)
        words = [str(folder) if word == str(run) else word for word in command]
        broken = read_only([*words, "train.steps=4"], folder, *options)
        told = broken.stderr.strip().splitlines()
        assert broken.returncode == 1, broken.stderr[-3000:]
        assert "Traceback" not in broken.stderr, broken.stderr[-3000:]
        assert told[-1].startswith(f"error: {folder}") and "cannot be written" in told[-1]
        assert ("Read-only" if not options else "No space left") in told[-1]
