"""Measures of change between two coarse frames, each blind to something that is not a cut.

All of them are cheap (a few cv2 calls on a frame of about 128x72) except `unexplained`, which searches for
motion and is meant for candidates only.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from curation.shots.types import CoarseFrame

HISTOGRAM_BINS = 32
TINY_WIDTH_PX, TINY_HEIGHT_PX = 32, 18
NOISE_VARIANCE = 25.0
"""Variance of grain and coding noise in a small frame, levels squared; contrast below it is no structure."""

_NEIGHBOURHOOD = np.ones((5, 5), np.uint8)
_BLOCK_PX, _SEARCH_PX = 18, 12


@dataclass(frozen=True, eq=False)
class View:
    """What is remembered of one frame.

    Attributes:
        luma: uint8 (H, W).
        low: uint8 (H, W), the darkest luma within 2 px: erosion.
        high: uint8 (H, W), the brightest luma within 2 px: dilation.
        chroma: uint8 (H / 2, W / 4): U over V, at half their size.
        half: uint8 (H / 2, W / 2) luma.
        tiny: float32 (TINY_HEIGHT_PX * TINY_WIDTH_PX * 1.5,), area-averaged luma then half-size chroma.
        mean: mean luma of the middle half of the frame, levels.
        spread: standard deviation of the luma of the middle half of the frame, levels.
    """

    luma: np.ndarray
    low: np.ndarray
    high: np.ndarray
    chroma: np.ndarray
    half: np.ndarray
    tiny: np.ndarray
    mean: float
    spread: float

    # Most frames are no candidates, and are never asked for these.

    @cached_property
    def centred(self) -> np.ndarray:
        """Give `half` without its outer eighths, less its mean: float32 (h * w,)."""
        inner = _inside(self.half, 8)
        centred = inner.ravel().astype(np.float32)
        centred -= cv2.mean(inner)[0]
        return centred

    @cached_property
    def energy(self) -> float:
        """Give the sum of squares of `centred`, plus `NOISE_VARIANCE` per pixel."""
        return float(self.centred @ self.centred) + NOISE_VARIANCE * self.centred.size

    @cached_property
    def histogram(self) -> np.ndarray:
        """Give the cumulative share of luma: float32 (HISTOGRAM_BINS,)."""
        counts = cv2.calcHist([self.half], [0], None, [HISTOGRAM_BINS], [0, 256]).ravel()
        return np.cumsum(counts) / self.half.size


def view(frame: CoarseFrame) -> View:
    """Prepare a frame for comparison."""
    luma = frame.luma
    height, width = luma.shape
    half = cv2.resize(luma, (max(1, width // 2), max(1, height // 2)), interpolation=cv2.INTER_AREA)
    chroma = frame.chroma.reshape(-1, frame.chroma.shape[2])
    chroma_size = (max(1, chroma.shape[1] // 2), max(1, chroma.shape[0] // 2))
    tiny_luma = cv2.resize(half, (TINY_WIDTH_PX, TINY_HEIGHT_PX), interpolation=cv2.INTER_AREA)
    tiny_chroma = cv2.resize(chroma, (TINY_WIDTH_PX // 2, TINY_HEIGHT_PX), interpolation=cv2.INTER_AREA)
    mean, spread = cv2.meanStdDev(_inside(half, 4))
    return View(
        luma=luma,
        low=cv2.erode(luma, _NEIGHBOURHOOD),
        high=cv2.dilate(luma, _NEIGHBOURHOOD),
        chroma=cv2.resize(chroma, chroma_size, interpolation=cv2.INTER_AREA),
        half=half,
        tiny=np.concatenate([tiny_luma.ravel(), tiny_chroma.ravel()]).astype(np.float32),
        mean=float(mean[0, 0]),
        spread=float(spread[0, 0]),
    )


def _inside(picture: np.ndarray, share: int) -> np.ndarray:
    """The picture without 1/`share` of its height and width at every edge.

    Black bars, corner logos and subtitles stay through cuts and fades; they lie near the edges.
    """
    top, left = picture.shape[0] // share, picture.shape[1] // share
    return picture[top : picture.shape[0] - top, left : picture.shape[1] - left]


def residual(before: View, after: View) -> float:
    """Change over most of the frame that no movement of up to 2 px explains, in levels.

    A pixel counts by how far it lies outside the range of the 5x5 neighbourhood in the other frame; the
    smaller of both directions counts. The quarter of the frame that changed most is left out: a cut changes
    the whole picture, a subtitle, an inset or an object that enters changes a part.
    """
    forward = cv2.max(cv2.subtract(after.luma, before.high), cv2.subtract(before.low, after.luma))
    backward = cv2.max(cv2.subtract(before.luma, after.high), cv2.subtract(after.low, before.luma))
    return min(_spread_mean(forward), _spread_mean(backward))


def _spread_mean(difference: np.ndarray) -> float:
    """Mean of the three quarters of an 8x8 grid of cells with the smallest means; uint8 (H, W)."""
    cells = cv2.resize(difference, (8, 8), interpolation=cv2.INTER_AREA).ravel()
    cells.sort()
    return int(cells[:48].sum()) / 48


def colour_change(before: View, after: View) -> float:
    """Mean change of the smoothed chroma, in levels."""
    return cv2.mean(cv2.absdiff(before.chroma, after.chroma))[0]


def decorrelation(before: View, after: View) -> float:
    """1 - normalised correlation of the luma; brightness and contrast changes leave it near 0.

    The noise floor counts as common to both, so that two flat frames are alike.
    """
    common = float(before.centred @ after.centred) + NOISE_VARIANCE * before.centred.size
    return 1.0 - common / (before.energy * after.energy) ** 0.5


def tone_shift(before: View, after: View) -> float:
    """Earth mover's distance of the luma histograms, in bins; blind to all movement inside the frame."""
    return float(np.abs(before.histogram - after.histogram).sum())


def unexplained(before: View, after: View) -> float:
    """Share of the structure that moved blocks of the other frame do not explain, 0 to 1.

    Each 18x18 block of the half-size luma is searched for within 12 px by normalised correlation; the smaller
    of both directions counts (a zoom explains one of them, an entering object spoils one of them). Where one
    frame is nearly flat there is nothing to search for, and the correlation of the whole frame is the answer.
    """
    if min(before.energy, after.energy) < 3.0 * NOISE_VARIANCE * before.centred.size:
        return min(1.0, decorrelation(before, after))
    return min(_unexplained_by(before.half, after.half), _unexplained_by(after.half, before.half))


def _unexplained_by(source: np.ndarray, target: np.ndarray) -> float:
    """Share of the block energy of `target` without a match in `source`; both uint8 (h, w)."""
    height, width = target.shape
    tall, wide = min(_BLOCK_PX, height), min(_BLOCK_PX, width)
    missing = total = 0.0
    for top in np.linspace(0, height - tall, max(1, round(height / tall))).astype(int):
        for left in np.linspace(0, width - wide, max(1, round(width / wide))).astype(int):
            block = target[top : top + tall, left : left + wide]
            area = source[
                max(0, top - _SEARCH_PX) : top + tall + _SEARCH_PX,
                max(0, left - _SEARCH_PX) : left + wide + _SEARCH_PX,
            ]
            match = float(cv2.matchTemplate(area, block, cv2.TM_CCOEFF_NORMED).max())
            variance = float(block.var())
            missing += (1.0 - max(match, 0.0) ** 2) * variance
            total += variance + NOISE_VARIANCE
    return missing / total


def detail(seen: View) -> float:
    """Energy of fine detail: mean square of the half-size luma less its 5x5 mean, in levels squared."""
    picture = seen.half.astype(np.float32)
    fine = picture - cv2.blur(picture, (5, 5))
    return float(np.vdot(fine, fine)) / fine.size
