"""Writing clips as stream copies: packets as they are, cut at keyframes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import av
from av.packet import Packet

from core.errors import STORAGE_FAILED, STORAGE_FULL, MediaError
from core.files import atomic_path
from media.container import READ_ERRORS, open_video, prepare_decoder, reason, stream_of
from media.decode import EARLY_SEEK_S, can_seek
from media.orientation import display_matrix
from media.packets import from_keyframe, read_packets, usual_step_s
from media.sound import Audio, open_sound
from media.stretch import Excerpt
from media.timeline import Clock, Unwrapper
from media.types import Heartbeat, Span
from media.written import TimedTrack, Written, clip_rate, writing

MP4_CODECS = frozenset({"h264", "hevc", "av1", "vp9", "vvc", "mpeg4", "mpeg1video", "mpeg2video", "mjpeg"})
"""What MP4 holds and players find in it; everything else goes into Matroska, VP8 into WebM."""
MP4_TAGS = {"hevc": "hvc1"}
"""Sample entries where FFmpeg's default is one that some players pass over: QuickTime shows no `hev1`."""


def copy_suffix(codec: str) -> str:
    """Return the suffix of the container that a copy of this codec is written into."""
    if codec in MP4_CODECS:
        return "mp4"
    return "webm" if codec == "vp8" else "mkv"


def copy_streams(excerpt: Excerpt, to: Path, audio: Audio = "keep") -> Written:
    """Write an excerpt's packets as they are, from its first keyframe on; the span shrinks to what was written.

    The end moves back to a place where no packet refers beyond it. What was written is decoded once: packets may
    be hidden (VP9), and some damage shows only where decoding begins in the middle of the file.

    Raises:
        MediaError: no keyframe in the span, a codec that the container cannot hold, or a copy that does not decode
            to the frames and times of the source.
    """
    facts, span, beat = excerpt.facts, excerpt.span, excerpt.beat
    if facts.declared_frames is None:
        raise MediaError("the source's packets bear no times")
    packets, kept = _copyable(excerpt)
    if not packets:
        raise MediaError("no keyframe in the span to copy from", span.start_s)
    container = {"mp4": "mp4", "webm": "webm", "mkv": "matroska"}[copy_suffix(facts.codec)]
    shown = [packet.pts or 0 for packet in packets]
    first, decoding_times = min(shown), _decoding_times(shown)
    with (
        atomic_path(to) as temporary,
        open_video(excerpt.path, excerpt.limits) as source,
        open_sound(replace(excerpt, span=kept), audio, container, copies=True) as sound,
        writing(temporary, container) as output,
    ):
        template = stream_of(source, facts.stream_index)
        stated = template.codec_context.width, template.codec_context.height
        try:
            stream = output.add_stream_from_template(template, opaque=True)
            if container == "mp4" and facts.codec in MP4_TAGS:
                stream.codec_context.codec_tag = MP4_TAGS[facts.codec]
            if facts.rotation_deg or facts.is_mirrored:
                stream.set_display_matrix(display_matrix(facts.rotation_deg, is_mirrored=facts.is_mirrored))
            sound.add_to(output)
            track = TimedTrack(output)
            for packet, pts, dts in zip(packets, shown, decoding_times, strict=True):
                packet.pts, packet.dts, packet.stream = pts - first, dts - first, stream
                sound.write((dts - first) * facts.time_base)
                track.add([packet])
            track.close(round(kept.duration_s / facts.time_base))
            written_sound = sound.close()
        except (av.error.FFmpegError, ValueError) as error:
            if getattr(error, "errno", None) in STORAGE_FULL | STORAGE_FAILED:
                raise  # not the codec's fault
            raise MediaError(f"{facts.codec} cannot be copied into {container} ({reason(error)})") from None
        output.close()
        sound.settle(temporary)
        size, times_s = _as_shown(temporary, beat)
        if size != stated:
            raise MediaError(f"the picture is {size[0]}x{size[1]}, its stream states {stated[0]}x{stated[1]}")
        _expect_times(times_s, [(pts - first) * facts.time_base for pts in shown])
        span = _as_decoded(span, kept, len(times_s))
    if facts.rotation_deg % 180:
        size = size[::-1]  # a copy keeps its pixels, whatever their aspect
    return Written(*size, clip_rate(times_s, span.duration_s, facts), span.num_frames, span, written_sound)


def _copyable(excerpt: Excerpt) -> tuple[list[Packet], Span]:
    """Collect packets in decoding order from the first keyframe in the span, up to a closed end.

    Returns:
        The packets, and the span of their frames.
    """
    facts, span, beat = excerpt.facts, excerpt.span, excerpt.beat
    clock = Clock.of(facts)
    start_pts, end_pts = clock.first_pts(span.start_s), clock.first_pts(span.end_s)
    packets: list[Packet] = []
    skipped = 0
    with open_video(excerpt.path, excerpt.limits) as container:
        stream = stream_of(container, facts.stream_index)
        try:
            if can_seek(facts):
                if span.start_s > 0:
                    early_s = EARLY_SEEK_S.get(facts.container, 0.0)
                    container.seek(max(facts.zero_pts, start_pts - round(early_s / facts.time_base)), stream=stream)
                read = read_packets(container, stream, None)
            else:
                unwrapper = Unwrapper(facts.time_base, facts.container, usual_step_s(stream))
                read = from_keyframe(read_packets(container, stream, unwrapper), start_pts, beat)
            for placed in read:
                packet = placed.packet
                beat(0.0)
                if packet.pts is None or packet.is_discard:
                    continue
                if not packets and not (packet.is_keyframe and packet.pts >= start_pts):
                    skipped += start_pts <= packet.pts < end_pts
                    continue
                if packets and packet.pts < (packets[0].pts or 0):
                    skipped += packet.pts >= start_pts  # refers to what lies before the keyframe
                    continue
                if (packet.dts if packet.dts is not None else packet.pts - _REORDERED_S / facts.time_base) >= end_pts:
                    break
                packets.append(packet)
        except READ_ERRORS as error:
            raise MediaError(reason(error)) from None
    # The longest run, in decoding order, whose frames are the first ones in presentation order too.
    ordered = sorted(p.pts or 0 for p in packets)
    count, highest = 0, -(2**63)
    for number, packet in enumerate(packets, 1):
        highest = max(highest, packet.pts or 0)
        if highest < end_pts and highest == ordered[number - 1]:
            count = number
    if not count:
        return [], span
    end_s = min(clock.seconds(ordered[count]), span.end_s) if count < len(ordered) else span.end_s
    kept = Span(clock.seconds(ordered[0]), end_s, span.start_frame + skipped, count)
    return packets[:count], kept


_REORDERED_S = 2.0
"""Where a format states no decoding times: no frame is decoded so much ahead of its presentation."""


def _decoding_times(shown: Sequence[int]) -> list[int]:
    """Return rising decoding times for packets in decoding order with these presentation times.

    Containers such as Matroska state none, and those that FFmpeg derives after a seek are not always there. Each
    packet gets the presentation time of its rank, moved ahead far enough for none to be later than its own.
    """
    ordered = sorted(shown)
    for place in range(1, len(ordered)):  # two packets of one time: one of them is hidden
        ordered[place] = max(ordered[place], ordered[place - 1] + 1)
    delay = max((rank - pts for rank, pts in zip(ordered, shown, strict=True)), default=0)
    return [rank - delay for rank in ordered]


def _as_shown(path: Path, beat: Heartbeat) -> tuple[tuple[int, int], list[float]]:
    """Decode a copy; return the (width, height) of its pictures as stored, and their times in seconds.

    Raises:
        MediaError: it does not decode as a whole.
    """
    times_s: list[float] = []
    size = (0, 0)
    with open_video(path) as container:
        stream = container.streams.video[0]
        prepare_decoder(stream)
        try:
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise MediaError("the copy does not decode (damaged picture data)")
                if times_s and (frame.width, frame.height) != size:
                    raise MediaError("the copy changes the size of its picture")
                size = frame.width, frame.height
                time_s = float((frame.pts or 0) * (frame.time_base or 0))
                if times_s and time_s <= times_s[-1]:
                    raise MediaError("the source states no times of presentation")
                times_s.append(time_s)
                beat(0.0)
        except READ_ERRORS as error:
            raise MediaError(f"the copy does not decode ({reason(error)})") from None
    return size, times_s


_CLOSE_S = 2e-3
"""Containers round times to a millisecond."""


def _expect_times(times_s: Sequence[float], asked_s: Sequence[float]) -> None:
    """Refuse a copy whose frames are shown at other times than in the source.

    Raises:
        MediaError: one of them is.
    """
    known = sorted(asked_s)
    place = 0
    for time_s in times_s:  # some packets may be hidden: each frame has one, not each packet a frame
        while place < len(known) and known[place] < time_s - _CLOSE_S:
            place += 1
        if place == len(known) or abs(known[place] - time_s) > _CLOSE_S:
            raise MediaError(f"the copy shows a frame at {time_s:.3f} s, where the source has none")


def _as_decoded(asked: Span, kept: Span, count: int) -> Span:
    """Return the span of a copy by the frames that it decodes to; to the span's end the analysis has counted them."""
    to_the_end = kept.end_s == asked.end_s
    start = asked.start_frame + asked.num_frames - count if to_the_end else kept.start_frame
    whole = to_the_end and kept.start_s == asked.start_s
    if start < asked.start_frame or (whole and count != asked.num_frames):
        raise MediaError(f"the copy has {count} frames where the analysis saw {asked.num_frames}", asked.start_s)
    return Span(kept.start_s, kept.end_s, start, count)
