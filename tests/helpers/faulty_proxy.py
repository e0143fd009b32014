"""A proxy between a client and a server that breaks requests the way networks and busy storages do."""

import http.client
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["", "500", "503", "reset", "truncate", "lost"]
"""nothing; an internal error; SlowDown; a reset in mid-body; a body that ends early; done, but the answer is lost"""
SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your request rate</Message></Error>"


@dataclass
class Traffic:
    """What went through: requests by method, faults by kind, and bytes of bodies handed to the client."""

    requests: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    body_bytes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def faulty_proxy(server: str, fault_of: Callable[[int, str, str], Fault]) -> Iterator[tuple[str, Traffic]]:
    """Run a proxy in front of a server; yields its address and what goes through.

    Args:
        server: address of the server.
        fault_of: from number of the request (from 0), method and path to what is done to it.
    """
    traffic = Traffic()
    target = urlsplit(server).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def handle_any(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with traffic.lock:
                number = traffic.requests.total()
                traffic.requests[self.command] += 1
            fault = fault_of(number, self.command, self.path)
            traffic.faults[fault] += bool(fault)
            if fault in ("500", "503"):
                self._answer(int(fault), [], SLOW_DOWN if fault == "503" else b"")
                return
            upstream = http.client.HTTPConnection(target, timeout=60)
            upstream.request(self.command, self.path, content, dict(self.headers))
            answer = upstream.getresponse()
            body = answer.read()
            upstream.close()
            if fault == "lost":
                self._reset()
            else:
                self._answer(answer.status, answer.getheaders(), body, fault)

        def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, fault: Fault = "") -> None:
            self.send_response_only(status)
            has_length = False
            for name, value in headers:
                if name.lower() not in ("connection", "transfer-encoding"):
                    has_length |= name.lower() == "content-length"
                    self.send_header(name, value)
            if not has_length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            sent = body[: len(body) // 2] if fault in ("reset", "truncate") else body
            self.wfile.write(sent)
            with traffic.lock:
                traffic.body_bytes += len(sent)
            if fault == "reset":
                self._reset()
            elif fault == "truncate":
                self.close_connection = True

        def _reset(self) -> None:
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Clients hang up; that is what is tested."""

    proxy = Quiet(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}", traffic
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
