"""A server that lies about its replies holds nobody: every request has one deadline and a bound on its bytes."""

import gzip
import json
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_server import Answer, FakeServer
from lying_server import OK, LyingServer, dripping, whole
from PIL import Image
from runs import rows_of

from captioners import CAPTIONERS, bounded, connection
from captioners.ask import AskFailed, Request
from captioners.asking import Asking, answered
from captioners.connection import Connection
from captioners.endpoint import Server
from captioners.prompts import find_prompt
from core.errors import RunError
from curation.engine.runners import InlineRunner
from curation.inputs.sources import find_sources
from curation.pipeline import curate
from curation.recipe import Tables, resolve
from operators import OPERATORS

LONG_S = 30.0
"""far beyond every deadline here: what takes so long was not ended by one, however busy the machine"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(connection, "LONGEST_PAUSE_S", 0.1)


def chat(url: str, timeout_s: float = 0.5, patience_s: float = 60.0) -> Any:
    to = Connection(url, 2, "NO_KEY", timeout_s, patience_s)
    return to.send("POST", "/chat/completions", b"{}", {}, lambda reply: reply["choices"][0]["message"]["content"])


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
DRIPS = {
    "the status": (b"HTTP/1.1 ", b" "),
    "headers": (HEAD, b"X-More: 1\r\n"),
    "one header": (HEAD + b"X-Long: ", b"x"),
    "informational replies": (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a body of stated length": (HEAD + b"Content-Length: 100000\r\n\r\n", b" "),
    "a body of no length": (HEAD + b"\r\n", b" "),
    "a whole body of no length": (HEAD + b"\r\n" + OK, b" "),
    "chunks": (CHUNKED, b"1\r\n \r\n"),
    "a chunk's length": (CHUNKED, b"0"),
    "a chunk's extension": (CHUNKED + b"1;", b"x"),
    "trailers": (CHUNKED + b"0\r\n", b"X-More: 1\r\n"),
    "gzip": (HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(OK)[:10], b"\0"),
    "a refusal": (b"HTTP/1.1 500 No\r\n\r\n", b" "),
}


@pytest.mark.parametrize("what", DRIPS)
def test_a_reply_that_drips_ends_at_the_deadline_and_the_request_is_sent_again(what: str) -> None:
    def script(number: int) -> Iterator[bytes]:
        return dripping(*DRIPS[what]) if number < 2 else iter([whole()])

    with LyingServer(script) as server:
        began_s = time.monotonic()
        assert chat(server.url) == "ok"
        assert time.monotonic() - began_s < LONG_S
        assert server.requests == 3
        for _ in range(3):
            assert server.ended.acquire(timeout=LONG_S), "a connection was left open"


def test_what_drips_for_ever_is_given_up_with_the_reason_and_leaves_no_thread() -> None:
    before = threading.active_count()
    with LyingServer(lambda number: dripping(HEAD + b"\r\n")) as server:
        with pytest.raises(AskFailed, match=r"no whole reply within 0\.2 s"):
            chat(server.url, timeout_s=0.2, patience_s=0.5)
        while server.ended.acquire(timeout=1):
            pass
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(LONG_S)
    assert threading.active_count() <= before + 1  # the server's own listener may be ending yet


def test_a_server_that_reads_no_request_is_left_at_the_deadline() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    with listening:
        to = Connection(f"http://127.0.0.1:{listening.getsockname()[1]}", 1, "NO_KEY", 0.3, 0.5)
        began_s = time.monotonic()
        with pytest.raises(AskFailed, match="no whole reply within"):
            to.send("POST", "/x", b" " * 50_000_000, {}, lambda reply: reply)
        assert time.monotonic() - began_s < LONG_S


def test_a_proxy_that_drips_is_left_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    with LyingServer(lambda number: dripping(b"HTTP/1.1 200 OK\r\n", b"X: 1\r\n")) as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        began_s = time.monotonic()
        with pytest.raises((AskFailed, RunError)):
            chat("https://server.invalid/v1", timeout_s=0.3, patience_s=0.6)
        assert time.monotonic() - began_s < LONG_S
        assert proxy.requests >= 1


def test_a_handshake_that_hangs_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        began_s = time.monotonic()
        with pytest.raises((AskFailed, RunError)):
            chat(f"https://127.0.0.1:{listening.getsockname()[1]}/v1", timeout_s=0.3, patience_s=0.6)
        assert time.monotonic() - began_s < LONG_S


def test_a_search_for_a_name_that_hangs_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, free = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> list[Any]:
        asked.set()
        free.wait(LONG_S)
        return []

    monkeypatch.setattr(connection, "CONNECT_S", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        with pytest.raises(RunError, match=r"cannot be reached \(.*timed out"):
            chat("http://server.invalid/v1", patience_s=0.3)
        assert asked.is_set()
    finally:
        free.set()


def test_waiting_for_a_slot_is_no_part_of_the_deadline() -> None:
    with FakeServer(latency_s=0.3, plan=lambda seen: Answer(text="ok")) as server:
        to = Connection(server.url, 1, "NO_KEY", 20.0, 60.0)
        monotonic, deadlines = time.monotonic, []
        original = bounded.Deadline.begin

        def begin(self: bounded.Deadline) -> None:
            if self._timer is None:
                deadlines.append(monotonic())
            original(self)

        bounded.Deadline.begin = begin  # type: ignore[method-assign]
        try:
            threads = [
                threading.Thread(target=lambda: to.send("POST", "/chat/completions", b"{}", {}, lambda reply: reply))
                for _ in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(LONG_S)
        finally:
            bounded.Deadline.begin = original  # type: ignore[method-assign]
        assert len(deadlines) == 4
        gaps = [later - earlier for earlier, later in zip(deadlines, deadlines[1:], strict=False)]
        assert min(gaps) > 0.25, "each one's time began when the one before was done"


LONG = b" " * (connection.MOST_REPLY_BYTES + 1)
BOMB = gzip.compress(b" " * 300_000_000)
ODD = {
    "too long": (whole(LONG + OK), "more than"),
    "too long in chunks": (CHUNKED + b"200000\r\n" + b" " * 0x200000 + b"\r\n0\r\n\r\n", "more than"),
    "too long when unpacked": (whole(gzip.compress(LONG + OK), b"Content-Encoding: gzip"), "uncompressed"),
    "a bomb": (whole(BOMB, b"Content-Encoding: gzip"), "uncompressed"),
    "packed twice": (whole(gzip.compress(gzip.compress(OK)), b"Content-Encoding: gzip, gzip"), "not asked for"),
    "packed twice, in two headers": (
        whole(gzip.compress(gzip.compress(OK)), b"Content-Encoding: gzip", b"Content-Encoding: gzip"),
        "not asked for",
    ),
    "an unknown packing": (whole(OK, b"Content-Encoding: br"), "not asked for"),
    "packed for the transfer": (
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n2d\r\n" + OK + b"\r\n0\r\n\r\n",
        "not asked for",
    ),
    "no gzip": (whole(OK, b"Content-Encoding: gzip"), "damaged"),
    "half a gzip": (whole(gzip.compress(OK)[:-9], b"Content-Encoding: gzip"), "damaged"),
    "two gzips": (whole(gzip.compress(b" ") + gzip.compress(OK), b"Content-Encoding: gzip"), "damaged"),
    "a number without end": (whole(b'{"choices": ' + b"9" * 100_000 + b"}"), "no reply that can be read"),
    "headers without end": (HEAD + b"X-More: 1\r\n" * 100_000, "no reply"),
    "a header without end": (HEAD + b"X: " + b"x" * 1_000_000, "no reply"),
}


@pytest.mark.parametrize("what", ODD)
def test_a_reply_beyond_bounds_fails_with_the_reason(what: str) -> None:
    reply, reason = ODD[what]
    with LyingServer(lambda number: iter([reply])) as server, pytest.raises(AskFailed, match=reason):
        chat(server.url, timeout_s=LONG_S, patience_s=0.3)


@pytest.mark.parametrize(
    ("packed", "name"),
    [
        (gzip.compress(OK), b"gzip"),
        (gzip.compress(OK), b"X-Gzip"),
        (zlib.compress(OK), b"deflate"),
        (zlib.compress(OK)[2:-4], b"deflate"),
        (OK, b"identity"),
    ],
    ids=["gzip", "x-gzip", "deflate", "raw deflate", "identity"],
)
def test_a_reply_that_is_packed_once_is_read(packed: bytes, name: bytes) -> None:
    with LyingServer(lambda number: iter([whole(packed, b"Content-Encoding: " + name)])) as server:
        assert chat(server.url, timeout_s=LONG_S) == "ok"


def test_a_bomb_costs_little_memory() -> None:
    with LyingServer(lambda number: iter([whole(BOMB, b"Content-Encoding: gzip")])) as server:
        tracemalloc.start()
        try:
            with pytest.raises(AskFailed):
                chat(server.url, timeout_s=LONG_S, patience_s=0.2)
            assert tracemalloc.get_traced_memory()[1] < 20e6
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("to", ["http://127.0.0.1:{port}/v1/elsewhere", "file:///etc/passwd", "ftp://x/", "//x/y"])
def test_no_redirect_is_followed(to: str) -> None:
    def plan(seen: Any) -> Answer:
        return Answer(302, "elsewhere", {"Location": to.format(port=server.port)})

    with FakeServer(plan=plan) as server:
        with pytest.raises(RunError, match="HTTP 302"):
            chat(server.url, timeout_s=LONG_S)
        assert len(server.seen) == 1


# -- what a server says


def asked(text: str, asking: Asking = Asking(mend=False)) -> Any:  # noqa: B008 - frozen
    """Ask a server that answers so."""
    body = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
    with FakeServer(plan=lambda seen: Answer(body=body)) as server:
        ask, _ = Server(server.url, model="m", timeout_s=LONG_S, patience_s=LONG_S).open()
        request = Request("clip", "what?", None, 100, 0.0)
        return answered(ask, request, find_prompt("detailed.v1", "en"), asking)


def test_a_caption_with_half_a_character_is_valid_text() -> None:
    outcome = asked("A grey card \ud83d lies on\x00 a table.")
    assert (outcome.text, outcome.status) == ("A grey card \ufffd lies on\ufffd a table.", "ok")


def test_a_caption_beyond_the_limit_is_cut_and_too_long_and_costs_little() -> None:
    words = " ".join(f"word{n}" for n in range(90_000))
    tracemalloc.start()
    try:
        outcome = asked(words)
        assert tracemalloc.get_traced_memory()[1] < 60e6
    finally:
        tracemalloc.stop()
    assert outcome.status == "too_long"
    assert len(outcome.text) == Asking().max_characters


def test_the_limit_is_a_key_and_thoughts_do_not_count() -> None:
    assert asked("A red car stands there.", Asking(max_characters=10, mend=False)).status == "too_long"
    assert asked("A red car stands there.", Asking(max_characters=23, mend=False)).status == "ok"
    thoughts = "<think>" + "well, " * 5_000 + "</think>A red car stands there."
    assert asked(thoughts, Asking(mend=True)).text == "A red car stands there."
    with pytest.raises(ValueError, match="max_characters"):
        Asking(max_characters=0)


def test_a_run_takes_what_a_lying_server_says_for_captions_rejections_and_failures(tmp_path: Path) -> None:
    """Half a character is replaced, a book is rejected, and what never ends fails with the reason."""
    (tmp_path / "in").mkdir()
    for number in range(4):
        Image.new("RGB", (512, 384), (40 * number + 60, 90, 120)).save(tmp_path / "in" / f"{number}.png")

    def says(text: str) -> bytes:
        return whole(json.dumps({"choices": [{"message": {"content": text}}]}).encode())

    book = " ".join(f"word{n}" for n in range(60_000))
    models = whole(json.dumps({"data": [{"id": "m\ud83d" + "x" * 10_000}]}).encode())
    replies = [
        models,
        says("A grey card \ud83d lies on\0 a table."),
        says(book),
        says("A grey card lies on a wooden table."),
    ]

    def script(number: int) -> Iterator[bytes]:
        return iter([replies[number]]) if number < len(replies) else dripping(HEAD + b"\r\n")

    with LyingServer(script) as server:
        settings = {
            "server": {"url": server.url, "slots": 1, "timeout_s": 1.0, "patience_s": 2.0},
            "asking": {"retries": 0},
        }
        values = {"operators": {"brightness": True}, "cut": {"mode": "none"}}
        tables = Tables(OPERATORS, CAPTIONERS)
        recipe, captioner = resolve(values | {"caption": {"captioner": "endpoint", "settings": settings}}, tables)
        outcome = curate(find_sources([str(tmp_path / "in")]), tmp_path / "out", recipe, captioner, InlineRunner())
    assert outcome.tally.problems == []
    rows = sorted(rows_of(tmp_path / "out").values(), key=lambda row: (row["status"], row["caption"] or ""))
    assert [row["status"] for row in rows] == ["accepted", "accepted", "failed", "rejected"]
    good, mended, failed, rejected = rows
    assert good["caption"] == "A grey card lies on a wooden table."
    assert mended["caption"] == "A grey card \ufffd lies on\ufffd a table."
    assert good["caption_model"].startswith("m\ufffdx") and len(good["caption_model"]) <= 300
    assert failed["error"].startswith("caption: ") and "no whole reply within 1 s" in failed["error"]
    assert rejected["reasons"] == ["caption:too_long"]
    assert len(rejected["caption"]) == Asking().max_characters
    page = (tmp_path / "out" / "report.html").stat().st_size
    assert page < 2_000_000, "nothing of it grows with what the server sent"
