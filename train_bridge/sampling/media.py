"""Images, videos and masks that a sample begins from: their sizes first, their pixels when they are wanted."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from curation.errors import MediaError, UserError
from curation.sources import looks_like_image
from train_bridge.facts import probe_rows
from train_bridge.frames import read_frames
from train_bridge.types import Bucket, TrainRow


@dataclass(frozen=True)
class Medium:
    """A file that was looked at.

    Attributes:
        option: as which it was given, for messages.
        row: path, kind, size and length.
    """

    option: str
    row: TrainRow

    @property
    def width_px(self) -> int:
        """As displayed."""
        return self.row.width_px or 0

    @property
    def height_px(self) -> int:
        """As displayed."""
        return self.row.height_px or 0

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.width_px / self.height_px

    def read(self, bucket: Bucket, span_s: float | None = None) -> np.ndarray:
        """Read it as a bucket wants it: covering it, cropped about its centre.

        Args:
            bucket: an image's has one frame.
            span_s: how much of a video, from its begin; None: all.

        Returns:
            uint8 (T, H, W, 3).

        Raises:
            UserError: it cannot be read after all.
        """
        row = self.row if span_s is None else replace(self.row, start_s=0.0, end_s=span_s)
        try:
            return read_frames(row, bucket)
        except MediaError as error:
            raise UserError(f"{self.option} {row.path}: {error}; give another file") from None


def look(option: str, path: Path) -> Medium:
    """Look at an image or video.

    Raises:
        UserError: it is not there or not readable.
    """
    if not path.is_file():
        raise UserError(f"{option} {path}: no such file; give an image or a video")
    row = TrainRow(str(path), path, "", "image" if looks_like_image(path) else "video")
    rows, refused = probe_rows([row])
    if refused:
        raise UserError(f"{option} {path}: {refused[0].reason} ({refused[0].mend})")
    return Medium(option, rows[0])


def look_at_image(option: str, path: Path) -> Medium:
    """Look at an image.

    Raises:
        UserError: it is none.
    """
    medium = look(option, path)
    if medium.row.kind != "image":
        raise UserError(f"{option} {path}: is a video; give an image, or the video as --video")
    return medium


def size_for(medium: Medium, area_px: int) -> tuple[int, int]:
    """Give width and height: the medium's aspect at this area, in the nearest multiples of 16."""
    width = (area_px * medium.aspect) ** 0.5
    return nearest_16(width), nearest_16(width / medium.aspect)


def nearest_16(length: float) -> int:
    """Give the nearest multiple of 16, at least 16."""
    return max(16, round(length / 16) * 16)


def read_mask(medium: Medium, bucket: Bucket, span_s: float | None) -> np.ndarray:
    """Read a mask: white is generated.

    Args:
        medium: an image, which holds for all frames, or a video as long as the one it masks.
        bucket: frames and size of what is made.
        span_s: as for the video.

    Returns:
        float32 (T, H, W), 1 = to be generated, 0 = kept.

    Raises:
        UserError: it cannot be read, or keeps everything.
    """
    if medium.row.kind == "image":
        one = medium.read(Bucket(1, bucket.height_px, bucket.width_px))
        pixels = np.repeat(one, bucket.num_frames, axis=0)
    else:
        pixels = medium.read(bucket, span_s)
    mask: np.ndarray = (pixels.mean(axis=3) > 127.5).astype(np.float32)
    if not mask.any():
        raise UserError(f"{medium.option} {medium.row.path}: is all black; paint white what is to be generated")
    return mask
