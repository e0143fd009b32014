"""Edges as Canny finds them: thin white lines on black."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import cv2
import numpy as np

from controls.amounts import EachPicture, density
from core.settings import key
from curation.schema import BOTH
from curation.types import MapDrawer

LOW_OF_HIGH = 0.4
"""of thresholds that follow the picture, as in MATLAB's `edge`"""


@dataclass(frozen=True)
class Canny:
    """Canny's edges (1986), by OpenCV: aperture 3, gradients as |dx| + |dy|."""

    low: float = key(100.0, "gradient from which on what is joined to an edge belongs to it; 100 as published", min=0)
    high: float = key(200.0, "gradient that begins an edge; 200 as published", min=0)
    flat_share: float | None = key(
        None,
        "share of the pixels that counts as flat: thresholds then follow each picture (0.9, say); null: low and high",
        above=0,
        below=1,
    )
    color: bool = key(
        False, "look at the strongest of red, green and blue, as published, for thrice the time; else at luma"
    )

    media: ClassVar[frozenset[str]] = BOTH
    suffix: ClassVar[Literal["mp4", "txt"]] = "mp4"

    def __post_init__(self) -> None:
        """Refuse thresholds in the wrong order."""
        if self.low > self.high:
            raise ValueError(f"low ({self.low:g}) must be at most high ({self.high:g})")

    @property
    def takes(self) -> Literal["gray", "rgb"]:
        """Luma, or colours."""
        return "rgb" if self.color else "gray"

    def start(self) -> MapDrawer:
        """Return a drawer for one clip."""
        edges = across = down = None

        def drawn(picture: np.ndarray) -> np.ndarray:
            nonlocal edges, across, down
            share = self.flat_share
            low, high = (self.low, self.high) if share is None else relative_thresholds(picture, share)
            if picture.ndim == 3:
                edges = cv2.Canny(picture, low, high, edges)  # in the memory of the last frame's
            else:  # both gradients at once, which `cv2.Canny` takes one after the other: a fifth of its time less
                across, down = cv2.spatialGradient(picture, across, down, 3, cv2.BORDER_REPLICATE)
                edges = cv2.Canny(across, down, low, high, edges)
            return edges

        return EachPicture(drawn, density)


def relative_thresholds(picture: np.ndarray, flat_share: float) -> tuple[float, float]:
    """Return the thresholds (low, high) for which a share of the pixels lies below the high one, which is at least 1.

    Args:
        picture: uint8 (H, W), or (H, W, 3) RGB, of which the mean of the channels counts.
        flat_share: the share, within 0..1.
    """
    luma = picture if picture.ndim == 2 else cv2.transform(picture, np.full((1, 3), 1 / 3, np.float32))
    dx, dy = (np.abs(cv2.Sobel(luma, cv2.CV_16S, *order)) for order in ((1, 0), (0, 1)))
    counts = np.bincount((dx + dy).ravel(), minlength=2)
    high = max(1.0, float(np.searchsorted(np.cumsum(counts), flat_share * luma.size)))
    return LOW_OF_HIGH * high, high
