"""A chat server with a fixed latency and a fixed number of slots, in a process of its own, that keeps the time.

python -m benchmarks.slow_server LATENCY_S SLOTS      prints its port; GET /times tells when it was asked and done
"""

import asyncio
import json
import sys
import time


class SlowServer:
    """Answers every chat request after the same time; those beyond its slots wait in line."""

    def __init__(self, latency_s: float, slots: int):
        self._latency_s, self._free = latency_s, asyncio.Semaphore(slots)
        self._first_s, self._last_s, self._count = 0.0, 0.0, 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, which may be kept."""
        while head := await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b"":
            lines = head.decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
            await reader.readexactly(int(headers.get("content-length", "0")))
            body = json.dumps(await self._answer(lines[0], headers)).encode()
            start = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(start.encode() + body)
            await writer.drain()

    async def _answer(self, line: str, headers: dict[str, str]) -> dict[str, object]:
        if line.startswith("GET /times"):
            return {"first_s": self._first_s, "last_s": self._last_s, "count": self._count}
        if line.startswith("GET"):
            return {"object": "list", "data": [{"id": "slow", "object": "model"}]}
        self._first_s = self._first_s or time.monotonic()
        async with self._free:
            await asyncio.sleep(self._latency_s)
        self._count, self._last_s = self._count + 1, time.monotonic()
        text = "A red car drives along a wet street at night, seen from a bridge."
        message = {"role": "assistant", "content": text}
        return {
            "id": f"chatcmpl-{headers.get('x-request-id', '')}",
            "object": "chat.completion",
            "model": "slow",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        }


async def serve(latency_s: float, slots: int) -> None:
    """Listen on a free port of this machine until killed."""
    server = SlowServer(latency_s, slots)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await server.talk(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    listening = await asyncio.start_server(talk, "127.0.0.1", 0)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1]), int(sys.argv[2])))
