"""The nouns of the data flow: source, segment, facts, clip, frames, operator, captioner."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from core.storage.staging import staged_path
from core.storage.urls import is_url
from curation.schema import Column
from media.types import SourceFacts, Span

Row = dict[str, Any]
"""One line of the table, keyed by the column names of `schema.COLUMNS`."""


@dataclass(frozen=True, slots=True)
class Source:
    """One input file, as planned: known by name, size and time of change, not yet read.

    Attributes:
        root: absolute folder that `path` is relative to, or the URL of one in a bucket or on a web server.
        path: input-relative POSIX path; unique within an output; part of every `clip_id`.
        size_bytes: file size.
        mtime_ns: time of last change, nanoseconds since the epoch; of an object a number made of its version (ETag).
    """

    root: str
    path: str
    size_bytes: int
    mtime_ns: int

    @property
    def is_remote(self) -> bool:
        """Return whether it lies in a bucket or on a web server."""
        return is_url(self.root)

    @property
    def url(self) -> str:
        """Its name as it was found: a path, or a URL."""
        return f"{self.root.rstrip('/')}/{self.path}" if not self.root.endswith("://") else f"{self.root}{self.path}"

    @property
    def file(self) -> Path:
        """The file on disk; of an object its copy on this node, which is there while a media task runs."""
        return staged_path(self.url, self.mtime_ns) if self.is_remote else Path(self.root) / self.path


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
        """Return the number of frames."""
        return len(self.times_s)

    def __repr__(self) -> str:
        """Show the shape, not the pixels."""
        return f"Frames({self.pixels.shape}, {len(self)} times)"


@dataclass(frozen=True, eq=False)
class ClipInput:
    """What an operator may look at of one clip.

    Attributes:
        facts: of its source.
        span: of the clip.
        frames: as sampled.
        sound: float32 (N,), one channel of about -1..1 at the rate of an operator that `Hears`; null for others, where
            the clip has no sound, and where some of it cannot be decoded.
    """

    facts: SourceFacts
    span: Span
    frames: Frames
    sound: np.ndarray | None = None


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


@runtime_checkable
class Hears(Protocol):
    """An operator beside the decoder (`pool` is null) that is given the sound of clips: samples per second."""

    sound_hz: ClassVar[int]


@runtime_checkable
class WritesVectors(Protocol):
    """An operator whose column holds vectors of one length."""

    @property
    def dim(self) -> int:
        """Numbers in each vector; known without loading the network."""
        ...


@runtime_checkable
class DeclaresColumns(Protocol):
    """An operator of a plug-in: it declares its columns itself, which `schema.COLUMNS` does not know."""

    columns: ClassVar[tuple[Column, ...]]


@runtime_checkable
class TableOperator(Protocol):
    """A frozen dataclass that compares the rows of a whole table; what it finds fills one column.

    Attributes:
        writes: that column alone.
    """

    writes: ClassVar[tuple[str, ...]]

    def reads(self, there: Sequence[str]) -> list[str]:
        """Return the columns that `find` looks at, of those that a table has."""
        ...

    def find(self, table: pa.Table, standing: np.ndarray) -> pa.Array:
        """Return the value of every row.

        Args:
            table: the columns of `reads`; N rows in any order.
            standing: bool (N,), rows that no rule rejects.
        """
        ...


Align = Callable[[Sequence[tuple[str | None, Frames | None]]], list[float | None]]
"""From (caption, frames) to a likeness, None where one of them is missing"""


class CaptionScorer(Protocol):
    """A frozen dataclass that compares captions with the frames of their clips, once both are there.

    Attributes:
        writes: the column of the likeness.
    """

    writes: ClassVar[tuple[str, ...]]

    @property
    def min_score(self) -> float:
        """The likeness below which a caption rejects its clip."""
        ...

    @property
    def sampling(self) -> Sampling | None:
        """The frames it looks at."""
        ...

    def load(self) -> Align:
        """Load what it holds and return the comparing function: one number for each pair, in the same order."""
        ...


AnyOperator = Operator | TableOperator | CaptionScorer
"""What stands under `operators` in a recipe"""


@dataclass(frozen=True)
class MapFacts:
    """What is known of a control map once its clip has ended.

    Attributes:
        amount: how much it holds, 0..1; what that means is said in `schema.CONTROLS`.
        text: the content of a map that is a text file; null where there is none to write.
    """

    amount: float
    text: str | None = None


class MapDrawer(Protocol):
    """Draws the map of one clip, frame by frame."""

    def draw(self, picture: np.ndarray, time_s: float) -> np.ndarray | None:
        """Return the map of the next frame.

        Args:
            picture: uint8 (H, W) full-range luma, or (H, W, 3) RGB, as `takes` says; not to be changed, and
                other memory's once the next frame comes.
            time_s: from the clip's start.

        Returns:
            uint8 (H, W), or (H, W, 3) RGB, until the next frame comes; null from a control whose map is a text file.
        """
        ...

    def finish(self) -> MapFacts:
        """Return what is known once the last frame is drawn."""
        ...


@runtime_checkable
class Control(Protocol):
    """A frozen dataclass: its fields are its settings, `start()` gives what draws the map of one clip.

    Attributes:
        media: types of row it makes maps of.
        suffix: of the map of a video: `mp4`, or `txt` for one that is a text file. That of an image is a JPEG.
    """

    media: ClassVar[frozenset[str]]
    suffix: ClassVar[Literal["mp4", "txt"]]

    @property
    def takes(self) -> Literal["gray", "rgb"]:
        """The pictures it looks at."""
        ...

    def start(self) -> MapDrawer:
        """Return a drawer for one clip.

        Raises:
            UserError: the network that draws cannot be loaded here.
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
        """Return the captioning function: one caption for each (row, frames), in the same order."""
        ...
