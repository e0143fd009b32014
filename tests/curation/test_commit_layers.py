"""Commits of outputs of many files: each writes what has changed, and all are read whole."""

import random
import time
from pathlib import Path

import pytest

from core.storage.local import LocalStore
from core.storage.store import StoreError
from curation.output import commits
from curation.output.commits import Commit, Pushed, commit_key, commit_text, last_commit, leftovers, next_commit


class Counting(LocalStore):
    """A folder that counts what is written to it."""

    written = 0

    def put(self, key: str, content: bytes | Path) -> str:
        assert isinstance(content, bytes)
        type(self).written += len(content)
        return super().put(key, content)

    def put_if_absent(self, key: str, content: bytes) -> bool:
        type(self).written += len(content)
        return super().put_if_absent(key, content)


def pushed(path: str, state: int = 0) -> Pushed:
    digest = f"{random.Random(f'{path} {state}').getrandbits(256):064x}"
    return Pushed(path if not state else f"_commits/{state:08d}/{path}", 1000 + state, f'"{digest[:32]}"', digest)


def commit(store: LocalStore, files: dict[str, Pushed]) -> Commit:
    made = next_commit(store, last_commit(store), files, "me")
    assert store.put_if_absent(commit_key(made.number), commit_text(made))
    return made


def clean(store: LocalStore) -> None:
    for entry in leftovers(store):
        store.delete(entry.key)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counting:
    monkeypatch.setattr(commits, "MOST_INLINE", 10)
    monkeypatch.setattr(commits, "MOST_IN_LAYER", 60)
    Counting.written = 0
    return Counting(tmp_path / "bucket")


@pytest.mark.parametrize("seed", range(4))
def test_whatever_changes_the_last_commit_is_read_as_it_was_written(store: Counting, seed: int) -> None:
    draw = random.Random(seed)
    files: dict[str, Pushed] = {}
    for number in range(1, 40):
        for _ in range(draw.choice((1, 3, 40))):
            path = f"train/{draw.randrange(200)}.mp4"
            if draw.random() < 0.3:
                files.pop(path, None)
            else:
                files[path] = pushed(path, number)
        files["report.html"] = pushed("report.html", number)
        made = commit(store, dict(files))
        assert (made.number, dict(made.files)) == (number, files)
        read = last_commit(store)
        assert (dict(read.files), read.by, read.layers) == (files, "me", made.layers)
        assert commit_text(read) == commit_text(made)
        assert len(made.layers) <= 12
        if draw.random() < 0.3:
            clean(store)
            assert dict(last_commit(store).files) == files
    clean(store)
    kept = {f"_commits/layers/{layer.sha256}" for layer in last_commit(store).layers}
    assert {entry.key for entry in store.list()} == kept | {commit_key(39)}


def test_a_commit_of_few_files_is_as_version_0_10_wrote_it(store: Counting) -> None:
    few = {path: pushed(path) for path in ("recipe.yaml", "clips/part-0.parquet")}
    assert commit(store, few).layers == ()
    assert b'"files":{"clips/part-0.parquet":{"object":' in store.read(commit_key(1))
    many = few | {path: pushed(path) for path in (f"train/{n}.mp4" for n in range(50))}
    assert len(commit(store, many).layers) == 1
    assert dict(last_commit(store).files) == many
    commit(store, few)  # most were rejected
    assert last_commit(store) == Commit(3, few, "me")
    clean(store)
    assert {entry.key for entry in store.list()} == {commit_key(3)}


def test_a_layer_that_is_gone_or_damaged_is_told(store: Counting) -> None:
    made = commit(store, {path: pushed(path) for path in (f"train/{n}.mp4" for n in range(50))})
    (layer,) = made.layers
    store.put(commits.layer_key(layer), b"[1]")
    with pytest.raises(StoreError, match="not a commit of an output"):
        last_commit(store)
    store.delete(commits.layer_key(layer))
    with pytest.raises(StoreError, match="no such file"):
        last_commit(store)


def test_a_commit_costs_what_it_changes(tmp_path: Path) -> None:
    store = Counting(tmp_path / "bucket")
    files = {path: pushed(path) for path in (f"previews/{n % 256:02x}/{n}-0.jpg" for n in range(5_000))}
    commit(store, files)
    whole, Counting.written = Counting.written, 0
    for number in range(10):
        files |= {path: pushed(path) for path in (f"train/{number}-{n}.mp4" for n in range(5))}
        commit(store, dict(files))
    assert Counting.written < 0.05 * whole
    assert dict(last_commit(store).files) == files


@pytest.mark.slow
def test_time_and_bytes_of_a_commit_beside_a_hundred_thousand_files(tmp_path: Path) -> None:
    """Print what a commit of 100 new files takes, as version 0.10 wrote it and now."""
    store = Counting(tmp_path / "bucket")
    files = {path: pushed(path) for path in (f"previews/{n % 256:02x}/{n:036d}-0.jpg" for n in range(100_000))}
    commit(store, files)
    before = last_commit(store)
    files |= {path: pushed(path) for path in (f"train/{n:036d}.mp4" for n in range(100))}
    begin = time.perf_counter()
    text = commit_text(Commit(2, files))
    store.put("old", text)
    old_s, Counting.written, begin = time.perf_counter() - begin, 0, time.perf_counter()
    store.put(commit_key(2), commit_text(next_commit(store, before, files)))
    new_s = time.perf_counter() - begin
    print(f"\n0.10: {len(text)} bytes, {old_s:.2f} s; now {Counting.written} bytes, {new_s:.2f} s")
    assert Counting.written < 0.01 * len(text)
    assert new_s < old_s
