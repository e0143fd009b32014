"""A line with a latency between a client and a server, in a process of its own.

python -m benchmarks.slow_line LATENCY_S HOST PORT      prints the port that it listens on

What a client sends arrives that much later, its connecting too; answers come at once. So a request costs one latency
and a new connection another, however large they are, as over a fast line to a far place.
"""

import asyncio
import sys
from contextlib import suppress

CHUNK_BYTES = 1 << 18


async def serve(latency_s: float, host: str, port: int) -> None:
    """Listen on a free port of this machine until killed."""

    async def talk(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await asyncio.sleep(latency_s)
            server, to_server = await asyncio.open_connection(host, port)
            await asyncio.gather(_pass(client, to_server, latency_s), _pass(server, to_client, 0.0))

    listening = await asyncio.start_server(talk, "127.0.0.1", 0)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await listening.serve_forever()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, latency_s: float) -> None:
    """Hand on what comes, in order, each piece as much later."""
    loop, waiting = asyncio.get_running_loop(), asyncio.Queue[tuple[float, bytes]]()

    async def hand_on() -> None:
        while True:
            due_s, piece = await waiting.get()
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            if not piece:
                return
            writer.write(piece)
            await writer.drain()

    async def read() -> None:
        piece = b"-"
        while piece:
            try:
                piece = await reader.read(CHUNK_BYTES)
            except ConnectionError:
                piece = b""
            if latency_s:
                waiting.put_nowait((loop.time() + latency_s, piece))
            elif piece:
                writer.write(piece)
                await writer.drain()

    with suppress(ConnectionError):
        await (asyncio.gather(read(), hand_on()) if latency_s else read())
    writer.close()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
