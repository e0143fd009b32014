"""Who may ask, how much and how often."""

import asyncio

import pytest
from starlette.requests import ClientDisconnect

from serving.guard import Guard, Limits


async def echo(scope, receive, send) -> None:
    body = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def ask(guard: Guard, headers: dict[str, str] | None = None, parts: tuple[bytes, ...] = (b"",), client="1.1.1.1"):
    """Return the status and the headers of an answer."""
    sent, left = [], list(parts)

    async def receive():
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def send(message):
        sent.append(message)

    pairs = [(k.lower().encode(), v.encode()) for k, v in ({"Host": "localhost:8200"} | (headers or {})).items()]
    scope = {"type": "http", "headers": pairs, "client": (client, 1)}
    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


def guard_of(**changes) -> Guard:
    given = {"token": None, "hosts": (), "limits": Limits(), "clock": lambda: 0.0} | changes
    return Guard(echo, **given)


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401), ("", 401), ("Bearer", 401), ("Bearer wrong", 401), ("Basic secret-token", 401),
        ("Bearer secret-token", 200), ("bearer  secret-token", 200), ("Bearer secret-token2", 401),
        ("Bearer sécret", 401),
    ],
)  # fmt: skip
def test_a_token_must_be_there_and_right(header, status):
    headers = {} if header is None else {"Authorization": header}
    answer, told = ask(guard_of(token="secret-token"), headers)
    assert answer == status
    assert ("www-authenticate" in told) == (status == 401)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("127.0.0.1:80", 200), ("[::1]:80", 200), ("evil.example", 421), ("localhost.evil", 421),
        ("", 421),
    ],
)  # fmt: skip
def test_only_this_hosts_names_are_answered(host, status):
    assert ask(guard_of(hosts=("localhost", "127.0.0.1", "[::1]")), {"Host": host})[0] == status


def test_a_client_that_asks_too_often_waits_and_others_do_not():
    now = [0.0]
    guard = guard_of(limits=Limits(requests_per_minute=3), clock=lambda: now[0])
    assert [ask(guard)[0] for _ in range(4)] == [200, 200, 200, 429]
    assert ask(guard)[1]["retry-after"] == "20"
    assert ask(guard, client="2.2.2.2")[0] == 200
    now[0] = 20.0
    assert [ask(guard)[0] for _ in range(2)] == [200, 429]


@pytest.mark.parametrize("declared", [None, "5", "999999999999999999999999999", "nonsense"])
def test_a_body_is_bounded_with_its_length_and_without(declared):
    guard = guard_of(limits=Limits(body_bytes=100))
    headers = {} if declared is None else {"Content-Length": declared}
    assert ask(guard, headers, (b"x" * 60, b"x" * 60))[0] == 413
    if declared in (None, "5"):
        assert ask(guard, headers, (b"x" * 60, b"x" * 40))[0] == 200


@pytest.mark.parametrize(
    ("method", "site", "status"),
    [
        ("POST", "cross-site", 403), ("DELETE", "same-site", 403), ("POST", "same-origin", 200), ("POST", None, 200),
        ("GET", "cross-site", 200),
    ],
)  # fmt: skip
def test_pages_of_other_sites_change_nothing(method, site, status):
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"localhost")] + ([(b"sec-fetch-site", site.encode())] if site else [])
    scope = {"type": "http", "method": method, "headers": headers, "client": ("1.1.1.1", 1)}
    asyncio.run(guard_of()(scope, receive, send))
    assert sent[0]["status"] == status


def test_a_client_that_hangs_up_is_no_error():
    async def gone(scope, receive, send) -> None:
        raise ClientDisconnect

    guard = Guard(gone, None, (), Limits())
    asyncio.run(guard({"type": "http", "method": "POST", "headers": [], "client": ("1.1.1.1", 1)}, None, None))
