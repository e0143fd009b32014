"""Images, videos and masks that a sample begins from: their sizes first, their pixels when they are wanted."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.errors import MediaError, UserError
from media.fitted import FrameRequest, read_fitted
from media.measure import Extent, measure
from media.names import looks_like_image
from media.types import MediaType
from models.geometry import Bucket, LatentGrid

FIRST_S = 1e-3
"""of a video, in which its first frame lies"""
ANY_SIZE = LatentGrid(frames_per_latent=1, pixels_per_latent=1, latents_per_patch=1)
"""of what no model makes: any number of frames, any sides"""


@dataclass(frozen=True)
class MediaFile:
    """A file, what it is, and its size and length."""

    path: Path
    kind: MediaType
    extent: Extent


@dataclass(frozen=True)
class Medium:
    """A file that was looked at.

    Attributes:
        field: of the request, as which it was given; for messages.
        file: path, kind, size and length.
    """

    field: str
    file: MediaFile

    @property
    def width_px(self) -> int:
        """As displayed."""
        return self.file.extent.width_px

    @property
    def height_px(self) -> int:
        """As displayed."""
        return self.file.extent.height_px

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
        size = (bucket.num_frames, bucket.height_px, bucket.width_px)
        span = (None, None) if span_s is None else (0.0, span_s)
        try:
            return read_fitted(FrameRequest(self.file.path, self.file.kind, *size, *span))
        except MediaError as error:
            raise UserError(str(error), field=self.field, value=self.file.path, fix="give another file") from None


def look(field: str, path: Path) -> Medium:
    """Look at an image or video.

    Raises:
        UserError: it is not there or not readable.
    """
    if not path.is_file():
        raise UserError("no such file", field=field, value=path, fix="give an image or a video")
    kind: MediaType = "image" if looks_like_image(path) else "video"
    try:
        return Medium(field, MediaFile(path, kind, measure(path, kind)))
    except MediaError as error:
        raise UserError(f"cannot be read ({error})", field=field, value=path, fix="give another file") from None


def look_at_image(field: str, path: Path) -> Medium:
    """Look at an image.

    Raises:
        UserError: it is none.
    """
    medium = look(field, path)
    if medium.file.kind != "image":
        raise UserError("is a video", field=field, value=path, fix="give an image, or the video as `video`")
    return medium


def first_frame(path: Path, field: str = "video") -> np.ndarray:
    """Return the first frame of a video, or an image, as large as it is: uint8 (H, W, 3).

    Raises:
        UserError: it cannot be read.
    """
    medium = look(field, path)
    span_s = None if medium.file.kind == "image" else FIRST_S
    frames: np.ndarray = medium.read(Bucket(1, medium.height_px, medium.width_px, ANY_SIZE), span_s)
    return frames[0]


def size_for(medium: Medium, area_px: int, side_px: int = 16) -> tuple[int, int]:
    """Return width and height: the medium's aspect at this area, in the nearest multiples of what models take."""
    width = (area_px * medium.aspect) ** 0.5
    return nearest_side(width, side_px), nearest_side(width / medium.aspect, side_px)


def nearest_side(length: float, side_px: int) -> int:
    """Return the nearest multiple of what sides must be multiples of, at least that."""
    return max(side_px, round(length / side_px) * side_px)


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
    if medium.file.kind == "image":
        one = medium.read(Bucket(1, bucket.height_px, bucket.width_px, bucket.grid))
        pixels = np.repeat(one, bucket.num_frames, axis=0)
    else:
        pixels = medium.read(bucket, span_s)
    mask: np.ndarray = (pixels.mean(axis=3) > 127.5).astype(np.float32)
    if not mask.any():
        raise UserError(
            "is all black", field=medium.field, value=medium.file.path, fix="paint white what is to be generated"
        )
    return mask
