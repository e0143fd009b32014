"""Small JSON files, as lie beside weights, read with bounds."""

import json
from pathlib import Path
from typing import Any

from core.errors import UserError

MOST_BYTES = 64 << 20
"""the index of the largest published model has a few megabytes"""


def read_json(path: Path, most_bytes: int = MOST_BYTES) -> Any:
    """Return what a JSON file holds.

    Raises:
        OSError: it is not there or cannot be read.
        ValueError: it is no JSON, or larger or nested more deeply than any file of its kind.
    """
    with path.open("rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"larger than {most_bytes >> 20} MB")
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_settings(path: Path) -> dict[str, Any]:
    """Return the keys and values of a small JSON file that a user named.

    Raises:
        UserError: it is not there or not JSON.
    """
    try:
        values: dict[str, Any] = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({' '.join(str(error).split())})") from None
    return values
