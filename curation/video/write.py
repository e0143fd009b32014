"""Writing clips: frame-exact transcoding, stream copy, and still images."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.filter import Graph
from av.video.frame import PictureType, VideoFrame
from PIL import Image

from curation.errors import STORAGE_FAILED, STORAGE_FULL, MediaError
from curation.files import atomic_path
from curation.limits import Limits
from curation.recipe import CutSettings
from curation.types import Beat, SourceFacts, Span, silent
from curation.video.container import READ_ERRORS, USUAL_LIMITS, open_video, prepare_decoder, reason, stream_of
from curation.video.decode import EARLY_SEEK_S, Clock, raw_frames
from curation.video.image import is_upright_jpeg, read_image
from curation.video.planes import FULL_RANGE

Box = tuple[float, float, float, float]
"""left, top, right, bottom as shares of the displayed picture"""

IMAGE_QUALITY = 95


def x264_options(crf: int, preset: str) -> dict[str, str]:
    """Give the encoder's options; equal frames then give equal files.

    With AVX-512, x264's macroblock tree reads memory that nobody wrote at some widths (320, 480, 848 px), so that
    files differ from run to run; its AVX2 code does not, and is as fast.
    """
    options = {"crf": str(crf), "preset": preset, "threads": "1"}
    if _has_avx512():
        options["x264-params"] = "asm=AVX2"
    return options


@cache
def _has_avx512() -> bool:
    try:
        return "avx512f" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return False


@dataclass(frozen=True)
class Written:
    """A written file: what it decodes to, and the span of the source that it holds."""

    width_px: int
    height_px: int
    fps: float | None
    num_frames: int
    span: Span


def transcode(
    path: Path,
    facts: SourceFacts,
    span: Span,
    cut: CutSettings,
    box: Box | None,
    to: Path,
    beat: Beat = silent,
    limits: Limits = USUAL_LIMITS,
) -> Written:
    """Write a span as H.264 in MP4, frame for frame, upright and with square pixels; without sound.

    Frame times are kept (also variable ones) unless `cut.fps` asks for a constant rate. 10-bit and HDR
    pictures are written with 8 bits and their own colour tags, not tone-mapped. `beat` is called after each
    frame, since encoding a large clip takes a while.

    Raises:
        MediaError: the span cannot be read, or gives another number of frames than when it was analysed.
    """
    size = target_size(facts, cut, box)
    count, last_s, tick = 0, 0.0, -1
    with atomic_path(to) as temporary, _writing(temporary) as output:
        stream = None
        shown = _with_times(path, facts, span, beat, limits)
        for frame, time_s in shown if cut.fps is None else _at_rate(shown, cut.fps, span.duration_s):
            if stream is None:
                rate = cut.fps or facts.fps or 25.0
                stream = output.add_stream("libx264", rate=Fraction(rate).limit_denominator(60000))
                stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
                codec = stream.codec_context
                codec.time_base = _TICKS
                codec.options = x264_options(cut.crf, cut.preset)
                _copy_colors(frame, codec)
                shape = _Shaper(facts, box, size)
            ready = shape(frame)
            tick = max(round(time_s / _TICKS), tick + 1)  # times a tick apart may round to the same one
            ready.pts, ready.time_base = tick, _TICKS
            ready.pict_type = PictureType.NONE
            for packet in stream.encode(ready):
                output.mux(packet)
            count, last_s = count + 1, time_s
            beat(0.0)
        if stream is None:
            raise MediaError("no frame could be read again", span.start_s)
        for packet in stream.encode(None):
            output.mux(packet)
        if cut.fps is None and count != span.num_frames:
            raise MediaError(f"{count} frames where the analysis saw {span.num_frames}", span.start_s)
    fps = cut.fps or (facts.fps if not facts.is_vfr else None) or _rate(count, last_s) or facts.fps
    return Written(*size, fps, count, span)


def copy_streams(
    path: Path, facts: SourceFacts, span: Span, to: Path, beat: Beat = silent, limits: Limits = USUAL_LIMITS
) -> Written:
    """Write a span's packets as they are, from its first keyframe on; the span shrinks to what was written.

    The end moves back to a place where no packet refers beyond it. What was written is decoded once: packets may
    be hidden (VP9), and some damage shows only where decoding begins in the middle of the file.

    Raises:
        MediaError: no keyframe in the span, a codec that MP4 cannot hold, or a copy that does not decode.
    """
    packets, kept = _copyable(path, facts, span, beat, limits)
    if not packets:
        raise MediaError("no keyframe in the span to copy from", span.start_s)
    first = packets[0].pts
    with atomic_path(to) as temporary, open_video(path, limits) as source, _writing(temporary) as output:
        template = stream_of(source, facts.stream_index)
        try:
            stream = output.add_stream_from_template(template)
            if facts.rotation_deg:
                stream.set_display_rotation(-facts.rotation_deg)
            for packet in packets:
                dts = packet.dts if packet.dts is not None else packet.pts
                packet.pts, packet.dts, packet.stream = packet.pts - first, dts - first, stream
                output.mux(packet)
        except (av.error.FFmpegError, ValueError) as error:
            if getattr(error, "errno", None) in STORAGE_FULL | STORAGE_FAILED:
                raise  # not the codec's fault
            words = f"{facts.codec} cannot be copied into MP4 ({reason(error)}); use cut.mode=transcode"
            raise MediaError(words) from None
        output.close()
        span = _as_decoded(span, kept, _num_frames(temporary, beat))
    fps = facts.fps if not facts.is_vfr else (span.num_frames / span.duration_s if span.duration_s else None)
    size = (facts.coded_width_px, facts.coded_height_px)  # a copy keeps its pixels, whatever their aspect
    return Written(*(size[::-1] if facts.rotation_deg % 180 else size), fps, span.num_frames, span)


def write_image(
    path: Path, facts: SourceFacts, cut: CutSettings, box: Box | None, max_pixels: int, to: Path
) -> Written:
    """Write a still image as JPEG: byte for byte where it is one already, else at quality 95.

    Raises:
        MediaError: the image cannot be read again.
    """
    span = Span(0.0, 0.0, 0, 1)
    whole = box is None and (cut.short_side_px is None or min(facts.width_px, facts.height_px) <= cut.short_side_px)
    with atomic_path(to) as temporary:
        if whole and is_upright_jpeg(path):
            shutil.copyfile(path, temporary)
            return Written(facts.width_px, facts.height_px, None, 1, span)
        pixels = read_image(path, max_pixels)
        if box is not None:
            left, top, right, bottom = _pixel_box(box, facts.width_px, facts.height_px)
            pixels = pixels[top:bottom, left:right]
        image = Image.fromarray(np.ascontiguousarray(pixels))
        size = _shrunk(image.width, image.height, cut.short_side_px)
        if size != image.size:
            image = image.resize(size, Image.Resampling.LANCZOS)
        image.save(temporary, "JPEG", quality=IMAGE_QUALITY)
        return Written(*image.size, None, 1, span)


def target_size(facts: SourceFacts, cut: CutSettings, box: Box | None) -> tuple[int, int]:
    """Give the written (width, height): the displayed picture, cropped, shrunk, and even as 4:2:0 needs."""
    width, height = facts.width_px, facts.height_px
    if box is not None:
        left, top, right, bottom = _pixel_box(box, width, height)
        width, height = right - left, bottom - top
    width, height = _shrunk(width, height, cut.short_side_px)
    return max(2, width - width % 2), max(2, height - height % 2)


_TICKS = Fraction(1, 90000)  # fine enough for every frame rate in use, coarse enough for any muxer


class _Shaper:
    """Turns, crops, scales and converts frames to the written size; leaves alone what already fits."""

    def __init__(self, facts: SourceFacts, box: Box | None, size: tuple[int, int]):
        self._facts, self._box, self._size = facts, box, size
        self._graph: Graph | None = None
        self._coded = (0, 0, "")

    def __call__(self, frame: VideoFrame) -> VideoFrame:
        fits = frame.format.name == "yuv420p" and frame.color_range != FULL_RANGE
        plain = fits and self._box is None and self._facts.rotation_deg == 0
        if plain and (frame.width, frame.height) == self._size:
            return frame
        coded = (frame.width, frame.height, frame.format.name)
        if self._graph is None or coded != self._coded:  # a stream may change its size midway
            self._graph, self._coded = self._build(frame), coded
        self._graph.push(frame)
        shaped = self._graph.pull()
        assert isinstance(shaped, VideoFrame)
        return shaped

    def _build(self, frame: VideoFrame) -> Graph:
        turns = {90: ["clock"], 180: ["clock", "clock"], 270: ["cclock"]}.get(self._facts.rotation_deg, [])
        steps = [("transpose", turn) for turn in turns]
        width, height = (frame.height, frame.width) if self._facts.rotation_deg % 180 else (frame.width, frame.height)
        if self._box is not None:
            left, top, right, bottom = _pixel_box(self._box, width, height)
            width, height = right - left, bottom - top
            steps.append(("crop", f"{width}:{height}:{left}:{top}:exact=1"))
        if (width - width % 2, height - height % 2) == self._size:
            if (width, height) != self._size:  # an odd line is cut off rather than the picture resampled
                steps.append(("crop", f"{self._size[0]}:{self._size[1]}:0:0:exact=1"))
        else:
            steps.append(("scale", f"{self._size[0]}:{self._size[1]}:flags=bicubic"))
        steps += [("scale", "out_range=tv"), ("setsar", "1"), ("format", "pix_fmts=yuv420p")]
        graph = Graph()
        last = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or _TICKS
        )
        for name, arguments in steps:
            node = graph.add(name, arguments)
            last.link_to(node)
            last = node
        last.link_to(graph.add("buffersink"))
        graph.configure()
        return graph


def _with_times(
    path: Path, facts: SourceFacts, span: Span, beat: Beat, limits: Limits
) -> Iterator[tuple[VideoFrame, float]]:
    """Read a span's frames again, with times from its start, strictly rising by at least a tick."""
    if facts.declared_frames is None:  # packets without times: count frames instead
        frames = raw_frames(path, facts, beat=beat, limits=limits)
        step_s = 1 / (facts.fps or 25.0)
        for index, (frame, _) in enumerate(frames):
            if index >= span.start_frame + span.num_frames:
                return
            if index >= span.start_frame:
                yield frame, (index - span.start_frame) * step_s
        return
    clock, last_s = Clock.of(facts), -1.0
    bounds = _first_pts(clock, span.start_s), _first_pts(clock, span.end_s)
    frames = raw_frames(path, facts, *bounds, beat, limits)
    # No further than the span's own frames: right behind them the file may be damaged.
    for frame, pts in islice(frames, span.num_frames):
        time_s = clock.seconds(pts) - span.start_s if pts is not None else last_s
        last_s = max(time_s, last_s + float(_TICKS)) if last_s >= 0 else 0.0
        yield frame, last_s


def _first_pts(clock: Clock, time_s: float) -> int:
    """Give the first timestamp that is not before a time: ticks may be finer than the microseconds of a span.

    Or coarser, where frames of one timestamp were told apart by a microsecond.
    """
    pts = clock.pts(time_s)
    if not clock.time_base:
        return pts
    pts -= 1 + int(1e-6 / clock.time_base)
    while clock.seconds(pts) < time_s:
        pts += 1
    return pts


def _at_rate(
    frames: Iterator[tuple[VideoFrame, float]], fps: float, duration_s: float
) -> Iterator[tuple[VideoFrame, float]]:
    """Repeat or leave out frames for a constant rate: each output time shows the frame on screen then."""
    held: VideoFrame | None = None
    index, count = 0, max(1, round(duration_s * fps))
    for frame, time_s in frames:
        while held is not None and index < count and index / fps < time_s - 1e-6:
            yield held, index / fps
            index += 1
        held = frame
    while held is not None and index < count:
        yield held, index / fps
        index += 1


def _copyable(path: Path, facts: SourceFacts, span: Span, beat: Beat, limits: Limits) -> tuple[list[av.Packet], Span]:
    """Collect packets in decoding order from the first keyframe in the span, up to a closed end.

    Returns:
        The packets, and the span of their frames.
    """
    clock = Clock.of(facts)
    start_pts, end_pts = _first_pts(clock, span.start_s), _first_pts(clock, span.end_s)
    packets: list[av.Packet] = []
    skipped = 0
    with open_video(path, limits) as container:
        stream = stream_of(container, facts.stream_index)
        try:
            if span.start_s > 0:
                early_s = EARLY_SEEK_S.get(facts.container, 0.0)
                container.seek(max(facts.zero_pts, start_pts - round(early_s / facts.time_base)), stream=stream)
            for packet in container.demux(stream):
                beat(0.0)
                if packet.pts is None or packet.is_discard:
                    continue
                if not packets and not (packet.is_keyframe and packet.pts >= start_pts):
                    skipped += start_pts <= packet.pts < end_pts
                    continue
                if packets and packet.pts < packets[0].pts:
                    skipped += packet.pts >= start_pts  # refers to what lies before the keyframe
                    continue
                if packet.dts is not None and packet.dts >= end_pts:
                    break
                packets.append(packet)
        except READ_ERRORS as error:
            raise MediaError(reason(error)) from None
    # The longest run, in decoding order, whose frames are the first ones in presentation order too.
    ordered = sorted(p.pts for p in packets)
    count, highest = 0, -1
    for number, packet in enumerate(packets, 1):
        highest = max(highest, packet.pts)
        if highest < end_pts and highest == ordered[number - 1]:
            count = number
    if not count:
        return [], span
    end_s = min(clock.seconds(ordered[count]), span.end_s) if count < len(ordered) else span.end_s
    kept = Span(clock.seconds(ordered[0]), end_s, span.start_frame + skipped, count)
    return packets[:count], kept


def _num_frames(path: Path, beat: Beat) -> int:
    """Count the frames of a copy."""
    count = 0
    with open_video(path) as container:
        stream = container.streams.video[0]
        prepare_decoder(stream)
        try:
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise MediaError("the copy does not decode (damaged picture data); use cut.mode=transcode")
                count += 1
                beat(0.0)
        except READ_ERRORS as error:
            raise MediaError(f"the copy does not decode ({reason(error)}); use cut.mode=transcode") from None
    return count


def _as_decoded(asked: Span, kept: Span, count: int) -> Span:
    """Give the span of a copy by the frames that it decodes to; up to the span's end the analysis has counted them."""
    to_the_end = kept.end_s == asked.end_s
    start = asked.start_frame + asked.num_frames - count if to_the_end else kept.start_frame
    whole = to_the_end and kept.start_s == asked.start_s
    if start < asked.start_frame or (whole and count != asked.num_frames):
        raise MediaError(f"the copy has {count} frames where the analysis saw {asked.num_frames}", asked.start_s)
    return Span(kept.start_s, kept.end_s, start, count)


def _writing(path: Path) -> av.container.OutputContainer:
    return av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})


def _copy_colors(frame: VideoFrame, codec: av.VideoCodecContext) -> None:
    codec.color_range = 1  # limited: what the written 8-bit YUV uses
    codec.colorspace = frame.colorspace
    codec.color_primaries = frame.color_primaries
    codec.color_trc = frame.color_trc


def _rate(count: int, last_s: float) -> float | None:
    return (count - 1) / last_s if count > 1 and last_s > 0 else None


def _shrunk(width: int, height: int, short_side_px: int | None) -> tuple[int, int]:
    short = min(width, height)
    if short_side_px is None or short <= short_side_px:
        return width, height
    return round(width * short_side_px / short), round(height * short_side_px / short)


def _pixel_box(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    left, right = round(box[0] * width), round(box[2] * width)
    top, bottom = round(box[1] * height), round(box[3] * height)
    return left, top, max(right, left + 2), max(bottom, top + 2)
