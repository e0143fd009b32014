"""What each step costs: CPU seconds by step, and how far it has come."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class StepClock:
    """Adds up this thread's CPU seconds by step name."""

    def __init__(self) -> None:
        """Start with nothing spent."""
        self._spent_s: dict[str, float] = defaultdict(float)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count what runs inside towards a step."""
        begin = time.thread_time()
        try:
            yield
        finally:
            self._spent_s[name] += time.thread_time() - begin

    def each(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Count what producing each item costs towards a step."""
        iterator = iter(items)
        while True:
            begin = time.thread_time()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self._spent_s[name] += time.thread_time() - begin
            yield item

    def take(self) -> dict[str, float]:
        """Give what was spent since the last call."""
        spent, self._spent_s = dict(self._spent_s), defaultdict(float)
        return spent
