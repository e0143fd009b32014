"""Share of frames that show nothing usable: nearly black, burnt out or blank; and of frames without colour.

Means hide them: a clip of ordinary brightness may begin with ten black frames. The thresholds are those that are
reported of UltraVideo (arXiv 2506.13691): mean level below 3, over-exposed pixels above 12 %, RGB variance below 1.2;
it leaves out clips with more than 5 % of such frames (`rules: {bad_frames: {max: 0.05}}`). Its variance can be read
over the picture (a blank one) or over the three channels (a grey one): both are measured, and only blank frames are
bad, since black-and-white footage is a matter of taste.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from core.settings import key
from curation.schema import BOTH
from curation.types import ClipInput, Sampling, Scorer, Scores


def spatial_variance(rgb: np.ndarray) -> float:
    """Return the variance over the picture of uint8 (H, W, 3), mean of the channels, squared grey levels."""
    _, deviation = cv2.meanStdDev(rgb)
    return float(np.mean(deviation**2))


def channel_variance(rgb: np.ndarray) -> float:
    """Return the variance of the three channels at a pixel of uint8 (H, W, 3), mean of the picture, squared levels.

    The variance of three numbers is the sum of their squared differences over 9; OpenCV sums these up in bytes.
    """
    r, g, b = cv2.split(rgb)
    return float(sum(cv2.norm(one, other, cv2.NORM_L2SQR) for one, other in ((r, g), (g, b), (b, r))) / (9 * r.size))


@dataclass(frozen=True)
class BadFrames:
    """Share of frames that are nearly black, over-exposed or blank, together and each; share of grey frames."""

    rate_fps: float = key(2.0, "frames per second looked at")
    short_side_px: int = key(90, "pictures are scaled to this short side")
    dark_level: float = key(3.0, "mean luma 0..255 below which a frame is nearly black")
    white_level: int = key(250, "luma at or above which a pixel is over-exposed")
    overexposed_share: float = key(0.12, "share of such pixels above which a frame is over-exposed")
    flat_variance: float = key(1.2, "variance over the picture, squared grey levels, below which a frame is blank")
    grey_variance: float = key(1.2, "variance of a pixel's channels, mean of the picture, below which it is grey")

    writes: ClassVar[tuple[str, ...]] = (
        "bad_frames",
        "dark_frames",
        "overexposed_frames",
        "flat_frames",
        "grey_frames",
    )
    media: ClassVar[frozenset[str]] = BOTH
    pool: ClassVar[str | None] = None

    @property
    def sampling(self) -> Sampling | None:
        """Small RGB frames on the grid."""
        return Sampling(self.rate_fps, None, None, self.short_side_px, "rgb")

    def load(self) -> Scorer:
        """Return the scoring function."""

        def score_clip(clip: ClipInput) -> Scores:
            if not len(clip.frames):
                return dict.fromkeys(self.writes)
            faults = np.array([self.faults_of(rgb) for rgb in clip.frames.pixels])
            bad = faults[:, :3].any(axis=1).mean()
            return dict(zip(self.writes, [float(bad), *faults.mean(axis=0).tolist()], strict=True))

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            return [score_clip(clip) for clip in clips]

        return score

    def faults_of(self, rgb: np.ndarray) -> tuple[bool, bool, bool, bool]:
        """Return whether uint8 (H, W, 3) is nearly black, over-exposed, blank, and grey."""
        gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        burnt = np.count_nonzero(gray >= self.white_level) / gray.size
        return (
            float(cv2.mean(gray)[0]) < self.dark_level,
            burnt > self.overexposed_share,
            spatial_variance(rgb) < self.flat_variance,
            channel_variance(rgb) < self.grey_variance,
        )
