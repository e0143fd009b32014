"""Edit lists of MP4: what a track that starts late has to skip first, such as an encoder's priming."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_LARGE = 1
"""Stands for the size of a box whose size follows in 64 bits."""


def skip_first_samples(path: Path, samples: int) -> None:
    """Let the sound track of an MP4 file that starts late skip its first samples.

    FFmpeg writes such a track's edit list as a delay, followed by all that the track holds. Here the second entry
    begins `samples` further on (ISO/IEC 14496-12, 8.6.6), and the lengths shrink with it. A track that does not
    start late is left as it is: there FFmpeg writes the skip itself.

    Args:
        path: a finished file, changed in place; no box in it changes its size.
        samples: in ticks of the track's own clock.
    """
    with path.open("r+b") as file:
        file.seek(0, 2)
        moov = _find(file, 0, file.tell(), b"moov")
        header = _find(file, *moov, b"mvhd") if moov else None
        if moov is None or header is None:
            return
        tracks = [(start, end) for kind, start, end in _boxes(file, *moov) if kind == b"trak"]
        changed = [_skip(file, *track, samples, _number(file, *_clock(file, header))) for track in tracks]
        if any(changed):
            lengths = [_number(file, *_length(file, place)) for t in tracks if (place := _find(file, *t, b"tkhd"))]
            clock, size = _clock(file, header)
            _write(file, clock + size, 8 if _is_long(file, header) else 4, max(lengths))


def _skip(file: BinaryIO, start: int, end: int, samples: int, movie_ticks_per_s: int) -> bool:
    """Change a track, if it is one of sound that starts late; tell whether it was."""
    edits, media = _find(file, start, end, b"edts", b"elst"), _find(file, start, end, b"mdia", b"mdhd")
    track = _find(file, start, end, b"tkhd")
    if edits is None or media is None or track is None or not _is_sound(file, start, end):
        return False
    entry = ">Qqi" if _is_long(file, edits) else ">Iii"
    size = struct.calcsize(entry)
    file.seek(edits[0] + 8)
    entries = [struct.unpack(entry, file.read(size)) for _ in range(min(_number(file, edits[0] + 4, 4), 3))]
    if len(entries) != 2 or entries[0][1] != -1 or entries[1][1] != 0:
        return False
    duration, _, rate = entries[1]
    shorter = round(samples * movie_ticks_per_s / _number(file, *_clock(file, media)))
    file.seek(edits[0] + 8 + size)
    file.write(struct.pack(entry, max(0, duration - shorter), samples, rate))
    length = _length(file, track)
    _write(file, *length, max(0, _number(file, *length) - shorter))
    return True


def _is_long(file: BinaryIO, box: tuple[int, int]) -> bool:
    """Return whether a box is of version 1, whose times have 64 bits."""
    return _number(file, box[0], 1) == 1


def _clock(file: BinaryIO, header: tuple[int, int]) -> tuple[int, int]:
    """Return place and size of the ticks per second in `mvhd` and `mdhd`; the duration follows them."""
    return header[0] + (20 if _is_long(file, header) else 12), 4


def _length(file: BinaryIO, header: tuple[int, int]) -> tuple[int, int]:
    """Return place and size of the duration in `tkhd`."""
    is_long = _is_long(file, header)
    return header[0] + (28 if is_long else 20), 8 if is_long else 4


def _number(file: BinaryIO, place: int, size: int) -> int:
    file.seek(place)
    return int.from_bytes(file.read(size), "big")


def _write(file: BinaryIO, place: int, size: int, number: int) -> None:
    file.seek(place)
    file.write(number.to_bytes(size, "big"))


def _is_sound(file: BinaryIO, start: int, end: int) -> bool:
    place = _find(file, start, end, b"mdia", b"hdlr")
    if place is None:
        return False
    file.seek(place[0] + 8)
    return file.read(4) == b"soun"


def _find(file: BinaryIO, start: int, end: int, *kinds: bytes) -> tuple[int, int] | None:
    """Return where a box's content lies, found by the kinds of the boxes around it."""
    for kind in kinds:
        found = next(((s, e) for k, s, e in _boxes(file, start, end) if k == kind), None)
        if found is None:
            return None
        start, end = found
    return start, end


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the boxes of a stretch: kind, and where the content lies."""
    while start + 8 <= end:
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(8))
        head = 8
        if size == _LARGE:
            (size,) = struct.unpack(">Q", file.read(8))
            head = 16
        if size < head:
            return
        yield kind, start + head, start + size
        start += size
