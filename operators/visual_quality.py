"""A rough technical quality of the picture, 0..1, without weights, and the names of its main colours.

It ranks versions of one shot (blurred, dark, faded, heavily compressed, noisy below the original); between
different shots it is a weak hint, since a foggy meadow is rightly soft. Each part is bounded, and the score is
their weighted geometric mean, so that one bad part cannot be bought off by the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from core.settings import key
from curation.schema import BOTH
from curation.types import ClipInput, Sampling, Scorer, Scores
from operators.sharpness import at_short_side, laplacian_variance

WEIGHTS = {"exposure": 0.2, "contrast": 0.2, "colour": 0.05, "sharpness": 0.35, "clean": 0.2}
FLOOR = 0.02
"""The least a part gives: black or flat pictures stay comparable."""
BLOCK_PX = 8
SECOND_DIFFERENCE = np.array([1.0, -2.0, 1.0])
"""along both axes it leaves noise, and no edges that are straight"""

# Named colours in sRGB, several shades to a name: the name of the nearest shade in CIELAB is the colour.
SHADES: tuple[tuple[str, tuple[int, int, int]], ...] = (
    ("black", (10, 10, 10)), ("gray", (90, 90, 90)), ("gray", (160, 160, 160)), ("white", (245, 245, 245)),
    ("red", (200, 30, 30)), ("red", (120, 15, 20)), ("orange", (240, 140, 30)), ("yellow", (240, 220, 50)),
    ("green", (40, 160, 50)), ("green", (25, 75, 30)), ("green", (120, 140, 60)), ("cyan", (60, 200, 210)),
    ("blue", (40, 90, 210)), ("blue", (20, 35, 110)), ("blue", (130, 175, 225)), ("purple", (120, 50, 160)),
    ("pink", (240, 150, 180)), ("brown", (110, 65, 30)), ("brown", (60, 38, 22)), ("beige", (215, 190, 150)),
)  # fmt: skip


def ramp(value: float, low: float, high: float) -> float:
    """Return 0 at `low`, 1 at `high`, linear between; `low` may be the larger one."""
    return float(min(1.0, max(0.0, (value - low) / (high - low))))


def colourfulness(rgb: np.ndarray) -> float:
    """Return the colourfulness of uint8 (H, W, 3) (Hasler & Süsstrunk, SPIE 2003): 0 gray, 109 extreme.

    Its axes are r - g and (r + g) / 2 - b; the second one's mean square follows from those of the three differences
    of channels by Apollonius' theorem, which OpenCV sums up in bytes.
    """
    r, g, b = cv2.split(rgb)
    rg, rb, gb = (cv2.norm(one, other, cv2.NORM_L2SQR) / r.size for one, other in ((r, g), (r, b), (g, b)))
    red, green, blue, _ = cv2.mean(rgb)
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    variances = rg - red_green**2, rb / 2 + gb / 2 - rg / 4 - yellow_blue**2
    return float(sum(max(0.0, v) for v in variances) ** 0.5 + 0.3 * np.hypot(red_green, yellow_blue))


def noise_sigma(gray: np.ndarray) -> float:
    """Return the standard deviation of noise in uint8 (H, W), grey levels (Immerkær, CVIU 1996)."""
    response = cv2.sepFilter2D(gray, cv2.CV_16S, SECOND_DIFFERENCE, SECOND_DIFFERENCE)
    return float(np.sqrt(np.pi / 2) / 6 * cv2.norm(response, cv2.NORM_L1) / response.size)


def blockiness(gray: np.ndarray) -> float:
    """Return how much larger steps are on the 8 px grid than off it (1: no blocks), of uint8 (H, W).

    Sees the grid of sources shown at their own size only; scaled ones show their loss as lost detail.
    """
    ratios = []
    for axis, steps_2d in ((1, cv2.absdiff(gray[:, 1:], gray[:, :-1])), (0, cv2.absdiff(gray[1:], gray[:-1]))):
        if gray.shape[axis] < 2 * BLOCK_PX:
            continue
        steps = cv2.reduce(steps_2d, 1 - axis, cv2.REDUCE_AVG, dtype=cv2.CV_32F).ravel()
        on_grid = np.arange(1, steps.size + 1) % BLOCK_PX == 0
        ratios.append((steps[on_grid].mean() + 0.5) / (steps[~on_grid].mean() + 0.5))
    return float(np.mean(ratios)) if ratios else 1.0


def quality_parts(rgb: np.ndarray) -> dict[str, float]:
    """Return the parts of the score of one frame, each 0..1.

    Args:
        rgb: uint8 (H, W, 3).

    Returns:
        exposure: mean luma within 0.3..0.7, less for clipped pixels; contrast: luma between the 5th and the
        95th percentile; colour: colourfulness; sharpness: logarithm of the Laplacian's variance; clean: free
        of noise and of blocks.
    """
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    counts = cv2.calcHist([gray], [0], None, [256], [0, 256]).ravel()
    shares = counts / gray.size
    low, high = np.searchsorted(np.cumsum(shares), [0.05, 0.95])
    mean = float(shares @ np.arange(256)) / 255
    clipped = float(shares[:3].sum() + shares[253:].sum())
    exposure = min(ramp(mean, 0.02, 0.3), ramp(mean, 0.98, 0.7)) * (1 - 0.5 * clipped)
    return {
        "exposure": float(exposure),
        "contrast": ramp(float(high - low), 0, 160),
        "colour": 0.5 + 0.5 * ramp(colourfulness(rgb), 0, 40),
        "sharpness": ramp(float(np.log10(laplacian_variance(at_short_side(gray, 360)) + 1)), 0.5, 3.5),
        "clean": ramp(noise_sigma(gray), 25, 5) * ramp(blockiness(gray), 3, 1.1),
    }


def frame_quality(rgb: np.ndarray) -> float:
    """Return the weighted geometric mean of the parts of uint8 (H, W, 3), 0..1."""
    parts = quality_parts(rgb)
    return float(np.exp(sum(weight * np.log(max(parts[name], FLOOR)) for name, weight in WEIGHTS.items())))


def to_lab(rgb: np.ndarray) -> np.ndarray:
    """Turn uint8 (N, 3) sRGB into float32 (N, 3) CIELAB."""
    return cv2.cvtColor((rgb.astype(np.float32) / 255)[None], cv2.COLOR_RGB2LAB)[0]


def thumbnail(rgb: np.ndarray) -> np.ndarray:
    """Return uint8 (32, 32, 3) of (H, W, 3), averaged: by halves first, which takes a tenth of the time."""
    while min(rgb.shape[:2]) >= 128:
        height, width = (side // 2 for side in rgb.shape[:2])
        rgb = cv2.resize(rgb[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    return cv2.resize(rgb, (32, 32), interpolation=cv2.INTER_AREA)


def colour_names(pixels: np.ndarray, min_share: float = 0.15, most: int = 3) -> list[str]:
    """Name the dominant colours, the commonest first.

    Args:
        pixels: uint8 (T, H, W, 3).
        min_share: share of the picture that a second or third name must have.
        most: number of names at most.
    """
    small = to_lab(np.concatenate([thumbnail(rgb).reshape(-1, 3) for rgb in pixels]))
    shades = to_lab(np.array([rgb for _, rgb in SHADES], dtype=np.uint8))
    nearest = ((shades**2).sum(axis=1) - 2 * small @ shades.T).argmin(axis=1)
    counts: dict[str, int] = {}
    for (name, _), count in zip(SHADES, np.bincount(nearest, minlength=len(SHADES)).tolist(), strict=True):
        counts[name] = counts.get(name, 0) + count
    ranked = sorted(counts, key=lambda name: (-counts[name], name))[:most]
    return [name for i, name in enumerate(ranked) if i == 0 or counts[name] >= min_share * len(small)]


@dataclass(frozen=True)
class VisualQuality:
    """Exposure, contrast, colour, sharpness and cleanness in one number, mean over frames; colour names."""

    frames: int = key(4, "frames looked at, at uniform times")
    short_side_px: int = key(360, "pictures are scaled to this short side")

    writes: ClassVar[tuple[str, ...]] = ("visual_quality", "colors")
    media: ClassVar[frozenset[str]] = BOTH
    pool: ClassVar[str | None] = None

    @property
    def sampling(self) -> Sampling | None:
        """A few RGB frames at uniform times."""
        return Sampling(2.0, self.frames, None, self.short_side_px, "rgb")

    def load(self) -> Scorer:
        """Return the scoring function."""

        def score_clip(clip: ClipInput) -> Scores:
            if not len(clip.frames):
                return dict.fromkeys(self.writes)
            quality = float(np.mean([frame_quality(rgb) for rgb in clip.frames.pixels]))
            return {"visual_quality": quality, "colors": colour_names(clip.frames.pixels)}

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            return [score_clip(clip) for clip in clips]

        return score
