"""What a source is: facts from its container, packets and first frame."""

import math
from array import array
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from curation.errors import MediaError
from curation.limits import Limits
from curation.types import Beat, SourceFacts, silent
from curation.video.container import (
    READ_ERRORS,
    USUAL_LIMITS,
    best_video_stream,
    damage,
    open_video,
    prepare_decoder,
    refuse_size,
    stream_of,
)

_TRANSFERS = {16: "pq", 18: "hlg"}  # AVCOL_TRC_SMPTE2084, AVCOL_TRC_ARIB_STD_B67


@dataclass(frozen=True, eq=False)
class PacketScan:
    """Presentation times of the chosen stream's packets, in presentation order.

    Attributes:
        pts: int64 (N,), shown packets only (edit lists may hide some).
        key_pts: int64 (K,), of keyframes among them.
        end_pts: where the last one ends, as its packet says.
    """

    pts: np.ndarray
    key_pts: np.ndarray
    end_pts: int | None


def probe_video(path: Path, beat: Beat = silent, limits: Limits = USUAL_LIMITS) -> tuple[SourceFacts, PacketScan]:
    """Read a video's facts: one decoded frame and one pass over the packets.

    Raises:
        MediaError: unreadable, no video stream, no frame can be decoded, or above a limit.
    """
    with open_video(path, limits) as container:
        stream = best_video_stream(container)
        index, first = stream.index, _first_frame(container, stream, limits)
    with open_video(path, limits) as container:
        stream = stream_of(container, index)
        scan = scan_packets(container, stream, beat, limits)
        facts = _facts(container, stream, first, scan)
    refuse_size(facts.width_px, facts.height_px, limits)
    return facts, scan


def scan_packets(
    container: InputContainer, stream: VideoStream, beat: Beat = silent, limits: Limits = USUAL_LIMITS
) -> PacketScan:
    """Collect packet times; a file cut short gives the packets up to there.

    Raises:
        MediaError: more packets, or times further apart, than the limits allow.
    """
    pts, keys, end, count = array("q"), array("q"), None, 0
    codec = stream.codec_context.name
    try:
        for packet in container.demux(stream):
            beat(0.0)
            count += 1
            if count > limits.max_frames + 1:  # the last packet of all is an empty one
                raise MediaError(f"more than the {limits.max_frames} frames of limits.max_frames")
            if packet.pts is None or packet.is_discard or _is_hidden(packet, codec):
                continue
            pts.append(packet.pts)
            if packet.is_keyframe:
                keys.append(packet.pts)
            if packet.duration:
                end = max(end or packet.pts, packet.pts + packet.duration)
    except READ_ERRORS:
        pass  # the decoder will say what is wrong, and at what time
    if pts and stream.time_base and (max(pts) - min(pts)) * stream.time_base > limits.max_duration_s:
        raise MediaError(f"longer than the {limits.max_duration_s:g} s of limits.max_duration_s")
    return PacketScan(np.unique(np.array(pts, np.int64)), np.unique(np.array(keys, np.int64)), end)


def _is_hidden(packet: Packet, codec: str) -> bool:
    """Tell whether a packet of VP8 or VP9 holds nothing but a reference frame that is never shown.

    Such a packet stands on a time of its own, which another packet shows, or close beside it. In the other
    codecs (and in VP9 by its superframes) what is hidden travels in the packet of what is shown.
    """
    if codec not in _HIDES or not packet.size:
        return False
    return _HIDES[codec](memoryview(packet))


def _vp8_hides(data: memoryview) -> bool:
    return not data[0] >> 4 & 1  # RFC 6386, 9.1: show_frame


def _vp9_hides(data: memoryview) -> bool:
    """Read the head of the uncompressed header: VP9 bitstream specification, 6.2 and annex B."""
    mark = data[-1]
    if mark >> 5 == 0b110:
        index = 2 + ((mark >> 3 & 3) + 1) * ((mark & 7) + 1)
        if len(data) >= index and data[-index] == mark:
            return False  # a superframe: its last frame is shown
    profile = data[0] >> 5 & 1 | data[0] >> 3 & 2
    bit = 3 - (profile == 3)  # a reserved bit comes after profile 3
    return not data[0] >> bit & 1 and not data[0] >> bit - 2 & 1  # neither show_existing_frame nor show_frame


_HIDES = {"vp8": _vp8_hides, "vp9": _vp9_hides}


def frame_pts(frame: VideoFrame) -> int | None:
    """Give a frame's presentation timestamp; containers without one still know the decoding time."""
    return frame.pts if frame.pts is not None else frame.dts


def displayed_size(coded_width: int, coded_height: int, aspect: Fraction | None, rotation: int) -> tuple[int, int]:
    """Give (width, height) with square pixels, upright.

    Pixels wider than high widen the picture, pixels higher than wide heighten it: nothing is scaled down.
    """
    width, height = coded_width, coded_height
    if aspect and aspect > 0 and Fraction(1, 10) < aspect < 10:
        if aspect > 1:
            width = round(width * aspect)
        else:
            height = round(height / aspect)
    return (height, width) if rotation % 180 else (width, height)


def _first_frame(container: InputContainer, stream: VideoStream, limits: Limits) -> VideoFrame:
    prepare_decoder(stream, limits)
    try:
        for frame in container.decode(stream):
            return frame
    except READ_ERRORS as error:
        raise MediaError(f"no frame can be decoded ({damage(error)})") from None
    raise MediaError("the video stream holds no frame")


def _facts(container: InputContainer, stream: VideoStream, first: VideoFrame, scan: PacketScan) -> SourceFacts:
    codec = stream.codec_context
    rotation = -round(first.rotation / 90) * 90 % 360
    aspect = stream.sample_aspect_ratio or codec.sample_aspect_ratio
    width, height = displayed_size(first.width, first.height, aspect, rotation)
    zero = frame_pts(first) or 0
    return SourceFacts(
        type="video",
        width_px=width,
        height_px=height,
        codec=codec.name,
        fps=_mean_rate(stream, scan),
        declared_frames=len(scan.pts) or None,
        declared_duration_s=_declared_duration_s(container, stream, zero),
        container=container.format.name,
        stream_index=stream.index,
        coded_width_px=first.width,
        coded_height_px=first.height,
        rotation_deg=rotation,
        pixel_format=first.format.name,
        bit_depth=max(c.bits for c in first.format.components),
        transfer=_TRANSFERS.get(int(first.color_trc), "sdr"),
        bit_rate_bps=max(codec.bit_rate or container.bit_rate or 0, 0) or None,
        is_vfr=_is_vfr(scan.pts),
        has_audio=bool(container.streams.audio),
        zero_pts=zero,
        time_base=float(stream.time_base) if stream.time_base else 0.0,
    )


def _mean_rate(stream: VideoStream, scan: PacketScan) -> float | None:
    """Give the mean rate of the frames as they are shown; the declared one where they agree to 0.2 %."""
    declared = stream.average_rate or stream.guessed_rate
    span = int(scan.pts[-1] - scan.pts[0]) if len(scan.pts) > 1 else 0
    if span <= 0 or not stream.time_base:
        return float(declared) if declared and declared <= 1000 and len(scan.pts) != 1 else None
    measured = (len(scan.pts) - 1) / float(span * stream.time_base)
    if declared and abs(measured / float(declared) - 1) < 0.002:
        return float(declared)
    return measured


def _is_vfr(pts: np.ndarray) -> bool:
    """Tell whether more than one in twenty frame intervals differs from the median by a fifth (and 2 ticks)."""
    steps = np.diff(pts)
    if len(steps) < 2:
        return False
    usual = float(np.median(steps))
    uneven = np.abs(steps - usual) > max(0.2 * usual, 2)
    return bool(uneven.mean() > 0.05)


def _declared_duration_s(container: InputContainer, stream: VideoStream, zero_pts: int) -> float | None:
    """Give the stream's own length; the container's only where no other stream can have set it."""
    zero_s = float(zero_pts * stream.time_base) if stream.time_base else 0.0
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    tag = stream.metadata.get("DURATION", "")
    try:
        hours, minutes, seconds = map(float, tag.split(":"))
        stated_s = hours * 3600 + minutes * 60 + seconds - zero_s  # Matroska counts from time 0
        if math.isfinite(stated_s):
            return stated_s
    except ValueError:
        pass
    if container.duration and len(container.streams) == 1:
        return container.duration / av.time_base - max(0, container.start_time or 0) / av.time_base
    return None
