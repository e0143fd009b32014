"""Published `config.json` files, which may have fields of other versions and forks than the class that reads them."""

import sys
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

NAMED = 5
"""of unknown fields; of the rest their number is told"""
LONGEST_NAME = 60


def known_fields(config: Mapping[str, Any], known: Collection[str], where: object) -> dict[str, Any]:
    """Keep the fields that a class takes; the others are named in one line on the error output, once a process.

    Args:
        config: the file's content; private keys, which begin with an underscore, are dropped silently.
        known: the class's fields, all of which have defaults.
        where: the file, for the line.
    """
    public = {name: value for name, value in config.items() if not name.startswith("_")}
    warn_of_unknown([name for name in public if name not in known], where)
    return {name: value for name, value in public.items() if name in known}


def warn_of_unknown(names: Collection[str], where: object) -> None:
    """Write one line on fields that are passed over, once a process for each file."""
    if names:
        _warn(tuple(sorted(names)), str(where))


@lru_cache(maxsize=1024)
def _warn(names: tuple[str, ...], where: str) -> None:
    # The names are another's text: escaped and cut, so that it stays one line.
    shown = ", ".join(repr(name[:LONGEST_NAME]) for name in names[:NAMED])
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    print(
        f"warning: {repr(where)[1:-1]}: unknown fields are ignored: {shown}{more}; if results are not as published, "
        "they may be why",
        file=sys.stderr,
    )
