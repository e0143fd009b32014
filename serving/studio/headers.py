"""Headers of every answer: what a page may ask for, and who may frame it."""

from collections.abc import MutableMapping
from typing import Any

from serving.guard import App, Message, Receive, Send

POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; frame-ancestors 'none'; base-uri 'self'; form-action 'self'"
)
"""the page may ask this server alone: nothing leaves the machine"""
ADDED = {
    b"content-security-policy": POLICY.encode(),
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}


class Headers:
    """An ASGI application that adds headers where there are none of that name."""

    def __init__(self, app: App):
        """Wrap an application."""
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one connection."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message["headers"]}
                more = [(name, value) for name, value in ADDED.items() if name not in there]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        await self._app(scope, receive, with_headers)
