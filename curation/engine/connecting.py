"""What is done around the moment at which Ray is started or joined."""

import contextlib
import os
import socket
from collections.abc import Iterator

from core.errors import UserError


def expect_answer(address: str) -> None:
    """Knock at a `host:port` first: Ray itself would try for a minute."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        words = error.strerror or "no answer"
        raise UserError(
            f"no cluster answers ({words})", field="ray_address", value=address, fix="leave it out to run here"
        ) from None


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Swallow the line that Ray's core prints about its log level while it starts."""
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)
