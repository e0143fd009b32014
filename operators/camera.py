"""What the camera does, in camera words: pans, tilts, zooms, rolls, is held by hand, or stands still.

The words are those of film: a pan turns the camera sideways, a tilt up or down, a zoom enlarges (a camera that is
carried forward counts as one), a roll turns it about its view. Shake is what is left of the path beside its slow part.
Measured on drawn moves at 320x180: pans of 1 to 60 % of the diagonal per second, zooms of 3 to 40 %/s, rolls of 2 to
30 degrees/s within 2 %; shake of 3 to 5 Hz within 2 %, of 2 Hz 6 % low.

A thing that fills the picture up to its border, and moves as a whole, cannot be told from a camera.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from core.settings import key
from curation.schema import VIDEO
from curation.types import ClipInput, Frames, Sampling, Scorer, Scores
from operators.camera_path import RMS_RADIUS, Path, camera_path, steady

MOVES = (("pan_left", "pan_right"), ("tilt_down", "tilt_up"), ("zoom_out", "zoom_in"), ("roll", "roll"))
"""Words for a negative and a positive speed of each component."""
MIN_STEPS = 4
MIN_EXPLAINED = 0.7
"""Share of the steps that a camera must explain."""
DIRECT_SHARE = 0.6
"""Share of all slow motion that a move in one direction must have to be named."""
STEADY_RATIO = 10.0
"""A move that covers less than so many times the shake in a second is lost in it."""


@dataclass(frozen=True)
class Camera:
    """Mean speeds of the camera, its shake, and the word for what it does; null where no camera explains the motion."""

    rate_fps: float = key(12.0, "frames per second looked at; shake is seen up to half of it")
    short_side_px: int = key(180, "corners are followed at this short side")
    slow_s: float = key(1.0, "the slow part of the path is a mean of so many seconds; the rest is shake")
    still_speed: float = key(0.5, "percent of the diagonal per second below which the camera stands still")
    handheld_shake: float = key(0.1, "shake, percent of the diagonal, from which on the camera is held by hand")

    writes: ClassVar[tuple[str, ...]] = ("pan", "tilt", "zoom", "roll", "shake", "camera_move", "camera_confidence")
    media: ClassVar[frozenset[str]] = VIDEO
    pool: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        """Refuse settings that measure nothing."""
        if min(self.rate_fps, self.slow_s, self.still_speed, self.handheld_shake) <= 0:
            raise ValueError("rate_fps, slow_s, still_speed and handheld_shake must be above 0")

    @property
    def sampling(self) -> Sampling | None:
        """Gray frames on the grid."""
        return Sampling(self.rate_fps, None, None, self.short_side_px, "gray")

    def load(self) -> Scorer:
        """Return the scoring function."""

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            return [self.score_frames(clip.frames) for clip in clips]

        return score

    def score_frames(self, frames: Frames) -> Scores:
        """Return the columns of luma (T, H, W) frames; all None where the motion is not a camera's."""
        path = camera_path(frames)
        if path is None or len(path.times_s) <= MIN_STEPS or path.explained < MIN_EXPLAINED:
            return dict.fromkeys(self.writes)
        lasts_s = float(path.times_s[-1] - path.times_s[0])
        slow = steady(path.times_s, path.places, self.slow_s)
        shake = self.shake_of(path) if lasts_s >= self.slow_s else None
        # The picture moves against the camera, but grows as it zooms in.
        speeds = (slow[-1] - slow[0]) / lasts_s * np.array([-1, 1, 1, -1])
        across, growing, turning = np.split(np.diff(slow, axis=0), [2, 3], axis=1)
        total = sum(float(np.linalg.norm(part, axis=1).sum()) for part in (across, growing, turning)) / lasts_s
        move, certainty = self.name_move(speeds, total, shake)
        return {
            "pan": float(speeds[0]) + 0.0,  # no minus before a zero
            "tilt": float(speeds[1]) + 0.0,
            "zoom": float(speeds[2] / RMS_RADIUS) + 0.0,
            "roll": float(np.degrees(speeds[3] / RMS_RADIUS / 100)) + 0.0,
            "shake": shake,
            "camera_move": move,
            "camera_confidence": float(path.share * path.explained * certainty),
        }

    def shake_of(self, path: Path) -> float:
        """Return the root mean square of what a path has beside its slow part, percent of the diagonal.

        The slow part is taken off twice: once would leave a constant share of every acceleration.
        """
        rest = path.places - steady(path.times_s, path.places, self.slow_s)
        rest = rest - steady(path.times_s, rest, self.slow_s)
        return float(np.sqrt((rest**2).sum(axis=1).mean()))

    def name_move(self, speeds: np.ndarray, total: float, shake: float | None) -> tuple[str, float]:
        """Return the word for what a camera does, and how clearly it does that, 0..1.

        A slanting pan is named by its larger part, the less clearly the more it slants.

        Args:
            speeds: float64 (4,), from the first to the last frame: pan, tilt, zoom and roll by how fast they move the
                picture's points, percent of the diagonal per second.
            total: the same of the slow path's whole length, which no turning back takes away from.
            shake: percent of the diagonal; None: too short to tell.
        """
        shakes = (shake or 0.0) / self.handheld_shake
        if total < self.still_speed and shakes < 1:
            return "static", 1 - 0.5 * max(total / self.still_speed, shakes)
        largest = int(np.abs(speeds).argmax())
        speed = float(np.hypot(speeds[0], speeds[1])) if largest < 2 else abs(float(speeds[largest]))
        direct = min(1.0, speed / total) if total > 0 else 0.0
        if direct >= DIRECT_SHARE and speed >= max(self.still_speed * DIRECT_SHARE, STEADY_RATIO * (shake or 0.0)):
            clearly = 0.5 + 0.5 * (direct - DIRECT_SHARE) / (1 - DIRECT_SHARE)
            return MOVES[largest][int(speeds[largest] > 0)], clearly * abs(float(speeds[largest])) / speed
        if shakes >= 1:
            return "handheld", 1 - 0.5 / shakes
        return "mixed", 1 - 0.5 * min(1.0, direct / DIRECT_SHARE)
