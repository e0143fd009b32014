"""What real servers answer when they refuse is one line that names the mend, and no secret."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from buckets import SECRET
from object_servers import AZURE_KEY, READER, READER_SECRET, SERVICES, Service

from core.storage.object_store import Budget, ObjectStore, open_object_store
from core.storage.store import StoreError

QUICK = Budget(tries=3, pause_s=0.01)
OTHER_KEY = AZURE_KEY.replace("Eby8", "Eby9")


@pytest.fixture
def opened(
    service_of: Callable[[str], Service], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[str], tuple[Service, ObjectStore]]:
    def start(name: str) -> tuple[Service, ObjectStore]:
        service = service_of(name)
        service.point_at(monkeypatch, tmp_path)
        return service, open_object_store(service.bucket_url(), QUICK)

    return start


def told_by(*asks: Callable[[], object]) -> set[str]:
    """Return what each of some requests says that fails, without its URL."""
    found = set()
    for ask in asks:
        with pytest.raises(StoreError) as told:
            ask()
        line = str(told.value)
        assert "\n" not in line
        assert "://" in line.partition(": ")[0]
        for secret in (SECRET, READER_SECRET, AZURE_KEY, OTHER_KEY):
            assert secret not in line
        assert not told.value.is_transient
        found.add(line.partition(": ")[2])
    return found


@pytest.mark.parametrize("name", SERVICES)
def test_a_bucket_that_is_not_there_is_named(name: str, opened: Callable[[str], tuple[Service, ObjectStore]]) -> None:
    service, _ = opened(name)
    missing = open_object_store(f"{service.scheme}://never-made/x", QUICK)
    asks = (
        lambda: list(missing.list()),
        lambda: missing.put("x", b""),
        lambda: missing.put_if_absent("x", b""),
        lambda: missing.read("x"),
    )
    assert told_by(*asks) == {"there is no such bucket; check the name, the region and the endpoint"}


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("seaweedfs", {"AWS_SECRET_ACCESS_KEY": "another-secret"}),
        ("seaweedfs", {"AWS_ACCESS_KEY_ID": "AKIANOBODY0000000000"}),
        ("azurite", {"AZURE_STORAGE_ACCOUNT_KEY": OTHER_KEY}),
        ("azurite", {"AZURE_STORAGE_ACCOUNT_KEY": "not in base64 !"}),
    ],
)
def test_wrong_credentials_are_told_from_missing_rights(
    name: str,
    keys: Mapping[str, str],
    opened: Callable[[str], tuple[Service, ObjectStore]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, store = opened(name)
    for variable, value in keys.items():
        monkeypatch.setenv(variable, value)
    stranger = ObjectStore(store.place, QUICK)
    (told,) = told_by(lambda: list(stranger.list()), lambda: stranger.put("x", b""), lambda: stranger.delete("x"))
    assert told.startswith(("the credentials are not valid here; ", "access is denied; "))


def test_who_may_only_read_is_told_so_where_something_is_written(
    opened: Callable[[str], tuple[Service, ObjectStore]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, store = opened("seaweedfs")
    store.put("x", b"1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER_SECRET)
    reader = ObjectStore(store.place, QUICK)
    assert reader.read("x") == b"1"
    assert [entry.key for entry in reader.list()] == ["x"]
    told = told_by(lambda: reader.put("x", b"2"), lambda: reader.put_if_absent("y", b""), lambda: reader.delete("x"))
    assert {line.partition(";")[0] for line in told} == {"access is denied"}


@pytest.mark.parametrize("key", ["{not json", '{"client_email": "x"}'])
def test_an_account_of_google_that_cannot_be_read_is_told_of(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore")
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", key)
    (told,) = told_by(lambda: list(open_object_store("gs://films", QUICK).list()))
    assert told == "the credentials are not valid here; set the right ones by environment, profile or role"
