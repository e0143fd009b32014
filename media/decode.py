"""Decoding a stretch of a source once, in presentation order, with true times."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from core.errors import MediaError
from core.limits import Limits
from media import animated
from media.container import READ_ERRORS, damage, open_video, prepare_decoder, stream_of
from media.deinterlace import as_shown
from media.frame import DecodedFrame, PlanarFrame
from media.packets import from_keyframe, read_packets, usual_step_s
from media.stream_decoder import Damage, RawFrame, StreamDecoder
from media.stretch import Stretch
from media.timeline import Clock, Unwrapper
from media.types import Lost, SourceFacts

NEVER_SEEK = frozenset({"mpeg"})
"""Formats that give wrong times after a seek: they are read from the start."""
EARLY_SEEK_S = {"mpegts": 2.0}
"""Formats that are searched by decoding time and land late: aim this much earlier."""
RUN_UP_S = 30.0
"""Where a file cannot be entered at a keyframe, decoding begins this much earlier, then at the file's beginning."""

UNKNOWN_STEP_S = 1 / 25
"""How long a lone frame is shown of which nothing is known."""


class FrameReader(Protocol):
    """A decoder: yields the frames of a stretch in order."""

    def __call__(self, stretch: Stretch) -> Iterator[DecodedFrame | Lost]:
        """Decode, with a beat for each frame skipped; raises MediaError, with its time, where reading ends."""
        ...


def can_seek(facts: SourceFacts) -> bool:
    """Return whether a file can be entered midway: not where its clock restarts, nor where seeks give wrong times."""
    return facts.container not in NEVER_SEEK and not facts.is_joined


def read_frames(stretch: Stretch) -> Iterator[DecodedFrame | Lost]:
    """Decode the frames of a stretch with FFmpeg (through PyAV).

    `index` counts from the first frame given. Frames of equal or falling time (broken muxing) keep their
    place and are given strictly rising times. A frame is shown until the next one, or until damage begins.

    Raises:
        MediaError: the end of what can be read, with its time, before the end that the file states.
    """
    facts = stretch.facts
    clock = Clock.of(facts)
    step_s = 1 / facts.fps if facts.fps else 0.0
    last_s = -1.0
    held: tuple[RawFrame, float] | None = None
    index = 0
    try:
        for item in raw_frames(stretch):
            if isinstance(item, Damage):
                lost = Lost(clock.seconds(item.start_pts), clock.seconds(item.end_pts), item.what)
                if held is not None:
                    lost = Lost(max(lost.start_s, round(held[1] + 1e-6, 6)), lost.end_s, lost.what)
                    yield PlanarFrame(held[0].frame, held[0].facts, index, held[1], round(lost.start_s - held[1], 6))
                    held, index = None, index + 1
                last_s = max(last_s, lost.end_s - 1e-6)
                yield lost
                continue
            counted_s = round((index + (held is not None)) * step_s, 6)
            time_s = clock.seconds(item.pts) if item.pts is not None else counted_s
            time_s = max(time_s, round(last_s + 1e-6, 6)) if last_s >= 0 else max(time_s, 0.0)
            if held is not None:
                yield PlanarFrame(held[0].frame, held[0].facts, index, held[1], round(time_s - held[1], 6))
                index += 1
            held, last_s = (item, time_s), time_s
    except MediaError:
        if held is not None:
            yield PlanarFrame(held[0].frame, held[0].facts, index, held[1], last_duration_s(held[0], held[1], facts))
        raise
    if held is not None:
        yield PlanarFrame(held[0].frame, held[0].facts, index, held[1], last_duration_s(held[0], held[1], facts))


def whole_frames(stretch: Stretch) -> Iterator[DecodedFrame]:
    """Decode a stretch that must be whole.

    Raises:
        MediaError: it is not.
    """
    for item in read_frames(stretch):
        if isinstance(item, Lost):
            raise MediaError(item.what, item.start_s, end_s=item.end_s)
        yield item


def raw_frames(stretch: Stretch) -> Iterator[RawFrame | Damage]:
    """Decode FFmpeg's own frames of a stretch with their timestamps, and stretches of damage.

    After a seek some files (no true random access at the keyframe) give broken pictures for a while; then
    decoding starts over from further ahead of that place and takes up where it was.

    Raises:
        MediaError: the end of what can be read, before the end that the file states.
    """
    facts, start_pts = stretch.facts, stretch.start_pts
    if facts.container in animated.CONTAINERS:
        yield from animated.animated_frames(stretch)
        return
    run_up = round(RUN_UP_S / facts.time_base) if facts.time_base else 0
    entries: list[int | None] = [None]
    if start_pts is not None and start_pts > facts.zero_pts and can_seek(facts):
        entries = [start_pts, start_pts - run_up, None] if start_pts - run_up > facts.zero_pts else [start_pts, None]
    resume = start_pts
    for number, entry in enumerate(entries):
        doubts_damage = number == 0 and len(entries) > 1
        reading = _Reading(replace(stretch, start_pts=resume), entry, doubts_damage)
        try:
            for item in as_shown(reading.items(), facts):
                yield item
                if isinstance(item, Damage):
                    resume = item.end_pts
                elif item.pts is not None:
                    resume = item.pts + 1
            return
        except _EntersBadly:
            continue


class _EntersBadly(Exception):
    """Decoding did not begin as it would have, had it come from before: start further ahead."""


@dataclass(frozen=True, eq=False)
class _Reading:
    """One way through the file: from an entry (null: its beginning), items from `start_pts` on are given."""

    stretch: Stretch
    entry_pts: int | None
    doubts_damage: bool
    """damage in the first group of pictures may come of the entry rather than of the file"""

    def items(self) -> Iterator[RawFrame | Damage]:
        """Yield what lies in the stretch.

        Raises:
            _EntersBadly: the first picture comes late, or is broken.
        """
        is_entered = self.entry_pts is None
        last: int | None = None  # pts of the last frame, before the stretch or in it
        damaged_to: int | None = None
        for item, is_first_group in self._decoded():
            if isinstance(item, Damage):
                if self.doubts_damage and is_first_group:
                    raise _EntersBadly
                damaged = self._within(item)
                is_entered = is_entered or item.start_pts <= (self.stretch.start_pts or 0)
                if damaged is not None:
                    damaged_to = damaged.end_pts
                    yield damaged
                continue
            pts = item.pts
            if not is_entered and self.stretch.start_pts is not None and (pts is None or pts > self.stretch.start_pts):
                raise _EntersBadly
            is_entered = True
            if self.stretch.start_pts is not None and pts is not None and pts < self.stretch.start_pts:
                last = pts
                self.stretch.beat(0.0)
                continue
            if self.stretch.end_pts is not None and pts is not None and pts >= self.stretch.end_pts:
                return
            last = pts
            yield item
        if not is_entered:
            raise _EntersBadly
        if self.stretch.end_pts is None:
            _expect_whole(last, damaged_to, self.stretch.facts)

    def _within(self, item: Damage) -> Damage | None:
        """Return the part of damage that lies in the stretch."""
        start = item.start_pts if self.stretch.start_pts is None else max(item.start_pts, self.stretch.start_pts)
        end = item.end_pts if self.stretch.end_pts is None else min(item.end_pts, self.stretch.end_pts)
        return Damage(start, end, item.what) if start < end else None

    def _decoded(self) -> Iterator[tuple[RawFrame | Damage, bool]]:
        """Yield everything from the entry on, each with whether it belongs to the first group of pictures."""
        facts, limits = self.stretch.facts, self.stretch.limits
        clock = Clock.of(facts)
        with open_video(self.stretch.path, limits) as container:
            stream = stream_of(container, facts.stream_index)
            prepare_decoder(stream, limits)
            sought = self.entry_pts is not None
            if self.entry_pts is not None:
                early = round(EARLY_SEEK_S.get(facts.container, 0.0) / facts.time_base)
                try:
                    container.seek(max(facts.zero_pts, self.entry_pts - early), stream=stream)
                except READ_ERRORS:
                    raise _EntersBadly from None
            unwrapper = None if sought else Unwrapper(facts.time_base, facts.container, usual_step_s(stream))
            packets = read_packets(container, stream, unwrapper)
            skips = not sought and self.stretch.start_pts is not None and not can_seek(facts)
            if skips and self.stretch.start_pts is not None:
                packets = from_keyframe(packets, self.stretch.start_pts, self.stretch.beat)
            decoder = StreamDecoder(stream, facts, starts_midway=sought or skips)
            keyframes = count = 0
            try:
                for placed in packets:
                    keyframes += placed.packet.is_keyframe
                    for item in decoder.push(placed):
                        if isinstance(item, RawFrame):
                            count += 1
                            time_s = clock.seconds(item.pts) if item.pts is not None else 0.0
                            if too_long := _too_long(count, time_s, limits):
                                raise MediaError(too_long, max(0.0, time_s))
                        yield item, keyframes <= 1
            except READ_ERRORS as error:
                decoder.fail(damage(error))
            for item in decoder.finish():
                yield item, keyframes <= 1


def _too_long(count: int, time_s: float, limits: Limits) -> str | None:
    """Return the words for what goes on for longer than allowed, where the packets did not say so."""
    if count > limits.max_frames:
        return f"more than the {limits.max_frames} frames of limits.max_frames"
    if time_s > limits.max_duration_s:
        return f"longer than the {limits.max_duration_s:g} s of limits.max_duration_s"
    return None


def _expect_whole(last: int | None, damaged_to: int | None, facts: SourceFacts) -> None:
    """Refuse a stream that ends well before the length its container states: a download cut short."""
    if last is None or facts.declared_duration_s is None or not facts.time_base or facts.is_whole:
        return
    clock = Clock.of(facts)
    end_s = clock.seconds(last) + (1 / facts.fps if facts.fps else 0)
    end_s = max(end_s, clock.seconds(damaged_to)) if damaged_to is not None else end_s
    missing_s = facts.declared_duration_s - end_s
    if missing_s > max(1.0, 0.02 * facts.declared_duration_s):
        raise MediaError(f"the file ends before the {facts.declared_duration_s:.1f} s that it states", round(end_s, 6))


def last_duration_s(last: RawFrame, time_s: float, facts: SourceFacts) -> float:
    """Return how long the last frame is shown: until the stream's end, else as its packet says, else the usual step."""
    usual_s = 1 / facts.fps if facts.fps else 0.0
    if facts.end_pts is not None and last.pts is not None and last.pts == facts.last_pts:
        until_end_s = Clock.of(facts).seconds(facts.end_pts) - time_s
        if until_end_s > 0:
            return round(until_end_s, 6)
    stated_s = last.duration * facts.time_base
    if not stated_s and not usual_s and facts.declared_duration_s:
        stated_s = facts.declared_duration_s - time_s
    return round(stated_s if stated_s > 0 else usual_s or UNKNOWN_STEP_S, 6)
