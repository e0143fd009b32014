"""The picture at a lower resolution, at its own size: for upscaling."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import cv2
import numpy as np

from controls.amounts import EachPicture, contrast
from core.settings import key
from curation.schema import BOTH
from curation.types import MapDrawer
from media.frame import luma_of


@dataclass(frozen=True)
class Tile:
    """Means over squares, enlarged again with a cubic curve."""

    factor: float = key(4.0, "how many times smaller each side gets", min=1, max=64)

    media: ClassVar[frozenset[str]] = BOTH
    suffix: ClassVar[Literal["mp4", "txt"]] = "mp4"

    @property
    def takes(self) -> Literal["gray", "rgb"]:
        """Colours."""
        return "rgb"

    def start(self) -> MapDrawer:
        """Return a drawer for one clip."""
        return EachPicture(self._drawn, lambda drawn: contrast(luma_of(drawn)))

    def _drawn(self, picture: np.ndarray) -> np.ndarray:
        height, width = picture.shape[:2]
        size = tuple(max(1, round(side / self.factor)) for side in (width, height))
        if size == (width, height):
            return picture
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
