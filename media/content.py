"""What a file's first bytes say: video, image, or neither. Nothing is decoded."""

import os
import re
import stat

from media.types import MediaType

HEAD_BYTES = 1024
_STILL_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"mif1", b"avif", b"jxl "))
_SOUND_BRANDS = frozenset((b"M4A ", b"M4B ", b"M4P ", b"aax ", b"F4A ", b"F4B "))
_ATOMS = frozenset((b"moov", b"mdat", b"wide", b"pnot", b"free", b"skip"))
"""How QuickTime files begin that state no brand."""
_VIDEO_STARTS = (
    *(b"FLV\x01", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b".RMF", b"YUV4MPEG2 ", b"DKIF\0\0"),
    *(b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02", b"\x1f\x07\x00", b"\x1f\x07\x80", b"GIF87a", b"GIF89a"),
    *(b"\0\0\x01\xba", b"\0\0\x01\xb3", b"\0\0\x01\xb0", b"\0\0\x01\x67", b"\0\0\x01\x27", b"\0\0\0\x01\x67"),
    *(b"\0\0\0\x01\x27", b"\0\0\0\x01\x09", b"\0\0\0\x01\x40\x01", b"\0\0\x01\x40\x01", b"\0\0\0\x01\x46\x01"),
    b"\x12\0\x0a",
)
"""FLV, ASF, RealMedia, Y4M, IVF, MXF, DV, GIF, MPEG program and elementary streams, H.264, HEVC, AV1 as OBUs."""
_IMAGE_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*")
_PACKETS = ((188, 0), (192, 4), (204, 0))
"""Distance and first place of the sync bytes of MPEG-TS: plain, with time codes, with error correction."""
_OGG_VIDEO = re.compile(rb"\x80theora|fishead\0|BBCD\0|OVP80|\x01video\0|\x80daala")


def kind_of(head: bytes) -> MediaType | None:
    """Return what a file is by its first bytes, null where they are no medium that we know.

    Animations count by their format: a GIF is a video, a PNG an image, whether or not they move.

    Args:
        head: the first `HEAD_BYTES` of the file, or all of a smaller one.
    """
    if head.startswith(_VIDEO_STARTS):
        return "video"
    if head.startswith(_IMAGE_STARTS) or _is_bmp(head):
        return "image"
    if head[:4] == b"RIFF":
        return {b"AVI ": "video", b"AVIX": "video", b"WEBP": "image"}.get(head[8:12])  # type: ignore[return-value]
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        return "image" if brand in _STILL_BRANDS else None if brand in _SOUND_BRANDS else "video"
    if head[4:8] in _ATOMS and (int.from_bytes(head[:4]) >= 8 or head[:4] in (b"\0\0\0\0", b"\0\0\0\x01")):
        return "video"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "video" if b"matroska" in head[:256] or b"webm" in head[:256] else None
    if head.startswith(b"OggS"):
        return "video" if _OGG_VIDEO.search(head) else None
    return "video" if _is_transport_stream(head) else None


def look_into(path: str) -> MediaType | None:
    """Return what a file is by its first bytes; null for what is no regular file or cannot be read, too."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a named pipe would wait for a writer
    except (OSError, ValueError):
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return kind_of(os.read(descriptor, HEAD_BYTES))
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _is_bmp(head: bytes) -> bool:
    return head[:2] == b"BM" and head[14:18] in {bytes((n, 0, 0, 0)) for n in (12, 40, 52, 56, 64, 108, 124)}


def _is_transport_stream(head: bytes) -> bool:
    for step, first in _PACKETS:
        places = range(first, len(head), step)
        if len(places) >= 4 and all(head[place] == 0x47 for place in places):
            return True
    return False
