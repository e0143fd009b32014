"""Measures of change between two coarse frames, each blind to something that is not a cut.

All of them are cheap except `is_unexplained`, which searches for motion and is meant for candidates only. Frames of
about 128x72 are so small that a call costs more than what it does; so they are looked at in stacks, one picture above
the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np

from media.coarse import CoarseFrame

HISTOGRAM_BINS = 32
TINY_SIZE = 32 * 18 * 3 // 2
NOISE_VARIANCE = 25.0
"""Variance of grain and coding noise in a small frame, levels squared; contrast below it is no structure."""

_TINY = (32, 18)
_REACH_PX = 2
_NEIGHBOURHOOD = np.ones((2 * _REACH_PX + 1, 2 * _REACH_PX + 1), np.uint8)
_CELLS, _CELLS_KEPT = 8, 48
_BLOCK_PX, _SEARCH_PX = 18, 12

UNCHANGED = np.zeros((1, _CELLS * _CELLS), np.uint8)
"""`cells` of a frame that repeats the one before it."""


@dataclass(frozen=True, eq=False)
class View:
    """What is remembered of one frame.

    Attributes:
        luma: uint8 (H, W).
        low: uint8 (H, W), the darkest luma within 2 px: erosion.
        high: uint8 (H, W), the brightest luma within 2 px: dilation.
        chroma: uint8 (H / 2, W / 4): U over V, at half their size.
        half: uint8 (H / 2, W / 2) luma.
        tiny: uint8 (TINY_SIZE,), area-averaged luma then half-size chroma.
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
        """Return `half` without its outer eighths, less its mean: float32 (h * w,)."""
        inner = _inside(self.half, 8)
        centred = inner.ravel().astype(np.float32)
        centred -= cv2.mean(inner)[0]
        return centred

    @cached_property
    def energy(self) -> float:
        """Return the sum of squares of `centred`, plus `NOISE_VARIANCE` per pixel."""
        return float(self.centred @ self.centred) + NOISE_VARIANCE * self.centred.size

    @cached_property
    def histogram(self) -> np.ndarray:
        """Return the cumulative share of luma: float32 (HISTOGRAM_BINS,)."""
        counts = cv2.calcHist([self.half], [0], None, [HISTOGRAM_BINS], [0, 256]).ravel()
        return np.cumsum(counts) / self.half.size

    @cached_property
    def detail(self) -> float:
        """Return the energy of fine detail: mean square of `half` less its 5x5 mean, in levels squared."""
        picture = self.half.astype(np.float32)
        fine = picture - cv2.blur(picture, (5, 5))
        return float(np.vdot(fine, fine)) / fine.size


def views(frames: Sequence[CoarseFrame]) -> tuple[list[View], list[float], np.ndarray]:
    """Prepare frames of one size for comparison; return also the `change` from each to the next, and its `cells`."""
    count, (height, width) = len(frames), frames[0].luma.shape
    luma = np.concatenate([frame.luma for frame in frames]).reshape(count, height, width)
    half = _scaled(luma, max(1, width // 2), max(1, height // 2))
    chroma = np.concatenate([frame.chroma for frame in frames]).reshape(count, -1, frames[0].chroma.shape[2])
    # Upright pictures are scaled upright: to whole multiples mostly, which is several times as fast.
    tiny_width, tiny_height = _TINY if width >= height else _TINY[::-1]
    tiny_luma = _scaled(half, tiny_width, tiny_height).reshape(count, -1)
    tiny_chroma = _scaled(chroma, tiny_width // 2, tiny_height).reshape(count, -1)
    small_chroma = _scaled(chroma, max(1, chroma.shape[2] // 2), max(1, chroma.shape[1] // 2))
    tiny = np.concatenate([tiny_luma, tiny_chroma], axis=1)
    middle = _inside(half, 4).reshape(count, -1).astype(np.float32)
    means, spreads = middle.mean(axis=1).tolist(), middle.std(axis=1).tolist()
    low, high = _surroundings(luma)
    parts = (luma, low, high, small_chroma, half, tiny, means, spreads)
    return [View(*each) for each in zip(*parts, strict=True)], *_changes(luma, low, high, small_chroma)


def _scaled(pictures: np.ndarray, width: int, height: int) -> np.ndarray:
    """Scale uint8 (N, H, W) pictures by area: in a stack, where the rows of one never mix with those of the next."""
    count, tall, wide = pictures.shape
    stack = np.ascontiguousarray(pictures).reshape(count * tall, wide)
    return cv2.resize(stack, (width, count * height), interpolation=cv2.INTER_AREA).reshape(count, height, width)


def _surroundings(luma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the darkest and the brightest luma within `_REACH_PX` of each pixel of uint8 (N, H, W)."""
    count, height, width = luma.shape
    apart = np.empty((count, height + _REACH_PX, width), np.uint8)  # rows between pictures, so that they do not mix
    apart[:, :height] = luma
    found = []
    for outside, spread in ((255, cv2.erode), (0, cv2.dilate)):
        apart[:, height:] = outside
        grown = spread(apart.reshape(-1, width), _NEIGHBOURHOOD)
        found.append(grown.reshape(apart.shape)[:, :height])
    return found[0], found[1]


def _inside(pictures: np.ndarray, share: int) -> np.ndarray:
    """(…, H, W) pictures without 1/`share` of their height and width at every edge.

    Black bars, corner logos and subtitles stay through cuts and fades; they lie near the edges.
    """
    height, width = pictures.shape[-2:]
    top, left = height // share, width // share
    return pictures[..., top : height - top, left : width - left]


def residual(before: View, after: View) -> float:
    """Change over most of the frame that no movement of up to 2 px explains, in levels.

    A pixel counts by how far it lies outside the range of the 5x5 neighbourhood in the other frame; the
    smaller of both directions counts. The quarter of the frame that changed most is left out: a cut changes
    the whole picture, a subtitle, an inset or an object that enters changes a part.
    """
    return float(_spread_means(_both_ways(*_stacked(before, after)))[0])


def cells(before: View, after: View) -> np.ndarray:
    """Return what makes up the `residual` of two frames, by place: uint8 (64,), levels, the smaller direction."""
    found: np.ndarray = _both_ways(*_stacked(before, after)).min(axis=0)[0]
    return found


def _stacked(before: View, after: View) -> list[np.ndarray]:
    return [np.stack([getattr(one, name) for one in (before, after)]) for name in ("luma", "low", "high")]


def _both_ways(luma: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return how far each of uint8 (N, H, W) pictures lies outside the next, and back, by cells: (2, N - 1, 64)."""
    forward = cv2.max(_above(luma[1:], high[:-1]), _above(low[:-1], luma[1:]))
    backward = cv2.max(_above(luma[:-1], high[1:]), _above(low[1:], luma[:-1]))
    count = len(luma) - 1
    return np.stack([_cell_means(each, count) for each in (forward, backward)])


def _above(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """By how much one exceeds the other, 0 where it does not: uint8 (N, H, W) to (N * H, W)."""
    return cv2.subtract(one.reshape(-1, one.shape[2]), other.reshape(-1, other.shape[2]))


def _cell_means(stack: np.ndarray, count: int) -> np.ndarray:
    """Return the means of 8x8 cells of N stacked uint8 pictures: uint8 (N, 64)."""
    return cv2.resize(stack, (_CELLS, count * _CELLS), interpolation=cv2.INTER_AREA).reshape(count, -1)


def _spread_means(ways: np.ndarray) -> np.ndarray:
    """Return of (2, N, 64) the mean of those three quarters of the cells with the smallest means, the smaller way."""
    kept = np.sort(ways, axis=-1)[..., :_CELLS_KEPT].mean(axis=-1)
    found: np.ndarray = kept.min(axis=0)
    return found


def change(before: View, after: View) -> float:
    """Change of brightness and colour that small movement does not explain, in levels."""
    return residual(before, after) + cv2.mean(cv2.absdiff(before.chroma, after.chroma))[0]


def _changes(luma: np.ndarray, low: np.ndarray, high: np.ndarray, chroma: np.ndarray) -> tuple[list[float], np.ndarray]:
    """Return the `change` from each of N frames to the next, one fewer, and its `cells`, uint8 (N - 1, 64)."""
    count, width = len(luma) - 1, chroma.shape[2]
    if not count:
        return [], np.empty((0, _CELLS * _CELLS), np.uint8)
    moved = cv2.absdiff(chroma[1:].reshape(-1, width), chroma[:-1].reshape(-1, width))
    ways = _both_ways(luma, low, high)
    found: list[float] = (_spread_means(ways) + moved.reshape(count, -1).mean(axis=1)).tolist()
    return found, ways.min(axis=0)


def decorrelation(before: View, after: View) -> float:
    """1 - normalised correlation of the luma; brightness and contrast changes leave it near 0.

    The noise floor counts as common to both, so that two flat frames are alike.
    """
    common = float(before.centred @ after.centred) + NOISE_VARIANCE * before.centred.size
    return 1.0 - common / (before.energy * after.energy) ** 0.5


def tone_shift(before: View, after: View) -> float:
    """Earth mover's distance of the luma histograms, in bins; blind to all movement inside the frame."""
    return float(np.abs(before.histogram - after.histogram).sum())


def is_unexplained(before: View, after: View, share: float) -> bool:
    """Return whether moved blocks of the other frame leave at least this share (0 to 1) of the structure unexplained.

    Each 18x18 block of the half-size luma is searched for within 12 px by normalised correlation; the smaller
    of both directions counts (a zoom explains one of them, an entering object spoils one of them). Where one
    frame is nearly flat there is nothing to search for, and the correlation of the whole frame is the answer.
    """
    if min(before.energy, after.energy) < 3.0 * NOISE_VARIANCE * before.centred.size:
        return min(1.0, decorrelation(before, after)) >= share
    pairs = ((before.half, after.half), (after.half, before.half))
    return all(_leaves_unexplained(*pair, share) for pair in pairs)


def unexplained(before: View, after: View) -> float:
    """Return the share (0 to 1) that `is_unexplained` asks for, to a hundredth; costs several of its calls."""
    low, high = 0.0, 1.0
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (middle, high) if is_unexplained(before, after, middle) else (low, middle)
    return low


def _leaves_unexplained(source: np.ndarray, target: np.ndarray, share: float) -> bool:
    """Return whether that share of the block energy of `target` has no match in `source`; both uint8 (h, w).

    The blocks with most structure come first, as few of them tell mostly.
    """
    tall, wide = min(_BLOCK_PX, target.shape[0]), min(_BLOCK_PX, target.shape[1])
    blocks = []
    for top, left in _block_places(*target.shape):
        spread = cv2.meanStdDev(target[top : top + tall, left : left + wide])[1]
        blocks.append((float(spread[0, 0]) ** 2, top, left))
    open_ = sum(variance for variance, _, _ in blocks)
    least = share * (open_ + NOISE_VARIANCE * len(blocks))
    missing = 0.0
    for variance, top, left in sorted(blocks, reverse=True):
        if missing + open_ < least or missing >= least:
            break
        block = target[top : top + tall, left : left + wide]
        area = source[
            max(0, top - _SEARCH_PX) : top + tall + _SEARCH_PX,
            max(0, left - _SEARCH_PX) : left + wide + _SEARCH_PX,
        ]
        match = float(cv2.matchTemplate(area, block, cv2.TM_CCOEFF_NORMED).max())
        missing += (1.0 - max(match, 0.0) ** 2) * variance
        open_ -= variance
    return missing >= least


@lru_cache
def _block_places(height: int, width: int) -> list[tuple[int, int]]:
    """Return top and left of the blocks that cover a picture."""
    tall, wide = min(_BLOCK_PX, height), min(_BLOCK_PX, width)
    tops = np.linspace(0, height - tall, max(1, round(height / tall))).astype(int).tolist()
    lefts = np.linspace(0, width - wide, max(1, round(width / wide))).astype(int).tolist()
    return [(top, left) for top in tops for left in lefts]
