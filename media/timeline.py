"""Time: from time stamps to seconds, and one rising timeline over files whose clock starts anew midway."""

import math
from dataclasses import dataclass

from av.packet import Packet

from media.types import SourceFacts

FORWARD_JUMP_S = 10.0
"""FFmpeg's own bound (`dts_delta_threshold`): a longer step of a clock that may start anew is a jump, not a hold."""
BACKWARD_JUMP_S = 0.1
"""Decoding times never fall; muxers that round them badly stay below this."""
UNORDERED_JUMP_S = 1.0
"""The same for streams of which only presentation times are known: these fall by as much as frames are reordered."""
RESTARTING_CLOCKS = frozenset({"mpegts", "mpeg"})
"""Formats made for pieces to be joined (FFmpeg's AVFMT_TS_DISCONT): their clocks may jump forward, too."""


@dataclass(frozen=True)
class Clock:
    """From a stream's timestamps to seconds from its first frame."""

    zero_pts: int
    time_base: float

    @staticmethod
    def of(facts: SourceFacts) -> "Clock":
        """Return the clock of a source."""
        return Clock(facts.zero_pts, facts.time_base)

    def seconds(self, pts: int) -> float:
        """Return seconds, to the microsecond."""
        return round((pts - self.zero_pts) * self.time_base, 6)

    def pts(self, time_s: float) -> int:
        """Return the nearest timestamp."""
        return self.zero_pts + (round(time_s / self.time_base) if self.time_base else 0)

    def first_pts(self, time_s: float) -> int:
        """Return the first timestamp that is not before a time: ticks may be finer than a span's microseconds.

        Or coarser, where frames of one timestamp were told apart by a microsecond.
        """
        pts = self.pts(time_s)
        if not self.time_base:
            return pts
        pts -= 1 + int(1e-6 / self.time_base)
        while self.seconds(pts) < time_s:
            pts += 1
        return pts


class Unwrapper:
    """Moves packets onto one rising timeline: after each jump of the clock, time goes on where it had come to.

    Files that were joined without remuxing (`cat a.ts b.ts`, VOBs, chunks of a camera) start their clock anew at every
    seam. What comes of a packet depends on all packets before it, so the file has to be read from its beginning.
    """

    def __init__(self, time_base: float, container: str, step_s: float):
        """Begin at the file's first packet; `step_s` is how long a frame of unknown length is shown."""
        per_s = 1 / time_base if time_base else math.inf
        self._backward, self._unordered = BACKWARD_JUMP_S * per_s, UNORDERED_JUMP_S * per_s
        self._forward = FORWARD_JUMP_S * per_s
        self._step = max(1, round(step_s / time_base)) if time_base else 1
        self._may_jump_forward = container in RESTARTING_CLOCKS
        self._last_dts: int | None = None  # of the last packet that has one, unwrapped
        self._last_pts: int | None = None  # likewise
        self._end: int | None = None  # where the packets so far end, unwrapped
        self.offset = 0
        """ticks that are added to the packets' own times"""
        self.jumps = 0
        """how often the clock was seen to jump"""

    def place(self, packet: Packet) -> bool:
        """Put a packet onto the timeline; tell whether the clock jumped before it."""
        dts, pts = packet.dts, packet.pts
        clock = dts if dts is not None else pts
        if clock is None:
            return False
        jumped = self._has_jumped(dts, pts)
        if jumped and self._end is not None:
            self.offset = self._end - (pts if pts is not None else clock)
            self.jumps += 1
            self._last_dts = self._last_pts = None
        if self.offset:
            packet.pts = pts = None if pts is None else pts + self.offset
            packet.dts = dts = None if dts is None else dts + self.offset
        if dts is not None:
            self._last_dts = dts
        if pts is not None:
            self._last_pts = pts
        end = (pts if pts is not None else clock + self.offset) + (packet.duration or self._step)
        if self._end is None or end > self._end:
            self._end = end
        return jumped

    def _has_jumped(self, dts: int | None, pts: int | None) -> bool:
        if dts is not None and self._last_dts is not None:
            ahead, least = dts + self.offset - self._last_dts, self._backward
        elif pts is not None and self._last_pts is not None:
            ahead, least = pts + self.offset - self._last_pts, self._unordered
        else:
            return False
        return ahead < -least or (self._may_jump_forward and ahead > self._forward)
