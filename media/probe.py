"""What a source is: facts from its container, packets and first frame."""

import math
from array import array
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from core.errors import MediaError
from core.limits import Limits
from media.animated import is_animated, probe_animated
from media.combing import interlacing
from media.container import (
    READ_ERRORS,
    USUAL_LIMITS,
    damage,
    open_video,
    prepare_decoder,
    refuse_size,
    stream_of,
)
from media.geometry import displayed_size
from media.hidden import is_hidden
from media.light import light_of
from media.matroska import is_cut_short
from media.orientation import orientation_of
from media.packets import read_packets, usual_step_s
from media.sound_choice import choose_sound
from media.stream_decoder import RawFrame, StreamDecoder
from media.streams import Choice, choose_video_stream
from media.timeline import Unwrapper
from media.types import Heartbeat, SourceFacts, no_heartbeat

_TRANSFERS = {16: "pq", 18: "hlg"}  # AVCOL_TRC_SMPTE2084, AVCOL_TRC_ARIB_STD_B67
MOST_REFUSALS = 256
"""A file so many of whose packets are refused before the first picture is given up."""
UNEVEN = 0.2
"""A step between frames is uneven if it differs from the median by more than this share of it (and by 2 ticks)."""
LEAST_VFR_SHARE = 0.05
"""A rate is variable where more than this share of the steps is uneven: a few holds do not make it so."""


@dataclass(frozen=True, eq=False)
class PacketScan:
    """Presentation times of the chosen stream's packets, in presentation order, on one timeline.

    Attributes:
        pts: int64 (N,), shown packets only (edit lists may hide some).
        key_pts: int64 (K,), of keyframes among them.
        end_pts: where the last one ends, as its packet says.
        is_end_last: that packet is the last one in the order of decoding, too; else what MP4 says of it is the step
            to the next decoding time.
        count: packets that hold something, shown or not.
        jumps: how often the clock starts anew.
    """

    pts: np.ndarray
    key_pts: np.ndarray
    end_pts: int | None
    is_end_last: bool = True
    count: int = 0
    jumps: int = 0


def probe_video(
    path: Path, beat: Heartbeat = no_heartbeat, limits: Limits = USUAL_LIMITS
) -> tuple[SourceFacts, PacketScan]:
    """Read a video's facts: one pass over the packets and one decoded frame.

    Raises:
        MediaError: unreadable, no video stream, no frame can be decoded, or above a limit.
    """
    if is_animated(path):
        facts, pts, end_pts = probe_animated(path, limits)
        return facts, PacketScan(pts, pts[:1], end_pts)
    choice, first = first_look(lambda: open_video(path, limits), beat, limits)
    with open_video(path, limits) as container:
        stream = stream_of(container, choice.index)
        scan = scan_packets(container, stream, beat, limits)
        facts = _facts(path, container, stream, choice, first, scan)
    refuse_size(facts.width_px, facts.height_px, limits)
    return facts, scan


def first_look(
    opening: Callable[[], AbstractContextManager[InputContainer]], beat: Heartbeat, limits: Limits
) -> tuple[Choice, RawFrame]:
    """Choose a video's stream and decode its first frame.

    Args:
        opening: opens it, once or twice.
        beat: called as packets are read.
        limits: bounds on what it may hold.

    Raises:
        MediaError: unreadable, no video stream, no frame can be decoded, or above a limit.
    """
    with opening() as container:
        choice = choose_video_stream(container, beat)
        first = None if choice.has_read_packets else _first_frame(container, choice.index, limits)
    if first is None:
        with opening() as container:
            first = _first_frame(container, choice.index, limits)
    return choice, first


def scan_packets(
    container: InputContainer, stream: VideoStream, beat: Heartbeat = no_heartbeat, limits: Limits = USUAL_LIMITS
) -> PacketScan:
    """Collect packet times; a file cut short gives the packets up to there.

    Raises:
        MediaError: more packets, or times further apart, than the limits allow.
    """
    pts, keys, end, count = array("q"), array("q"), None, 0
    latest, is_last = -(2**63), True
    codec = stream.codec_context.codec.canonical_name
    unwrapper = Unwrapper(float(stream.time_base or 0), container.format.name, usual_step_s(stream))
    try:
        for placed in read_packets(container, stream, unwrapper):
            packet = placed.packet
            beat(0.0)
            count += packet.size > 0
            if count > limits.max_frames:
                raise MediaError(f"more than the {limits.max_frames} frames of limits.max_frames")
            if packet.pts is None or packet.is_discard or is_hidden(packet, codec):
                continue
            is_last = packet.pts >= latest
            if is_last and packet.duration:
                end = packet.pts + packet.duration
            latest = max(packet.pts, latest)
            pts.append(packet.pts)
            if packet.is_keyframe:
                keys.append(packet.pts)
    except READ_ERRORS:
        pass  # the decoder will say what is wrong, and at what time
    if pts and stream.time_base and (max(pts) - min(pts)) * stream.time_base > limits.max_duration_s:
        raise MediaError(f"longer than the {limits.max_duration_s:g} s of limits.max_duration_s")
    unique = [np.unique(np.array(times, np.int64)) for times in (pts, keys)]
    return PacketScan(unique[0], unique[1], end, is_last, count, unwrapper.jumps)


def _first_frame(container: InputContainer, index: int, limits: Limits) -> RawFrame:
    """Decode up to the first whole picture, past damage if need be.

    Raises:
        MediaError: there is none, or too much is damaged before it.
    """
    stream = stream_of(container, index)
    prepare_decoder(stream, limits)
    provisional = SourceFacts(
        type="video", width_px=0, height_px=0, codec=stream.codec_context.codec.canonical_name,
        fps=1 / usual_step_s(stream), time_base=float(stream.time_base or 0),
        container=container.format.name, declared_frames=1,
    )  # fmt: skip
    decoder = StreamDecoder(stream, provisional, starts_midway=True)
    try:
        for placed in read_packets(container, stream, None):
            for item in decoder.push(placed):
                if isinstance(item, RawFrame):
                    return item
            if decoder.refusals > MOST_REFUSALS:
                break
        for item in decoder.finish():
            if isinstance(item, RawFrame):
                return item
    except READ_ERRORS as error:
        decoder.fail(damage(error))
    problem = decoder.problem
    raise MediaError(f"no frame can be decoded ({problem})" if problem else "the video stream holds no frame")


def _zero_pts(first: RawFrame, scan: PacketScan) -> int:
    """Return where the source's time begins: at its first picture, or at the damage before it.

    A keyframe at the beginning that gives no picture is damage; what follows no keyframe was never whole.
    """
    if first.pts is None or not len(scan.pts):
        return first.pts or 0
    begins_whole = len(scan.key_pts) and scan.key_pts[0] == scan.pts[0]
    return int(min(scan.pts[0], first.pts)) if begins_whole else first.pts


def _facts(
    path: Path, container: InputContainer, stream: VideoStream, choice: Choice, first: RawFrame, scan: PacketScan
) -> SourceFacts:
    codec, frame = stream.codec_context, first.frame
    zero = _zero_pts(first, scan)
    rotation, is_mirrored = orientation_of(frame)
    aspect = stream.sample_aspect_ratio or codec.sample_aspect_ratio
    width, height = displayed_size(frame.width, frame.height, aspect, rotation)
    time_base = float(stream.time_base) if stream.time_base else 0.0
    declared_s = _declared_duration_s(container, stream, zero)
    is_whole = _is_whole(path, container, stream, scan)
    end = scan.end_pts
    if is_whole and declared_s is not None and time_base and scan.jumps == 0 and len(scan.pts):
        declared_end = zero + round(declared_s / time_base)
        if declared_end > (end if end is not None and scan.is_end_last else scan.pts[-1]):
            end = declared_end
    is_vfr = _is_vfr(scan.pts)
    return SourceFacts(
        type="video",
        width_px=width,
        height_px=height,
        codec=codec.codec.canonical_name,
        fps=_rate(stream, scan, is_vfr=is_vfr),
        declared_frames=len(scan.pts) or None,
        declared_duration_s=declared_s if scan.jumps == 0 else None,
        container=container.format.name,
        stream_index=stream.index,
        coded_width_px=frame.width,
        coded_height_px=frame.height,
        rotation_deg=rotation,
        is_mirrored=is_mirrored,
        pixel_aspect=float(aspect) if aspect else None,
        pixel_format=frame.format.name,
        bit_depth=max(c.bits for c in frame.format.components),
        transfer=_TRANSFERS.get(int(frame.color_trc), "sdr"),
        bit_rate_bps=max(codec.bit_rate or container.bit_rate or 0, 0) or None,
        is_vfr=is_vfr,
        has_audio=bool(container.streams.audio),
        **asdict(choose_sound(container, stream)),
        zero_pts=zero,
        time_base=time_base,
        is_joined=scan.jumps > 0,
        is_whole=is_whole,
        last_pts=int(scan.pts[-1]) if len(scan.pts) else None,
        end_pts=end,
        other_streams=choice.others,
        interlaced=interlacing(container, stream, frame, scan.key_pts.tolist(), len(scan.pts)),
        **light_of(frame),
    )


def _is_whole(path: Path, container: InputContainer, stream: VideoStream, scan: PacketScan) -> bool:
    """Return whether all packets are there that the file says it holds; false where it does not say."""
    if container.format.name == "matroska,webm":
        return not is_cut_short(path)
    return 0 < stream.frames <= scan.count


def _rate(stream: VideoStream, scan: PacketScan, *, is_vfr: bool) -> float | None:
    """Return the usual rate of even frames, holds left out; the mean rate of uneven ones.

    The declared rate stands for it where they agree to 0.2 %.
    """
    declared = stream.average_rate or stream.guessed_rate
    span = int(scan.pts[-1] - scan.pts[0]) if len(scan.pts) > 1 else 0
    if span <= 0 or not stream.time_base:
        return float(declared) if declared and declared <= 1000 and len(scan.pts) != 1 else None
    steps = np.diff(scan.pts)
    if not is_vfr:
        steps = steps[~_uneven(steps)]
    measured = len(steps) / float(int(steps.sum()) * stream.time_base)
    for rate in (declared, stream.guessed_rate, stream.base_rate):
        if rate and abs(measured / float(rate) - 1) < 0.002:
            return float(rate)
    return measured


def _uneven(steps: np.ndarray) -> np.ndarray:
    usual = float(np.median(steps))
    return np.asarray(np.abs(steps - usual) > max(UNEVEN * usual, 2))


def _is_vfr(pts: np.ndarray) -> bool:
    """Return whether more than one in twenty frame intervals differs from the median by a fifth (and 2 ticks)."""
    steps = np.diff(pts)
    return len(steps) >= 2 and bool(_uneven(steps).mean() > LEAST_VFR_SHARE)


def _declared_duration_s(container: InputContainer, stream: VideoStream, zero_pts: int) -> float | None:
    """Return the stream's own length; the container's only where no other stream can have set it."""
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
