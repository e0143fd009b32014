"""The sound of clips, written beside their pictures: as AAC, or as the source's own packets.

Use: open it for a span, `add_to` the file that is being written, `write` along with the pictures, `close` before the
file is closed and `settle` after it.
"""

import io
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Literal, Protocol

import av
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet

from media.container import open_video, reason
from media.edit_list import skip_first_samples
from media.sound_encoder import Encoder
from media.sound_reader import Block, SoundReader, Timed, placed
from media.stretch import Excerpt
from media.types import Span

Audio = Literal["keep", "drop"]
CAN_HOLD = {
    "mp4": frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"}),
    "webm": frozenset({"opus", "vorbis"}),
    "matroska": frozenset((
        *("aac", "mp3", "mp2", "ac3", "eac3", "alac", "opus", "flac", "vorbis", "dts", "truehd", "wavpack"),
        *("pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_s16be", "pcm_s24be", "pcm_f32le", "pcm_f64le", "pcm_u8"),
    )),
}
"""Codecs that are copied, by FFmpeg's name of the container: what it holds, and players find in it."""
EARLIER_PACKETS = {"aac": 2, "mp3": 9, "opus": 4, "ac3": 1, "eac3": 1}
"""How many packets before the first one a decoder has to have seen, to give that one right."""
GRAINS = {"ac3": 1536, "eac3": 256, "opus": 120}
"""Packets of these codecs hold a multiple of so many samples (Opus at 48 kHz); of others `frame_size`, if it is set."""


@dataclass(frozen=True)
class WrittenSound:
    """What a clip's file holds of sound.

    Attributes:
        codec: FFmpeg's name; null: it holds none.
        status: `ok`, or why sound is missing or incomplete; null where the source has no sound at all.
    """

    codec: str | None = None
    rate_hz: int | None = None
    channels: int | None = None
    status: str | None = None


class Sound(Protocol):
    """Sound that is being written."""

    def add_to(self, output: OutputContainer) -> None:
        """Add a stream, before the file's first packet."""
        ...

    def write(self, until_s: float) -> None:
        """Write what is heard before this time, in seconds from the clip's start."""
        ...

    def close(self) -> WrittenSound:
        """Write the rest."""
        ...

    def settle(self, path: Path) -> None:
        """Set in the closed file what could not be set before."""
        ...


@contextmanager
def open_sound(excerpt: Excerpt, audio: Audio, container: str = "mp4", *, copies: bool = False) -> Iterator[Sound]:
    """Open the sound of a span; sound that is missing, or cannot be decoded, is none and never an error.

    Args:
        excerpt: of the source; sound of its first moment is written at time 0.
        audio: `drop` writes none.
        container: FFmpeg's name of the format that is written.
        copies: write packets as they are, where the container holds their codec.

    Raises:
        MediaError: the storage failed, or the file is gone.
    """
    facts = excerpt.facts
    if facts.audio_index is None:
        yield NoSound(None)
        return
    if audio == "drop":
        yield NoSound("dropped: cut.audio is drop")
        return
    reader = SoundReader(excerpt)
    with closing(reader.blocks()) as blocks:
        first = next(blocks, None)
        if first is None:
            yield NoSound(f"cannot be decoded: {reader.problem}" if reader.problem else "none in this span")
            return
        if copies and facts.audio_codec in CAN_HOLD[container]:
            with open_video(excerpt.path, excerpt.limits) as source:
                template = source.streams[facts.audio_index]
                if isinstance(template, AudioStream) and _is_taken(template, container):
                    for _ in blocks:  # what a player will make of the packets is known by decoding them
                        pass
                    copied = SoundReader(excerpt)
                    with closing(copied.packets()) as packets:
                        yield CopiedSound(template, reader, packets, first, excerpt.span, container)
                    return
        yield EncodedSound(chain([first], blocks), first, reader, container)


def _is_taken(template: AudioStream, container: str) -> bool:
    """Return whether FFmpeg writes such a stream into such a container, by trying the file's head."""
    try:
        with av.open(io.BytesIO(), "w", format=container) as output:
            output.add_stream_from_template(template)
            output.start_encoding()
    except (av.error.FFmpegError, ValueError):
        return False
    return True


class NoSound:
    """Writes nothing."""

    def __init__(self, status: str | None):
        """Say why."""
        self._status = status

    def add_to(self, output: OutputContainer) -> None:
        """Add no stream."""

    def write(self, until_s: float) -> None:
        """Write nothing."""

    def close(self) -> WrittenSound:
        """Return why there is none."""
        return WrittenSound(status=self._status)

    def settle(self, path: Path) -> None:
        """Change nothing."""


class EncodedSound:
    """Writes decoded sound as AAC; what is missing within it is silence, since AAC knows no gaps."""

    def __init__(self, blocks: Iterator[Block], first: Block, reader: SoundReader, container: str):
        """Encode these blocks, all of them in the form of the first."""
        self._blocks, self._reader = blocks, reader
        self._held: Block | None = None
        self._encoder = Encoder(first, container)
        self._is_mp4 = container == "mp4"

    def add_to(self, output: OutputContainer) -> None:
        """Add a stream."""
        self._encoder.add_to(output)

    def write(self, until_s: float) -> None:
        """Encode blocks that begin before this time."""
        while True:
            block, self._held = self._held or next(self._blocks, None), None
            if block is None:
                return
            if block.start / block.rate_hz >= until_s:
                self._held = block
                return
            self._encoder.write(block)

    def close(self) -> WrittenSound:
        """Encode the rest."""
        self.write(float("inf"))
        encoder = self._encoder
        encoder.close()
        problem = self._reader.problem
        status = f"damaged, {encoder.silent_s:.2f} s are silent: {problem}" if problem else "ok"
        return WrittenSound(encoder.codec, encoder.rate_hz, encoder.channels, status)

    def settle(self, path: Path) -> None:
        """Declare the encoder's priming where the track starts late."""
        if self._is_mp4 and self._encoder.skips:
            skip_first_samples(path, self._encoder.skips)


class CopiedSound:
    """Writes the source's own packets; in MP4 an edit list cuts them to the sample.

    Elsewhere the track begins with the first packet that begins within the span.
    """

    def __init__(
        self,
        template: AudioStream,
        reader: SoundReader,
        packets: Iterator[tuple[Packet, float, AudioStream]],
        first: Block,
        span: Span,
        container: str,
    ):
        """Copy these packets; `first` is what they decode to at the span's beginning."""
        self._template, self._reader, self._packets = template, reader, packets
        self._rate_hz, self._channels = first.rate_hz, first.samples.shape[0]
        self._start = first.start if first.start > 1 else 0  # where their sound begins, in samples from the span's
        self._end = round(span.duration_s * first.rate_hz)
        self._is_mp4 = container == "mp4"
        self._skips = 0
        self._problem: str | None = None

    def add_to(self, output: OutputContainer) -> None:
        """Add a stream of the source's kind."""
        self._output = output
        self._stream = output.add_stream_from_template(self._template)
        self._copies = self._copied()

    def write(self, until_s: float) -> None:
        """Write packets; they are few, so that the muxer may put them between the pictures."""
        for place, packet in self._copies:
            try:
                self._output.mux(packet)
            except (av.error.InvalidDataError, av.error.ArgumentError) as error:  # such as a broken ADTS header
                self._problem = self._problem or reason(error)
            if place >= until_s * self._rate_hz:
                return

    def close(self) -> WrittenSound:
        """Write the rest."""
        self.write(float("inf"))
        codec = self._template.codec_context.codec.canonical_name
        problem = self._problem or self._reader.problem
        return WrittenSound(codec, self._rate_hz, self._channels, f"damaged: {problem}" if problem else "ok")

    def settle(self, path: Path) -> None:
        """Let a track that starts late skip what its decoder has to see first."""
        if self._skips:
            skip_first_samples(path, self._skips)

    def _copied(self) -> Iterator[tuple[int, Packet]]:
        """Yield packets with their places, from those on that the decoder has to see first."""
        codec = self._template.codec_context.codec.canonical_name
        earlier: deque[tuple[int, int, bytes]] = deque(maxlen=EARLIER_PACKETS.get(codec, 0) + 1)
        shift, last, is_begun = 0, -(2**62), False
        for place, count, data in self._placed(codec):
            if place >= self._end or place <= last:
                continue
            last = place
            earlier.append((place, count, data))
            if not is_begun:
                if place + count <= self._start or (place < 0 and not self._is_mp4):
                    continue
                is_begun = True
                skips = self._start - earlier[0][0]
                if self._is_mp4 and self._start > 0 and skips > 0:
                    self._skips = shift = skips
            else:
                earlier = deque(earlier, maxlen=1)
            for item in earlier if self._is_mp4 else [earlier[-1]]:
                yield item[0], self._packet(*item, shift)

    def _packet(self, place: int, count: int, data: bytes, shift: int) -> Packet:
        packet = Packet(data)
        packet.stream, packet.time_base = self._stream, Fraction(1, self._rate_hz)
        packet.pts = packet.dts = place + shift
        packet.duration = min(count, self._end - place)
        packet.is_keyframe = True
        return packet

    def _placed(self, codec: str) -> Iterator[tuple[int, int, bytes]]:
        """Yield packets with place and number of samples."""
        first = next(self._packets, None)
        if first is None:
            return
        stream = first[2]
        tick_s = float(stream.time_base or 0)
        is_exact = tick_s * self._rate_hz < 1.01
        grain = 0 if is_exact else GRAINS.get(codec, stream.codec_context.frame_size)
        timed = (
            Timed(time_s, self._count(packet, tick_s, grain), packet)
            for packet, time_s, _ in chain([first], self._packets)
        )
        if is_exact or grain:
            for place, count, packet in placed(timed, self._rate_hz, tick_s):
                yield place, count, bytes(packet)
        else:
            for each in timed:
                yield round((each.time_s or 0.0) * self._rate_hz), each.count, bytes(each.item)

    def _count(self, packet: Packet, tick_s: float, grain: int) -> int:
        """Return how many samples a packet holds; `grain`: a multiple of so many, 0 where that is not known."""
        count = (packet.duration or 0) * tick_s * self._rate_hz
        return max(1, round(count / grain)) * grain if grain else round(count)
