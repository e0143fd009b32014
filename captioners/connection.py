"""Requests to one HTTP server from many threads, patient with whatever may pass.

| the server | the request |
|---|---|
| cannot be reached, or says 429, 502, 503, 504 | waits, however often; `Retry-After` is honoured |
| drops it, answers too late, with 408, 500, nonsense | is tried again; given up while others succeed, or in the end |
| sends a reply too long, without end or in odd encodings | likewise |
| says 400, 413, 422: this request is wrong | is given up |
| says 401, 403, 404: no request will do | ends the run, which the same command continues |

A run ends, too, when no request has succeeded for `patience_s`, or too many in a row were given up.
"""

import json
import os
import random
import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, InvalidHeader, NewConnectionError, ProxyError, SSLError

from captioners.ask import AskFailed
from captioners.bounded import Deadline, Refused, bounded, read_body
from core.errors import RunError
from core.sanitize import HIDDEN, SHORTEST_SECRET, printable, without_secrets

T = TypeVar("T")

WAITS = frozenset({429, 502, 503, 504})
REFUSES_THIS = frozenset({400, 413, 414, 415, 422})
REFUSES_ALL = frozenset({401, 402, 403, 404, 405, 410})
TRIES = 5
"""Times that a request may come to nothing while others succeed."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0
CONNECT_S = 10.0
MOST_REPLY_BYTES = 1 << 20
"""of a reply, packed or unpacked; a caption of 1,000 tokens has about 5,000"""
LEAST_LOST = 32
"""Requests given up in a row, and one more than there are slots, after which the run ends."""
MOST_TOLD = 300
"""characters of a server's message"""


class InvalidReply(Exception):
    """A reply that is not what was asked for; raised by what reads it."""


class _Trouble(Exception):
    """One try came to nothing; `counts`: it may be the request's fault."""

    def __init__(self, message: str, pause_s: float = 0.0, *, counts: bool = False):
        super().__init__(message)
        self.counts, self.pause_s = counts, pause_s


class Connection:
    """A pool of connections to one server, shared by the threads of a worker."""

    def __init__(self, url: str, slots: int, key_variable: str, timeout_s: float, patience_s: float):
        """Prepare; nothing is sent yet.

        Args:
            url: where the interface begins.
            slots: requests in flight at once, at most.
            key_variable: environment variable that holds the key, if the server wants one. The key goes to the
                server alone, and is taken out of every message.
            timeout_s: the longest that a request may take, from its first byte to the last of the whole reply.
            patience_s: how long to wait without any success.
        """
        self._url, self._patience_s, self._most_lost = url.rstrip("/"), patience_s, max(LEAST_LOST, slots + 1)
        self._key, self._key_variable = os.environ.get(key_variable, "").strip(), key_variable
        self._timeout_s = timeout_s
        self._pool = bounded(_pool(self._url, slots, urllib3.Timeout(connect=CONNECT_S, read=timeout_s)))
        self._lock = threading.Lock()
        self._last_good_s, self._lost = -float("inf"), 0

    def send(self, method: str, path: str, body: bytes | None, headers: dict[str, str], read: Callable[[Any], T]) -> T:
        """Send one request, and again as the table above says.

        Args:
            method: such as POST.
            path: below the url.
            body: JSON.
            headers: further ones.
            read: gives the result from the reply's JSON; raises `InvalidReply`.

        Raises:
            AskFailed: this request cannot be answered.
            RunError: none can.
        """
        began_s, tries, pauses = float("inf"), 0, 0
        while True:
            try:
                result = self._once(method, path, body, headers, read)
            except _Trouble as trouble:
                now_s = time.monotonic()
                began_s = min(began_s, now_s)
                tries += trouble.counts
                if tries >= TRIES and self._last_good_s > began_s:
                    raise self._given_up(f"{trouble} ({tries} times, while other requests succeeded)") from None
                left_s = max(began_s, self._last_good_s) + self._patience_s - now_s
                if left_s <= 0 and trouble.counts:
                    raise self._given_up(f"{trouble} (for {self._patience_s:g} s)") from None
                if left_s <= 0:
                    raise self._ended(f"{trouble} (for {self._patience_s:g} s)") from None
                longest_s = min(FIRST_PAUSE_S * 2.0**pauses, LONGEST_PAUSE_S)
                jittered_s = random.uniform(longest_s / 2, longest_s)  # noqa: S311 - keeps threads apart, hides nothing
                time.sleep(min(max(jittered_s, trouble.pause_s), left_s))
                pauses = min(pauses + 1, 10)
            else:
                with self._lock:
                    self._last_good_s, self._lost = time.monotonic(), 0
                return result

    def _once(self, method: str, path: str, body: bytes | None, headers: dict[str, str], read: Callable[[Any], T]) -> T:
        status, data, retry_after = self._exchange(method, path, body, headers)
        if not 200 <= status < 300:
            self._refused(status, data, retry_after)
        try:
            return read(json.loads(data))
        except (InvalidReply, ValueError, RecursionError) as error:
            raise _Trouble(f"no reply that can be read ({error})", counts=True) from None

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes, str | None]:
        """Send and read within the deadline; return status, body and `Retry-After`."""
        own = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        how: dict[str, Any] = {"retries": False, "redirect": False, "preload_content": False}
        reply: urllib3.BaseHTTPResponse | None = None
        with Deadline(self._timeout_s) as deadline:
            try:
                reply = self._pool.request(method, self._url + path, body=body, headers=own | headers, **how)
                try:
                    data = read_body(reply, MOST_REPLY_BYTES)
                except Refused as refused:
                    reply.close()
                    if 200 <= reply.status < 300:  # else the status says all that is needed
                        raise _Trouble(f"a reply {refused}", counts=True) from None
                    data = b""
                if deadline.is_over:  # what was shut down looks like the end of a reply without a length
                    raise _Trouble(self._late(), counts=True)
                return reply.status, data, reply.headers.get("Retry-After")
            except (NewConnectionError, ConnectTimeoutError, ProxyError) as error:
                raise _Trouble(f"cannot be reached ({_words(error)})") from None
            except (HTTPError, OSError) as error:
                if deadline.is_over:
                    raise _Trouble(self._late(), counts=True) from None
                if isinstance(error, SSLError):
                    raise self._ended(f"no secure connection ({_words(error)})") from None
                raise _Trouble(f"no reply ({_words(error)})", counts=True) from None
            finally:
                if reply is not None:
                    if deadline.is_over:
                        reply.close()
                    reply.release_conn()

    def _late(self) -> str:
        return f"no whole reply within {self._timeout_s:g} s"

    def _refused(self, status: int, data: bytes, retry_after: str | None) -> NoReturn:
        said = f"HTTP {status} {_message(data)}".strip()
        if status in REFUSES_THIS:
            raise self._given_up(said)
        if status in REFUSES_ALL or 300 <= status < 400:
            key = (
                f"the key in {self._key_variable}" if self._key else f"no key was sent: {self._key_variable} is not set"
            )
            raise self._ended(f"{said} ({key})" if status in (401, 403) else said)
        raise _Trouble(said, _pause_s(retry_after), counts=status not in WAITS)

    def _given_up(self, message: str) -> Exception:
        with self._lock:
            self._lost += 1
            lost = self._lost
        if lost < self._most_lost:
            return AskFailed(self._told(message))
        return self._ended(f"{message}; {lost} requests in a row came to nothing")

    def _ended(self, message: str) -> RunError:
        return RunError(f"{self._told(message)}; fix the server, then run the same command to resume")

    def _told(self, message: str) -> str:
        if len(self._key) >= SHORTEST_SECRET:
            message = message.replace(self._key, HIDDEN)
        return printable(without_secrets(f"{self._url}: {' '.join(message.split())}"), 2 * MOST_TOLD)


def _pool(url: str, slots: int, timeout: urllib3.Timeout) -> urllib3.PoolManager:
    """Open a pool that waits for a free connection, through the proxy that the environment names, if any."""
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        return urllib3.ProxyManager(proxy, maxsize=slots, block=True, timeout=timeout)
    return urllib3.PoolManager(maxsize=slots, block=True, timeout=timeout)


def _message(data: bytes) -> str:
    """Find a server's words in the body of its refusal."""
    text = data[: 1 << 16].decode("utf-8", "replace")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text[:MOST_TOLD]
    for name in ("error", "detail", "message"):
        found = found.get(name, found) if isinstance(found, dict) else found
    return str(found)[:MOST_TOLD]


def _pause_s(retry_after: str | None) -> float:
    """Return the seconds that `Retry-After` asks for, whether a number or a date."""
    try:
        return urllib3.Retry().parse_retry_after(retry_after) if retry_after else 0.0
    except (InvalidHeader, ValueError, OverflowError):
        return 0.0


def _words(error: Exception) -> str:
    """Return what a library says, without the object it says it of."""
    return str(error).rsplit(": ", 1)[-1] if isinstance(error, NewConnectionError) else " ".join(str(error).split())
