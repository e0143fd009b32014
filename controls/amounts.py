"""What maps have in common: numbers that say how much they hold, and a drawer that takes each picture by itself."""

from collections.abc import Callable

import cv2
import numpy as np

from curation.types import MapFacts


def contrast(luma: np.ndarray) -> float:
    """Return the standard deviation of uint8 (H, W) as a share of the largest there is: 0 of a blank picture, to 1."""
    return float(cv2.meanStdDev(luma)[1][0, 0]) / 127.5


def density(drawn: np.ndarray) -> float:
    """Return the share of pixels that are not black, of uint8 (H, W)."""
    return cv2.countNonZero(drawn) / drawn.size


class Mean:
    """The mean of a number over frames."""

    def __init__(self) -> None:
        """Begin without any."""
        self._sum, self._count = 0.0, 0

    def add(self, value: float) -> None:
        """Take the next frame's."""
        self._sum, self._count = self._sum + value, self._count + 1

    @property
    def value(self) -> float:
        """Of all frames so far, held within 0..1; 0 without any."""
        return min(1.0, max(0.0, self._sum / self._count)) if self._count else 0.0


class EachPicture:
    """A `MapDrawer` that draws each picture by itself; the amount is the mean over frames of its map's."""

    def __init__(self, drawn: Callable[[np.ndarray], np.ndarray], amount: Callable[[np.ndarray], float]):
        """Take what draws a picture's map, and what says how much a map holds."""
        self._drawn, self._amount, self._mean = drawn, amount, Mean()

    def draw(self, picture: np.ndarray, time_s: float) -> np.ndarray:
        """Return the map of the next picture."""
        drawn = self._drawn(picture)
        self._mean.add(self._amount(drawn))
        return drawn

    def finish(self) -> MapFacts:
        """Return the amount."""
        return MapFacts(self._mean.value)
