"""A server that breaks HTTP itself: it writes the bytes that a test gives it, one piece after another."""

import socket
import threading
from collections.abc import Callable, Iterator

Script = Callable[[int], Iterator[bytes]]
"""from the number of the request to the pieces of its reply; the connection is closed after the last"""

OK = b'{"choices": [{"message": {"content": "ok"}}]}'


def whole(body: bytes = OK, *headers: bytes) -> bytes:
    """A reply that is as it should be, but for further headers."""
    return b"\r\n".join([b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *headers, b"", body])


def dripping(head: bytes, drop: bytes = b" ", pause_s: float = 0.05) -> Iterator[bytes]:
    """A beginning, and then one piece after another for ever."""
    yield head
    while True:
        threading.Event().wait(pause_s)
        yield drop


class LyingServer:
    """Listens on this machine; every request (not every connection) gets the next reply of the script."""

    def __init__(self, script: Script):
        self._script, self.requests, self.ended = script, 0, threading.Semaphore(0)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> "LyingServer":
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        """Take one request and answer it; `ended` counts the connections that are over, whoever ended them."""
        try:
            with connection, connection.makefile("rb") as reading:
                length = 0
                while (line := reading.readline()) not in (b"\r\n", b""):
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                reading.read(length)
                self.requests += 1
                for piece in self._script(self.requests - 1):
                    connection.sendall(piece)
        except OSError:
            pass
        finally:
            self.ended.release()
