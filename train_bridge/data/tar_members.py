"""The members of a tar, found by their headers alone: nothing is unpacked, and no header takes the memory.

Python's `tarfile` parses each header; what follows from them is decided here, since it would read a header of any size,
follow links and believe sparse files whatever size they state.
"""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = tarfile.BLOCKSIZE
MAGIC = b"ustar"
MAGIC_PLACE = 257
LONGEST_HEADER = 64 << 10
"""bytes of a long name or of extended headers"""
MOST_MEMBERS = 2_000_000
_LONG_NAME, _LONG_LINK, _SPARSE = tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.GNUTYPE_SPARSE
_EXTENDED, _GLOBAL = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE), tarfile.XGLTYPE
_WITHOUT_DATA = (
    tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE
)  # fmt: skip


class TarError(Exception):
    """A tar that cannot be read any further, and why."""


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file within a tar.

    Attributes:
        name: as the tar spells it; it may lead anywhere, and is no path to write to.
        offset: where its content begins, in bytes.
        size_bytes: of its content, which lies within the tar.
    """

    name: str
    offset: int
    size_bytes: int


def read_members(file: BinaryIO) -> Iterator[Member]:
    """Yield the regular files of an uncompressed tar; folders, links and devices are passed over.

    Raises:
        TarError: it is broken or cut off from here on, holds sparse files, or more members than any shard.
        OSError: it cannot be read.
    """
    total = os.fstat(file.fileno()).st_size
    at, count = 0, 0
    extended: dict[str, str] = {}
    while header := _read(file, at, BLOCK):
        if not any(header):
            return
        if (count := count + 1) > MOST_MEMBERS:
            raise TarError(f"has more than {MOST_MEMBERS} members")
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
            size = int(extended.get("size", info.size))
        except (tarfile.HeaderError, ValueError):
            raise TarError(f"is broken at byte {at}") from None
        begin = at + BLOCK
        if size < 0:
            raise TarError(f"is broken at byte {at}")
        has_data = info.type not in _WITHOUT_DATA
        if has_data and begin + size > total:
            raise TarError(f"is cut off after {total} bytes")
        at = begin + (-(-size // BLOCK) * BLOCK if has_data else 0)
        if info.type in (*_EXTENDED, _LONG_NAME):
            if size > LONGEST_HEADER:
                raise TarError(f"has a header of {size} bytes at byte {begin - BLOCK}")
            content = _read(file, begin, size)
            if info.type == _LONG_NAME:
                extended["path"] = content.split(b"\0")[0].decode("utf-8", "surrogateescape")
            else:
                extended |= _records(content, begin)
            continue
        if info.type in (_LONG_LINK, _GLOBAL):
            continue
        if info.type == _SPARSE or any(key.startswith("GNU.sparse.") for key in extended):
            raise TarError(f"holds a sparse file at byte {begin - BLOCK}")
        if info.isreg():
            yield Member(extended.get("path", info.name), begin, size)
        extended = {}


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    content = os.pread(file.fileno(), size, offset)
    if content and len(content) < size:
        raise TarError(f"is cut off after {offset + len(content)} bytes")
    return content


def _records(content: bytes, at: int) -> dict[str, str]:
    """Return the records of an extended header: `length key=value` lines."""
    found: dict[str, str] = {}
    begin, end = 0, len(content.rstrip(b"\0"))
    while begin < end:
        length = content[begin : begin + 7].partition(b" ")[0]
        after = begin + int(length) if length.isdigit() else 0
        key, equals, value = content[begin + len(length) + 1 : after - 1].partition(b"=")
        if not begin < after <= len(content) or not equals:
            raise TarError(f"has a broken header at byte {at}")
        found[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        begin = after
    return found
