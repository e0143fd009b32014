"""Answers of the hub that end: its library reads each to the last byte, however many come."""

import contextlib
import importlib
import threading
from collections.abc import Iterator
from typing import Any

MOST_FILE_BYTES = 1 << 40
"""of a file whose size is not known beforehand; the largest published ones have some tens of gigabytes"""
MOST_LISTED_BYTES = 64 << 20
"""of what the hub says of a repository"""
MOST_PACKED_BYTES = 4 << 20
"""of an answer in another encoding, which may unpack to a thousand times as much"""
NONSENSE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""what the hub's library raises of an answer that is not what it asked for"""

_one = threading.Lock()


@contextlib.contextmanager
def bounded_hub(most_bytes: int = MOST_FILE_BYTES) -> Iterator[None]:
    """Let the hub's library take no more than so many bytes of one answer; a longer one is an OSError.

    Threads of a process take turns: the library has one client for all of them.

    Yields:
        Nothing.
    """
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import _http

    def limit(response: Any) -> None:
        packed = response.headers.get("content-encoding", "identity").lower() != "identity"
        is_listing = response.request.url.path.startswith("/api/")
        most = min(most_bytes, MOST_LISTED_BYTES if is_listing else most_bytes)
        response.stream = _limited(response, min(most, MOST_PACKED_BYTES) if packed else most)

    def client() -> Any:
        made = before()
        hooks = made.event_hooks
        made.event_hooks = {**hooks, "response": [*hooks.get("response", ()), limit]}
        return made

    with _one:
        before = _http._GLOBAL_CLIENT_FACTORY
        set_client_factory(client)
        try:
            yield
        finally:
            set_client_factory(before)


def _limited(response: Any, most_bytes: int) -> Any:
    """Wrap an answer's body; httpx, of whichever name the library uses, takes its own kind alone."""
    kind: Any = importlib.import_module(type(response).__module__.partition(".")[0]).SyncByteStream
    body = response.stream

    class Limited(kind):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            count = 0
            for piece in body:
                count += len(piece)
                if count > most_bytes:
                    raise OSError(f"the server sends more than {most_bytes} bytes, far more than were published")
                yield piece

        def close(self) -> None:
            body.close()

    return Limited()
