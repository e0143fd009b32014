"""What was exported from an output, so that it does not go out of date unseen: `OUT/exports.json`."""

import json
from pathlib import Path
from typing import Any

from core.files import atomic_write, read_bounded

NAME = "exports.json"
MOST_BYTES = 1 << 20

Memory = dict[str, dict[str, Any]]
"""Settings of what was exported, by format. `rows` is the digest of what shards hold; null while they are replaced."""


def read_memory(out: Path) -> Memory:
    """Return what was exported; nothing where the file is missing or not ours."""
    try:
        memory = json.loads(read_bounded(out / NAME, MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(memory, dict):
        return {}
    return {name: values for name, values in memory.items() if isinstance(values, dict)}


def remember(out: Path, format: str, values: dict[str, Any] | None) -> None:
    """Note how a format was exported; null: it is forgotten."""
    memory = read_memory(out)
    changed = {name: held for name, held in memory.items() if name != format}
    if values is not None:
        changed[format] = values
    if changed != memory:
        atomic_write(out / NAME, json.dumps(changed, indent=1, sort_keys=True) + "\n")
