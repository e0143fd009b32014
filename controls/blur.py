"""The picture out of focus: for sharpening, and for layouts without detail."""

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
class Blur:
    """A Gaussian over the picture's colours."""

    width: float = key(0.02, "standard deviation of the Gaussian, as a share of the short side", above=0, max=1)

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
        width_px = self.width * min(picture.shape[:2])
        return cv2.GaussianBlur(picture, (0, 0), width_px, borderType=cv2.BORDER_REFLECT_101)
