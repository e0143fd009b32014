"""Straight lines, as walls and furniture have: thin and white on black, as MLSD draws them."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import cv2
import numpy as np

from controls.amounts import EachPicture, density
from core.settings import key
from curation.schema import BOTH
from curation.types import MapDrawer


@dataclass(frozen=True)
class Lines:
    """Line segments by LSD (Grompone von Gioi et al., 2010), by OpenCV."""

    short_side_px: int = key(512, "lines are looked for at this short side, as MLSD does", min=64)
    min_length: float = key(0.05, "shortest line drawn, as a share of the short side", min=0, max=1)

    media: ClassVar[frozenset[str]] = BOTH
    suffix: ClassVar[Literal["mp4", "txt"]] = "mp4"

    @property
    def takes(self) -> Literal["gray", "rgb"]:
        """Luma."""
        return "gray"

    def start(self) -> MapDrawer:
        """Return a drawer for one clip."""
        return EachPicture(partial(self._drawn, cv2.createLineSegmentDetector()), density)

    def _drawn(self, detector: cv2.LineSegmentDetector, picture: np.ndarray) -> np.ndarray:
        height, width = picture.shape
        shrink = min(1.0, self.short_side_px / min(height, width))
        small = picture
        if shrink < 1:
            small = cv2.resize(picture, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        drawn = np.zeros_like(picture)
        found = detector.detect(small)[0]
        segments = np.zeros((0, 4)) if found is None else found.reshape(-1, 4) / shrink
        lengths = np.hypot(segments[:, 2] - segments[:, 0], segments[:, 3] - segments[:, 1])
        for x, y, to_x, to_y in segments[lengths >= self.min_length * min(height, width)]:
            cv2.line(drawn, (round(x), round(y)), (round(to_x), round(to_y)), 255, 1)
        return drawn
