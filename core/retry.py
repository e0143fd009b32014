"""Trying again what a storage refused for the moment, with growing pauses."""

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from core.errors import OutputError
from core.limits import Limits

T = TypeVar("T")


def pauses_s(limits: Limits) -> Iterator[float]:
    """Yield the pause before each further try."""
    for number in range(limits.storage_tries - 1):
        yield limits.storage_pause_s * 2**number


def write_with_retries(limits: Limits, write: Callable[[], T]) -> T:
    """Write; where the storage fails for the moment, try again as often as the limits say.

    Raises:
        OutputError: it has no room, or failed every time.
    """
    for pause_s in pauses_s(limits):
        try:
            return write()
        except OutputError as error:
            if not error.is_transient:
                raise
        time.sleep(pause_s)
    return write()
