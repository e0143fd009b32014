"""The words of training: rows, buckets, micro-batches."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SPATIAL_STRIDE = 8
"""pixels per latent, in height and width (MagViT VAE of EasyAnimate V5, 4×8×8)"""
TEMPORAL_STRIDE = 4
"""frames per latent frame after the first: 4n+1 frames become n+1 latent frames"""


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


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that is not used, and why.

    Attributes:
        where: the row: file and line, array index or table row.
        key: the column or key at fault.
        reason: what is wrong, short and the same for all rows alike, so that it can be counted.
        mend: what to do about it.
        row_id: the row's name, where it has one.
    """

    where: str
    key: str
    reason: str
    mend: str
    row_id: str | None = None

    def __str__(self) -> str:
        """Give one line."""
        return f"{self.where}: {self.key}: {self.reason}; {self.mend}"


@dataclass(frozen=True, order=True)
class Bucket:
    """A shape that rows are brought to: frames, height and width, in pixels.

    Raises:
        ValueError: frames are not 4n+1, or a side is not a multiple of 16 (VAE 8 × patch 2).
    """

    num_frames: int
    height_px: int
    width_px: int

    def __post_init__(self) -> None:
        """Refuse shapes that the models cannot take."""
        if self.num_frames < 1 or (self.num_frames - 1) % TEMPORAL_STRIDE:
            n = max(0, self.num_frames - 1) // TEMPORAL_STRIDE * TEMPORAL_STRIDE + 1
            raise ValueError(f"{self.num_frames} frames are not 4n+1; the nearest are {n} and {n + TEMPORAL_STRIDE}")
        if self.height_px < 16 or self.width_px < 16 or self.height_px % 16 or self.width_px % 16:
            raise ValueError(f"{self.width_px}x{self.height_px} px: both sides must be multiples of 16")

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Latent frames, height and width."""
        return (
            (self.num_frames - 1) // TEMPORAL_STRIDE + 1,
            self.height_px // SPATIAL_STRIDE,
            self.width_px // SPATIAL_STRIDE,
        )

    @property
    def tokens(self) -> int:
        """Video tokens at patch size 2."""
        frames, height, width = self.latent_shape
        return frames * (height // 2) * (width // 2)

    def __str__(self) -> str:
        """Give `49x512x896` (frames, height, width)."""
        return f"{self.num_frames}x{self.height_px}x{self.width_px}"


@dataclass(frozen=True)
class MicroBatch:
    """What one rank computes at once: rows of one bucket.

    Attributes:
        bucket: the shape of all of them.
        rows: positions in the index, fillers included.
        weights: 1 for a row that counts, 0 for a filler.
    """

    bucket: Bucket
    rows: tuple[int, ...]
    weights: tuple[float, ...]


Metrics = dict[str, float]
