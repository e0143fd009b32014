"""Listening on an address: what every server of this project does alike."""

import asyncio
import secrets
import socket
from collections.abc import Callable, Collection, MutableMapping
from typing import Any

import uvicorn

from core.errors import UserError
from serving.guard import LOOPBACK, App, Receive, Send

WAITING_CONNECTIONS = 256
ENDING_S = 5
"""how long answers may go on once the server is told to end: a page that is open asks for ever"""


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    return host in ("localhost", "::1") or host.startswith("127.")


def new_token() -> str:
    """Return a token that cannot be guessed."""
    return secrets.token_urlsafe(24)


def check_token(host: str, token: str | None) -> None:
    """Refuse to serve others without a token.

    Raises:
        UserError: others can reach the address, and there is none.
    """
    if token is None and not is_loopback(host):
        raise UserError("others can reach it", field="host", value=host, fix="give a token with `token_file`")


def hosts_of(host: str) -> Collection[str]:
    """Return the names of the host that requests may use; empty: any."""
    return LOOPBACK if is_loopback(host) else ()


def listen(app: App, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve an application until interrupted.

    Args:
        app: the application, with its guard.
        host: address.
        port: 0 takes a free one.
        on_ready: called with the server's address once connections are taken.

    Raises:
        UserError: the address cannot be had.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        taken = socket.create_server((host, port), family=family, backlog=WAITING_CONNECTIONS)
    except OSError as error:
        problem = f"{host} cannot be listened on ({error.strerror or error})"
        raise UserError(problem, field="port", value=port, fix="take another `port`") from None
    with taken:
        shown = f"[{host}]" if ":" in host else host
        config = uvicorn.Config(
            _quiet_when_cut(app),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=ENDING_S,
        )
        server = uvicorn.Server(config)
        on_ready(f"http://{shown}:{taken.getsockname()[1]}")
        server.run([taken])


def _quiet_when_cut(app: App) -> App:
    """Return an application whose answers that are cut off at the end of the server are no errors of its log."""

    async def call(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:  # an answer is cancelled only when the server ends
            return

    return call
