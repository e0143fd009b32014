"""One decoded frame, whoever decoded it, as the analysis looks at it."""

from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np
from av.video.frame import VideoFrame

from media import planes
from media.coarse import COARSE_SHORT_SIDE_PX, CoarseFrame
from media.colour import BT709, LUMA_WEIGHTS, is_hdr
from media.orientation import upright
from media.tone_map import to_sdr
from media.types import SourceFacts

HELD_SHORT_SIDE_PX = 1080
"""Frames kept for later sampling are scaled down to this, so that 8K does not fill the memory."""

_KR, _KB = LUMA_WEIGHTS[BT709]
_KG = 1 - _KR - _KB
_LUMA = np.array([[_KR, _KG, _KB]])
_CHROMA = np.array([
    [-_KR / (2 - 2 * _KB), -_KG / (2 - 2 * _KB), 0.5, 128],
    [0.5, -_KG / (2 - 2 * _KR), -_KB / (2 - 2 * _KR), 128],
])


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

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height) as displayed; it may change in mid-stream."""
        ...

    def coarse(self) -> CoarseFrame:
        """Return the small view that shot detection works on."""
        ...

    def gray(self, short_side_px: int | None) -> np.ndarray:
        """Return full-range luma, uint8 (H, W), upright, square pixels."""
        ...

    def rgb(self, short_side_px: int | None) -> np.ndarray:
        """Return RGB, uint8 (H, W, 3), upright, square pixels."""
        ...

    def held(self) -> "DecodedFrame":
        """Return a frame that is fit to be kept for a while."""
        ...


def coarse_size(width_px: int, height_px: int) -> tuple[int, int]:
    """Return the (width, height) of the coarse view, both even so that chroma has half of each."""
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

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height) as displayed."""
        return self.facts.width_px, self.facts.height_px

    def coarse(self) -> CoarseFrame:
        """Scale luma and chroma to the coarse size, bilinear."""
        width, height = coarse_size(self.facts.width_px, self.facts.height_px)
        if is_hdr(self.frame):
            sdr = self._sdr(width, height, cv2.INTER_LINEAR)
            return coarse_of(sdr, self.index, self.time_s, self.duration_s)
        turn, mirrored = self.facts.rotation_deg, self.facts.is_mirrored
        luma = planes.gray(self.frame, width, height, turn, cv2.INTER_LINEAR, is_mirrored=mirrored)
        chroma = planes.chroma(self.frame, width // 2, height // 2, turn, is_mirrored=mirrored)
        return CoarseFrame(self.index, self.time_s, luma, chroma, self.duration_s, planes.matrix(self.frame))

    def gray(self, short_side_px: int | None) -> np.ndarray:
        """Scale the luma plane by area, so that flow and sharpness see no aliasing."""
        size = planes.scaled_size(self.facts.width_px, self.facts.height_px, short_side_px)
        if is_hdr(self.frame):
            return luma_of(self._sdr(*size, cv2.INTER_AREA))
        return planes.gray(
            self.frame, *size, self.facts.rotation_deg, cv2.INTER_AREA, is_mirrored=self.facts.is_mirrored
        )

    def rgb(self, short_side_px: int | None) -> np.ndarray:
        """Convert and scale with swscale."""
        return self.rgb_of_size(*planes.scaled_size(self.facts.width_px, self.facts.height_px, short_side_px))

    def rgb_of_size(self, width_px: int, height_px: int) -> np.ndarray:
        """Return RGB, uint8 (height_px, width_px, 3), upright, HDR tone-mapped."""
        if is_hdr(self.frame):
            return self._sdr(width_px, height_px, cv2.INTER_AREA)
        return planes.rgb(self.frame, width_px, height_px, self.facts.rotation_deg, is_mirrored=self.facts.is_mirrored)

    def held(self) -> "PlanarFrame":
        """Keep the decoder's buffer as it is, or a smaller copy of a very large frame."""
        width, height = planes.scaled_size(self.frame.width, self.frame.height, HELD_SHORT_SIDE_PX)
        if (width, height) == (self.frame.width, self.frame.height):
            return self
        pixel_format = "yuv420p10le" if is_hdr(self.frame) else "yuv420p"
        smaller = planes.reformatted(self.frame, width - width % 2, height - height % 2, pixel_format, "AREA")
        return replace(self, frame=smaller)

    def _sdr(self, width_px: int, height_px: int, interpolation: int) -> np.ndarray:
        """Return an HDR picture, scaled and then tone-mapped, as RGB, uint8 (height_px, width_px, 3), upright."""
        turn, frame = self.facts.rotation_deg, self.frame
        size = (height_px, width_px) if turn % 180 else (width_px, height_px)
        codes = planes.deep_rgb(frame, *size, interpolation)
        sdr = to_sdr(codes, frame.color_trc, frame.color_primaries, self.facts.peak_nits)
        return upright(sdr, turn, is_mirrored=self.facts.is_mirrored)


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

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height) as displayed."""
        return self.pixels.shape[1], self.pixels.shape[0]

    def coarse(self) -> CoarseFrame:
        """Scale, then convert to full-range YUV."""
        height, width = self.pixels.shape[:2]
        small = _resized(self.pixels, coarse_size(width, height), cv2.INTER_LINEAR)
        return coarse_of(small, self.index, self.time_s, self.duration_s)

    def gray(self, short_side_px: int | None) -> np.ndarray:
        """Convert to luma, then scale by area."""
        height, width = self.pixels.shape[:2]
        size = planes.scaled_size(width, height, short_side_px)
        return _resized(luma_of(self.pixels), size, cv2.INTER_AREA)

    def rgb(self, short_side_px: int | None) -> np.ndarray:
        """Scale by area."""
        height, width = self.pixels.shape[:2]
        return _resized(self.pixels, planes.scaled_size(width, height, short_side_px), cv2.INTER_AREA)

    def held(self) -> "RgbFrame":
        """Keep it, or a smaller copy of a very large frame."""
        return replace(self, pixels=self.rgb(HELD_SHORT_SIDE_PX))


def luma_of(rgb: np.ndarray) -> np.ndarray:
    """Return the BT.709 luma of uint8 (H, W, 3) RGB, uint8 (H, W)."""
    return cv2.transform(rgb, _LUMA)


def coarse_of(rgb: np.ndarray, index: int, time_s: float, shown_s: float) -> CoarseFrame:
    """Return the coarse view of a picture that was scaled to it, uint8 (H, W, 3) RGB: full-range YUV of BT.709."""
    height, width = rgb.shape[:2]
    differences = cv2.transform(rgb, _CHROMA)
    chroma = cv2.resize(differences, (width // 2, height // 2), interpolation=cv2.INTER_LINEAR)
    both = np.ascontiguousarray(np.moveaxis(chroma, 2, 0))
    return CoarseFrame(index, time_s, luma_of(rgb), both, shown_s, BT709)


def _resized(pixels: np.ndarray, size: tuple[int, int], interpolation: int) -> np.ndarray:
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    return cv2.resize(pixels, size, interpolation=interpolation)
