"""What a command owes at its end, as a list in the output until it is done: a later run pays what a killed one left.

OUT/_owed.json    names of what is not written yet, such as ["report", "run"]; gone when nothing is owed
"""

import json
from collections.abc import Iterable
from pathlib import Path

from core.files import atomic_write, read_bounded

NAME = "_owed.json"
REPORT, RUN = "report", "run"
"""the page, and `run.json`; the trainers' JSON and the places of clips' files are settled by every run"""
MOST_BYTES = 1 << 16


def owed(out: Path) -> frozenset[str]:
    """Return what killed runs have left to do; of a list that cannot be read, everything."""
    try:
        names = json.loads(read_bounded(out / NAME, MOST_BYTES))
        return frozenset(names) & {REPORT, RUN}
    except FileNotFoundError:
        return frozenset()
    except (ValueError, TypeError, RecursionError):
        return frozenset({REPORT, RUN})


def owe(out: Path, names: Iterable[str]) -> None:
    """Add to what is owed; before anything changes that makes it so."""
    before = owed(out)
    if not before.issuperset(names):
        atomic_write(out / NAME, json.dumps(sorted(before.union(names))) + "\n")


def settle(out: Path) -> None:
    """Say that everything is done."""
    (out / NAME).unlink(missing_ok=True)
