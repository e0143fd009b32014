"""Animated WebP, PNG and AVIF: videos whose frames Pillow decodes, each shown for as long as the file says.

FFmpeg decodes no animated WebP, and neither does it lay what is transparent on a colour. Frames and times come as
from any other decoder (`raw_frames`), so that analysis and cut need not know the difference. GIF is FFmpeg's.
"""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, islice, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from av.video.frame import VideoFrame
from PIL import Image

from core.errors import MediaError
from core.limits import Limits
from media.container import READ_ERRORS, USUAL_LIMITS, open_file, open_video, refuse_size
from media.content import HEAD_BYTES, kind_of
from media.image import DECODE_ERRORS, opened, upright_pixels
from media.names import looks_like_image
from media.stream_decoder import RawFrame
from media.stretch import Stretch
from media.types import MediaType, SourceFacts

CONTAINERS = frozenset(("webp", "apng", "avif"))
"""`SourceFacts.container` of what is decoded here."""
TICK = Fraction(1, 90000)
"""s; whole frames at every usual rate, and whole milliseconds"""
SHORTEST_S = Fraction(1, 100)
USUAL_S = Fraction(1, 10)
"""Browsers show a frame that states less than `SHORTEST_S` (most state nothing) for this long."""
FULL_RANGE, RGB = 2, 0  # AVCOL_RANGE_JPEG, AVCOL_SPC_RGB

_PNG = b"\x89PNG\r\n\x1a\n"
_CODECS = {"webp": "webp", "apng": "apng", "avif": "av1"}


def media_type(path: Path) -> MediaType:
    """Return whether a file is a video or a still image: by what is in it, else by its name.

    An animation of one frame is an image, whatever its format.

    Raises:
        MediaError: it cannot be read.
    """
    head = _head(path)
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "video" if _moves_gif(path) else "image"
    if (container := _container_of(head)) is not None:
        return "video" if _is_animated(path, container) else "image"
    return kind_of(head) or ("image" if looks_like_image(path) else "video")


def is_animated(path: Path) -> bool:
    """Return whether a file is an animation that is decoded here.

    Raises:
        MediaError: it cannot be read.
    """
    container = _container_of(_head(path))
    return container is not None and _is_animated(path, container)


class ProbedAnimation(NamedTuple):
    """An animation's facts, its frames' time stamps as int64 (N,) in units of `TICK`, and when the last one ends."""

    facts: SourceFacts
    pts: np.ndarray
    end_pts: int


def probe_animated(path: Path, limits: Limits = USUAL_LIMITS) -> ProbedAnimation:
    """Read an animation's facts: its size, and how long each frame is shown.

    Returns:
        The facts; int64 (N,), the frames' time stamps in units of `TICK`; the time stamp at which the last one ends.

    Raises:
        MediaError: not an animation, or above a limit.
    """
    container = _container_of(_head(path)) or ""
    edges = _timing(path, container, limits).edges
    if len(edges) - 1 > limits.max_frames:
        raise MediaError(f"more than the {limits.max_frames} frames of limits.max_frames")
    if edges[-1] * float(TICK) > limits.max_duration_s:
        raise MediaError(f"longer than the {limits.max_duration_s:g} s of limits.max_duration_s")
    with _animation(path, limits) as image:
        height, width = upright_pixels(image).shape[:2]
        mode = image.mode
    pts, steps = np.array(edges[:-1], np.int64), np.diff(edges)
    usual = float(np.median(steps))
    facts = SourceFacts(
        type="video",
        width_px=width,
        height_px=height,
        codec=_CODECS[container],
        fps=round((len(pts) - 1) / float(edges[-2] * TICK), 6) if edges[-2] else None,
        declared_frames=len(pts),
        declared_duration_s=float(edges[-1] * TICK),
        container=container,
        coded_width_px=width,
        coded_height_px=height,
        pixel_format=mode.lower(),
        is_vfr=bool(len(pts) > 2 and (np.abs(steps - usual) > max(0.2 * usual, 2)).mean() > 0.05),
        time_base=float(TICK),
        last_pts=edges[-2],
        end_pts=edges[-1],
    )
    return ProbedAnimation(facts, pts, edges[-1])


def animated_frames(stretch: Stretch) -> Iterator[RawFrame]:
    """Decode the frames of a stretch, as `raw_frames` does: RGB, upright, laid on black.

    Formats of this kind cannot be entered midway: what lies before is decoded, and dropped.

    Raises:
        MediaError: damage, with the time from which on nothing can be read.
    """
    facts, start_pts, end_pts = stretch.facts, stretch.start_pts, stretch.end_pts
    timing = _timing(stretch.path, facts.container, stretch.limits)
    with _animation(stretch.path, stretch.limits) as image:
        for position, pts in enumerate(timing.edges[:-1]):
            if end_pts is not None and pts >= end_pts:
                return
            pixels = _pixels_at(image, position, round(float(pts * TICK), 6))
            if start_pts is not None and pts < start_pts:
                stretch.beat(0.0)
                continue
            frame = VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = pts, TICK
            frame.color_range, frame.colorspace = FULL_RANGE, RGB
            yield RawFrame(frame, pts, timing.edges[position + 1] - pts, facts)
    if end_pts is None and len(timing.edges) - 1 < timing.stated:
        end_s = round(float(timing.edges[-1] * TICK), 6)
        raise MediaError(f"the file ends before the {timing.stated} frames that it states", end_s)


def _pixels_at(image: Image.Image, position: int, time_s: float) -> np.ndarray:
    """Return the pixels of one frame of an animation; a PNG may hold a still picture before the first.

    Raises:
        MediaError: it cannot be decoded.
    """
    try:
        image.seek(position + bool(getattr(image, "default_image", False)))
        image.load()
    except DECODE_ERRORS as error:
        raise MediaError(f"image cannot be decoded ({error})", time_s) from None
    return upright_pixels(image)


def _head(path: Path) -> bytes:
    with open_file(path) as file:
        return file.read(HEAD_BYTES)


def _container_of(head: bytes) -> str | None:
    """Return which format a file is of that may be animated, None for any other."""
    if head.startswith(_PNG):
        return "apng"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp" and (head[8:12] == b"avis" or b"avis" in head[16 : int.from_bytes(head[:4])]):
        return "avif"
    return None


def _is_animated(path: Path, container: str) -> bool:
    if container == "avif":
        try:
            with opened(path) as image:
                return getattr(image, "n_frames", 1) > 1
        except MediaError as error:
            if error.is_transient:
                raise
            return True  # it says that it is a sequence
    lengths = _png_lengths(path) if container == "apng" else _webp_lengths(path)
    return len(list(islice(lengths, 2))) > 1


def _moves_gif(path: Path) -> bool:
    """Return whether a GIF has a second frame; one that is too damaged to tell may have."""
    try:
        with opened(path) as image:
            try:
                image.seek(1)
            except EOFError:
                return False
            return True
    except MediaError as error:
        if error.is_transient:
            raise
        return True


@contextmanager
def _animation(path: Path, limits: Limits) -> Iterator[Image.Image]:
    with opened(path) as image:
        refuse_size(*image.size, limits)
        yield image


@dataclass(frozen=True)
class _Timing:
    """When frames are shown, as the file states it; nothing is decoded for it.

    Attributes:
        edges: begins of the frames in units of `TICK`, and the end of the last one.
        stated: how many frames there should be.
    """

    edges: list[int]
    stated: int


def _timing(path: Path, container: str, limits: Limits) -> _Timing:
    """Read when frames are shown.

    Raises:
        MediaError: there is none.
    """
    most = limits.max_frames + 1
    if container == "avif":
        lengths, stated = _avif_lengths(path, limits)
    else:
        of = _png_lengths if container == "apng" else _webp_lengths
        lengths = [_as_shown(length) for length in islice(of(path), most)]
        stated = _png_count(path) if container == "apng" else len(lengths)
    if not lengths:
        raise MediaError("no frame in it")
    return _Timing([round(edge / TICK) for edge in accumulate(lengths, initial=Fraction(0))], stated)


def _as_shown(length: Fraction) -> Fraction:
    return length if length > SHORTEST_S else USUAL_S


def _png_lengths(path: Path) -> Iterator[Fraction]:
    """Yield the delays of the `fcTL` chunks of an animated PNG (W3C PNG, third edition, 11.3.6.2), in seconds."""
    for kind, body in _png_chunks(path):
        if kind == b"fcTL" and len(body) == 26:
            numerator, denominator = struct.unpack(">HH", body[20:24])
            yield Fraction(numerator, denominator or 100)


def _png_count(path: Path) -> int:
    """Return how many frames the `acTL` chunk of an animated PNG states."""
    for kind, body in _png_chunks(path):
        if kind == b"acTL":
            return int.from_bytes(body[:4])
    return 0


def _png_chunks(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield the chunks that tell of an animation, `acTL` first; none of a still picture."""
    with open_file(path) as raw:
        file = io.BufferedReader(raw)
        file.seek(len(_PNG))
        is_animated = False
        while len(head := file.read(8)) == 8:
            size, kind = int.from_bytes(head[:4]), head[4:]
            if kind == b"IEND" or (kind == b"IDAT" and not is_animated):
                return
            body = b""
            if kind in (b"acTL", b"fcTL"):
                is_animated = is_animated or kind == b"acTL"
                body = file.read(min(size, 64))
                if is_animated:
                    yield kind, body
            file.seek(size - len(body) + 4, io.SEEK_CUR)


def _webp_lengths(path: Path) -> Iterator[Fraction]:
    """Yield the durations of the `ANMF` chunks of an animated WebP (RFC 9649, 2.7.1.1), in seconds."""
    with open_file(path) as raw:
        file = io.BufferedReader(raw)
        file.seek(12)
        while len(head := file.read(8)) == 8:
            size = int.from_bytes(head[4:], "little")
            body = b""
            if head[:4] == b"ANMF" and len(body := file.read(16)) == 16:
                yield Fraction(int.from_bytes(body[12:15], "little"), 1000)
            elif head[:4] in (b"VP8 ", b"VP8L"):
                return  # a still one
            file.seek(size + size % 2 - len(body), io.SEEK_CUR)


def _avif_lengths(path: Path, limits: Limits) -> tuple[list[Fraction], int]:
    """Return the durations of the packets of an AVIF sequence's track in seconds, and how many it states."""
    with open_video(path, limits) as container:
        stream = max(container.streams.video, key=lambda s: s.frames, default=None)
        if stream is None or not stream.time_base:
            raise MediaError("no frame in it")
        base, stated = stream.time_base, stream.frames
        times: list[tuple[int, int]] = []
        try:
            for packet in container.demux(stream):
                if packet.pts is not None and len(times) <= limits.max_frames:
                    times.append((packet.pts, packet.duration or 0))
        except READ_ERRORS:
            pass  # the decoder will say what is wrong, and at what time
    times.sort()
    lengths = [(after - pts) * base for (pts, _), (after, _) in pairwise(times)]
    if times:
        lengths.append(times[-1][1] * base or (lengths[-1] if lengths else USUAL_S))
    return lengths, stated
