"""One decoded frame, whoever decoded it, as the analysis looks at it."""

from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np
from av.video.frame import VideoFrame

from curation.shots.types import COARSE_SHORT_SIDE_PX, CoarseFrame
from curation.types import SourceFacts
from curation.video import planes

HELD_SHORT_SIDE_PX = 1080
"""Frames kept for later sampling are scaled down to this, so that 8K does not fill the memory."""


class DecodedFrame(Protocol):
    """A decoded frame, upright and with square pixels however it was stored."""

    @property
    def index(self) -> int:
        """Number in its segment."""
        ...

    @property
    def time_s(self) -> float:
        """Presentation time from the source's first frame."""
        ...

    @property
    def duration_s(self) -> float:
        """How long it is shown."""
        ...

    def coarse(self) -> CoarseFrame:
        """Give the small view that shot detection works on."""
        ...

    def gray(self, short_side_px: int | None) -> np.ndarray:
        """Give full-range luma, uint8 (H, W), upright, square pixels."""
        ...

    def rgb(self, short_side_px: int | None) -> np.ndarray:
        """Give RGB, uint8 (H, W, 3), upright, square pixels."""
        ...

    def held(self) -> "DecodedFrame":
        """Give a frame that is fit to be kept for a while."""
        ...


def coarse_size(width_px: int, height_px: int) -> tuple[int, int]:
    """Give the (width, height) of the coarse view, both even so that chroma has half of each."""
    width, height = planes.scaled_size(width_px, height_px, COARSE_SHORT_SIDE_PX)
    return max(2, width - width % 2), max(2, height - height % 2)


@dataclass(frozen=True, eq=False)
class PlanarFrame:
    """A frame of FFmpeg, still in the decoder's own YUV planes."""

    frame: VideoFrame
    facts: SourceFacts
    index: int
    time_s: float
    duration_s: float

    def coarse(self) -> CoarseFrame:
        """Scale luma and chroma to the coarse size, bilinear."""
        width, height = coarse_size(self.facts.width_px, self.facts.height_px)
        turn = self.facts.rotation_deg
        luma = planes.gray(self.frame, width, height, turn, cv2.INTER_LINEAR)
        return CoarseFrame(self.index, self.time_s, luma, planes.chroma(self.frame, width // 2, height // 2, turn))

    def gray(self, short_side_px: int | None) -> np.ndarray:
        """Scale the luma plane by area, so that flow and sharpness see no aliasing."""
        size = planes.scaled_size(self.facts.width_px, self.facts.height_px, short_side_px)
        return planes.gray(self.frame, *size, self.facts.rotation_deg, cv2.INTER_AREA)

    def rgb(self, short_side_px: int | None) -> np.ndarray:
        """Convert and scale with swscale."""
        size = planes.scaled_size(self.facts.width_px, self.facts.height_px, short_side_px)
        return planes.rgb(self.frame, *size, self.facts.rotation_deg)

    def held(self) -> "PlanarFrame":
        """Keep the decoder's buffer as it is, or a smaller copy of a very large frame."""
        width, height = planes.scaled_size(self.frame.width, self.frame.height, HELD_SHORT_SIDE_PX)
        if (width, height) == (self.frame.width, self.frame.height):
            return self
        smaller = planes.reformatted(self.frame, width - width % 2, height - height % 2, "yuv420p", "AREA")
        return replace(self, frame=smaller)


@dataclass(frozen=True, eq=False)
class RgbFrame:
    """A frame that arrived as RGB: from a still image or from decord.

    Attributes:
        pixels: uint8 (H, W, 3), upright, square pixels.
    """

    pixels: np.ndarray
    index: int
    time_s: float
    duration_s: float

    def coarse(self) -> CoarseFrame:
        """Scale, then convert to full-range YUV (BT.601)."""
        height, width = self.pixels.shape[:2]
        size = coarse_size(width, height)
        yuv = cv2.cvtColor(_resized(self.pixels, size, cv2.INTER_LINEAR), cv2.COLOR_RGB2YCrCb)
        chroma = cv2.resize(yuv[..., 2:0:-1], (size[0] // 2, size[1] // 2), interpolation=cv2.INTER_LINEAR)
        luma = np.ascontiguousarray(yuv[..., 0])
        return CoarseFrame(self.index, self.time_s, luma, np.ascontiguousarray(np.moveaxis(chroma, 2, 0)))

    def gray(self, short_side_px: int | None) -> np.ndarray:
        """Convert to luma, then scale by area."""
        height, width = self.pixels.shape[:2]
        luma = cv2.cvtColor(self.pixels, cv2.COLOR_RGB2GRAY)
        return _resized(luma, planes.scaled_size(width, height, short_side_px), cv2.INTER_AREA)

    def rgb(self, short_side_px: int | None) -> np.ndarray:
        """Scale by area."""
        height, width = self.pixels.shape[:2]
        return _resized(self.pixels, planes.scaled_size(width, height, short_side_px), cv2.INTER_AREA)

    def held(self) -> "RgbFrame":
        """Keep it, or a smaller copy of a very large frame."""
        return replace(self, pixels=self.rgb(HELD_SHORT_SIDE_PX))


def _resized(pixels: np.ndarray, size: tuple[int, int], interpolation: int) -> np.ndarray:
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    return cv2.resize(pixels, size, interpolation=interpolation)
