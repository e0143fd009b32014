"""Flicker: the whole picture gets brighter and darker fast, by lamps against the shutter, old film, or bad exposure.

The change from frame to frame is that of most of the picture's blocks (the median), so that what moves in it, and the
camera, do not count; of the resulting brightness curve the slow part is taken off (fades, clouds, automatic exposure),
and the median over seconds is kept, so that one flash or an overlooked cut does not count either. Lamps of 100 or
120 Hz beat with the frame rate: at 24 and 30 frames per second the former show as 4 and 10 Hz.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from core.settings import key
from curation.schema import VIDEO
from curation.types import ClipInput, Frames, Sampling, Scorer, Scores
from operators.camera_path import steady

LEVEL_OFFSET = 4.0
"""Added before the logarithm, so that a grey level more or less of a black block is no flicker."""
MIN_FRAMES, MIN_S = 12, 1.0
LEAST_PERCENT = 0.2
"""Below this no frequency is told: it would be that of the coding's own noise."""
PERIODIC_SHARE = 0.6
"""Share of the power about one frequency that makes a flicker periodic."""


def block_levels(pixels: np.ndarray, block_px: int) -> np.ndarray:
    """Return the mean level of each block of uint8 (T, H, W): float32 (T, N), grey levels."""
    count, height, width = pixels.shape
    across, down = max(1, round(width / block_px)), max(1, round(height / block_px))
    stack = pixels.reshape(-1, width).astype(np.float32)
    return cv2.resize(stack, (across, count * down), interpolation=cv2.INTER_AREA).reshape(count, -1)


def brightness_curve(pixels: np.ndarray, block_px: int) -> np.ndarray:
    """Return the brightness that most of the picture shares, over time: float64 (T,), natural logarithm, 0 at first."""
    levels = np.log(block_levels(pixels, block_px) + LEVEL_OFFSET)
    changes = np.median(np.diff(levels, axis=0), axis=1)
    return np.concatenate([[0.0], np.cumsum(changes.astype(np.float64))])


def per_second(values: np.ndarray, times_s: np.ndarray) -> float:
    """Return the median over seconds of the root mean square of (T,) values; a short rest belongs to the last one."""
    seconds = np.floor(times_s - times_s[0]).astype(int)
    seconds = np.minimum(seconds, max(0, int(times_s[-1] - times_s[0]) - 1))
    return float(np.median([np.sqrt(np.mean(values[seconds == s] ** 2)) for s in np.unique(seconds)]))


def main_frequency(values: np.ndarray, times_s: np.ndarray) -> float | None:
    """Return the frequency that has most of the power of (T,) values, Hz; None where none has."""
    even_s = np.linspace(times_s[0], times_s[-1], len(times_s))
    centred = np.interp(even_s, times_s, values) * np.hanning(len(values))
    power = np.abs(np.fft.rfft(centred - centred.mean())) ** 2
    peak = int(power.argmax())
    near = power[max(0, peak - 2) : peak + 3]
    if power.sum() <= 0 or near.sum() < PERIODIC_SHARE * power.sum():
        return None
    places = np.arange(len(power))[max(0, peak - 2) : peak + 3]
    return float(near @ places / near.sum() / len(values) * (len(values) - 1) / (times_s[-1] - times_s[0]))


@dataclass(frozen=True)
class Flicker:
    """Root mean square of fast brightness changes that the whole picture shares, in percent, and their frequency."""

    short_side_px: int = key(72, "the coarse size every decoded frame is served at")
    block_px: int = key(8, "side of the blocks whose median change counts")
    slow_s: float = key(0.5, "changes slower than a mean of so many seconds are no flicker")

    writes: ClassVar[tuple[str, ...]] = ("flicker", "flicker_hz")
    media: ClassVar[frozenset[str]] = VIDEO
    pool: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        """Refuse settings that measure nothing."""
        if self.slow_s <= 0 or self.block_px < 1:
            raise ValueError("slow_s must be above 0, block_px at least 1")

    @property
    def sampling(self) -> Sampling | None:
        """Every decoded frame, gray, at the coarse size."""
        return Sampling(None, None, None, self.short_side_px, "gray")

    def load(self) -> Scorer:
        """Return the scoring function."""

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            return [self.score_frames(clip.frames) for clip in clips]

        return score

    def score_frames(self, frames: Frames) -> Scores:
        """Return the columns of luma (T, H, W) frames; None where they are too few, or too short, to tell."""
        times_s = frames.times_s
        if len(frames) < MIN_FRAMES or times_s[-1] - times_s[0] < MIN_S - 1e-6 or (np.diff(times_s) <= 0).any():
            return dict.fromkeys(self.writes)
        curve = brightness_curve(frames.pixels, self.block_px)[:, None]
        rest = curve - steady(times_s, curve, self.slow_s)
        rest = (rest - steady(times_s, rest, self.slow_s))[:, 0]  # once would leave a share of every curved fade
        percent = 100 * per_second(rest, times_s)
        hertz = main_frequency(rest, times_s) if percent >= LEAST_PERCENT else None
        return {"flicker": percent, "flicker_hz": hertz}
