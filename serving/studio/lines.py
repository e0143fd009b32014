"""A run's lines on the page, as they come."""

import time
from collections.abc import Callable, Iterator
from html import escape

from serving.studio.runs import Run, Runs
from serving.studio.texts import say

LOOK_EVERY_S = 1.0
REST_S = 0.5
"""between two looks, however fast lines come: each is sent to the browser with all that lies beside it"""


def follow_run(run: Run, language: str) -> Iterator[tuple[str, str]]:
    """Yield what is said of a run, as HTML, and its lines, until it has ended."""
    seen, code = 0, None
    while code is None:
        yield f'<p class="status" role="status">{escape(say("running", language, run.name))}</p>', run.text()
        time.sleep(REST_S)
        seen, code = run.wait(seen, LOOK_EVERY_S)
    words = say("ended", language, code)
    yield f'<p class="status" data-code="{code}" role="status">{words}</p>', run.text()


def started(runs: Runs, begin: Callable[[], Run | None], language: str) -> Iterator[tuple[str, str]]:
    """Start a run and follow it; where another one goes on, that is said."""
    run = begin()
    if run is None:
        name = runs.current.name if runs.current else "?"
        yield f'<p role="alert">{escape(say("busy", language, name))}</p>', ""
        return
    yield from follow_run(run, language)
