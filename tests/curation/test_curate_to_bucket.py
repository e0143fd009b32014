"""`curate --output URL`: the same output as in a folder, by whoever goes on with it, and never half."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from buckets import KEY_ID, SECRET, make_bucket, point_at
from faulty_proxy import Fault, faulty_proxy
from footage import pan, write
from runs import assert_same_output, curate

import run_pipeline
from core.errors import RunError, UserError
from core.storage.lease import object_lease
from core.storage.object_store import ObjectStore, open_object_store
from core.storage.store import StoreError
from curation.output.bucket import pull
from curation.output.commits import COMMITS, LEASE, last_commit, leftovers
from curation.output.remote import RemoteOutput, place_for, remote_output
from curation.output.stand_ins import stands_for, write_stand_in

PROGRAM = Path(run_pipeline.__file__)
RECIPE = "# The recipe of this output\nshots: {}\n"
CLIP, OTHER = "0b8f3c1e-1111-5000-8000-00000000000a", "0b8f3c1e-1111-5000-8000-00000000000b"


@pytest.fixture(autouse=True)
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SELECTS_STAGE", str(tmp_path / "stage"))
    return tmp_path / "stage"


@pytest.fixture
def store(bucket_url: str) -> ObjectStore:
    return open_object_store(f"{bucket_url}/out")


def fill(out: Path, **files: str) -> None:
    """Write files by path, with `__` for `/` and `_` before the suffix."""
    for name, text in {"recipe_yaml": RECIPE, **files}.items():
        stem, _, suffix = name.replace("__", "/").rpartition("_")
        path = out / f"{stem}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def texts(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    return {p.relative_to(folder).as_posix(): p.read_text() for p in files}


def lose(url: str) -> None:
    """Lose what this machine has of an output."""
    shutil.rmtree(place_for(url))


def test_what_one_machine_commits_another_goes_on_with(store: ObjectStore) -> None:
    with remote_output(store) as output:
        fill(output.folder, clips__p_parquet="rows", _parts__1_parquet="part", **{f"train__{CLIP}_mp4": "film" * 99})
        output.commit()
    lose(store.url)
    with remote_output(store) as output:
        clip = output.folder / f"train/{CLIP}.mp4"
        assert (output.folder / "_parts/1.parquet").read_text() == "part"
        assert stands_for(clip, clip.stat().st_size)
        (output.folder / "_parts/1.parquet").unlink()
        (output.folder / "_retired").mkdir()
        clip.rename(output.folder / f"_retired/{CLIP}.mp4")  # as `select` does with what is rejected
        fill(output.folder, clips__p_parquet="more rows", **{f"train__{OTHER}_mp4": "another"})
        output.finish(is_complete=True)
        assert not output.folder.exists()
    assert leftovers(store) == []
    assert {e.key for e in store.list("train/")} == {f"train/{OTHER}.mp4"}
    assert store.read(f"_retired/{CLIP}.mp4") == b"film" * 99
    assert store.read("clips/p.parquet") == b"more rows"


def test_a_folder_that_is_ahead_stays_and_one_that_is_behind_goes(store: ObjectStore, tmp_path: Path) -> None:
    with remote_output(store) as output:
        fill(output.folder, clips__p_parquet="1")
        output.commit()
        fill(output.folder, clips__p_parquet="2")  # and the process dies
    with remote_output(store) as output:
        assert (output.folder / "clips/p.parquet").read_text() == "2"
    place_for(store.url).rename(tmp_path / "elsewhere")
    with remote_output(store) as output:  # on another machine
        fill(output.folder, clips__p_parquet="3")
        output.commit()
    lose(store.url)
    (tmp_path / "elsewhere").rename(place_for(store.url))
    with remote_output(store) as output:
        assert (output.folder / "clips/p.parquet").read_text() == "3"
        fill(output.folder, clips__p_parquet="4")
    for entry in store.list():
        store.delete(entry.key)
    with remote_output(store) as output:  # what was deleted from the bucket does not come back
        assert texts(output.folder) == {}


def test_a_restore_that_was_killed_is_begun_again(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with remote_output(store) as output:
        fill(output.folder, clips__p_parquet="1", clips__q_parquet="2")
        output.commit()
        shutil.rmtree(output.folder)

    def half(store: ObjectStore, folder: Path, *rest: object) -> None:
        fill(folder, clips__p_parquet="1")
        raise KeyboardInterrupt

    monkeypatch.setattr("curation.output.remote.pull", half)
    with pytest.raises(KeyboardInterrupt), remote_output(store):
        pass
    monkeypatch.setattr("curation.output.remote.pull", pull)
    with remote_output(store) as output:
        assert set(texts(output.folder)) == {"recipe.yaml", "clips/p.parquet", "clips/q.parquet"}


@pytest.mark.slow  # as long as a lease takes to be renewed
def test_two_who_want_one_output_are_told_apart_and_a_dead_one_is_followed(store: ObjectStore) -> None:
    held = pytest.raises(UserError, match=r"in use by process \d+ on .+ \(for \d+ s\)")
    with remote_output(store), held, remote_output(store):
        pass
    with remote_output(store), held, store.lease(LEASE):  # from another machine, which has no lock in common
        pass
    with remote_output(store) as output:
        kept = store.read(LEASE)
    assert output.folder.parent == place_for(store.url)
    store.put(LEASE, kept)  # as if this process had died
    begin = time.monotonic()
    with remote_output(store):
        assert time.monotonic() - begin < 5, "the lock of this machine tells that the holder is dead"
    store.put(LEASE, b'{"owner": "process 1 on another machine", "token": "x"}')
    with object_lease(store, LEASE, 0.1, 0.5) as lease:
        lease.check()


@pytest.mark.slow
def test_a_lease_that_was_lost_ends_the_run_without_a_commit(store: ObjectStore) -> None:
    with remote_output(store) as output:
        fill(output.folder, clips__p_parquet="mine")
        output.commit()
        store.put(LEASE, b'{"owner": "another", "token": "x"}')
        fill(output.folder, clips__p_parquet="mine, too late")
        lost = threading.Event()
        with output.committing(lost.set):
            assert wait_for(lambda: _is_lost(output), 30)
        with pytest.raises(RunError, match="lost to another process"):
            output.commit()
    assert last_commit(store).number == 1
    assert store.read(LEASE) == b'{"owner": "another", "token": "x"}'


def _is_lost(output: RemoteOutput) -> bool:
    try:
        output._lease.check()
    except StoreError as error:
        return "lost" in str(error)
    return False


def test_a_stand_in_for_what_nobody_has_is_not_uploaded(store: ObjectStore) -> None:
    with remote_output(store) as output:
        fill(output.folder)
        write_stand_in(output.folder / "x.mp4", "0" * 64)
        with pytest.raises(RunError, match="does not hold x.mp4"):
            output.commit()
    assert last_commit(store).number == 0


def test_a_bucket_with_other_things_keeps_them(bucket_url: str) -> None:
    store = open_object_store(bucket_url)
    others = {"raw/a.mp4", "train/a.mp4", "notes.txt", "previews/x.jpg", "clips/mine.parquet"}
    for key in others:
        store.put(key, b"of somebody else")
    with remote_output(store) as output:
        fill(output.folder, **{f"train__{CLIP}_mp4": "film"})
        store.put(f"train/{OTHER}.mp4", b"of a run that died")
        output.finish(is_complete=True)
    keys = {entry.key for entry in store.list()}
    assert others < keys
    assert f"train/{OTHER}.mp4" not in keys


def wait_for(holds: Callable[[], bool], most_s: float) -> bool:
    end = time.monotonic() + most_s
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.02)
    return False


def films(folder: Path, count: int = 2) -> Path:
    folder.mkdir()
    for number in range(count):
        write(folder / f"{number}.mp4", list(pan(96, seed=number)))
    (folder / "broken.mp4").write_bytes(b"no film at all" * 100)
    recipe = "shots: {min_s: 1.0, max_s: 3.0}\noperators: {facts: , brightness: }\n"
    (folder.parent / "quick.yaml").write_text(recipe)
    return folder


def run(*words: object) -> int:
    return run_pipeline.main([str(word) for word in words])


@pytest.mark.slow
def test_curate_writes_to_a_bucket_what_it_writes_to_a_folder(
    bucket_url: str, stage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    footage, url = films(tmp_path / "films"), f"{bucket_url}/sets/one"
    words = ("curate", footage, "--config", tmp_path / "quick.yaml", "--runner", "inline")
    curate(footage, "--config", tmp_path / "quick.yaml", out=tmp_path / "local")
    assert run(*words, "--output", url) == 0
    said = capsys.readouterr().out
    assert f"{url}/report.html" in said
    assert str(stage) not in said
    store = open_object_store(url)
    pull(store, tmp_path / "copy")
    assert_same_output(tmp_path / "local", tmp_path / "copy")
    there = {p for p in texts_of(tmp_path / "local") if not p.startswith("_parts/")}
    assert {p for p in texts_of(tmp_path / "copy")} == there
    assert leftovers(store) == []
    assert {e.key for e in store.list() if not e.key.startswith(COMMITS)} == there, (
        "under their own names, and no lease"
    )
    for path in (tmp_path / "copy").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert SECRET.encode() not in content
        assert KEY_ID.encode() not in content
        assert str(stage).encode() not in content
    number = last_commit(store).number
    assert run(*words[:2], "--output", url, "--runner", "inline") == 0
    assert "up to date" in capsys.readouterr().out
    assert last_commit(store).number == number
    write(footage / "more.mp4", list(pan(64, seed=9)))  # with nothing of the output on this machine
    curate(footage, out=tmp_path / "local")
    assert run(*words[:2], "--output", url, "--runner", "inline") == 0
    pull(store, tmp_path / "copy")
    assert_same_output(tmp_path / "local", tmp_path / "copy")
    assert leftovers(store) == []
    capsys.readouterr()
    assert run(*words, "--output", url, "rules.brightness.min=0.5") == 2
    said = capsys.readouterr().err
    assert f"{url} follows other rules" in said
    assert str(stage) not in said
    assert run("curate", footage, "--output", "https://example.org/x") == 2


@pytest.mark.slow
def test_select_in_a_bucket_moves_what_it_rejects_and_brings_it_back(
    s3_address: str, tmp_path: Path, stage: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    footage, local = films(tmp_path / "films"), tmp_path / "local"
    write(footage / "dark.mp4", [frame // 8 for frame in pan(96, seed=5)])
    curate(footage, "--config", tmp_path / "quick.yaml", out=local)
    url = f"s3://{make_bucket(s3_address)}/out"
    asked: list[str] = []

    def watch(number: int, method: str, path: str) -> Fault:
        asked.append(f"{method} {path.partition('?')[0]}")
        return ""

    with faulty_proxy(s3_address, watch) as (address, _):
        point_at(address, monkeypatch, tmp_path)
        store = open_object_store(url)
        assert run("push", local, url) == 0
        for minimum, kept in ((0.2, "fewer"), (0.0, "all")):
            rule = f"rules.brightness.min={minimum}"
            asked.clear()
            assert run("select", url, rule) == run("select", local, rule) == 0
            assert not [each for each in asked if each.startswith("GET") and "/train/" in each], "no clip is read"
            pull(store, tmp_path / "copy")
            assert_same_output(local, tmp_path / "copy")
            assert {p for p in texts_of(local) if p.startswith(("train/", "_retired/"))} == {
                p for p in texts_of(tmp_path / "copy") if p.startswith(("train/", "_retired/"))
            }
            assert any((local / "_retired").glob("*.mp4")) == (kept == "fewer")
            for clip in (tmp_path / "copy" / "train").iterdir():
                assert clip.read_bytes() == (local / "train" / clip.name).read_bytes()
            assert leftovers(store) == []
    capsys.readouterr()
    for format in ("webvid", "webdataset"):
        assert run("export", url, "--format", format) == run("export", local, "--format", format) == 0
    assert f"{url}/webdataset/shard-000000.tar" in capsys.readouterr().out
    assert store.read("webvid.csv") == (local / "webvid.csv").read_bytes()
    shard = "webdataset/shard-000000.tar"
    assert store.read(shard) == (local / shard).read_bytes()
    assert run("report", url) == 0
    assert f"report    {url}/report.html" in capsys.readouterr().out
    assert run("select", f"{url}/nothing") == 2
    assert f"{url}/nothing: not an output of curate" in capsys.readouterr().err


def texts_of(folder: Path) -> set[str]:
    """Return the paths of an output's files; nothing hidden."""
    return {
        p for p in (q.relative_to(folder).as_posix() for q in folder.rglob("*") if q.is_file()) if "/." not in f"/{p}"
    }


@pytest.mark.slow
@pytest.mark.parametrize("is_lost", [False, True], ids=["same machine", "folder lost"])
def test_a_run_that_was_killed_goes_on_from_its_last_commit(
    s3_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_lost: bool
) -> None:
    footage, url = films(tmp_path / "films", 12), f"s3://{make_bucket(s3_address)}/out"
    curate(footage, "--config", tmp_path / "quick.yaml", out=tmp_path / "local")
    words = ["curate", footage, "--config", tmp_path / "quick.yaml", "--runner", "inline", "--output", url]
    monkeypatch.setenv("SELECTS_COMMIT_S", "0.1")
    requests: list[str] = []
    processes: list[subprocess.Popen[bytes]] = []

    def kill_at_commit_of_a_part(number: int, method: str, path: str) -> Fault:
        requests.append(f"{method} {path}")
        is_commit = method == "PUT" and re.search(r"/_commits/\d+\.json", path)
        if is_commit and any("PUT" in request and "/_parts/" in request for request in requests):
            os.killpg(processes[0].pid, signal.SIGKILL)
        return ""

    with faulty_proxy(s3_address, kill_at_commit_of_a_part) as (address, _):
        point_at(address, monkeypatch, tmp_path)
        command = [sys.executable, str(PROGRAM), *map(str, words)]
        with (tmp_path / "log").open("wb") as log:
            processes.append(subprocess.Popen(command, start_new_session=True, stdout=log, stderr=log))
        assert processes[0].wait(120) == -signal.SIGKILL, (tmp_path / "log").read_text()
    point_at(s3_address, monkeypatch, tmp_path)
    store = open_object_store(url)
    pull(store, tmp_path / "copy")  # whole, whenever it was killed
    assert list((tmp_path / "copy" / "_parts").iterdir())
    if is_lost:
        lose(url)
    assert run(*words) == 0
    pull(store, tmp_path / "copy")
    assert_same_output(tmp_path / "local", tmp_path / "copy")
    assert leftovers(store) == []
    assert not list(store.list("_parts/"))
    facts = json.loads((tmp_path / "copy" / "run.json").read_text())
    assert facts["sources_done"] < 13, "what was committed is not done again"
