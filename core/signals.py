"""Stopping a run before its end: Ctrl-C or SIGTERM once ends it soon, a second time at once.

Workers on any machine see the wish as a file in the output folder: sources that are not yet divided into
clips are left for the next run, clips that are go on to the table.
"""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

GRACE_S = 20.0
"""How long clips that are started may take to finish."""


@dataclass
class Stop:
    """Whether a run was asked to stop."""

    asked: bool = False
    is_overdue: bool = False
    """what was started took too long: the run ends without it"""


@contextlib.contextmanager
def stoppable(stop_file: Path, grace_s: float = GRACE_S) -> Iterator[Stop]:
    """Let Ctrl-C and SIGTERM stop a run softly while the block lasts.

    Raises:
        KeyboardInterrupt: asked twice, or `grace_s` after it was asked (then `is_overdue` is set).
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's business
        yield stop
        return
    overdue = threading.Timer(grace_s, _overdue, [stop])
    overdue.daemon = True

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True
        try:
            stop_file.touch()
        except OSError:  # no room even for that
            raise KeyboardInterrupt from None
        words = f"stopping: clips that are started are finished first, {grace_s:g} s at most (again: at once)"
        print(f"\n{words} …", file=sys.stderr, flush=True)
        overdue.start()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        overdue.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
        with contextlib.suppress(OSError):
            stop_file.unlink()


def _overdue(stop: Stop) -> None:
    stop.is_overdue = True
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGINT)  # to that thread: it may be waiting in a system call
