"""The nouns of the data flow: source, segment, facts, clip, frames, operator, captioner."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np

MediaType = Literal["video", "image"]
Beat = Callable[[float], None]
"""Called with the seconds of footage dealt with since the last call: a sign of life."""


def silent(seconds: float) -> None:
    """Take no notice of a beat."""


Row = dict[str, Any]
"""One line of the table, keyed by the column names of `schema.COLUMNS`."""


@dataclass(frozen=True)
class Source:
    """One input file, as planned: known by name, size and time of change, not yet read.

    Attributes:
        root: absolute folder that `path` is relative to.
        path: input-relative POSIX path; unique within an output; part of every `clip_id`.
        size_bytes: file size.
        mtime_ns: time of last change, nanoseconds since the epoch.
    """

    root: str
    path: str
    size_bytes: int
    mtime_ns: int

    @property
    def file(self) -> Path:
        """The file on disk."""
        return Path(self.root) / self.path


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
    pixel_format: str = ""
    bit_depth: int = 8
    transfer: str = "sdr"
    """`sdr`, `pq` (HDR10) or `hlg`"""
    bit_rate_bps: int | None = None
    is_vfr: bool = False
    has_audio: bool = False
    zero_pts: int = 0
    """presentation timestamp of the first frame, in `time_base` units"""
    time_base: float = 0.0


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
class Sampling:
    """Which frames of a clip an operator looks at, and how they are given.

    Attributes:
        rate_fps: frames on the source's own time grid `k / rate_fps` (the first frame at or after each grid
            time); null: every decoded frame, which is served at the coarse size only.
        count: of these, the ones nearest to `count` uniform times (the middles of `count` equal parts);
            null: all of them.
        gap_s: each grid frame is followed by a partner, the first frame at least this much later; the
            frames then come as pairs `(2k, 2k + 1)`; null: no partners.
        short_side_px: scaled so that the shorter side has this length, never enlarged; null: full size.
        color: `rgb` gives (T, H, W, 3), `gray` gives full-range luma (T, H, W).
    """

    rate_fps: float | None = 2.0
    count: int | None = None
    gap_s: float | None = None
    short_side_px: int | None = None
    color: Literal["rgb", "gray"] = "rgb"

    def __post_init__(self) -> None:
        """Refuse what cannot be served."""
        if self.gap_s is not None and (self.count is not None or self.rate_fps is None):
            raise ValueError("pairs (gap_s) are taken at every grid time: give rate_fps and no count")


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames with their times.

    Attributes:
        pixels: uint8 (T, H, W, 3) RGB or (T, H, W) luma, upright, square pixels; all of one size.
        times_s: float64 (T,), presentation time in seconds from the source's first frame.
    """

    pixels: np.ndarray
    times_s: np.ndarray

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit together."""
        if self.pixels.dtype != np.uint8 or self.pixels.ndim not in (3, 4):
            raise ValueError(f"pixels must be uint8 (T, H, W[, 3]), got {self.pixels.dtype} {self.pixels.shape}")
        if self.times_s.shape != self.pixels.shape[:1]:
            raise ValueError(f"{self.pixels.shape[0]} frames but times of shape {self.times_s.shape}")

    def __len__(self) -> int:
        """Give the number of frames."""
        return len(self.times_s)

    def __repr__(self) -> str:
        """Show the shape, not the pixels."""
        return f"Frames({self.pixels.shape}, {len(self)} times)"


@dataclass(frozen=True, eq=False)
class ClipInput:
    """What an operator may look at of one clip: facts of its source, its span, and its frames as sampled."""

    facts: SourceFacts
    span: Span
    frames: Frames


Scores = dict[str, Any]
"""Values by column; a column that cannot be measured on this clip is None."""
Scorer = Callable[[Sequence[ClipInput]], list[Scores]]


@runtime_checkable
class Operator(Protocol):
    """A frozen dataclass: its fields are its settings, `load()` gives the function that scores clips.

    Attributes:
        writes: columns it writes (all listed in `schema.COLUMNS`).
        media: types of source it can look at.
        pool: null: a pixel operator, run beside the decoder on every clip; a name: run in the worker pool
            of that name, on clips that no rule has rejected yet.
        sampling: the frames it looks at; null: facts and span alone.
    """

    writes: ClassVar[tuple[str, ...]]
    media: ClassVar[frozenset[str]]
    pool: ClassVar[str | None]

    @property
    def sampling(self) -> Sampling | None:
        """The frames it looks at; may depend on its settings."""
        ...

    def load(self) -> Scorer:
        """Load what it holds (weights, tables) and give the scoring function.

        The function takes a batch of clips and gives one `Scores` for each, in the same order.
        """
        ...


@dataclass(frozen=True)
class Caption:
    """What a captioner says of one clip.

    Attributes:
        text: for the trainer.
        model: what wrote it.
        status: `ok`, or a reason that rejects the clip.
        clip_id: which clip it is of; null: by its place in the batch alone.
        texts: by column, such as `caption_en`.
        error: what went wrong, where something did.
    """

    text: str | None
    model: str
    status: str = "ok"
    clip_id: str | None = None
    texts: dict[str, str] = field(default_factory=dict)
    error: str | None = None


class Captioner(Protocol):
    """A frozen dataclass with settings; `load()` gives the function from clips to captions.

    Attributes:
        pool: null: runs in the finishing worker; a name: in its own worker pool.
        sampling: frames it looks at, read together with the cut; null: the row alone.
        slots: how many calls of the loaded function may be under way at once, from as many threads.
    """

    pool: ClassVar[str | None]

    @property
    def slots(self) -> int:
        """1: one call after another."""
        ...

    @property
    def sampling(self) -> Sampling | None:
        """The frames it looks at."""
        ...

    def load(self) -> Callable[[Sequence[tuple[Row, Frames | None]]], list[Caption]]:
        """Give the captioning function: one caption for each (row, frames), in the same order."""
        ...
