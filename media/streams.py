"""Which of a file's video streams is the one that a player shows."""

from collections.abc import Iterable
from dataclasses import dataclass

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from core.errors import MediaError
from media.container import READ_ERRORS
from media.types import Heartbeat, no_heartbeat

_D = av.stream.Disposition
_STILLS = _D.attached_pic | _D.timed_thumbnails | _D.still_image
"""What a file says of pictures that are no footage: covers, thumbnails."""
LEAST_MOVING_FRAMES = 3
NEARLY = 0.9
"""Streams that cover so much of the longest one's time (or so many frames of the fullest one) are equals."""


@dataclass(frozen=True)
class Candidate:
    """A video stream among several, with what its packets cover."""

    index: int
    codec: str
    width_px: int
    height_px: int
    is_default: bool
    num_frames: int
    duration_s: float

    def __str__(self) -> str:
        """Return what a person needs to find the stream again."""
        size = f"{self.width_px}x{self.height_px}"
        return f"stream {self.index}: {self.codec} {size}, {self.num_frames} frames, {self.duration_s:.2f} s"


@dataclass(frozen=True)
class Choice:
    """The chosen stream's index, and the other streams in words.

    Attributes:
        has_read_packets: packets were counted to choose, so that the container is not at its beginning any more.
    """

    index: int
    others: tuple[str, ...] = ()
    has_read_packets: bool = False


def choose_video_stream(container: InputContainer, beat: Heartbeat = no_heartbeat) -> Choice:
    """Choose the stream that players show; of several moving ones their packets are counted, in one pass.

    Raises:
        MediaError: the file has no video stream, or none that can be decoded.
    """
    footage = [s for s in container.streams.video if not s.disposition & _STILLS]
    stills = [s for s in container.streams.video if s.disposition & _STILLS]
    if not footage:
        kinds = sorted({s.type for s in container.streams})
        raise MediaError(f"no video stream (the file holds {', '.join(kinds) or 'nothing'})")
    known = [s for s in footage if s.codec_context is not None]
    if not known:
        raise MediaError("no decoder for its video codec")
    if len(footage) == 1:
        return Choice(known[0].index, tuple(_still(s) for s in stills))
    candidates = _counted(container, known, beat)
    best = best_candidate(candidates)
    others = [str(c) for c in candidates if c is not best]
    undecodable = [f"stream {s.index}: no decoder for its codec" for s in footage if s.codec_context is None]
    return Choice(best.index, (*others, *undecodable, *(_still(s) for s in stills)), has_read_packets=True)


def best_candidate(candidates: Iterable[Candidate]) -> Candidate:
    """Return the best stream: moving, default, covering most time, with most frames, largest, first: in this order."""
    left = list(candidates)
    left = [c for c in left if c.num_frames >= LEAST_MOVING_FRAMES] or left
    left = [c for c in left if c.is_default] or left
    longest_s = max(c.duration_s for c in left)
    left = [c for c in left if c.duration_s >= NEARLY * longest_s]
    fullest = max(c.num_frames for c in left)
    left = [c for c in left if c.num_frames >= NEARLY * fullest]
    return max(left, key=lambda c: (c.width_px * c.height_px, -c.index))


def _counted(container: InputContainer, streams: list[VideoStream], beat: Heartbeat) -> list[Candidate]:
    spans: dict[int, list[int]] = {s.index: [0, 0, 0] for s in streams}  # frames, first and last tick
    try:
        for packet in container.demux(streams):
            beat(0.0)
            span, pts = spans[packet.stream.index], packet.pts if packet.pts is not None else packet.dts
            if not packet.size or packet.is_discard:
                continue
            end = None if pts is None else pts + (packet.duration or 0)
            if pts is not None and end is not None:
                first, last = (pts, end) if not span[0] else (min(span[1], pts), max(span[2], end))
                span[1:] = [first, last]
            span[0] += 1
    except READ_ERRORS:
        pass  # what was counted up to there decides
    return [
        Candidate(
            s.index,
            s.codec_context.codec.canonical_name,
            s.codec_context.width,
            s.codec_context.height,
            bool(s.disposition & _D.default),
            spans[s.index][0],
            float((spans[s.index][2] - spans[s.index][1]) * (s.time_base or 0)),
        )
        for s in streams
    ]


def _still(stream: VideoStream) -> str:
    codec = stream.codec_context
    size = f"{codec.codec.canonical_name} {codec.width}x{codec.height}" if codec is not None else "unknown codec"
    return f"stream {stream.index}: {size}, a still picture"
