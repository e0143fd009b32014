"""What every writer of clips shares: the file that it opens and what it says of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.packet import Packet

from media.sound import WrittenSound
from media.types import SourceFacts, Span

MOVIE_TICKS_PER_S = "90000"
"""Of edit lists, which say when a track begins: FFmpeg's own 1000 would move sound by up to a millisecond."""

UNEVEN, LEAST_VFR_SHARE = 0.2, 0.05
"""As for sources: a clip is even where at most so many of its steps differ from the median by so much."""


@dataclass(frozen=True)
class Written:
    """A written file: what it decodes to, and the span of the source that it holds."""

    width_px: int
    height_px: int
    fps: float | None
    num_frames: int
    span: Span
    sound: WrittenSound = WrittenSound()


def writing(path: Path, container: str = "mp4") -> av.container.OutputContainer:
    """Open a file for writing; an MP4 file has its index in front."""
    options = {"movflags": "+faststart", "movie_timescale": MOVIE_TICKS_PER_S} if container == "mp4" else {}
    return av.open(str(path), "w", format=container, options=options)


def clip_rate(times_s: Sequence[float], duration_s: float, facts: SourceFacts) -> float | None:
    """Return a clip's own frame rate: the usual one of even frames, holds left out; the mean one of uneven frames.

    Args:
        times_s: of its frames, from its start.
        duration_s: its length, the last frame included.
        facts: of the source, whose rate stands for the clip's where they agree to 0.5 %, and where its usual step is
            the clip's, too.
    """
    source_fps = facts.fps
    steps = np.diff(times_s)
    if not len(steps):
        return source_fps or (1 / duration_s if duration_s > 0 else None)
    usual = float(np.median(steps))
    if source_fps and not facts.is_vfr and abs(usual * source_fps - 1) < UNEVEN:
        return source_fps
    even = np.abs(steps - usual) <= UNEVEN * usual
    is_even = float(even.mean()) >= 1 - LEAST_VFR_SHARE
    rate = 1 / float(steps[even].mean()) if is_even else len(times_s) / duration_s
    return source_fps if source_fps and abs(rate / source_fps - 1) < 0.005 else rate


class TimedTrack:
    """Writes a video track's packets so that the file states how long its last frame is shown.

    MP4 keeps times as differences between packets in decoding order; only the last packet's length is free, and
    with it the track gets the length of the presentation.
    """

    def __init__(self, output: av.container.OutputContainer):
        """Write into this file."""
        self._output = output
        self._held: Packet | None = None

    def add(self, packets: Iterable[Packet]) -> None:
        """Write packets as the encoder gives them."""
        for packet in packets:
            if self._held is not None:
                self._output.mux(self._held)
            self._held = packet

    def close(self, duration: int) -> None:
        """Write the last packet; `duration` is the length of the presentation in the packets' time base."""
        if self._held is None:
            return
        if self._held.pts is not None:
            self._held.duration = max(1, duration - self._held.pts)
        self._output.mux(self._held)
