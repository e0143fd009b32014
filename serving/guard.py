"""Who may ask: the token, the name of the host, how much and how often; before any route sees the request."""

import hmac
import json
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
COOKIE = "selects_token"
READING = frozenset({"GET", "HEAD", "OPTIONS"})
ELSEWHERE = frozenset({b"cross-site", b"same-site"})
"""what browsers say (`Sec-Fetch-Site`) of requests that pages of other origins make"""
MOST_CLIENTS = 10_000
"""whose rate is remembered"""


@dataclass(frozen=True)
class Limits:
    """What a server takes.

    Attributes:
        body_bytes: of a request.
        requests_per_minute: of a client, in the mean; as many may come at once.
    """

    body_bytes: int = 64 << 20
    requests_per_minute: int = 600


class Guard:
    """An ASGI application that passes on what may pass.

    Refusals are JSON of the shape of the other errors: 401 without the token, 421 for another host's name (a page of
    another site that has its name point here, DNS rebinding), 403 for what another site's page would change,
    413 for too large a body, 429 with Retry-After.
    """

    def __init__(
        self,
        app: App,
        token: str | None,
        hosts: Collection[str],
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Guard an application.

        Args:
            app: what is guarded.
            token: which `Authorization: Bearer` must hold; None: nobody is asked for one.
            hosts: names of this host that requests may use, without the port; empty: any.
            limits: sizes and rates.
            clock: seconds.
        """
        self._app, self._token, self._hosts, self._limits, self._clock = app, token, frozenset(hosts), limits, clock
        self._clients: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer or pass on one connection."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # no websockets are served
        headers = {name.lower(): value for name, value in scope["headers"]}
        client = (scope.get("client") or ("", 0))[0]
        if self._hosts and _host(headers.get(b"host", b"")) not in self._hosts:
            await _refuse(send, 421, "this server does not answer under that name of a host", "ask for localhost")
        elif scope.get("method") not in READING and headers.get(b"sec-fetch-site") in ELSEWHERE:
            await _refuse(send, 403, "a page of another site may not ask this", "open this server's own page")
        elif self._token is not None and (cookie := self._cookie_for(scope)):
            # A page's own requests cannot bring a header: the address that people open brings the token once.
            await _answer(send, 303, b"", {"Location": "./", "Set-Cookie": cookie})
        elif self._token is not None and not _has(headers, self._token):
            problem = "the token is missing or wrong"
            await _refuse(send, 401, problem, "send `Authorization: Bearer TOKEN`", {"WWW-Authenticate": "Bearer"})
        elif (wait_s := self._wait_s(client)) > 0:
            retry = {"Retry-After": str(math.ceil(wait_s))}
            await _refuse(send, 429, "too many requests", f"ask again in {math.ceil(wait_s)} s", retry)
        elif _length(headers.get(b"content-length", b"0")) > self._limits.body_bytes:
            await self._refuse_body(send)
        else:
            await self._bounded(scope, receive, send)

    async def _bounded(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Pass on, and count a body that comes without its length."""
        taken, has_begun = 0, False

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._limits.body_bytes:
                raise _TooLarge
            return message

        async def noted(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, counted, noted)
        except _TooLarge:
            if not has_begun:
                await self._refuse_body(send)
        except ClientDisconnect:  # whoever sent half a body hears no answer
            return

    async def _refuse_body(self, send: Send) -> None:
        most = self._limits.body_bytes >> 20
        await _refuse(send, 413, f"the request has more than {most} MiB", "send smaller files")

    def _cookie_for(self, scope: MutableMapping[str, Any]) -> str | None:
        """Return the cookie for an address that ends in `?token=…` with the right token; None for others."""
        assert self._token is not None
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        if scope.get("method") != "GET" or not _equal(given, self._token):
            return None
        return f"{COOKIE}={self._token}; Path=/; HttpOnly; SameSite=Strict"

    def _wait_s(self, client: str) -> float:
        """Count a request; return how long its client has to wait, 0 where it has not."""
        most, now = float(self._limits.requests_per_minute), self._clock()
        left, then = self._clients.pop(client, (most, now))
        left = min(most, left + (now - then) * most / 60.0)
        wait_s = 0.0 if left >= 1 else (1 - left) * 60.0 / most
        self._clients[client] = (left - 1 if left >= 1 else left, now)
        if len(self._clients) > MOST_CLIENTS:
            self._clients.popitem(last=False)
        return wait_s


class _TooLarge(BaseException):
    """More came than is taken; no handler of the application's own answers it."""


def _host(header: bytes) -> str:
    name = header.decode("latin-1").lower()
    return name[: name.index("]") + 1] if name.startswith("[") and "]" in name else name.partition(":")[0]


def _has(headers: dict[bytes, bytes], token: str) -> bool:
    kind, _, given = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if kind.lower() == "bearer" and _equal(given.strip(), token):
        return True
    pairs = (pair.strip().partition("=") for pair in headers.get(b"cookie", b"").decode("latin-1").split(";"))
    return any(name == COOKIE and _equal(value, token) for name, _, value in pairs)


def _equal(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def _length(header: bytes) -> int:
    return int(header[:19]) if header.isdigit() else 0


async def _refuse(send: Send, status: int, problem: str, fix: str, headers: dict[str, str] | None = None) -> None:
    kind = "invalid_request_error" if status < 429 else "rate_limit_error"
    body = json.dumps({"error": {"message": f"{problem}; {fix}", "type": kind, "param": None, "code": str(status)}})
    await _answer(send, status, body.encode(), {"Content-Type": "application/json"} | (headers or {}))


async def _answer(send: Send, status: int, body: bytes, headers: dict[str, str]) -> None:
    pairs = {"Content-Length": str(len(body))} | headers
    encoded = [(name.lower().encode(), value.encode()) for name, value in pairs.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
