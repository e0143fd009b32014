"""The words of training: rows, buckets, micro-batches."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from models.geometry import Bucket

ALL_LEVELS = (0.0, 0.0, 1000.0)
"""of a row whose noise levels are those of the objective: tilt, lowest and highest timestep"""


class Levels(NamedTuple):
    """Which noise levels a row is trained at: the tilt of their density, the lowest and the highest timestep."""

    tilt: float
    min_t: float
    max_t: float


@dataclass(frozen=True, slots=True)
class TrainRow:
    """One video or image to train on.

    Attributes:
        row_id: stable name: `clip_id` where the metadata has one, else the path as the metadata gives it.
        path: the file that is read; a clip's own, or the source that holds the span.
        caption: the text.
        kind: `video` or `image`.
        width_px: as displayed; None until probed.
        height_px: as displayed; None until probed.
        num_frames: frames of the span; None until probed; 1 for images.
        duration_s: length of the span; None until probed; 0 for images.
        start_s: the span's begin in the file, None for a whole file.
        end_s: the span's end in the file, None for a whole file.
        weight: factor on this row's loss, from the weight expression; 1 without one.
        rate_fps: frames a second that are taken, about the middle of the span; None: they are spread over all of it.
        letterbox: fit the picture in whole, between black bars, instead of cropping it.
        source: name of what the clip was cut from, where the metadata tells it: its content id, else its path.
        repeat: how often it is drawn an epoch, on average; from the repeat expression.
        groups: for each quota of that expression the group that the row is in, until quotas are applied.
        tilt: of its noise levels, above 0 towards much noise (`models.denoise.densities`).
        captions: those it is trained with, in turn; empty: `caption` alone.
        caption_shares: how often each is drawn, against the others.
        min_t: lowest timestep, 0..1000.
        max_t: highest timestep, 0..1000.
        controls: names and files of its control maps, as long as the clip; those that the config asks for.
    """

    row_id: str
    path: Path
    caption: str
    kind: Literal["video", "image"]
    width_px: int | None = None
    height_px: int | None = None
    num_frames: int | None = None
    duration_s: float | None = None
    start_s: float | None = None
    end_s: float | None = None
    weight: float = 1.0
    rate_fps: float | None = None
    letterbox: bool = False
    source: str | None = None
    repeat: float = 1.0
    groups: tuple[str | None, ...] = ()
    tilt: float = ALL_LEVELS[0]
    min_t: float = ALL_LEVELS[1]
    max_t: float = ALL_LEVELS[2]
    captions: tuple[str, ...] = ()
    caption_shares: tuple[float, ...] = ()
    controls: tuple[tuple[str, Path], ...] = ()

    @property
    def levels(self) -> Levels:
        """Tilt, lowest and highest timestep."""
        return Levels(self.tilt, self.min_t, self.max_t)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that is not used, and why.

    Attributes:
        where: the row: file and line, array index or table row.
        key: the column or key at fault.
        reason: what is wrong, short and the same for all rows alike, so that it can be counted.
        fix: what to do about it.
        row_id: the row's name, where it has one.
    """

    where: str
    key: str
    reason: str
    fix: str
    row_id: str | None = None

    def __str__(self) -> str:
        """Return one line."""
        return f"{self.where}: {self.key}: {self.reason}; {self.fix}"


@dataclass(frozen=True)
class MicroBatch:
    """What one rank computes at once: rows of one bucket.

    Attributes:
        bucket: the shape of all of them.
        rows: positions in the index, fillers included.
        weights: 1 for a row that counts, 0 for a filler.
        epoch: which one it belongs to.
    """

    bucket: Bucket
    rows: tuple[int, ...]
    weights: tuple[float, ...]
    epoch: int = 0


Metrics = dict[str, float]
