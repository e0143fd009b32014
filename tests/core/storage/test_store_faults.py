"""A bucket behind a network that breaks: what succeeds is whole, what does not says why and shows no secret."""

import dataclasses
import json
import os
import pickle
import re
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from buckets import KEY_ID, SECRET, make_bucket, point_at
from faulty_proxy import Fault, faulty_proxy

from core.errors import UserError
from core.storage.lease import object_lease
from core.storage.object_store import Budget, ObjectStore, object_at, open_object_store
from core.storage.refusals import BY_CODE, refusal
from core.storage.store import StoreError
from core.storage.urls import is_url, place_of

QUICK = Budget(tries=5, pause_s=0.01)


@pytest.mark.parametrize("fault", ["500", "503", "reset", "truncate", "lost"])
def test_every_other_request_may_break(
    fault: Fault, s3_address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content = bytes(range(256)) * 4000
    with faulty_proxy(s3_address, lambda n, method, path: fault if n % 2 == 0 else "") as (address, traffic):
        point_at(address, monkeypatch, tmp_path)
        store = open_object_store(f"s3://{make_bucket(s3_address)}/a", QUICK)
        store.put("film", content)
        assert store.read("film") == content
        assert store.read("film", 1000, 50_000) == content[1000:51_000]
        assert [e.size_bytes for e in store.list()] == [len(content)]
        assert store.put_if_absent("commit", b"mine")
        assert not store.put_if_absent("commit", b"yours")
        assert store.put_if_unchanged("commit", b"next", store.stat("commit").version)
        assert store.read("commit") == b"next"
    assert traffic.faults[fault] >= 5


def test_the_budget_ends_and_the_last_answer_is_told(
    s3_address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with faulty_proxy(s3_address, lambda n, method, path: "503") as (address, traffic):
        point_at(address, monkeypatch, tmp_path)
        store = open_object_store("s3://films", Budget(tries=2, pause_s=0.01))
        with pytest.raises(StoreError, match="asks for fewer requests") as told:
            store.put("x", b"1")
    assert told.value.is_transient
    assert 2 <= traffic.requests.total() <= 4
    assert pickle.loads(pickle.dumps(told.value)).is_transient


def test_a_missing_bucket_and_an_unreachable_server_are_told_apart(
    s3_address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    point_at(s3_address, monkeypatch, tmp_path)
    missing = open_object_store("s3://never-made", QUICK)
    for ask in (lambda: list(missing.list()), lambda: missing.put("x", b""), lambda: missing.put_if_absent("x", b"")):
        with pytest.raises(StoreError, match="s3://never-made.*no such bucket"):
            ask()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match="cannot be reached"):
        list(open_object_store("s3://never-made", Budget(1, 0.01)).list())


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_what_is_refused_is_one_line_with_the_fix_and_no_secret(code: str) -> None:
    answer = (
        f"Error performing GET http://h/films?X-Amz-Signature={SECRET} - status code: 403 Forbidden: "
        f"<Error><Code>{code}</Code><Message>{SECRET}</Message><AWSAccessKeyId>{KEY_ID}</AWSAccessKeyId></Error>"
    )
    told = str(refusal("s3://films/a.mp4", Exception(answer)))
    assert told.startswith("s3://films/a.mp4: ")
    assert "; " in told
    assert "\n" not in told
    assert SECRET not in told
    assert KEY_ID not in told


def test_a_store_travels_without_credentials(bucket_url: str) -> None:
    store = open_object_store(bucket_url)
    store.put("x", b"1")
    packed = pickle.dumps(store)
    assert SECRET.encode() not in packed
    assert KEY_ID.encode() not in packed
    assert pickle.loads(packed).read("x") == b"1"
    assert dataclasses.asdict(store)["place"]["key"] == ""


def test_a_profile_is_used_where_the_environment_holds_no_keys(
    s3_address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    point_at(s3_address, monkeypatch, tmp_path)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    (tmp_path / "no-credentials").write_text(f"[team]\naws_access_key_id={KEY_ID}\naws_secret_access_key={SECRET}\n")
    (tmp_path / "no-config").write_text(f"[profile team]\nregion=us-east-1\nendpoint_url={s3_address}\n")
    monkeypatch.setenv("AWS_PROFILE", "team")
    store = open_object_store(f"s3://{make_bucket(s3_address)}")
    store.put("x", b"1")
    assert store.read("x") == b"1"
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StoreError, match="nobody: no such profile"):
        store_of_nobody = ObjectStore(store.place)
        store_of_nobody.read("x")


def test_who_waits_for_a_dead_holder_says_so_once(bucket_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    store = open_object_store(bucket_url)
    store.put("lock", b'{"owner": "process 7 on \\u001b[1mfar", "token": "x", "held_s": 12}')
    with object_lease(store, "lock", 0.1, 0.6):
        (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        rf"waiting up to \d s: process 7 on .*far \(for 12 s\) held {bucket_url} and has been silent for 0 s", line
    )
    assert "\x1b" not in line
    with object_lease(store, "lock", 0.1, 0.6):  # which is free
        pass
    assert capsys.readouterr().err == ""


def test_a_dead_holder_loses_its_lease_and_a_silent_one_knows_it(bucket_url: str) -> None:
    store = open_object_store(bucket_url)
    store.put("lock", json.dumps({"owner": "the dead", "token": "0"}).encode())
    with object_lease(store, "lock", 0.1, 0.5) as lease:
        lease.check()
        with pytest.raises(UserError, match="in use"), object_lease(store, "lock", 0.1, 2.0):
            pass
        store.put("lock", json.dumps({"owner": "a thief", "token": "1"}).encode())
        until = time.monotonic() + 60
        with pytest.raises(StoreError, match="lost"):
            while time.monotonic() < until:
                lease.check()
                time.sleep(0.02)
    assert b"a thief" in store.read("lock")


@pytest.mark.parametrize("ignored", ["put_if_absent", "put_if_unchanged"])
def test_a_storage_that_ignores_conditions_is_not_written_into(ignored: str, bucket_url: str) -> None:
    class Careless(ObjectStore):
        def put_if_absent(self, key: str, content: bytes) -> bool:
            return self._careless("put_if_absent", key, content) or super().put_if_absent(key, content)

        def put_if_unchanged(self, key: str, content: bytes, version: str) -> bool:
            return self._careless("put_if_unchanged", key, content) or super().put_if_unchanged(key, content, version)

        def _careless(self, name: str, key: str, content: bytes) -> bool:
            return name == ignored and bool(self.put(key, content))

    store = Careless(open_object_store(bucket_url).place)
    with pytest.raises(StoreError, match="use one that keeps conditions"), store.lease("lock"):
        pass
    assert list(store.list()) == []


def test_a_web_server_is_read_only_and_not_listed(s3_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_object_store("https://example.com/films")
    with pytest.raises(StoreError, match="does not list"):
        list(store.list())
    for ask in (lambda: store.put("x", b""), lambda: store.put_if_absent("x", b""), lambda: store.delete("x")):
        with pytest.raises(StoreError, match="read only"):
            ask()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://h/x", "not a storage that is known"),
        ("s3:///x", "no bucket is named"),
        (f"https://user:{SECRET}@h/x", "holds a user or password"),
        (f"https://h/x.mp4?X-Amz-Signature={SECRET}", "may hold a signature"),
    ],
)
def test_urls_that_cannot_be_kept_are_refused_without_showing_them(url: str, words: str) -> None:
    with pytest.raises(StoreError, match=words) as told:
        place_of(url)
    assert SECRET not in str(told.value)


def test_urls_are_told_from_names_of_files() -> None:
    assert all(map(is_url, ("s3://b", "gs://b/x", "az://c/x", "https://h/x", "http://h/x")))
    assert not any(map(is_url, ("s3:/b", "film.mp4", "/s3://x", "file:///x", "C:\\x", "s3")))


@pytest.fixture
def plain_server(tmp_path: Path) -> Iterator[str]:
    """A web server without ETags and without ranges, as Python brings one."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Clients hang up where they wanted a part."""

    server = Server(("127.0.0.1", 0), partial(Quiet, directory=tmp_path))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_web_server_without_etags_is_read_and_one_without_ranges_says_so(plain_server: str, tmp_path: Path) -> None:
    film = tmp_path / "a film.mp4"
    film.write_bytes(b"film" * 1000)
    store = open_object_store(plain_server, QUICK)
    entry = store.stat("a film.mp4")
    assert entry.size_bytes == 4000
    assert store.read("a film.mp4", version=entry.version) == b"film" * 1000
    with pytest.raises(StoreError, match="gives no parts of files"):
        store.read("a film.mp4", 10, 20)
    os.utime(film, (1, 1))
    with pytest.raises(StoreError, match="changed"):
        store.read("a film.mp4", version=entry.version)


def test_escapes_in_the_url_of_an_object_are_read_in_its_folder_and_in_its_name(
    plain_server: str, tmp_path: Path
) -> None:
    (tmp_path / "day one").mkdir()
    (tmp_path / "day one" / "50% off.mp4").write_bytes(b"film")
    store, key = object_at(f"{plain_server}/day%20one/50%25%20off.mp4")
    assert (store.place.key, key) == ("day one", "50% off.mp4")
    assert store.read(key) == b"film"
    bucket, same = object_at("s3://films/day%20one/50%25%20off.mp4")
    assert (bucket.place.key, same) == ("day%20one", "50%25%20off.mp4")
