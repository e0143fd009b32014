"""Every store keeps the same promises: the same cases against a local folder and buckets of four servers."""

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from object_servers import SERVICES, Service

from core.errors import UserError
from core.storage.lease import object_lease
from core.storage.object_store import ObjectStore
from core.storage.opening import open_store
from core.storage.store import MissingError, Store, StoreError


@pytest.fixture(params=["local", "moto", *SERVICES])
def store(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    service_of: Callable[[str], Service],
    monkeypatch: pytest.MonkeyPatch,
) -> Store:
    if request.param == "local":
        return open_store(tmp_path / "store")
    if request.param == "moto":
        return open_store(request.getfixturevalue("bucket_url") + "/some/folder")
    service = service_of(request.param)
    service.point_at(monkeypatch, tmp_path)
    return open_store(service.bucket_url() + "/some/folder")


def test_what_is_put_is_read_and_listed_with_its_size(store: Store) -> None:
    contents = {"b/two.bin": b"22", "a.txt": b"one", "b/deep/er.txt": b"", "ba.txt": b"x" * 1000}
    for key, content in contents.items():
        store.put(key, content)
    assert {key: store.read(key) for key in contents} == contents
    assert [(e.key, e.size_bytes) for e in store.list()] == [(k, len(contents[k])) for k in sorted(contents)]
    assert [e.key for e in store.list("b/")] == ["b/deep/er.txt", "b/two.bin"]
    assert [e.key for e in store.list("ba")] == ["ba.txt"]
    assert list(store.list("nothing/")) == []
    assert [store.stat(e.key) for e in store.list()] == list(store.list())


def test_hidden_objects_are_not_listed(store: Store) -> None:
    store.put(".hidden/x", b"1")
    store.put("a/.part.tmp-1-00000000", b"1")
    store.put("a/seen", b"1")
    assert [e.key for e in store.list()] == ["a/seen"]


@pytest.mark.parametrize(
    ("start", "length"), [(0, None), (0, 3), (3, 4), (8, 100), (10, 5), (50, 5), (4, None), (2, 0)]
)
def test_ranges_are_those_of_python(store: Store, start: int, length: int | None) -> None:
    content = b"0123456789"
    store.put("x", content)
    assert store.read("x", start, length) == content[start : None if length is None else start + length]


def test_a_version_changes_with_the_content_and_an_old_one_is_not_read(store: Store) -> None:
    version = store.put("x", b"first")
    before = store.stat("x")
    assert before.version == version
    assert store.read("x", version=before.version) == b"first"
    store.put("x", b"other")  # of the same size
    assert store.stat("x").version != before.version
    with pytest.raises(MissingError, match="changed"):
        store.read("x", 0, 2, before.version)


def test_a_missing_object_is_told_of_in_one_line(store: Store) -> None:
    for ask in (store.stat, store.read):
        with pytest.raises(MissingError) as told:
            ask("no/such.mp4")
        assert store.url in str(told.value)
        assert "\n" not in str(told.value)
    store.delete("no/such.mp4")


def test_files_are_put_as_bytes_are(store: Store, tmp_path: Path) -> None:
    content = bytes(range(256)) * 80_000  # goes up in parts
    file = tmp_path / "film"
    file.write_bytes(content)
    store.put("film", file)
    assert store.read("film") == content
    assert store.stat("film").size_bytes == len(content)


def test_of_many_who_put_if_absent_one_succeeds(store: Store) -> None:
    wins, start = [], threading.Barrier(6)

    def put(number: int) -> None:
        start.wait()
        if store.put_if_absent("commit", f"run {number}".encode()):
            wins.append(number)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 1
    assert store.read("commit") == f"run {wins[0]}".encode()
    assert not store.put_if_absent("commit", f"run {wins[0]}".encode())
    assert [e.key for e in store.list()] == ["commit"]


def test_deleted_is_gone(store: Store) -> None:
    store.put("x", b"1")
    store.delete("x")
    assert list(store.list()) == []
    with pytest.raises(MissingError):
        store.read("x")


def test_copies_are_made_within_the_store_under_any_name(store: Store) -> None:
    names = ("a b.mp4", "50% off.mp4", "\u00fc+x&y=1.mp4", "deep/er/x#1?.mp4")
    for name in names:
        version = store.put(name, name.encode())
        assert store.stat(name).version == version
        copied = store.copy(name, f"copies/{name}")
        assert store.read(f"copies/{name}", version=copied) == name.encode()
    assert [e.key for e in store.list("copies/")] == sorted(f"copies/{name}" for name in names)
    assert [store.stat(e.key) for e in store.list()] == list(store.list())
    with pytest.raises(MissingError):
        store.copy("no/such.mp4", "copies/x")


def test_what_is_replaced_must_still_have_its_version(store: Store) -> None:
    if not isinstance(store, ObjectStore):
        pytest.skip("only leases of buckets are replaced so")
    first = store.put("lock", b"first")
    assert store.put_if_unchanged("lock", b"second", first)
    assert not store.put_if_unchanged("lock", b"too late", first)
    second = store.stat("lock").version
    assert store.read("lock", version=second) == b"second"
    store.delete("lock")
    assert not store.put_if_unchanged("lock", b"too late", second)
    assert list(store.list()) == []


def test_one_holds_a_lease_at_a_time_and_gives_it_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.storage.object_store.object_lease", partial(object_lease, beat_s=0.2))
    with store.lease("locks/run") as lease:
        lease.check()
        with pytest.raises(UserError, match="in use by process"), store.lease("locks/run"):
            pass
        with store.lease("locks/other") as other:
            other.check()
    with store.lease("locks/run") as lease:
        lease.check()


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../up", "a/../../up", "a//b", "a/./b", "nul\0"])
def test_keys_stay_below_the_root(store: Store, key: str) -> None:
    for ask in (store.stat, store.read, store.delete, lambda k: store.put(k, b"")):
        with pytest.raises(StoreError, match="name below a folder"):
            ask(key)
