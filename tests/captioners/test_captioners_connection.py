"""Requests get through to a server that is busy, away or dead for a while, and say why where they cannot."""

import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from typing import Any

import pytest
from fake_server import Answer, FakeServer, Seen

from captioners import connection
from captioners.ask import AskFailed
from captioners.connection import Connection, InvalidReply
from core.errors import RunError

KEY = "sk-0123456789abcdef"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(connection, "LONGEST_PAUSE_S", 0.1)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def connect(server: FakeServer, slots: int = 8, timeout_s: float = 5.0, patience_s: float = 5.0) -> Connection:
    return Connection(server.url, slots, "OPENAI_API_KEY", timeout_s, patience_s)


def text_of(reply: Any) -> str:
    if "choices" not in reply:
        raise InvalidReply("no choices")
    return reply["choices"][0]["message"]["content"]


def chat(to: Connection, name: str = "a") -> str:
    return to.send("POST", "/chat/completions", json.dumps({"name": name}).encode(), {}, text_of)


def first(times: int, answer: Answer, then: Answer | None = None):
    """So many bad answers, then good ones."""
    return lambda seen: answer if seen.number < times else then or Answer(text="ok")


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_waited_for_however_often_it_says_so(status: int) -> None:
    with FakeServer(plan=first(12, Answer(status))) as server:
        assert chat(connect(server)) == "ok"
        assert len(server.seen) == 13


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500),
        Answer(408),
        Answer(drop=True),
        Answer(body=b"<html>"),
        Answer(body=b'{"error": "engine"}'),
        Answer(body=b"[" * 100_000),
        Answer(latency_s=1.0),
    ],
    ids=["500", "408", "dropped", "html", "another reply", "deep", "late"],
)
def test_a_request_that_came_to_nothing_is_sent_again(answer: Answer) -> None:
    with FakeServer(plan=first(3, answer)) as server:
        assert chat(connect(server, timeout_s=0.3)) == "ok"


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(form: str) -> None:
    def plan(seen: Seen) -> Answer:
        after = "1" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)  # dates have whole seconds
        return Answer(429, headers={"Retry-After": after}) if seen.number == 0 else Answer(text="ok")

    with FakeServer(plan=plan) as server:
        assert chat(connect(server)) == "ok"
        assert server.seen[1].time_s - server.seen[0].time_s >= 0.99


def test_a_retry_after_beyond_patience_or_reason_does_not_hold_the_run_for_ever() -> None:
    for after in ("86400", "soon", "-5", "9" * 400):
        with FakeServer(plan=lambda seen, a=after: Answer(429, "slow down", {"Retry-After": a})) as server:
            began = time.monotonic()
            with pytest.raises(RunError, match="slow down"):
                chat(connect(server, patience_s=0.5))
            assert time.monotonic() - began < 2


def test_a_server_that_dies_and_comes_back_loses_nothing() -> None:
    server = FakeServer(slots=4, latency_s=0.02, plan=lambda seen: Answer(text=seen.body["name"]))
    server.start()
    to, names = connect(server, patience_s=20), [str(number) for number in range(120)]
    with ThreadPoolExecutor(8) as pool:
        replies = [pool.submit(chat, to, name) for name in names]
        for deaths in range(3):
            while sum(reply.done() for reply in replies) < 30 * (deaths + 1):
                time.sleep(0.005)
            server.stop()
            time.sleep(0.3)
            server.start()  # on the same port
        assert [reply.result() for reply in replies] == names
    server.stop()


def test_a_server_that_is_not_there_yet_is_waited_for() -> None:
    server = FakeServer(plan=lambda seen: Answer(text="ok"))
    server.start()
    server.stop()
    to = connect(server)
    threading.Timer(0.5, server.start).start()
    assert chat(to) == "ok"
    server.stop()


def test_a_server_that_stays_away_ends_the_run_with_one_line() -> None:
    server = FakeServer()
    server.start()
    server.stop()
    with pytest.raises(RunError) as caught:
        chat(connect(server, patience_s=0.3))
    assert re.fullmatch(
        rf"{re.escape(server.url)}: cannot be reached \(.*refused\) \(for 0.3 s\); fix the server, .*",
        str(caught.value),
    )


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_request_fails_alone_and_at_once(status: int) -> None:
    with FakeServer(plan=first(1, Answer(status, "too long: 9999 tokens"))) as server:
        to = connect(server)
        with pytest.raises(AskFailed, match=f"HTTP {status} too long: 9999 tokens"):
            chat(to)
        assert chat(to) == "ok" and len(server.seen) == 2


@pytest.mark.parametrize("status", [301, 401, 403, 404])
def test_what_will_refuse_every_request_ends_the_run_at_once(status: int) -> None:
    with FakeServer(plan=lambda seen: Answer(status, "no such thing", {"Location": "http://127.0.0.1:1/"})) as server:
        with pytest.raises(RunError, match=f"HTTP {status}"):
            chat(connect(server))
        assert len(server.seen) == 1


def test_a_request_that_breaks_the_server_every_time_fails_alone_while_others_succeed() -> None:
    with FakeServer(plan=lambda seen: Answer(drop=True) if seen.body["name"] == "bad" else Answer(text="ok")) as server:
        to = connect(server, patience_s=60)
        with ThreadPoolExecutor(2) as pool:
            bad = pool.submit(chat, to, "bad")
            while not bad.done():
                assert chat(to, "good") == "ok"
        with pytest.raises(AskFailed, match="while other requests succeeded"):
            bad.result()


def test_a_request_that_alone_breaks_the_server_fails_when_patience_ends() -> None:
    with FakeServer(plan=lambda seen: Answer(500, "broken")) as server, pytest.raises(AskFailed, match="broken"):
        chat(connect(server, patience_s=0.5))


def test_patience_begins_anew_with_every_success_of_any_thread() -> None:
    def plan(seen: Seen) -> Answer:
        return Answer(503) if seen.body["name"] == "late" and seen.number < 60 else Answer(text="ok")

    with FakeServer(plan=plan) as server:
        to = connect(server, patience_s=0.4)
        with ThreadPoolExecutor(2) as pool:
            late = pool.submit(chat, to, "late")
            began = time.monotonic()
            while not late.done():
                chat(to, "other")
                time.sleep(0.05)
        assert late.result() == "ok" and time.monotonic() - began > 0.4


def test_too_many_requests_in_a_row_that_come_to_nothing_end_the_run() -> None:
    with FakeServer(plan=lambda seen: Answer(400, "this model sees no images")) as server:
        to = connect(server, slots=2)
        for _ in range(connection.LEAST_LOST - 1):
            with pytest.raises(AskFailed):
                chat(to)
        with pytest.raises(RunError, match=r"sees no images.*32 requests in a row"):
            chat(to)


def test_one_success_makes_good_for_those_given_up() -> None:
    with FakeServer(plan=lambda seen: Answer(400) if seen.number % 20 else Answer(text="ok")) as server:
        to, ended = connect(server), []
        for _ in range(100):
            try:
                chat(to)
            except AskFailed:
                ended.append("failed")
        assert len(ended) == 95


def test_no_more_requests_are_in_flight_than_there_are_slots() -> None:
    with FakeServer(latency_s=0.02, plan=lambda seen: Answer(text="ok")) as server:
        to = connect(server, slots=3)
        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(lambda _: chat(to), range(60))) == ["ok"] * 60
        assert server.most_in_flight == 3


def test_a_reply_without_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MOST_REPLY_BYTES", 1000)
    with FakeServer(plan=first(2, Answer(body=b" " * 100_000), Answer(text="ok"))) as server:
        to = connect(server, slots=1)
        assert chat(to) == "ok" and chat(to) == "ok"  # and its connection is not lost to the pool


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    yield KEY


def test_the_key_is_sent_and_never_told(key: str) -> None:
    with FakeServer(
        plan=lambda seen: Answer(401, f"wrong key: {seen.headers['authorization']}, {key[:-1]}f")
    ) as server:
        to = connect(server)
        with pytest.raises(RunError) as caught:
            chat(to)
        assert server.seen[0].headers["authorization"] == f"Bearer {key}"
    assert key not in str(caught.value) and "OPENAI_API_KEY" in str(caught.value)
    assert key not in repr(to)


def test_a_key_in_a_variable_of_any_name_is_never_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_ACCESS", KEY)
    with FakeServer(plan=lambda seen: Answer(400, f"{KEY} is odd")) as server, pytest.raises(AskFailed) as caught:
        Connection(server.url, 1, "MY_ACCESS", 1, 1).send("POST", "/x", b"{}", {}, text_of)
    assert KEY not in str(caught.value) and "*** is odd" in str(caught.value)


def test_without_a_key_none_is_sent_and_a_refusal_names_the_variable() -> None:
    with FakeServer(plan=lambda seen: Answer(401)) as server:
        with pytest.raises(RunError, match="OPENAI_API_KEY is not set"):
            chat(connect(server))
        assert "authorization" not in server.seen[0].headers


def test_what_a_server_says_is_told_on_one_line_that_no_terminal_obeys() -> None:
    rude = FakeServer(plan=lambda seen: Answer(400, "a\n\x1b[31mb" + "c" * 10_000))
    with rude as server, pytest.raises(AskFailed) as caught:
        chat(connect(server))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 700


def test_a_proxy_of_the_environment_is_used_but_not_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    by_proxy, direct = (FakeServer(plan=lambda seen, text=text: Answer(text=text)) for text in ("by proxy", "direct"))
    with by_proxy as proxy, direct as server:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert chat(connect(server)) == "direct"
        away = Connection("http://server.invalid/v1", 1, "OPENAI_API_KEY", 5, 5)
        assert chat(away) == "by proxy"
        assert proxy.seen[0].path == "http://server.invalid/v1/chat/completions"
