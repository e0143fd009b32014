"""The small view of a decoded frame that shot detectors and pixel operators look at."""

from dataclasses import dataclass

import cv2
import numpy as np

from media.colour import LUMA_WEIGHTS, SMPTE170M

COARSE_SHORT_SIDE_PX = 72


@dataclass(frozen=True, eq=False)
class CoarseFrame:
    """A small view of one decoded frame, scaled straight from its YUV planes.

    Values are full range whatever the file's range: luma 0 (black) to 255 (white), chroma 128 = grey.

    Attributes:
        index: decoded frame index, counted from the first frame of the segment.
        time_s: presentation time in seconds from the first frame of the source.
        luma: uint8 (H, W), short side `COARSE_SHORT_SIDE_PX` (never enlarged), displayed aspect.
        chroma: uint8 (2, H // 2, W // 2): U (Cb) and V (Cr).
        shown_s: how long it is shown, in seconds; 0 where that is not known.
        matrix: AVCOL_SPC by which they were made of RGB; one of `colour.LUMA_WEIGHTS`.
    """

    index: int
    time_s: float
    luma: np.ndarray
    chroma: np.ndarray
    shown_s: float = 0.0
    matrix: int = SMPTE170M

    def rgb(self) -> np.ndarray:
        """Return the small picture as uint8 (H, W, 3)."""
        height, width = self.luma.shape
        kr, kb = LUMA_WEIGHTS[self.matrix]
        u, v = (cv2.resize(plane, (width, height)) for plane in self.chroma)
        red, blue = 2 - 2 * kr, 2 - 2 * kb
        green_u, green_v = -kb * blue / (1 - kr - kb), -kr * red / (1 - kr - kb)
        rows = [
            [1, 0, red, -128 * red],
            [1, green_u, green_v, -128 * (green_u + green_v)],
            [1, blue, 0, -128 * blue],
        ]
        return cv2.transform(cv2.merge([self.luma, u, v]), np.array(rows))
