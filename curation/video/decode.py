"""Decoding a stretch of a source once, in presentation order, with true times."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from av.video.frame import VideoFrame

from curation.errors import MediaError
from curation.limits import Limits
from curation.types import Beat, SourceFacts, silent
from curation.video.container import READ_ERRORS, USUAL_LIMITS, damage, open_video, prepare_decoder, stream_of
from curation.video.frame import DecodedFrame, PlanarFrame
from curation.video.probe import frame_pts

NEVER_SEEK = frozenset({"mpeg"})
"""Formats that give wrong times after a seek: they are read from the start."""
EARLY_SEEK_S = {"mpegts": 2.0}
"""Formats that are searched by decoding time and land late: aim this much earlier."""

UNKNOWN_STEP_S = 1 / 25
"""How long a lone frame is shown of which nothing is known."""


class FrameReader(Protocol):
    """A decoder: gives the frames with pts in `[start_pts, end_pts)`, in order; null borders are open."""

    def __call__(
        self,
        path: Path,
        facts: SourceFacts,
        start_pts: int | None = None,
        end_pts: int | None = None,
        beat: Beat = silent,
        limits: Limits = USUAL_LIMITS,
    ) -> Iterator[DecodedFrame]:
        """Decode, with a beat for each frame skipped; raises MediaError, with its time, where reading ends."""
        ...


@dataclass(frozen=True)
class Clock:
    """From a stream's timestamps to seconds from its first frame."""

    zero_pts: int
    time_base: float

    @staticmethod
    def of(facts: SourceFacts) -> "Clock":
        """Give the clock of a source."""
        return Clock(facts.zero_pts, facts.time_base)

    def seconds(self, pts: int) -> float:
        """Give seconds, to the microsecond."""
        return round((pts - self.zero_pts) * self.time_base, 6)

    def pts(self, time_s: float) -> int:
        """Give the nearest timestamp."""
        return self.zero_pts + (round(time_s / self.time_base) if self.time_base else 0)


def read_frames(
    path: Path,
    facts: SourceFacts,
    start_pts: int | None = None,
    end_pts: int | None = None,
    beat: Beat = silent,
    limits: Limits = USUAL_LIMITS,
) -> Iterator[DecodedFrame]:
    """Decode with FFmpeg (through PyAV) the frames with pts in `[start_pts, end_pts)`.

    `index` counts from the first frame given. Frames of equal or falling time (broken muxing) keep their
    place and are given strictly rising times.

    Raises:
        MediaError: damage, with the time from which on nothing can be read.
    """
    clock = Clock.of(facts)
    step_s = 1 / facts.fps if facts.fps else 0.0
    last_s = -1.0
    held: tuple[VideoFrame, float] | None = None
    index = 0
    try:
        for frame, pts in raw_frames(path, facts, start_pts, end_pts, beat, limits):
            time_s = clock.seconds(pts) if pts is not None else round((index + (held is not None)) * step_s, 6)
            time_s = max(time_s, round(last_s + 1e-6, 6)) if last_s >= 0 else max(time_s, 0.0)
            if held is not None:
                yield PlanarFrame(held[0], facts, index, held[1], round(time_s - held[1], 6))
                index += 1
            held, last_s = (frame, time_s), time_s
    except MediaError:
        if held is not None:
            yield PlanarFrame(held[0], facts, index, held[1], round(step_s, 6))
        raise
    if held is not None:
        yield PlanarFrame(held[0], facts, index, held[1], _last_duration_s(held[0], held[1], facts))


def raw_frames(
    path: Path,
    facts: SourceFacts,
    start_pts: int | None = None,
    end_pts: int | None = None,
    beat: Beat = silent,
    limits: Limits = USUAL_LIMITS,
) -> Iterator[tuple[VideoFrame, int | None]]:
    """Decode FFmpeg's own frames with their timestamps, pts in `[start_pts, end_pts)`.

    After a seek some files (no true random access at the keyframe) give broken pictures for a while; then
    decoding starts over from the file's beginning and takes up where it was.

    Raises:
        MediaError: damage.
    """
    reached: int | None = None
    try:
        for frame, pts in _decode_from(path, facts, start_pts, end_pts, beat, limits):
            yield frame, pts
            reached = pts if pts is not None else reached
        return
    except MediaError as error:
        if start_pts is None or error.is_transient:
            raise
    resume = start_pts if reached is None else reached + 1
    for frame, pts in _decode_from(path, facts, None, end_pts, beat, limits):
        if pts is not None and pts >= resume:
            yield frame, pts
        else:
            beat(0.0)


def _decode_from(
    path: Path, facts: SourceFacts, start_pts: int | None, end_pts: int | None, beat: Beat, limits: Limits
) -> Iterator[tuple[VideoFrame, int | None]]:
    """Decode from the keyframe at or before `start_pts`; frames before it are dropped."""
    clock, last = Clock.of(facts), None
    seeks = start_pts is not None and facts.container not in NEVER_SEEK
    with open_video(path, limits) as container:
        stream = stream_of(container, facts.stream_index)
        prepare_decoder(stream, limits)
        try:
            if start_pts is not None and seeks:
                early_s = EARLY_SEEK_S.get(facts.container, 0.0)
                container.seek(max(facts.zero_pts, start_pts - round(early_s / facts.time_base)), stream=stream)
            for count, frame in enumerate(container.decode(stream), 1):
                pts = frame_pts(frame)
                if too_long := _too_long(count, clock.seconds(pts) if pts is not None else 0.0, limits):
                    raise MediaError(too_long, _after(clock, last, facts))
                if start_pts is not None:
                    if seeks and last is None and (pts is None or pts > start_pts):
                        raise MediaError("the file cannot be entered at this time")
                    if pts is not None and pts < start_pts:
                        last = pts
                        beat(0.0)
                        continue
                if end_pts is not None and pts is not None and pts >= end_pts:
                    return
                if frame.is_corrupt:
                    raise MediaError("damaged picture data", _after(clock, last, facts))
                last = pts
                yield frame, pts
        except READ_ERRORS as error:
            raise MediaError(damage(error), _after(clock, last, facts)) from None
    if seeks and (last is None or last < (start_pts or 0)):
        raise MediaError("the file cannot be entered at this time")
    if end_pts is None:
        _expect_whole(clock, last, facts)


def _too_long(count: int, time_s: float, limits: Limits) -> str | None:
    """Give the words for what goes on for longer than allowed, where the packets did not say so."""
    if count > limits.max_frames:
        return f"more than the {limits.max_frames} frames of limits.max_frames"
    if time_s > limits.max_duration_s:
        return f"longer than the {limits.max_duration_s:g} s of limits.max_duration_s"
    return None


def _expect_whole(clock: Clock, last: int | None, facts: SourceFacts) -> None:
    """Refuse a stream that ends well before the length its container states: a download cut short."""
    if last is None or facts.declared_duration_s is None or not facts.time_base:
        return
    end_s = clock.seconds(last) + (1 / facts.fps if facts.fps else 0)
    missing_s = facts.declared_duration_s - end_s
    if missing_s > max(1.0, 0.02 * facts.declared_duration_s):
        raise MediaError(f"the file ends before the {facts.declared_duration_s:.1f} s that it states", round(end_s, 6))


def _after(clock: Clock, last: int | None, facts: SourceFacts) -> float:
    """Give the time at which the last good frame ends."""
    if last is None:
        return 0.0
    return round(max(0.0, clock.seconds(last)) + (1 / facts.fps if facts.fps else 0.0), 6)


def _last_duration_s(frame: VideoFrame, time_s: float, facts: SourceFacts) -> float:
    """Give how long the last frame is shown: what its packet says, within reason, else the usual step."""
    usual_s = 1 / facts.fps if facts.fps else 0.0
    stated_s = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
    if not stated_s and not usual_s and facts.declared_duration_s:
        stated_s = facts.declared_duration_s - time_s
    return round(stated_s if 0 < stated_s <= max(10 * usual_s, 1.0) else usual_s or UNKNOWN_STEP_S, 6)
