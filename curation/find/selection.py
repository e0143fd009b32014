"""A selection of clips as a file: one clip id a line, so that it can be read, edited, joined and counted.

Lines that begin with `#`, and empty ones, are passed over.
"""

from collections.abc import Iterable
from pathlib import Path

from core.errors import UserError
from core.files import atomic_write, read_bounded

MOST_BYTES = 1 << 30
"""ten million ids have a third of it"""


def write_selection(file: Path, clip_ids: Iterable[str], about: str) -> None:
    """Write clip ids, best first, below a line that says what they are.

    Raises:
        UserError: the file cannot be written.
    """
    lines = [f"# {' '.join(about.split())}", *clip_ids]
    try:
        atomic_write(file, "\n".join(lines) + "\n")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        raise UserError(
            f"cannot be written ({error.strerror})",
            field="write",
            value=file,
            fix="name a file in a folder there is",
        ) from None


def read_selection(file: Path, field: str) -> tuple[str, ...]:
    """Return the clip ids of a selection, each once, in its order.

    Args:
        file: as `write_selection` writes it, or any list of ids, one a line.
        field: as what of the request the file was named.

    Raises:
        UserError: it cannot be read, or names no clip.
    """
    try:
        lines = read_bounded(file, MOST_BYTES).decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read as a list of clip ids ({error})", field=field, value=file) from None
    ids = dict.fromkeys(line for line in map(str.strip, lines) if line and not line.startswith("#"))
    if not ids:
        raise UserError("names no clip", field=field, value=file, fix="write one clip id a line, as find does")
    return tuple(ids)
