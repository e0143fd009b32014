"""Stopping a run by a signal, at the end of the step that it is in."""

import signal
from typing import Any


class interruptible:  # noqa: N801 - reads as a statement
    """Turns the first Ctrl-C (or SIGTERM) into a wish to stop after this step; a second one stops at once."""

    def __enter__(self) -> "interruptible":
        self.wished = False
        self.before = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._note)
        except ValueError:  # not in the main thread: whoever started the thread deals with signals
            pass
        return self

    def __bool__(self) -> bool:
        return self.wished

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        if self.wished:
            raise KeyboardInterrupt
        self.wished = True
        print("\nstopping after this step …", flush=True)
