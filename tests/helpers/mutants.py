"""Damaged and lying media files, the same for the same number: what the fuzz test feeds to `curate`."""

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from demo.drawing import write_video
from demo.landscapes import scene

IMAGES = (".avif", ".bmp", ".jpg", ".png", ".tif", ".webp")
WHOLE_BYTES = 700_000
"""Real files up to this size are seeds as they are; of larger ones, a second or two."""
KEEP_WHOLE = ("androidx-media__sample_edit_list.mp4", "PySceneDetect__issue-134-rotate.mp4")


@dataclass(frozen=True)
class Seed:
    """A sound file that mutants are made of."""

    name: str
    data: bytes

    @property
    def suffix(self) -> str:
        return Path(self.name).suffix.lower()


@dataclass(frozen=True)
class Mutant:
    """A file to curate; its name says what was done to what."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Part:
    """A box, element, chunk, segment, packet or tag: a header that states a size, and a body."""

    kind: bytes
    start: int
    body: int
    end: int
    size_at: int
    size_bytes: int
    little: bool = False


@dataclass(frozen=True)
class Field:
    """A number in a file's headers."""

    at: int
    length: int
    little: bool = False


# -- seeds


def drawn_seeds(folder: Path) -> list[Seed]:
    """Draw clips of two shots and a picture, in many containers and codecs."""
    frames = _frames()
    clips: list[tuple[str, str, str, dict[str, str]]] = [
        ("plain.mp4", "libx264", "yuv420p", {"preset": "ultrafast", "g": "12"}),
        ("b-frames.mp4", "libx264", "yuv420p", {"preset": "veryfast", "bf": "3", "g": "24"}),
        ("fragments.mp4", "libx264", "yuv420p", {"preset": "ultrafast", "g": "12"}),
        ("wide.mkv", "libx264", "yuv444p", {"preset": "ultrafast", "g": "12"}),
        ("vp9.webm", "libvpx-vp9", "yuv420p", {"cpu-used": "8", "deadline": "realtime", "g": "12"}),
        ("old.avi", "mpeg4", "yuv420p", {"g": "12"}),
        ("raw.avi", "rawvideo", "yuv420p", {}),
        ("broadcast.ts", "mpeg2video", "yuv420p", {"g": "12"}),
        ("stream.ts", "libx264", "yuv420p", {"preset": "ultrafast", "g": "12"}),
        ("animation.gif", "gif", "rgb8", {}),
        ("flash.flv", "flv", "yuv420p", {"g": "12"}),
        ("hevc.mp4", "libx265", "yuv420p10le", {"preset": "ultrafast", "x265-params": "log-level=none:keyint=12"}),
    ]
    for name, codec, pixel_format, options in clips:
        shown = frames[::4, ::2, ::2] if codec in ("gif", "rawvideo") else frames
        rate = Fraction(24, 4 if codec in ("gif", "rawvideo") else 1)
        write_video(folder / name, shown, rate, codec=codec, pixel_format=pixel_format, options=options)
    _in_fragments(folder / "plain.mp4", folder / "fragments.mp4")
    for suffix in IMAGES:
        Image.fromarray(frames[0]).save(folder / f"picture{suffix}")
    return [Seed(path.name, path.read_bytes()) for path in sorted(folder.iterdir())]


def real_seeds(videos: Path, folder: Path) -> list[Seed]:
    """Take real footage and images; of large files only the beginning, streams as they are."""
    seeds = []
    for path in sorted([*videos.glob("*.*"), *(videos / "images").glob("*.*")]):
        if path.suffix in (".json", ".md"):
            continue
        if path.stat().st_size > WHOLE_BYTES and path.name not in KEEP_WHOLE and path.suffix not in IMAGES:
            short = folder / path.name
            _beginning(path, short, 1.5)
            path = short
        seeds.append(Seed(path.name, path.read_bytes()))
    return seeds


def _frames() -> np.ndarray:
    """Two shots of a second and a half, 160x96, each a pan."""
    shots = [scene(kind, 320, 120) for kind in (5, 3)]
    return np.stack([shots[i // 36][8:104, (i % 36) * 3 : (i % 36) * 3 + 160] for i in range(72)])


def _in_fragments(path: Path, to: Path) -> None:
    with av.open(str(path)) as source, av.open(str(to), "w", options={"movflags": "frag_keyframe+empty_moov"}) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)


def _beginning(path: Path, to: Path, seconds: float) -> None:
    with av.open(str(path)) as source, av.open(str(to), "w") as out:
        best = max(source.streams.video, key=lambda s: s.codec_context.width)
        stream = out.add_stream_from_template(best)
        for packet in source.demux(best):
            if packet.dts is None or float(packet.dts * packet.time_base) > seconds:
                break
            packet.stream = stream
            out.mux(packet)


# -- what files are made of


def parts_of(data: bytes, suffix: str) -> list[Part]:
    """Return the parts of a file, in order, outer ones before what they hold; equal slices where none are known."""
    found = list(_READERS.get(suffix, _slices)(data, 0, len(data)))
    return found if len(found) > 2 else list(_slices(data, 0, len(data)))


_MP4_HOLDERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"udta", b"dinf", b"moof", b"traf", b"mvex")


def _mp4_boxes(data: bytes, start: int, end: int) -> Iterator[Part]:
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        if size < 8 or start + size > end:
            return
        yield Part(kind, start, start + 8, start + size, start, 4)
        if kind in _MP4_HOLDERS:
            yield from _mp4_boxes(data, start + 8, start + size)
        start += size


_EBML_HOLDERS = ("18538067", "1549a966", "1654ae6b", "ae", "e0", "1f43b675", "a0", "114d9b74", "4dbb", "1c53bb6b")


def _ebml_elements(data: bytes, start: int, end: int) -> Iterator[Part]:
    while start + 2 <= end:
        id_length, size_length = _vint_length(data[start]), 0
        size_at = start + id_length
        if size_at < end:
            size_length = _vint_length(data[size_at])
        body = size_at + size_length
        if not size_length or body > end:
            return
        size = int.from_bytes(data[size_at:body], "big") & ((1 << 7 * size_length) - 1)
        unknown = size == (1 << 7 * size_length) - 1
        stop = end if unknown else body + size
        if stop > end:
            return
        kind = data[start:size_at]
        yield Part(kind, start, body, stop, size_at, size_length)
        if kind.hex() in _EBML_HOLDERS:
            yield from _ebml_elements(data, body, stop)
        start = stop


def _vint_length(first: int) -> int:
    return 9 - first.bit_length()


def _riff_chunks(data: bytes, start: int, end: int) -> Iterator[Part]:
    while start + 8 <= end:
        kind, size = struct.unpack_from("<4sI", data, start)
        stop = min(end, start + 8 + size)
        yield Part(kind, start, start + 8, stop, start + 4, 4, True)
        if kind in (b"RIFF", b"LIST"):
            yield from _riff_chunks(data, start + 12, stop)
        start = stop + size % 2


def _png_chunks(data: bytes, start: int, end: int) -> Iterator[Part]:
    start += 8
    while start + 12 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        yield Part(kind, start, start + 8, min(end, start + 12 + size), start, 4)
        start += 12 + size


def _jpeg_segments(data: bytes, start: int, end: int) -> Iterator[Part]:
    start += 2
    while start + 4 <= end and data[start] == 0xFF:
        size = struct.unpack_from(">H", data, start + 2)[0]
        yield Part(data[start : start + 2], start, start + 4, min(end, start + 2 + size), start + 2, 2)
        if data[start + 1] == 0xDA:
            yield from _slices(data, start + 2 + size, end)
            return
        start += 2 + size


def _ts_packets(data: bytes, start: int, end: int) -> Iterator[Part]:
    return (Part(b"packet", at, at + 4, at + 188, at + 4, 1) for at in range(start, end - 187, 188))


def _flv_tags(data: bytes, start: int, end: int) -> Iterator[Part]:
    start += 13
    while start + 15 <= end:
        size = int.from_bytes(data[start + 1 : start + 4], "big")
        yield Part(data[start : start + 1], start, start + 11, min(end, start + 15 + size), start + 1, 3)
        start += 15 + size


def _slices(data: bytes, start: int, end: int) -> Iterator[Part]:
    step = max(8, (end - start) // 16)
    return (Part(b"slice", at, at + 4, min(end, at + step), at, 4) for at in range(start, end - 8, step))


_READERS: dict[str, Callable[[bytes, int, int], Iterator[Part]]] = {
    **dict.fromkeys((".mp4", ".mov", ".m4v", ".avif"), _mp4_boxes),
    **dict.fromkeys((".mkv", ".webm"), _ebml_elements),
    **dict.fromkeys((".avi", ".webp"), _riff_chunks),
    ".png": _png_chunks,
    ".jpg": _jpeg_segments,
    ".ts": _ts_packets,
    ".flv": _flv_tags,
}
# Numbers within the body of a part: (offset, length).
_TABLE = tuple((4 + 4 * k, 4) for k in range(9))
_NUMBERS: dict[bytes, tuple[tuple[int, int], ...]] = {
    b"mvhd": ((0, 1), (12, 4), (16, 4)),
    b"mdhd": ((0, 1), (12, 4), (16, 4)),
    b"tkhd": ((12, 4), (20, 4), (40, 4), (44, 4), (76, 4), (80, 4)),
    b"stsd": ((4, 4), (8, 4), (12, 4), (40, 2), (42, 2), (94, 4), (98, 8)),
    b"tfhd": ((0, 4), *_TABLE),
    **dict.fromkeys((b"stts", b"ctts", b"stsz", b"stco", b"stsc", b"stss", b"elst", b"trun", b"tfdt"), _TABLE),
    b"ispe": ((4, 4), (8, 4)),
    b"avih": tuple((k, 4) for k in (0, 4, 16, 20, 24, 32, 36)),
    b"strh": tuple((k, 4) for k in (4, 20, 24, 28, 32, 36, 44)),
    b"strf": ((0, 4), (4, 4), (8, 4), (14, 2), (16, 4), (20, 4)),
    b"VP8 ": ((3, 2), (6, 2), (8, 2)),
    b"VP8X": ((0, 1), (4, 3), (7, 3)),
    b"IHDR": ((0, 4), (4, 4), (8, 1), (9, 1), (12, 1)),
    b"\xff\xc0": ((1, 2), (3, 2), (5, 1), (7, 1)),
    b"\xff\xc2": ((1, 2), (3, 2), (5, 1), (7, 1)),
    b"\x09": ((0, 1), (1, 1), (2, 3)),
    b"\x12": tuple((k, 8) for k in range(20, 120, 10)),
    b"packet": ((0, 1), (1, 2), (4, 1), (6, 4), (10, 4)),
}
_EBML_NUMBERS = ("b0", "ba", "54b0", "54ba", "2ad7b1", "4489", "23e383", "e7", "53ac", "d7", "83", "a3", "86", "63a2")
_FIXED: dict[str, tuple[Field, ...]] = {
    ".bmp": tuple(Field(at, n, True) for at, n in ((2, 4), (10, 4), (14, 4), (18, 4), (22, 4), (28, 2), (30, 4))),
    ".gif": tuple(Field(at, n, True) for at, n in ((6, 2), (8, 2), (10, 1))),
    ".tif": tuple(Field(at, 4, True) for at in range(4, 120, 4)),
}


def fields_of(data: bytes, suffix: str) -> list[Field]:
    """Return the numbers in a file's headers that a reader may trust: sizes, times, counts, offsets."""
    fields = list(_FIXED.get(suffix, ()))
    for part in parts_of(data, suffix):
        places = _NUMBERS.get(part.kind, ())
        fields += [Field(part.body + at, n, part.little) for at, n in places if part.body + at + n <= part.end]
        if part.kind.hex() in _EBML_NUMBERS:
            fields.append(Field(part.body, min(4, part.end - part.body)))
    return [f for f in fields if f.length and f.at + f.length <= len(data)]


# -- what is done to them

Change = Callable[[random.Random, Seed, Seed], bytes]


def _part(rng: random.Random, seed: Seed) -> Part:
    """Choose a kind of part first, so that the rare ones are hit as often as the many."""
    parts = parts_of(seed.data, seed.suffix)
    kind = rng.choice(sorted({p.kind for p in parts}))
    return rng.choice([p for p in parts if p.kind == kind])


def _siblings(rng: random.Random, seed: Seed) -> tuple[Part, Part]:
    parts = parts_of(seed.data, seed.suffix)
    while True:
        a, b = sorted(rng.sample(parts, 2), key=lambda p: p.start)
        if a.end <= b.start:
            return a, b


def _cut_inside(rng: random.Random, seed: Seed, _: Seed) -> bytes:
    part = _part(rng, seed)
    return seed.data[: rng.randint(part.start + 1, max(part.start + 1, part.end - 1))]


def _cut_at_border(rng: random.Random, seed: Seed, _: Seed) -> bytes:
    part = _part(rng, seed)
    return seed.data[: rng.choice((part.start, part.body, part.end))]


def _cut_anywhere(rng: random.Random, seed: Seed, _: Seed) -> bytes:
    return seed.data[: rng.randrange(len(seed.data))]


def _cut_header(rng: random.Random, seed: Seed, _: Seed) -> bytes:
    return seed.data[: rng.randrange(min(1024, len(seed.data)))]


def _cut_tail(rng: random.Random, seed: Seed, _: Seed) -> bytes:
    return seed.data[: -rng.choice((1, 1, 2, 7))]


def _flip_header(rng: random.Random, seed: Seed, _: Seed) -> bytes:
    data, part = bytearray(seed.data), _part(rng, seed)
    for _flip in range(rng.choice((1, 1, 3, 20))):
        data[rng.randrange(part.start, min(part.end, part.body + 64, len(data)))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _flip_data(rng: random.Random, seed: Seed, _: Seed) -> bytes:
    data = bytearray(seed.data)
    for _flip in range(rng.choice((1, 10, 100, 1000))):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def _zeros(rng: random.Random, seed: Seed, _: Seed) -> bytes:
    at, length = rng.randrange(len(seed.data)), rng.choice((4, 64, 1024, 1 << 15))
    return (seed.data[:at] + bytes(length) + seed.data[at + length :])[: len(seed.data)]


def _swap(rng: random.Random, seed: Seed, _: Seed) -> bytes:
    (a, b), data = _siblings(rng, seed), seed.data
    return data[: a.start] + data[b.start : b.end] + data[a.end : b.start] + data[a.start : a.end] + data[b.end :]


def _double(rng: random.Random, seed: Seed, _: Seed) -> bytes:
    part, times = _part(rng, seed), rng.choice((1, 1, 1, 30))
    return seed.data[: part.end] + times * seed.data[part.start : part.end] + seed.data[part.end :]


def _drop(rng: random.Random, seed: Seed, _: Seed) -> bytes:
    part = _part(rng, seed)
    return seed.data[: part.start] + seed.data[part.end :]


def _nest(rng: random.Random, seed: Seed, _: Seed) -> bytes:
    part = _part(rng, seed)
    at = rng.randint(part.body, part.end)
    return seed.data[:at] + 20 * seed.data[part.start : part.body] + seed.data[at:]


def _lie_about_a_size(rng: random.Random, seed: Seed, _: Seed) -> bytes:
    part = _part(rng, seed)
    return _lie(rng, seed, Field(part.size_at, part.size_bytes, part.little))


def _lie_about_a_number(rng: random.Random, seed: Seed, other: Seed) -> bytes:
    fields = fields_of(seed.data, seed.suffix)
    return _lie(rng, seed, rng.choice(fields)) if fields else _lie_about_a_size(rng, seed, other)


def _lie_about_many(rng: random.Random, seed: Seed, other: Seed) -> bytes:
    for _time in range(5):
        seed = Seed(seed.name, _lie_about_a_number(rng, seed, other))
    return seed.data


def _lie(rng: random.Random, seed: Seed, field: Field) -> bytes:
    order, bits = "little" if field.little else "big", 8 * field.length
    old = int.from_bytes(seed.data[field.at : field.at + field.length], order)  # type: ignore[arg-type]
    top = (1 << bits) - 1
    new = rng.choice((0, 1, 2, top, top >> 1, top - 1, old + 1, old - 1, old * 1000, old << 16, rng.randint(0, top)))
    told = (new & top).to_bytes(field.length, order)  # type: ignore[arg-type]
    return _checksummed(seed.data[: field.at] + told + seed.data[field.at + field.length :], seed.suffix)


def _checksummed(data: bytes, suffix: str) -> bytes:
    """Set a PNG's header checksum, so that readers get to see what the header says."""
    if suffix != ".png":
        return data
    return data[:29] + struct.pack(">I", zlib.crc32(data[12:29])) + data[33:]


def _append(_: random.Random, seed: Seed, other: Seed) -> bytes:
    return seed.data + other.data


def _interleave(rng: random.Random, seed: Seed, other: Seed) -> bytes:
    step = rng.choice((512, 4096, 65536))
    pairs = range(0, max(len(seed.data), len(other.data)), step)
    return b"".join(seed.data[i : i + step] + other.data[i : i + step] for i in pairs)


def _halves(_: random.Random, seed: Seed, other: Seed) -> bytes:
    return seed.data[: len(seed.data) // 2] + other.data[len(other.data) // 2 :]


def _in_front(rng: random.Random, seed: Seed, _: Seed) -> bytes:
    return rng.randbytes(rng.choice((1, 16, 4096))) + seed.data


CHANGES: dict[str, Change] = {
    "cut-inside": _cut_inside,
    "cut-at-border": _cut_at_border,
    "cut-anywhere": _cut_anywhere,
    "cut-header": _cut_header,
    "cut-tail": _cut_tail,
    "flip-header": _flip_header,
    "flip-header-again": _flip_header,
    "flip-data": _flip_data,
    "zeros": _zeros,
    "swap": _swap,
    "double": _double,
    "drop": _drop,
    "nest": _nest,
    "lie-size": _lie_about_a_size,
    "lie-number": _lie_about_a_number,
    "lie-number-again": _lie_about_a_number,
    "lie-many": _lie_about_many,
    "append": _append,
    "interleave": _interleave,
    "halves": _halves,
    "in-front": _in_front,
}


def _disguise(number: int, rng: random.Random, seed: Seed) -> Mutant:
    """Return something that is not what its name says."""
    picture = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 40, 40)).save(picture, "PNG")
    bomb = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    what: list[tuple[str, bytes]] = [
        ("empty.mp4", b""),
        ("byte.mkv", b"\0"),
        ("text.mp4", b"Once upon a time there was no video.\n" * 40),
        ("json.mp4", b'{"file_path": "/etc/passwd", "text": "x"}'),
        ("page.webm", b"<!doctype html><html><body><video src='http://127.0.0.1/'></video></body></html>"),
        ("picture.mp4", picture.getvalue()),
        ("list.mp4", b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/passwd\n#EXT-X-ENDLIST\n"),
        ("join.mkv", b"ffconcat version 1.0\nfile 'plain.mp4'\nfile '/etc/passwd'\n"),
        ("bomb.png", picture.getvalue()[:16] + bomb + struct.pack(">I", zlib.crc32(b"IHDR" + bomb)) + bytes(40_000)),
        ("zeros.ts", bytes(100_000)),
        ("noise.mp4", rng.randbytes(100_000)),
        ("syncs.ts", (b"\x47" + bytes(187)) * 500),
        (f"{seed.name}.jpg", seed.data),
        (f"{seed.name}.mp4", seed.data),
        (f"{seed.name}.png", seed.data),
        (f"{seed.name}.mpg", seed.data),
    ]
    name, data = what[rng.randrange(len(what)) if number >= len(what) else number]
    return Mutant(name, data)


def mutant(number: int, seeds: Sequence[Seed]) -> Mutant:
    """Return a mutant; the same for the same number and seeds."""
    rng = random.Random(number)  # noqa: S311 - nothing secret
    seed, other = rng.choice(seeds), rng.choice(seeds)
    kinds = len(CHANGES) + 1
    if number % kinds == kinds - 1:
        disguised = _disguise(number // kinds, rng, seed)
        return Mutant(f"{number:05d}-disguise-{disguised.name}", disguised.data)
    name, change = list(CHANGES.items())[number % kinds]
    if name in ("append", "interleave", "halves") and rng.random() < 0.7:
        other = rng.choice([s for s in seeds if s.suffix == seed.suffix])
    return Mutant(f"{number:05d}-{name}-{seed.name}", change(rng, seed, other))
