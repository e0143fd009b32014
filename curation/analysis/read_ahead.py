"""Sources in buckets that are fetched while the one before is worked on, so that nobody waits for a far storage."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager

from core.storage.staging import bound_bytes
from curation.types import Source

AT_ONCE = 4
"""sources that are fetched at a time, so that many small ones wait for the storage together"""
MOST_AHEAD = 8
MOST_BYTES = 1 << 30
"""of sources that are read ahead and wait on this node's disk"""
SHARE = 0.125
"""of the room for copies that they may take: other workers need some, too"""


class ReadAhead:
    """Fetches the sources of a batch in their order, a few ahead of the one that is wanted.

    Each is held until it was used, so that it does not go to make room for the next.
    """

    def __init__(self, fetch: Callable[[Source], AbstractContextManager[None]], sources: Sequence[Source]):
        """Begin with the first ones.

        Args:
            fetch: has a source on this node's disk while its block runs; called in threads of this object's.
            sources: in the order in which they will be wanted.
        """
        self._fetch, self._left = fetch, list(sources)
        self._room_bytes = min(MOST_BYTES, SHARE * bound_bytes())
        self._ahead: dict[Source, Future[ExitStack]] = {}
        self._pool = ThreadPoolExecutor(AT_ONCE)

    @contextmanager
    def at_hand(self, source: Source) -> Iterator[None]:
        """Have a source on this node's disk while the block runs; meanwhile the next ones are fetched.

        Raises what fetching it raised.
        """
        mine = self._ahead.pop(source, None)
        if mine is None:
            self._left = [each for each in self._left if each != source]
        self._begin_more()
        with self._fetched(source) if mine is None else mine.result():
            yield

    def close(self) -> None:
        """Let go of what was fetched and never wanted; what is still fetched is waited for."""
        self._left = []
        self._pool.shutdown(cancel_futures=True)
        for future in self._ahead.values():
            if not future.cancelled() and future.exception() is None:
                future.result().close()
        self._ahead = {}

    def _begin_more(self) -> None:
        taken = sum(source.size_bytes for source in self._ahead)
        while self._left and len(self._ahead) < MOST_AHEAD:
            source = self._left[0]
            if taken + source.size_bytes > self._room_bytes:
                return
            taken += source.size_bytes
            self._ahead[self._left.pop(0)] = self._pool.submit(self._fetched, source)

    def _fetched(self, source: Source) -> ExitStack:
        with ExitStack() as stack:
            stack.enter_context(self._fetch(source))
            return stack.pop_all()
