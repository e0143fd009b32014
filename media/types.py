"""The nouns of media: what a source is, which stretch of it is meant, and what of it is lost."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

MediaType = Literal["video", "image"]
Heartbeat = Callable[[float], None]
"""Called with the seconds of footage dealt with since the last call: a sign of life."""


def no_heartbeat(seconds: float) -> None:
    """Ignore a heartbeat."""


@dataclass(frozen=True)
class SourceFacts:
    """What the container and its packets say about the chosen video stream (or the image).

    Sizes are as displayed: rotation and pixel aspect applied. Times are seconds from the first frame.
    """

    type: MediaType
    width_px: int
    height_px: int
    codec: str
    fps: float | None = None
    """mean frame rate over the stream's presentation; null for an image"""
    declared_frames: int | None = None
    """packets that will be shown; the decoder has the last word"""
    declared_duration_s: float | None = None
    container: str = ""
    """FFmpeg's name of the file format"""
    stream_index: int = 0
    coded_width_px: int = 0
    coded_height_px: int = 0
    rotation_deg: int = 0
    """clockwise turn that shows the picture upright: 0, 90, 180 or 270"""
    is_mirrored: bool = False
    """left and right are exchanged before that turn"""
    pixel_format: str = ""
    bit_depth: int = 8
    transfer: str = "sdr"
    """`sdr`, `pq` (HDR10) or `hlg`"""
    peak_nits: float | None = None
    """brightest light of an HDR source as it states, cd/m2"""
    mastering: str = ""
    """mastering display and content light of an HDR source, in the words of x265's options"""
    interlaced: str = "progressive"
    """`progressive`, `tff` or `bff`: which field of a frame is shown first"""
    bit_rate_bps: int | None = None
    is_vfr: bool = False
    has_audio: bool = False
    audio_index: int | None = None
    """which stream's sound clips are given; null: there is none"""
    audio_codec: str | None = None
    """null also where FFmpeg does not know it"""
    audio_rate_hz: int | None = None
    audio_channels: int | None = None
    zero_pts: int = 0
    """presentation timestamp of the first frame, in `time_base` units"""
    time_base: float = 0.0
    pixel_aspect: float | None = None
    """width of a stored pixel by its height; null where the file does not say"""
    is_joined: bool = False
    """its clock starts anew midway: the file is read from its beginning, on one timeline"""
    is_whole: bool = False
    """all is there that the file says it holds; false also where it does not say"""
    last_pts: int | None = None
    """of the last packet that is shown"""
    end_pts: int | None = None
    """where the presentation ends, in `time_base` units; null where nothing says it"""
    other_streams: tuple[str, ...] = ()
    """video streams that were not chosen, in words"""


@dataclass(frozen=True)
class Segment:
    """A keyframe-aligned stretch of a source, the unit of parallel decode: pts in `[start_pts, end_pts)`.

    Null borders are open: the segment reaches the source's start or end. Borders depend on the source and
    the recipe only, never on the machine.
    """

    index: int
    count: int
    start_pts: int | None
    end_pts: int | None
    previous_pts: int | None = None
    """of the last frame before the segment"""


@dataclass(frozen=True)
class Span:
    """A stretch of a source, half-open, in seconds and in decoded frames from the source's first frame."""

    start_s: float
    end_s: float
    start_frame: int
    num_frames: int

    @property
    def duration_s(self) -> float:
        """Length in seconds, to the microsecond."""
        return round(self.end_s - self.start_s, 6)


@dataclass(frozen=True)
class Lost:
    """A stretch of a source of which there are no whole pictures, in seconds from the source's first frame."""

    start_s: float
    end_s: float
    what: str
