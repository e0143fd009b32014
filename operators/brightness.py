"""How bright the clip is, and how much of it is burnt out or crushed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from core.settings import key
from curation.schema import BOTH
from curation.types import ClipInput, Sampling, Scorer, Scores


def luma_histogram(gray: np.ndarray) -> np.ndarray:
    """Return the share of pixels at each level of uint8 (H, W): float64 (256,), sum 1."""
    counts = cv2.calcHist([np.ascontiguousarray(gray)], [0], None, [256], [0, 256]).ravel()
    return counts.astype(np.float64) / gray.size


@dataclass(frozen=True)
class Brightness:
    """Mean luma and the share of clipped pixels, over all sampled frames."""

    rate_fps: float = key(2.0, "frames per second looked at")
    short_side_px: int = key(360, "pictures are scaled to this short side")
    black_level: int = key(2, "luma 0..255 at or below which a pixel counts as clipped to black")
    white_level: int = key(253, "luma at or above which a pixel counts as clipped to white")

    writes: ClassVar[tuple[str, ...]] = ("brightness", "clipped")
    media: ClassVar[frozenset[str]] = BOTH
    pool: ClassVar[str | None] = None

    @property
    def sampling(self) -> Sampling | None:
        """Gray frames on the grid."""
        return Sampling(self.rate_fps, None, None, self.short_side_px, "gray")

    def load(self) -> Scorer:
        """Return the scoring function."""

        def score_clip(clip: ClipInput) -> Scores:
            if not len(clip.frames):
                return dict.fromkeys(self.writes)
            shares = np.mean([luma_histogram(gray) for gray in clip.frames.pixels], axis=0)
            clipped = shares[: self.black_level + 1].sum() + shares[self.white_level :].sum()
            return {"brightness": float(shares @ np.arange(256) / 255), "clipped": float(min(1.0, clipped))}

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            return [score_clip(clip) for clip in clips]

        return score
