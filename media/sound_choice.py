"""Which of a file's sound streams clips are given, and what the container says of it."""

from dataclasses import dataclass

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from media.container import READ_ERRORS

MOST_CHANNELS = 64
"""A stream that claims more is not decoded."""
_IMPAIRED = Disposition.hearing_impaired | Disposition.visual_impaired | Disposition.comment | Disposition.karaoke


@dataclass(frozen=True)
class SoundFacts:
    """The sound stream that a player would choose, under the names of `SourceFacts`."""

    audio_index: int | None = None
    audio_codec: str | None = None
    audio_rate_hz: int | None = None
    audio_channels: int | None = None


def choose_sound(container: InputContainer, picture: VideoStream | None) -> SoundFacts:
    """Choose the sound stream as players do, and return what the container says of it.

    One that can be decoded comes first, then one that is not made for a special audience, then the default one,
    then the one that FFmpeg's own choice (same programme as the picture, bit rate) gives, then more channels.
    """
    streams = list(container.streams.audio)
    if not streams:
        return SoundFacts()
    try:
        best = container.streams.best("audio", picture)
    except READ_ERRORS:
        best = None

    def rank(stream: AudioStream) -> tuple[bool, bool, bool, bool, int, int]:
        codec = stream.codec_context
        return (
            codec is not None and codec.sample_rate > 0 and codec.layout.nb_channels > 0,
            not stream.disposition & _IMPAIRED,
            bool(stream.disposition & Disposition.default),
            best is not None and best.index == stream.index,
            min(codec.layout.nb_channels, MOST_CHANNELS) if codec is not None else 0,
            -stream.index,
        )

    chosen = max(streams, key=rank)
    codec = chosen.codec_context
    if codec is None:
        return SoundFacts(chosen.index)
    return SoundFacts(
        chosen.index, codec.codec.canonical_name, codec.sample_rate or None, codec.layout.nb_channels or None
    )
