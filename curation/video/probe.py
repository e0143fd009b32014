"""What a source is: facts from its container, packets and first frame."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from curation.errors import MediaError
from curation.types import Beat, SourceFacts, silent
from curation.video.container import best_video_stream, open_video, prepare_decoder, reason, stream_of

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


def probe_video(path: Path, beat: Beat = silent) -> tuple[SourceFacts, PacketScan]:
    """Read a video's facts: one decoded frame and one pass over the packets.

    Raises:
        MediaError: unreadable, no video stream, or no frame can be decoded.
    """
    with open_video(path) as container:
        stream = best_video_stream(container)
        index, first = stream.index, _first_frame(container, stream)
    with open_video(path) as container:
        stream = stream_of(container, index)
        scan = scan_packets(container, stream, beat)
        facts = _facts(container, stream, first, scan)
    return facts, scan


def scan_packets(container: InputContainer, stream: VideoStream, beat: Beat = silent) -> PacketScan:
    """Collect packet times; a file cut short gives the packets up to there."""
    pts, keys, end = [], [], None
    try:
        for packet in container.demux(stream):
            beat(0.0)
            if packet.pts is None or packet.is_discard:
                continue
            pts.append(packet.pts)
            if packet.is_keyframe:
                keys.append(packet.pts)
            if packet.duration:
                end = max(end or packet.pts, packet.pts + packet.duration)
    except (av.error.FFmpegError, OSError):
        pass  # the decoder will say what is wrong, and at what time
    return PacketScan(_shown(np.array(pts, np.int64)), np.sort(np.array(keys, np.int64)), end)


def _shown(pts: np.ndarray) -> np.ndarray:
    """Sort and leave out packets on top of another: VP9's hidden reference frames are never shown."""
    ordered = np.unique(pts)
    steps = np.diff(ordered)
    if not len(steps):
        return ordered
    return ordered[np.append(True, steps > 0.25 * np.median(steps))]


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


def _first_frame(container: InputContainer, stream: VideoStream) -> VideoFrame:
    prepare_decoder(stream)
    try:
        for frame in container.decode(stream):
            return frame
    except (av.error.FFmpegError, OSError) as error:
        raise MediaError(f"no frame can be decoded ({reason(error)})") from None
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
        bit_rate_bps=codec.bit_rate or container.bit_rate or None,
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
        hours, minutes, seconds = tag.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds) - zero_s  # Matroska counts from time 0
    except ValueError:
        pass
    if container.duration and len(container.streams) == 1:
        return container.duration / av.time_base - max(0, container.start_time or 0) / av.time_base
    return None
