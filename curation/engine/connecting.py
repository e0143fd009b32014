"""What is done around the moment at which Ray is started or joined."""

import contextlib
import os
import re
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
        raise _silent(address, error.strerror or "no answer") from None


def not_joined(address: str, error: Exception) -> UserError:
    """Return why a cluster could not be joined: it has other versions, or does not answer."""
    text = str(error)
    versions = re.findall(r"Ray: (\S+)\s+Python: (\S+)", text)
    if len(versions) != 2:
        return _silent(address, text.splitlines()[0] if text else type(error).__name__)
    (ray, python), (our_ray, our_python) = versions
    return UserError(
        f"the cluster runs Ray {ray} on Python {python}, and this process Ray {our_ray} on Python {our_python}",
        field="ray_address",
        value=address,
        fix="start this command in the cluster's environment or image, such as by `submit`",
    )


def _silent(address: str, words: str) -> UserError:
    return UserError(
        f"no cluster answers ({words})", field="ray_address", value=address, fix="leave it out to run here"
    )


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
