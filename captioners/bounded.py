"""HTTP exchanges that end: one deadline for name, connection, request and whole reply; and bounds on its bytes.

A socket's own timeout bounds the wait for the next byte alone: a server that sends one now and then holds its client
for ever, within the headers, the body, or a proxy's answer. So a timer shuts the socket down when the time is over,
which ends whatever waits for it.
"""

import contextlib
import os
import socket
import threading
import zlib
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError

T = TypeVar("T")

PIECE_BYTES = 1 << 16
GZIP_OR_ZLIB = zlib.MAX_WBITS + 32
ENCODINGS = frozenset({"", "identity", "gzip", "x-gzip", "deflate"})
"""of content, that are undone; none is asked for, but servers behind proxies may send one"""

_here = threading.local()


class Refused(Exception):
    """A reply's body is longer than allowed, or in an encoding that nobody asked for."""


class Deadline:
    """A limit on one exchange of the thread that enters it; it runs from the first use of a connection.

    Waiting for a free connection does not count: that is the pool's business, and no server's fault.
    """

    def __init__(self, seconds: float):
        """Prepare; the time does not run yet."""
        self.is_over = False
        self._seconds = seconds
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._socket: socket.socket | None = None

    def __enter__(self) -> "Deadline":
        """Let this thread's connections run against the deadline."""
        _here.deadline = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it: from here on no socket is touched."""
        _here.deadline = None
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = None

    def begin(self) -> None:
        """Let the time run, unless it does."""
        if self._timer is None:
            self._timer = threading.Timer(self._seconds, self._end)
            self._timer.daemon = True
            self._timer.start()

    def watch(self, connected: socket.socket) -> None:
        """Shut this socket down when the time is over."""
        # A second descriptor of the same connection: it stays valid when TLS takes the socket over.
        twin = socket.socket(fileno=os.dup(connected.fileno()))
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = twin
            if self.is_over:
                _shut(twin)

    def _end(self) -> None:
        with self._lock:
            self.is_over = True
            if self._socket is not None:
                _shut(self._socket)


def _shut(connected: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the other side was faster
        connected.shutdown(socket.SHUT_RDWR)


class _Http(HTTPConnection):
    """A connection that runs against the deadline of the thread that uses it."""

    def _new_conn(self) -> socket.socket:
        return _watched(self, super()._new_conn)

    def request(self, *args: Any, **kwargs: Any) -> None:
        _begin(self)
        super().request(*args, **kwargs)


class _Https(HTTPSConnection):
    """The same over TLS."""

    def _new_conn(self) -> socket.socket:
        return _watched(self, super()._new_conn)

    def request(self, *args: Any, **kwargs: Any) -> None:
        _begin(self)
        super().request(*args, **kwargs)


def _begin(connection: HTTPConnection) -> None:
    deadline: Deadline | None = getattr(_here, "deadline", None)
    if deadline is not None:
        deadline.begin()
        if connection.sock is not None:
            deadline.watch(connection.sock)


def _watched(connection: HTTPConnection, connect: Callable[[], socket.socket]) -> socket.socket:
    """Connect within the connection's timeout, names of hosts and all their addresses included."""
    deadline: Deadline | None = getattr(_here, "deadline", None)
    if deadline is not None:
        deadline.begin()
    seconds = connection.timeout if isinstance(connection.timeout, int | float) else None
    connected = _within(seconds, connect)
    if connected is None:
        raise ConnectTimeoutError(connection, f"Connection to {connection.host} timed out. (connect timeout={seconds})")
    if deadline is not None:
        deadline.watch(connected)
    return connected


def _within(seconds: float | None, connect: Callable[[], socket.socket]) -> socket.socket | None:
    """Call a function that may hang in the system's search for a name; null: it took too long."""
    done, lock, made, late = threading.Event(), threading.Lock(), list[Any](), list[bool]()

    def act() -> None:
        try:
            result: Any = connect()
        except BaseException as error:  # raised again below, where somebody waits for it
            result = error
        with lock:
            if late and isinstance(result, socket.socket):
                result.close()
            made.append(result)
        done.set()

    threading.Thread(target=act, name="connect", daemon=True).start()
    done.wait(seconds)
    with lock:
        if not made:
            late.append(True)
            return None
    if isinstance(made[0], BaseException):
        raise made[0]
    assert isinstance(made[0], socket.socket)
    return made[0]


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Https


def bounded(pool: urllib3.PoolManager) -> urllib3.PoolManager:
    """Let a pool open connections that run against deadlines."""
    pool.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
    return pool


def read_body(reply: urllib3.BaseHTTPResponse, most_bytes: int) -> bytes:
    """Read a reply's body, at most so many bytes of it before and after its encoding is undone.

    Args:
        reply: opened with `preload_content=False`.
        most_bytes: of either.

    Raises:
        Refused: it is longer, in an encoding other than gzip or deflate, in several, or damaged.
    """
    transfer = reply.headers.get("Transfer-Encoding", "").strip().lower()
    encoding = reply.headers.get("Content-Encoding", "").strip().lower()
    if transfer not in ("", "chunked", "identity") or encoding not in ENCODINGS:
        raise Refused(f"in an encoding that was not asked for ({transfer} {encoding}".rstrip() + ")")
    body = bytearray()
    while piece := reply.read(min(PIECE_BYTES, most_bytes + 1 - len(body)), decode_content=False):
        body += piece
        if len(body) > most_bytes:
            raise Refused(f"of more than {most_bytes} bytes")
    return bytes(body) if encoding in ("", "identity") else _unpacked(bytes(body), most_bytes)


def _unpacked(body: bytes, most_bytes: int) -> bytes:
    """Undo gzip or deflate, with or without zlib's header, and no further than allowed."""
    unpacker = zlib.decompressobj(GZIP_OR_ZLIB)
    try:
        plain = unpacker.decompress(body, most_bytes + 1)
    except zlib.error:
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            plain = unpacker.decompress(body, most_bytes + 1)
        except zlib.error as error:
            raise Refused(f"whose compression is damaged ({error})") from None
    if len(plain) > most_bytes:
        raise Refused(f"of more than {most_bytes} bytes, uncompressed")
    if not unpacker.eof or unpacker.unused_data:
        raise Refused("whose compression is damaged")
    return plain
