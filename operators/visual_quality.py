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

from curation.schema import BOTH
from curation.settings import key
from curation.types import ClipInput, Sampling, Scorer, Scores
from operators.sharpness import at_short_side, laplacian_variance

WEIGHTS = {"exposure": 0.2, "contrast": 0.2, "colour": 0.05, "sharpness": 0.35, "clean": 0.2}
FLOOR = 0.02
"""The least a part gives: black or flat pictures stay comparable."""
BLOCK_PX = 8
NOISE_KERNEL = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)

# Named colours in sRGB, several shades to a name: the name of the nearest shade in CIELAB is the colour.
SHADES: tuple[tuple[str, tuple[int, int, int]], ...] = (
    ("black", (10, 10, 10)), ("gray", (90, 90, 90)), ("gray", (160, 160, 160)), ("white", (245, 245, 245)),
    ("red", (200, 30, 30)), ("red", (120, 15, 20)), ("orange", (240, 140, 30)), ("yellow", (240, 220, 50)),
    ("green", (40, 160, 50)), ("green", (25, 75, 30)), ("green", (120, 140, 60)), ("cyan", (60, 200, 210)),
    ("blue", (40, 90, 210)), ("blue", (20, 35, 110)), ("blue", (130, 175, 225)), ("purple", (120, 50, 160)),
    ("pink", (240, 150, 180)), ("brown", (110, 65, 30)), ("brown", (60, 38, 22)), ("beige", (215, 190, 150)),
)  # fmt: skip


def ramp(value: float, low: float, high: float) -> float:
    """Give 0 at `low`, 1 at `high`, linear between; `low` may be the larger one."""
    return float(min(1.0, max(0.0, (value - low) / (high - low))))


def colourfulness(rgb: np.ndarray) -> float:
    """Give the colourfulness of uint8 (H, W, 3) (Hasler & Süsstrunk, SPIE 2003): 0 gray, 109 extreme."""
    r, g, b = (rgb[..., i].astype(np.float32) for i in range(3))
    red_green, yellow_blue = r - g, (r + g) / 2 - b
    spread = np.hypot(red_green.std(), yellow_blue.std())
    offset = np.hypot(red_green.mean(), yellow_blue.mean())
    return float(spread + 0.3 * offset)


def noise_sigma(gray: np.ndarray) -> float:
    """Give the standard deviation of noise in uint8 (H, W), grey levels (Immerkær, CVIU 1996)."""
    response = np.abs(cv2.filter2D(gray, cv2.CV_32F, NOISE_KERNEL))
    return float(np.sqrt(np.pi / 2) / 6 * response.mean())


def blockiness(gray: np.ndarray) -> float:
    """Give how much larger steps are on the 8 px grid than off it (1: no blocks), of uint8 (H, W).

    Sees the grid of sources shown at their own size only; scaled ones show their loss as lost detail.
    """
    ratios = []
    for picture in (gray, gray.T):
        if picture.shape[1] < 2 * BLOCK_PX:
            continue
        steps = np.abs(np.diff(picture.astype(np.int16), axis=1)).mean(axis=0)
        on_grid = np.arange(1, steps.size + 1) % BLOCK_PX == 0
        ratios.append((steps[on_grid].mean() + 0.5) / (steps[~on_grid].mean() + 0.5))
    return float(np.mean(ratios)) if ratios else 1.0


def quality_parts(rgb: np.ndarray) -> dict[str, float]:
    """Give the parts of the score of one frame, each 0..1.

    Args:
        rgb: uint8 (H, W, 3).

    Returns:
        exposure: mean luma within 0.3..0.7, less for clipped pixels; contrast: luma between the 5th and the
        95th percentile; colour: colourfulness; sharpness: logarithm of the Laplacian's variance; clean: free
        of noise and of blocks.
    """
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    low, high = np.percentile(gray, [5, 95])
    mean = float(gray.mean()) / 255
    clipped = float(np.mean((gray <= 2) | (gray >= 253)))
    exposure = min(ramp(mean, 0.02, 0.3), ramp(mean, 0.98, 0.7)) * (1 - 0.5 * clipped)
    return {
        "exposure": float(exposure),
        "contrast": ramp(float(high - low), 0, 160),
        "colour": 0.5 + 0.5 * ramp(colourfulness(rgb), 0, 40),
        "sharpness": ramp(float(np.log10(laplacian_variance(at_short_side(gray, 360)) + 1)), 0.5, 3.5),
        "clean": ramp(noise_sigma(gray), 25, 5) * ramp(blockiness(gray), 3, 1.1),
    }


def frame_quality(rgb: np.ndarray) -> float:
    """Give the weighted geometric mean of the parts of uint8 (H, W, 3), 0..1."""
    parts = quality_parts(rgb)
    return float(np.exp(sum(weight * np.log(max(parts[name], FLOOR)) for name, weight in WEIGHTS.items())))


def to_lab(rgb: np.ndarray) -> np.ndarray:
    """Turn uint8 (N, 3) sRGB into float32 (N, 3) CIELAB."""
    return cv2.cvtColor((rgb.astype(np.float32) / 255)[None], cv2.COLOR_RGB2LAB)[0]


def colour_names(pixels: np.ndarray, min_share: float = 0.15, most: int = 3) -> list[str]:
    """Name the dominant colours, the commonest first.

    Args:
        pixels: uint8 (T, H, W, 3).
        min_share: share of the picture that a second or third name must have.
        most: number of names at most.
    """
    small = np.concatenate([cv2.resize(rgb, (32, 32), interpolation=cv2.INTER_AREA).reshape(-1, 3) for rgb in pixels])
    shades = to_lab(np.array([rgb for _, rgb in SHADES], dtype=np.uint8))
    nearest = np.linalg.norm(to_lab(small)[:, None] - shades, axis=2).argmin(axis=1)
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
        """Give the scoring function."""

        def score_clip(clip: ClipInput) -> Scores:
            if not len(clip.frames):
                return dict.fromkeys(self.writes)
            quality = float(np.mean([frame_quality(rgb) for rgb in clip.frames.pixels]))
            return {"visual_quality": quality, "colors": colour_names(clip.frames.pixels)}

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            return [score_clip(clip) for clip in clips]

        return score
