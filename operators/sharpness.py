"""Sharpness as the variance of the Laplacian (Pech-Pacheco et al., "Diatom autofocusing", ICPR 2000).

The standard definition is kept as it is: it falls with blur, and also with contrast, so a hazy but focused
picture scores low too, and noise raises it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from core.settings import key
from curation.schema import BOTH
from curation.types import ClipInput, Sampling, Scorer, Scores


def at_short_side(gray: np.ndarray, short_side_px: int) -> np.ndarray:
    """Enlarge uint8 (H, W) to a short side; a picture that is large enough passes as it is."""
    height, width = gray.shape
    factor = short_side_px / min(height, width)
    if factor <= 1:
        return gray
    return cv2.resize(gray, (round(width * factor), round(height * factor)), interpolation=cv2.INTER_LINEAR)


def laplacian_variance(gray: np.ndarray) -> float:
    """Return the variance of the 3x3 Laplacian of uint8 (H, W), in squared grey levels."""
    response = cv2.Laplacian(gray, cv2.CV_16S)
    return float(cv2.norm(response, cv2.NORM_L2SQR) / response.size - cv2.mean(response)[0] ** 2)


@dataclass(frozen=True)
class Sharpness:
    """Variance of the Laplacian of luma, mean over frames.

    Smaller sources are enlarged to the same short side, so that the number means the same for all.
    """

    rate_fps: float = key(2.0, "frames per second looked at")
    short_side_px: int = key(360, "pictures are compared at this short side")

    writes: ClassVar[tuple[str, ...]] = ("sharpness",)
    media: ClassVar[frozenset[str]] = BOTH
    pool: ClassVar[str | None] = None

    @property
    def sampling(self) -> Sampling | None:
        """Gray frames on the grid."""
        return Sampling(self.rate_fps, None, None, self.short_side_px, "gray")

    def load(self) -> Scorer:
        """Return the scoring function."""

        def score_clip(clip: ClipInput) -> Scores:
            values = [laplacian_variance(at_short_side(g, self.short_side_px)) for g in clip.frames.pixels]
            return {"sharpness": float(np.mean(values)) if values else None}

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            return [score_clip(clip) for clip in clips]

        return score
