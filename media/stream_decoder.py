"""Packets to frames, across damage: what is broken is left out up to the next keyframe, and said."""

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from media.container import READ_ERRORS, damage
from media.geometry import displayed_size
from media.hidden import is_hidden
from media.packets import Placed, Seam
from media.timeline import RESTARTING_CLOCKS
from media.types import SourceFacts

ONE_FRAME_A_PACKET = frozenset((
    *("h264", "hevc", "vvc", "av1", "vp8", "vp9"),
    *("mpeg1video", "mpeg2video", "mjpeg", "prores"),
))
"""Codecs in which a packet that gives no frame is damage; in others it often means 'as before'."""
LEAST_GAP_S, LEAST_GAP_FRAMES = 0.5, 5
"""Where that is not sure, a stretch must be longer than both to be damage."""
ORDERED_BY_DECODING = frozenset({"avi"})
"""Formats that count frames in the order of decoding: what FFmpeg gives as presentation times is none."""
MOST_UNSTAMPED = 64
"""Frames without a time are held until one has one, at most so many."""


@dataclass(frozen=True, eq=False)
class RawFrame:
    """A frame of FFmpeg, on the source's timeline.

    Attributes:
        pts: null only in streams none of whose packets bear a time.
        duration: ticks that its packet says it is shown, 0 where it does not.
        facts: the source's, with the size of the picture as it is from here on.
    """

    frame: VideoFrame
    pts: int | None
    duration: int
    facts: SourceFacts


@dataclass(frozen=True)
class Damage:
    """A stretch `[start_pts, end_pts)` of which there are no whole pictures."""

    start_pts: int
    end_pts: int
    what: str


class StreamDecoder:
    """Decodes one stream's packets; after damage it goes on at the next keyframe.

    Damage is a packet that the decoder refuses or that gives no frame, a frame that it marks as corrupt, and
    time that no packet covers where the format would cover a hold. What follows it up to the next keyframe
    may show what came of it, and is left out with it.
    """

    def __init__(self, stream: VideoStream, facts: SourceFacts, *, starts_midway: bool):
        """Begin at a file's beginning, or at a keyframe that was sought (`starts_midway`)."""
        self._codec = stream.codec_context
        self._facts = facts
        self._aspect = self._codec.sample_aspect_ratio
        self._step = max(1, round(1 / (facts.fps or 25.0) / facts.time_base)) if facts.time_base else 1
        self._sent: list[int] = []  # times of packets whose frames are still to come, in order
        self._reach: int | None = None if starts_midway else facts.zero_pts  # where the last frame ends
        self._last: int | None = None  # pts of the last frame
        self._sent_end: int | None = None  # where the packets so far end
        self._is_skipping = False  # up to the next keyframe
        self._from: int | None = None  # pts of the keyframe at which decoding was taken up
        self.refusals = 0
        """packets that the decoder refused"""
        self._broken: str | None = None  # what is wrong since the last frame
        self._broken_at: int | None = None  # from which pts on, where known
        self._waits_for_key = False  # a corrupt frame came; those after it may show what came of it
        self._hole = False
        self._unstamped: list[VideoFrame] = []
        self._counts_decoding = facts.container in ORDERED_BY_DECODING
        self._delay: int | None = None  # by which decoding times run ahead of the frames that come
        self._entry: int | None = None  # time of the first packet since decoding began

    @property
    def problem(self) -> str | None:
        """What is wrong since the last whole frame."""
        return self._broken

    def push(self, placed: Placed) -> Iterator[RawFrame | Damage]:
        """Decode the next packet."""
        packet = placed.packet
        if placed.seam is not Seam.NONE:
            yield from self._drain()
            self._is_skipping = True
            if placed.seam is Seam.HOLE:
                self._hole = True
        if packet.pts is not None and packet.size and not packet.is_discard:
            if not is_hidden(packet, self._facts.codec):
                insort(self._sent, packet.pts)
            end = packet.pts + (packet.duration or self._step)
            self._sent_end = max(end, self._sent_end if self._sent_end is not None else end)
        if self._is_skipping and packet.size:
            if not packet.is_keyframe:
                return
            self._is_skipping, self._from = False, packet.pts
        if self._from is not None and packet.pts is not None and packet.pts < self._from and not self._waits_for_key:
            return  # refers to what lies before the keyframe, and may spoil what comes after it
        if self._entry is None and packet.size:
            self._entry = packet.pts if packet.pts is not None else packet.dts
        try:
            frames = self._codec.decode(packet)
        except EOFError:
            return
        except READ_ERRORS as error:
            yield from self._refused(packet, damage(error))
            return
        for frame in frames:
            yield from self._take(frame)

    def fail(self, what: str) -> None:
        """Say that no further packet can be read."""
        self._break(what, None)

    def finish(self) -> Iterator[RawFrame | Damage]:
        """Yield what is left when there are no more packets."""
        yield from self._drain()
        yield from self._release()
        if self._reach is None:
            return
        unshown = self._sent[bisect_left(self._sent, self._reach) :]
        missing = 0 if self._sent_end is None else self._sent_end - self._reach
        if missing > 0 and (self._broken is not None or (unshown and self._is_sure(missing, None))):
            yield Damage(self._reach, self._reach + missing, self._broken or "packets that give no picture")

    def _refused(self, packet: Packet, what: str) -> Iterator[RawFrame | Damage]:
        """Leave out what follows a packet that the decoder refused; what it still holds from before is good."""
        self.refusals += 1
        self._break(what, packet.pts)
        yield from self._drain()
        self._is_skipping = True

    def _break(self, what: str, pts: int | None) -> None:
        if self._broken is None:
            self._broken, self._broken_at = what, pts
        elif pts is not None and self._broken_at is not None:
            self._broken_at = min(pts, self._broken_at)
        self._from = None

    def _drain(self) -> Iterator[RawFrame | Damage]:
        """Take the frames that the decoder still holds, and let it forget all that it has seen."""
        try:
            frames = self._codec.decode(None)
        except READ_ERRORS:
            frames = []
        for frame in frames:
            yield from self._take(frame)
        self._codec.flush_buffers()
        self._delay = self._entry = None

    def _take(self, frame: VideoFrame) -> Iterator[RawFrame | Damage]:
        pts = self._time_of(frame)
        if pts is None and self._last is not None:
            pts = self._last + self._step
        if pts is None and self._facts.declared_frames is not None and len(self._unstamped) < MOST_UNSTAMPED:
            self._unstamped.append(frame)
            return
        if self._unstamped:
            yield from self._release(pts)
        yield from self._stamped(frame, pts)

    def _time_of(self, frame: VideoFrame) -> int | None:
        """Return when a frame is shown; frames come in that order, so decoding times that rise with them will do."""
        if not self._counts_decoding or frame.dts is None:
            return frame.pts if frame.pts is not None else frame.dts
        if self._delay is None:
            self._delay = frame.dts - self._entry if self._entry is not None else 0
        return frame.dts - self._delay

    def _release(self, next_pts: int | None = None) -> Iterator[RawFrame | Damage]:
        """Let go the frames whose times nobody knew, counted back from the first one that bears a time."""
        frames, self._unstamped = self._unstamped, []
        for place, frame in enumerate(frames):
            pts = None if next_pts is None else next_pts - (len(frames) - place) * self._step
            yield from self._stamped(frame, pts)

    def _stamped(self, frame: VideoFrame, pts: int | None) -> Iterator[RawFrame | Damage]:
        if frame.is_corrupt:
            self._break("damaged picture data", pts)
            self._waits_for_key = True
            return
        if self._broken is not None and not self._is_good_again(frame, pts):
            if pts is None or not self._is_before_damage(pts):
                return
        elif pts is not None and self._from is not None and pts < self._from:
            return  # refers to what lies before the keyframe
        if pts is not None:
            yield from self._gap_before(pts, frame)
        if self._broken is not None and self._from is not None:
            self._broken = self._broken_at = None
        duration = frame.duration or 0
        yield RawFrame(frame, pts, duration, self._facts_of(frame))
        if pts is not None:
            self._last = pts
            end = pts + (duration or self._step)
            self._reach = max(end, self._reach if self._reach is not None else end)

    def _is_before_damage(self, pts: int) -> bool:
        """Return whether a frame that the decoder still held is whole, and follows the last one without a gap."""
        if self._waits_for_key or self._broken_at is None or pts >= self._broken_at:
            return False
        if self._reach is None:
            return True
        unshown = self._sent[bisect_left(self._sent, self._reach - self._step // 2) : bisect_left(self._sent, pts)]
        if unshown:
            self._broken_at = self._reach  # the frame between them went with the packet that was refused
        return not unshown

    def _is_good_again(self, frame: VideoFrame, pts: int | None) -> bool:
        if self._waits_for_key:
            if not frame.key_frame:
                return False
            self._waits_for_key, self._from = False, pts
            return True
        return self._from is not None and (pts is None or pts >= self._from)

    def _gap_before(self, pts: int, frame: VideoFrame) -> Iterator[Damage]:
        """Yield the damage between the last frame and this one, if that is what lies there."""
        place = bisect_left(self._sent, pts)
        earlier, self._sent = self._sent[:place], self._sent[place + (self._sent[place : place + 1] == [pts]) :]
        is_hole, self._hole = self._hole, False
        reach = self._reach
        if reach is None or pts <= reach:
            return
        is_back = self._broken is not None and self._from is not None
        if is_back:
            yield Damage(reach, pts, self._broken or "")
            return
        unshown = earlier[bisect_left(earlier, reach - self._step // 2) :]
        if unshown and self._is_sure(pts - reach, frame):
            yield Damage(reach, pts, "packets that give no picture")
        elif is_hole and 2 * (pts - reach) > self._step:
            yield Damage(reach, pts, "bytes that cannot be read")
        elif self._facts.container in RESTARTING_CLOCKS and self._is_long(pts - reach):
            yield Damage(reach, pts, "no packets")

    def _is_sure(self, gap: int, frame: VideoFrame | None) -> bool:
        """Return whether packets that gave no frame are damage, by the codec and the length of the stretch."""
        is_field = frame is not None and frame.interlaced_frame  # each of a frame's fields may be a packet
        if self._facts.codec in ONE_FRAME_A_PACKET and not is_field and not self._counts_decoding:
            return 2 * gap > self._step
        return self._is_long(gap)

    def _is_long(self, gap: int) -> bool:
        return gap * self._facts.time_base > LEAST_GAP_S and gap > LEAST_GAP_FRAMES * self._step

    def _facts_of(self, frame: VideoFrame) -> SourceFacts:
        """Return the facts with the size of this frame, which may change in mid-stream."""
        facts = self._facts
        if (frame.width, frame.height) == (facts.coded_width_px, facts.coded_height_px):
            return facts
        aspect: Fraction | None = self._codec.sample_aspect_ratio
        if aspect == self._aspect and facts.pixel_aspect:
            aspect = Fraction(facts.pixel_aspect).limit_denominator(10_000)
        width, height = displayed_size(frame.width, frame.height, aspect, facts.rotation_deg)
        self._facts = replace(
            facts, width_px=width, height_px=height, coded_width_px=frame.width, coded_height_px=frame.height
        )
        return self._facts
