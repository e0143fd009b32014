"""Small files that claim to be huge, made byte by byte, by name."""

import struct
import zlib

HUGE = 65535


def atom(kind: bytes, *parts: bytes) -> bytes:
    """Return an MP4 atom."""
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def full(kind: bytes, *parts: bytes) -> bytes:
    """Return an MP4 atom with version and flags."""
    return atom(kind, bytes(4), *parts)


def u32(*values: int) -> bytes:
    """Return big-endian numbers."""
    return struct.pack(f">{len(values)}I", *values)


def mp4(
    size: tuple[int, int] = (16, 16),
    codec: bytes = b"raw ",
    samples: tuple[int, int] = (768, 1),
    times: tuple[tuple[int, int], ...] = ((1, 1),),
    timescale: int = 10,
    edits: bytes = b"",
    duration: int = 1,
    tracks: int = 1,
    data: bytes = bytes(768),
) -> bytes:
    """Return an MP4 of one chunk.

    Args:
        size: declared width and height.
        codec: the sample entry's name; `raw ` is RGB.
        samples: (size in bytes, count) of the samples.
        times: runs of (count, duration in ticks).
        timescale: ticks in a second.
        edits: an `elst` in an `edts`.
        duration: declared, in ticks.
        tracks: how often the track stands in the file.
        data: the content.
    """
    head = atom(b"ftyp", b"isom", u32(512), b"isom")
    matrix = u32(0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    entry = atom(codec, bytes(6), b"\0\1", bytes(16), struct.pack(">HH", *size), u32(0x480000, 0x480000, 0),
                 b"\0\1", bytes(32), struct.pack(">Hh", 24, -1))  # fmt: skip
    table = atom(
        b"stbl",
        full(b"stsd", u32(1), entry),
        full(b"stts", u32(len(times)), *(u32(*run) for run in times)),
        full(b"stsc", u32(1, 1, samples[1], 1)),
        full(b"stsz", u32(*samples)),
        full(b"stco", u32(1, len(head) + 8)),
    )
    minf = atom(b"minf", full(b"vmhd", bytes(8)), atom(b"dinf", full(b"dref", u32(1), full(b"url ", b""))), table)
    mdhd = full(b"mdhd", u32(0, 0, timescale, duration), bytes(4))
    media = atom(b"mdia", mdhd, full(b"hdlr", bytes(4), b"vide", bytes(13)), minf)
    track = b"".join(
        atom(
            b"trak",
            full(b"tkhd", u32(0, 0, number, 0, duration), bytes(16), matrix, u32(size[0] << 16, size[1] << 16)),
            edits,
            media,
        )
        for number in range(1, tracks + 1)
    )
    mvhd = full(b"mvhd", u32(0, 0, timescale, duration, 0x10000), bytes(12), matrix, bytes(24), u32(tracks + 1))
    return head + atom(b"mdat", data) + atom(b"moov", mvhd, track)


def edit_list(count: int, entry: bytes, times: int) -> bytes:
    """Return an `edts` that states `count` edits and holds `times` of them."""
    return atom(b"edts", full(b"elst", u32(count), entry * times))


def ebml(number: str, *parts: bytes) -> bytes:
    """Return an EBML element of any length; its id in hexadecimal."""
    body = b"".join(parts)
    return bytes.fromhex(number) + struct.pack(">Q", len(body) | 1 << 56) + body


def mkv(
    size: tuple[int, int] = (16, 16), codec: bytes = b"V_MJPEG", tracks: int = 1, inside: bytes = b"", tags: bytes = b""
) -> bytes:
    """Return a Matroska file with video tracks and one block of nothing in particular."""
    head = ebml("1A45DFA3", ebml("4286", b"\1"), ebml("42F7", b"\1"), ebml("42F2", b"\4"), ebml("42F3", b"\10"),
                ebml("4282", b"matroska"), ebml("4287", b"\4"), ebml("4285", b"\2"))  # fmt: skip
    video = ebml("E0", ebml("B0", u32(size[0])), ebml("BA", u32(size[1])))
    entries = [
        ebml("AE", ebml("D7", u32(n)), ebml("73C5", u32(n)), ebml("83", b"\1"), ebml("86", codec), video)
        for n in range(1, tracks + 1)
    ]
    block = ebml("A3", b"\x81\0\0\x80", b"\xff\xd8\xff\xd9")
    segment = ebml("1549A966", ebml("2AD7B1", u32(1_000_000))) + ebml("1654AE6B", *entries) + tags + inside
    return head + ebml("18538067", segment, ebml("1F43B675", ebml("E7", b"\0"), block))


def deep_atoms(kind: bytes, levels: int) -> bytes:
    """Return atoms that each hold the next one."""
    return b"".join(u32(8 * (levels - level)) + kind for level in range(levels))


def deep_ebml(number: str, levels: int) -> bytes:
    """Return EBML elements that each hold the next one."""
    size = len(number) // 2 + 8
    return b"".join(
        bytes.fromhex(number) + struct.pack(">Q", size * (levels - 1 - level) | 1 << 56) for level in range(levels)
    )


def png(size: tuple[int, int] = (HUGE, HUGE), before: bytes = b"") -> bytes:
    """Return a PNG header with a little data."""
    head = png_chunk(b"IHDR", u32(*size), bytes([8, 2, 0, 0, 0]))
    return b"\x89PNG\r\n\x1a\n" + head + before + png_chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + png_chunk(b"IEND")


def png_chunk(kind: bytes, *parts: bytes) -> bytes:
    """Return a PNG chunk."""
    body = b"".join(parts)
    return u32(len(body)) + kind + body + u32(zlib.crc32(kind + body))


def gif(size: tuple[int, int] = (HUGE, HUGE), frames: int = 1, frame: tuple[int, int] | None = None) -> bytes:
    """Return a GIF of one-coloured frames, a tenth of a second each; `frame` is the size that each states."""
    screen = b"GIF89a" + struct.pack("<HH", *size) + b"\x80\0\0" + bytes(3) + b"\xff\xff\xff"
    control = b"!\xf9\4\0" + struct.pack("<H", 10) + b"\0\0"
    picture = b"," + struct.pack("<HHHH", 0, 0, *(frame or size)) + b"\0" + b"\2\2\x44\1\0"
    return screen + (control + picture) * frames + b";"


def bmp(size: tuple[int, int] = (HUGE, HUGE)) -> bytes:
    """Return a BMP header with a little data."""
    return (
        b"BM"
        + struct.pack("<IHHI", 1 << 20, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, *size, 1, 24, *[0] * 6)
        + bytes(64)
    )


def tiff(size: tuple[int, int] = (HUGE, HUGE), next_directory: int = 0, extra: tuple[int, int] | None = None) -> bytes:
    """Return a TIFF of one strip; `extra` is one more (tag, offset), such as a directory within."""
    w, h = size
    entries = [
        (256, w),
        (257, h),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, 200),
        (277, 1),
        (278, h),
        (279, min(w * h, 2**32 - 1)),
    ]
    entries = sorted([*entries, *([extra] if extra else [])])
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + struct.pack("<I", next_directory)
    return head.ljust(200, b"\0") + bytes(1000)


def webp(size: tuple[int, int] = (HUGE, HUGE)) -> bytes:
    """Return an extended WebP with an animation of nothing."""
    canvas = (size[0] - 1).to_bytes(3, "little") + (size[1] - 1).to_bytes(3, "little")
    chunks = b"VP8X" + struct.pack("<I", 10) + b"\2\0\0\0" + canvas + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def avi(streams: int = 1, size: tuple[int, int] = (16, 16), subtitle: bytes | None = None) -> bytes:
    """Return an AVI with video streams, and one of subtitles that travel in its first packet (`GAB2`)."""

    def chunk(kind: bytes, *parts: bytes) -> bytes:
        body = b"".join(parts)
        return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)

    def stream(kind: bytes, codec: bytes, form: bytes) -> bytes:
        strh = kind + codec + struct.pack("<IHHIIIIIIIIHHHH", 0, 0, 0, 0, 1, 10, 0, 1, 0, 0, 0, 0, 0, 0, 0)
        return chunk(b"LIST", b"strl", chunk(b"strh", strh), chunk(b"strf", form))

    form = struct.pack("<IiiHH4sIiiII", 40, *size, 1, 24, b"MJPG", 0, 0, 0, 0, 0)
    videos = stream(b"vids", b"MJPG", form) * streams
    texts = stream(b"txts", bytes(4), b"") if subtitle is not None else b""
    avih = struct.pack("<8I2i4I", 100_000, 0, 0, 0x10, 1, 0, streams + bool(texts), 0, *size, 0, 0, 0, 0)
    packets = chunk(b"00dc", b"\xff\xd8\xff\xd9")
    if subtitle is not None:
        gab2 = b"GAB2\0" + struct.pack("<HI", 2, 2) + b"a\0" + struct.pack("<HI", 4, len(subtitle))
        packets = chunk(b"%02dtx" % streams, gab2, subtitle) + packets
    lists = chunk(b"LIST", b"hdrl", chunk(b"avih", avih), videos, texts) + chunk(b"LIST", b"movi", packets)
    return b"RIFF" + struct.pack("<I", 4 + len(lists)) + b"AVI " + lists


def y4m(size: tuple[int, int], rate: str = "25:1") -> bytes:
    """Return a raw video with one frame started."""
    return b"YUV4MPEG2 W%d H%d F%s Ip A1:1 C420jpeg\nFRAME\n" % (*size, rate.encode()) + bytes(1000)
