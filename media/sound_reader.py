"""Reading a source's sound: its packets around a span, and its samples on the span's own grid."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice
from typing import Generic, NamedTuple, TypeVar

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard

from media.container import READ_ERRORS, open_video, reason, stream_of
from media.decode import EARLY_SEEK_S, can_seek
from media.packets import usual_step_s
from media.sound_choice import MOST_CHANNELS
from media.sound_joined import SOUND_STEP_S, JoinedPieces
from media.stretch import Excerpt
from media.timeline import Unwrapper
from media.types import SourceFacts

RUN_UP_S = 0.5
"""Decoding begins so much ahead of a span: MP3 reaches back 9 frames, Opus converges within 80 ms."""
SEEK_AHEAD_S = (2.0, 30.0)
"""Seeking aims so much ahead of a span, since sound may lie before the pictures of its time; then further."""
MOST_RATE_HZ = 1_536_000
MOST_SAMPLES = 1 << 25
"""Of one decoded frame, all channels together: 128 MiB as floats."""
MOST_PACKET_BYTES = 64 << 20
SCALES = {"u8": 1 / 128, "s16": 2.0**-15, "s32": 2.0**-31, "s64": 2.0**-63, "flt": 1.0, "dbl": 1.0}
"""By FFmpeg's sample formats without the `p` of planar ones: what brings samples to -1..1."""
_TOO_MANY_PLANES = 8
"""PyAV counts planes up to a null pointer, which frames of 8 planes and more do not end with."""
_AVERAGED = 16
"""Frames over which the distance between time stamps and counted samples is averaged."""

T = TypeVar("T")
TimeOf = Callable[[int, AudioStream], float]
"""From a time stamp of a sound stream to seconds from the source's first frame."""


def time_after_first_frame(facts: SourceFacts) -> TimeOf:
    """Return the function that puts a sound stream's time stamps onto the timeline of the source's frames.

    Stamps of MPEG streams have 33 bits: sound that begins before a first picture at 0 bears the highest ones.
    """
    zero_s = facts.zero_pts * facts.time_base
    wrap_s = 2.0**33 / 90_000 if facts.container in ("mpegts", "mpeg") else None

    def time_of(pts: int, stream: AudioStream) -> float:
        time_s = float(pts * (stream.time_base or 0)) - zero_s
        return time_s if wrap_s is None else time_s - round(time_s / wrap_s) * wrap_s

    return time_of


@dataclass(frozen=True, eq=False)
class Block:
    """Decoded sound.

    Attributes:
        start: its first sample's place, counted from the span's start at `rate_hz`; never negative.
        samples: float32 (C, N), about -1..1.
        layout: FFmpeg's name of the channels' places.
    """

    start: int
    samples: np.ndarray
    rate_hz: int
    layout: str


@dataclass(frozen=True)
class Timed(Generic[T]):
    """Something that holds `count` samples, and the time that its stamp says, where it has one."""

    time_s: float | None
    count: int
    item: T


def placed(timed: Iterable[Timed[T]], rate_hz: int, tick_s: float) -> Iterator[tuple[int, int, T]]:
    """Place sound by counting samples, which is exact where time stamps are rounded (Matroska: to milliseconds).

    Counting begins where the first stamps say on the average. Where stamps say that something is missing or doubled,
    they decide: at once by more than half a frame (20 ms at most), and for less when they say so steadily.

    Args:
        timed: in order.
        rate_hz: samples per second.
        tick_s: to which stamps are rounded.

    Yields:
        Place of the first sample, counted at `rate_hz` from time 0; number of samples; item.
    """
    rest = iter(timed)
    first = list(islice(rest, _AVERAGED if tick_s * rate_hz > 1.01 else 1))
    place = _anchor(first, rate_hz, tick_s)
    tick = tick_s * rate_hz
    errors: deque[int] = deque(maxlen=_AVERAGED)
    for each in chain(first, rest):
        error = 0 if each.time_s is None else round(each.time_s * rate_hz) - place
        if abs(error) > _tolerance(each.count, rate_hz, tick):
            place += error
            errors.clear()
        else:
            errors.append(error)
            mean = round(sum(errors) / len(errors))
            if len(errors) == _AVERAGED and abs(mean) > max(tick, 1e-3 * rate_hz):
                place += mean
                errors.clear()
        yield place, each.count, each.item
        place += each.count


def _tolerance(count: int, rate_hz: int, tick: float) -> float:
    return max(2 * tick, min(count / 2, 0.02 * rate_hz))


def _anchor(first: Sequence[Timed[T]], rate_hz: int, tick_s: float) -> int:
    """Return the place of the first sample, from stamps up to the first one that does not follow."""
    found: list[float] = []
    counted = 0
    for each in first:
        if each.time_s is not None:
            begin = each.time_s * rate_hz - counted
            if found and abs(begin - found[0]) > _tolerance(each.count, rate_hz, tick_s * rate_hz):
                break
            found.append(begin)
        counted += each.count
    return round(sum(found) / len(found)) if found else 0


class SoundPacket(NamedTuple):
    """A packet, its time from the span's start in seconds, and the stream that it is of."""

    packet: Packet
    time_s: float
    stream: AudioStream


class SoundReader:
    """Reads the sound of one span of a source, decoding no more than the span and a short run-up.

    What cannot be decoded is left out; `problem` says why, once something was.
    """

    def __init__(self, excerpt: Excerpt):
        """Open nothing yet."""
        self._path, self._facts, self._span = excerpt.path, excerpt.facts, excerpt.span
        self._beat, self._limits = excerpt.beat, excerpt.limits
        self._time_of = time_after_first_frame(excerpt.facts)
        self._tick_s = 0.0
        self.problem: str | None = None

    def blocks(self) -> Generator[Block, None, None]:
        """Decode the span: blocks in the order of time that do not overlap; between them there is no sound."""
        reached_s = 0.0
        for rate_hz, frames in groupby(self._timed(), key=lambda timed: timed.item.rate_hz):
            reached = round(reached_s * rate_hz)
            end = round(self._span.duration_s * rate_hz)
            for place, count, decoded in placed(frames, rate_hz, self._tick_s):
                first = max(reached - place, 0)
                samples = decoded.samples[:, first : max(end - place, 0)]
                if samples.shape[1]:
                    reached = max(reached, place + count)
                    yield Block(place + first, samples, rate_hz, decoded.layout)
            reached_s = reached / rate_hz

    def _timed(self) -> Iterator[Timed[Block]]:
        """Decode what is read, with times from the span's start."""
        is_first = True
        for packet, packet_s, stream in self._read():
            self._tick_s = float(stream.time_base or 0)
            for frame in self._decoded(stream, packet, is_run_up=packet_s is not None and packet_s < 0):
                samples = self._samples(frame)
                if samples is None:
                    continue
                time_s = None if frame.pts is None else self._time_of(frame.pts, stream) - self._span.start_s
                if is_first and time_s is None:
                    time_s = -self._span.start_s  # a stream without times is read from the file's beginning
                is_first = False
                yield Timed(time_s, samples.shape[1], Block(0, samples, frame.sample_rate, frame.layout.name))

    def packets(self) -> Generator[SoundPacket, None, None]:
        """Read packets from the run-up on to the span's end, each with its time from the span's start in seconds."""
        for packet, time_s, stream in self._read():
            if packet is not None and time_s is not None:
                yield SoundPacket(packet, time_s, stream)

    def _read(self) -> Iterator[tuple[Packet | None, float | None, AudioStream]]:
        """Read packets with their times where known; None at the end, while the file is still open."""
        for number, entry_s in enumerate(self._entries()):
            is_last = entry_s is None or number == len(SEEK_AHEAD_S) - 1
            with open_video(self._path, self._limits) as container:
                stream = self._enter(container, entry_s)
                if stream is None:
                    continue
                packets = self._from_run_up(container, stream, None if is_last else self._span.start_s - RUN_UP_S)
                if packets is None:
                    continue
                for packet, time_s in packets:
                    yield packet, time_s, stream
                yield None, None, stream
                return

    def _from_run_up(
        self, container: InputContainer, stream: AudioStream, latest_s: float | None
    ) -> Iterator[tuple[Packet, float | None]] | None:
        """Return the packets from the run-up on; None if they begin later than `latest_s`, where they should not."""
        packets = self._demuxed(container, stream)
        first = next(packets, None)
        if latest_s is not None and (first is None or first[1] is None or first[1] > latest_s):
            return None
        return self._near(chain([] if first is None else [first], packets), stream)

    def _near(
        self, packets: Iterable[tuple[Packet, float | None]], stream: AudioStream
    ) -> Iterator[tuple[Packet, float | None]]:
        """Keep the packets of the run-up and the span, with times from the span's start."""
        span = self._span
        for packet, time_s in packets:
            if time_s is None:
                yield packet, None
                continue
            if time_s >= span.end_s:
                return
            length_s = float((packet.duration or 0) * (stream.time_base or 0))
            if time_s + length_s >= span.start_s - RUN_UP_S:
                yield packet, time_s - span.start_s

    def _entries(self) -> list[float | None]:
        """Return the times, from the source's first frame, at which reading is tried; null: the file's beginning."""
        start_s = self._span.start_s
        if not can_seek(self._facts) or not self._facts.time_base:
            return [None]
        early_s = EARLY_SEEK_S.get(self._facts.container, 0.0)
        ahead = [start_s - ahead_s - early_s for ahead_s in SEEK_AHEAD_S]
        return [*(time_s for time_s in ahead if time_s > 0), None]

    def _enter(self, container: InputContainer, entry_s: float | None) -> AudioStream | None:
        """Seek, and return the prepared sound stream; None where the file cannot be entered there."""
        facts = self._facts
        found = [s for s in container.streams.audio if s.index == facts.audio_index and s.codec_context is not None]
        if not found:
            self.problem = self.problem or "the stream is gone"
            return None
        stream = found[0]
        channels = stream.codec_context.layout.nb_channels
        if channels > MOST_CHANNELS or stream.codec_context.sample_rate > MOST_RATE_HZ:
            self.problem = f"{channels} channels at {stream.codec_context.sample_rate} Hz"
            return None
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"max_samples": str(MOST_SAMPLES // max(1, channels))}
        if entry_s is not None:
            try:
                pts = facts.zero_pts + round(entry_s / facts.time_base)
                container.seek(max(facts.zero_pts, pts), stream=stream_of(container, facts.stream_index))
            except READ_ERRORS:
                return None
        for other in container.streams:  # not before: seeking looks at the pictures
            is_clock = facts.is_joined and other.index == facts.stream_index
            if other.index != stream.index and not is_clock:
                other.discard = Discard.all
        return stream

    def _demuxed(self, container: InputContainer, stream: AudioStream) -> Iterator[tuple[Packet, float | None]]:
        """Read the stream's packets, with their times from the source's first frame where known."""
        try:
            for packet in self._on_one_timeline(container, stream):
                self._beat(0.0)
                if packet.size > MOST_PACKET_BYTES:
                    self.problem = self.problem or f"a packet of {packet.size} bytes"
                elif packet.size:
                    yield packet, None if packet.pts is None else self._time_of(packet.pts, stream)
        except READ_ERRORS as error:
            self.problem = self.problem or reason(error)

    def _on_one_timeline(self, container: InputContainer, stream: AudioStream) -> Iterator[Packet]:
        """Read the stream's packets; where a file's clock starts anew, on the timeline of its pictures."""
        facts = self._facts
        if not facts.is_joined:
            yield from container.demux(stream)
            return
        picture = stream_of(container, facts.stream_index)
        pieces = JoinedPieces(
            Unwrapper(facts.time_base, facts.container, usual_step_s(picture)),
            Unwrapper(float(stream.time_base or 0), facts.container, SOUND_STEP_S),
            facts.time_base / float(stream.time_base or 1),
        )
        for packet in container.demux(picture, stream):
            self._beat(0.0)
            if packet.stream_index == stream.index:
                pieces.hold(packet)
            elif packet.size:
                pieces.picture(packet)
            yield from pieces.ready()
        yield from pieces.rest()

    def _decoded(self, stream: AudioStream, packet: Packet | None, *, is_run_up: bool) -> list[AudioFrame]:
        """Decode a packet; in the run-up some refer to what was not read, which is no damage."""
        try:
            return list(stream.codec_context.decode(packet))
        except EOFError:
            return []
        except (*READ_ERRORS, ValueError) as error:
            self.problem = self.problem or (None if is_run_up else reason(error))
            return []

    def _samples(self, frame: AudioFrame) -> np.ndarray | None:
        """Return a frame as float32 (C, N); None for one of a kind that cannot be."""
        channels, name = frame.layout.nb_channels, frame.format.name
        base = name.removesuffix("p")
        if not 0 < channels <= MOST_CHANNELS or not 0 < frame.sample_rate <= MOST_RATE_HZ or base not in SCALES:
            self.problem = self.problem or f"{channels} channels of {name} at {frame.sample_rate} Hz"
            return None
        if frame.format.is_planar and channels >= _TOO_MANY_PLANES:
            packed = av.AudioResampler(format=base, layout=frame.layout, rate=frame.sample_rate).resample(frame)
            samples = np.concatenate([part.to_ndarray() for part in packed], axis=1).reshape(-1, channels).T
        else:
            samples = frame.to_ndarray()
            if not frame.format.is_planar:
                samples = samples.reshape(-1, channels).T
        if base == "u8":
            samples = samples.astype(np.float32) - 128
        scaled = samples if SCALES[base] == 1.0 else samples * np.float32(SCALES[base])
        return np.nan_to_num(scaled.astype(np.float32, copy=False), nan=0.0, posinf=0.0, neginf=0.0)
