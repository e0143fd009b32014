"""Packages of other nodes that have the names of ours: said at start, not found out in the middle of a workflow."""

import importlib.util
from pathlib import Path

HOME = Path(__file__).resolve().parents[2]
ROOMS = ("core", "media", "models", "curation", "operators", "sampling")
"""that nodes import"""


def check_names() -> None:
    """See that the rooms that nodes import are ours.

    Raises:
        ImportError: another package of such a name is found first.
    """
    for room in ROOMS:
        spec = importlib.util.find_spec(room)
        folders = [Path(folder).resolve() for folder in (spec.submodule_search_locations or ())] if spec else []
        if folders != [HOME / room]:
            found = folders[0] if folders else "nothing"
            raise ImportError(
                f"Selects: Python finds {found} for '{room}', not {HOME / room}; remove the node package that puts its "
                "own folder on Python's path, or install selects-video"
            )
