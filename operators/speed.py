"""How much the speed of the picture changes within a clip, as in a speed ramp.

The speed is that of most of the followed corners, hence of the camera, or of a scene that fills the picture. A ramp
that an editor made and a camera that was moved faster look alike. Whether a clip runs backwards is not told: what runs
down, or starts and never stops, is no proof, and nothing else in the picture is known to be one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from core.settings import key
from curation.schema import VIDEO
from curation.types import ClipInput, Frames, Sampling, Scorer, Scores
from operators.camera_path import MIN_CORNERS, MIN_SIDE_PX, followed

MIN_MOVING_S = 1.0
"""The picture must move so long for its speeds to be compared."""
SLOW_PERCENT, FAST_PERCENT = 10, 90
"""Percentiles of the speeds that are compared."""
MEDIAN_STEPS = 3
"""A speed is the median of so many: one step over a repeated or a lost frame says nothing."""


def corner_speed(first: np.ndarray, second: np.ndarray, elapsed_s: float) -> float | None:
    """Return the median speed of the corners of uint8 (H, W), percent of the diagonal per second; None for too few."""
    if min(first.shape) < MIN_SIDE_PX:
        return None
    places, later = followed(first, second)
    if len(places) < MIN_CORNERS:
        return None
    return float(np.median(np.hypot(*(later - places).T))) * 100 / float(np.hypot(*first.shape)) / elapsed_s


@dataclass(frozen=True)
class Speed:
    """Fast over slow speed of the picture within the clip: 1 for a steady one, 2 where it doubles.

    Stretches in which the picture stands still do not count: a camera that starts is no ramp. Null where the picture
    moves for less than a second, and where too little of it can be followed.
    """

    rate_fps: float = key(8.0, "frames per second looked at")
    short_side_px: int = key(180, "corners are followed at this short side")
    still_speed: float = key(1.5, "percent of the diagonal per second below which the picture stands still")

    writes: ClassVar[tuple[str, ...]] = ("speed_change",)
    media: ClassVar[frozenset[str]] = VIDEO
    pool: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        """Refuse settings that measure nothing."""
        if min(self.rate_fps, self.short_side_px, self.still_speed) <= 0:
            raise ValueError("rate_fps, short_side_px and still_speed must be above 0")

    @property
    def sampling(self) -> Sampling | None:
        """Gray frames on the grid."""
        return Sampling(self.rate_fps, None, None, self.short_side_px, "gray")

    def load(self) -> Scorer:
        """Return the scoring function."""

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            return [{"speed_change": self.change_of(clip.frames)} for clip in clips]

        return score

    def change_of(self, frames: Frames) -> float | None:
        """Return the ratio for luma (T, H, W) frames."""
        elapsed_s = np.diff(frames.times_s)
        found = [
            (speed, step_s)
            for k, step_s in enumerate(elapsed_s.tolist())
            if step_s > 0 and (speed := corner_speed(frames.pixels[k], frames.pixels[k + 1], step_s)) is not None
        ]
        if len(found) < MEDIAN_STEPS or sum(step_s for _, step_s in found) < elapsed_s.sum() / 2:
            return None
        speeds = np.array([speed for speed, _ in found])
        speeds = np.median(np.lib.stride_tricks.sliding_window_view(speeds, MEDIAN_STEPS), axis=1)
        moving = speeds >= self.still_speed
        steps_s = np.array([step_s for _, step_s in found])[MEDIAN_STEPS // 2 : -(MEDIAN_STEPS // 2)]
        if steps_s[moving].sum() < MIN_MOVING_S:
            return None
        slow, fast = np.percentile(speeds[moving], [SLOW_PERCENT, FAST_PERCENT])
        return float(fast / slow)
