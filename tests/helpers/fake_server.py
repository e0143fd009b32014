"""A chat server that is as slow, busy, rude, dead or mixed up as a test wants.

It has a latency and a number of slots, and answers what it sees: the grey level of the first frame, which a test has
made the number of the clip. So a caption on the wrong clip shows.
"""

import asyncio
import base64
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

LEVELS = 60
"""of grey that are told apart"""


@dataclass
class Answer:
    """What a server does with one request: a status and text to reply with, or `drop` the connection."""

    status: int = 200
    text: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False
    body: bytes | None = None
    finish: str = "stop"
    latency_s: float | None = None
    mixes_up: bool = False
    """the reply goes to another request whose reply goes astray, too; counted in `mixed_up`"""


@dataclass
class Seen:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    number: int
    """counted from 0, in the order of arrival"""
    time_s: float


def level_of(body: dict[str, Any]) -> int | None:
    """The grey level of the first picture in a chat request."""
    import cv2
    import numpy as np

    content = body["messages"][0]["content"] if body.get("messages") else []
    urls = [part[part["type"]]["url"] for part in content if part["type"] in ("image_url", "video_url")]
    if not urls:
        return None
    jpeg = base64.b64decode(urls[0].split(",")[1])
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    return round(float(picture.mean()) / 255 * (LEVELS - 1))


class FakeServer:
    """Runs in a thread of its own; `with FakeServer() as server` or `start()` and `stop()`, as often as wanted."""

    def __init__(
        self,
        slots: int = 1000,
        latency_s: float = 0.0,
        plan: Callable[[Seen], Answer] = lambda seen: Answer(),
        models: tuple[str, ...] = ("tiny",),
        port: int = 0,
        look: bool = True,
    ):
        self.slots, self.latency_s, self.plan, self.models, self.port = slots, latency_s, plan, models, port
        self.look = look
        self.mixed_up = 0
        self.seen: list[Seen] = []
        self.in_flight = Counter[str]()
        self.most_in_flight = 0
        self._waiting: list[tuple[asyncio.Future[dict[str, Any]], dict[str, Any]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> "FakeServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self.serve(started.set)), daemon=True)
        self._thread.start()
        assert started.wait(10)

    def stop(self) -> None:
        """Drop every connection and listen no more."""
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    async def serve(self, started: Callable[[], None]) -> None:
        self._loop, self._stopped, self._free = (
            asyncio.get_running_loop(),
            asyncio.Event(),
            asyncio.Semaphore(self.slots),
        )
        self._writers: set[asyncio.StreamWriter] = set()
        server = await asyncio.start_server(self._connection, "127.0.0.1", self.port, limit=1 << 26)
        self.port = server.sockets[0].getsockname()[1]
        started()
        await self._stopped.wait()
        server.close()
        for writer in self._writers:
            writer.transport.abort()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {
                    k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)
                }
                body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"{}")
                seen = Seen(head[0].split()[1], headers, body, len(self.seen), time.monotonic())
                self.seen.append(seen)
                if not await self._answer(seen, writer):
                    break
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, seen: Seen, writer: asyncio.StreamWriter) -> bool:
        if seen.path.endswith("/models"):
            answer, reply = self.plan(seen), {"data": [{"id": name} for name in self.models]}
        else:
            self.in_flight["now"] += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight["now"])
            try:
                async with self._free:
                    answer = self.plan(seen)
                    await asyncio.sleep(self.latency_s if answer.latency_s is None else answer.latency_s)
            finally:
                self.in_flight["now"] -= 1
            reply = self._chat(seen, answer)
            if answer.mixes_up:
                reply = await self._mixed_up(reply)
        if answer.drop:
            writer.transport.abort()
            return False
        data = answer.body
        if data is None:
            data = json.dumps(reply if answer.status == 200 else {"error": {"message": answer.text or "no"}}).encode()
        lines = [f"HTTP/1.1 {answer.status} X", f"Content-Length: {len(data)}", "Content-Type: application/json"]
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + data)
        await writer.drain()
        return True

    def _chat(self, seen: Seen, answer: Answer) -> dict[str, Any]:
        text = answer.text
        if text is None:
            text = f"A grey card with the number {level_of(seen.body) if self.look else 0} lies on a table."
        return {
            "id": f"chatcmpl-{seen.headers.get('x-request-id', 'none')}",
            "choices": [{"message": {"content": text}, "finish_reason": answer.finish}],
        }

    async def _mixed_up(self, reply: dict[str, Any]) -> dict[str, Any]:
        """Wait for a second reply and change the two; where none comes, give the reply as it is."""
        if self._waiting:
            other, theirs = self._waiting.pop()
            other.set_result(reply)
            self.mixed_up += 2
            return theirs
        own: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._waiting.append((own, reply))
        await asyncio.wait([own], timeout=0.2)
        if own.done():
            return own.result()
        self._waiting.clear()
        return reply


if __name__ == "__main__":  # python fake_server.py SLOTS LATENCY_S: as a process of its own, for measurements
    server = FakeServer(int(sys.argv[1]), float(sys.argv[2]), look=False)
    asyncio.run(server.serve(lambda: print(server.port, flush=True)))
