"""Whether a Matroska or WebM file is as long as it says: RFC 8794 (EBML) and RFC 9559 (Matroska)."""

from pathlib import Path

from media.container import open_file

_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067
_MOST_HEAD_BYTES = 4096


def is_cut_short(path: Path) -> bool:
    """Return whether a file ends before the end that its segment states; false where none is stated.

    Raises:
        MediaError: the file cannot be read.
    """
    with open_file(path) as file:
        head, size = file.read(_MOST_HEAD_BYTES), file.status.st_size
    at = 0
    while (element := _element(head, at)) is not None:
        name, length, body = element
        if name == _SEGMENT:
            return length is not None and body + length > size
        if name != _EBML or length is None:
            return False
        at = body + length
    return False


def _element(data: bytes, at: int) -> tuple[int, int | None, int] | None:
    """Return an element's (identity, length or null where unknown, place of its content); null where there is none."""
    name = _number(data, at, keep_marker=True)
    if name is None:
        return None
    length = _number(data, at + name[1], keep_marker=False)
    if length is None:
        return None
    is_unknown = length[0] == (1 << 7 * length[1]) - 1
    return name[0], None if is_unknown else length[0], at + name[1] + length[1]


def _number(data: bytes, at: int, *, keep_marker: bool) -> tuple[int, int] | None:
    """Return a number of variable size, and its size in bytes."""
    if at >= len(data) or not data[at]:
        return None
    size = 9 - data[at].bit_length()
    if at + size > len(data):
        return None
    value = int.from_bytes(data[at : at + size], "big")
    return (value if keep_marker else value & (1 << 7 * size) - 1), size
