"""By how much a picture moves as a whole from one frame to the next."""

from dataclasses import dataclass

import cv2
import numpy as np

from curation.shots import sliding
from curation.shots.evidence import NOISE_VARIANCE

STRIP = 0.5
"""Share of the width and of the height that is looked for in the next picture."""
LEAST_SPREAD_LEVELS = 4.0
"""Standard deviation of what can be looked for."""
CLEAR = 0.5
"""What is left unlike, over what is without movement, where a movement is clear."""
LEAST_UNLIKE = 0.01
"""What differs less without movement did not move to be seen."""


@dataclass(frozen=True)
class Shift:
    """How a picture moves to become the next one.

    Attributes:
        right: pixels.
        match: correlation of what both show, -1 to 1.
        is_clear: whether the pictures match much better so than unmoved.
    """

    right: int
    match: float
    is_clear: bool


UNMOVED = Shift(0, 1.0, False)


def shift(one: np.ndarray, other: np.ndarray) -> Shift:
    """Return how uint8 (h, w) moves to become another one; a picture without structure does not match."""
    height, width = other.shape
    tall, wide = round(height * STRIP), round(width * STRIP)
    top = (height - tall) // 2
    best = Shift(0, -1.0, False)
    # A strip of each side: where one leaves the picture, the other one stays.
    for left in (0, width - wide):
        strip = one[top : top + tall, left : left + wide]
        if cv2.meanStdDev(strip)[1][0, 0] < LEAST_SPREAD_LEVELS:
            continue
        found = cv2.matchTemplate(other, strip, cv2.TM_CCOEFF_NORMED)
        _, value, _, (x, _) = cv2.minMaxLoc(found)
        if value > best.match:
            best = Shift(x - left, float(value), bool(1 - value <= CLEAR * (1 - found[top, left])))
    return best


def follow(one: np.ndarray, other: np.ndarray) -> Shift:
    """Return how uint8 (h, w) moves to the side, by all that both pictures show, to become another one.

    The correlation holds a floor of noise, so that flat parts match each other. All movements of up to half the width
    are weighed at once: products of columns, summed along diagonals.
    """
    height, width = one.shape
    reach = width // 2
    right = np.arange(-reach, reach + 1)
    pictures = [each.astype(np.float32) - 128 for each in (one, other)]
    products = sliding.along_diagonals((pictures[0].T @ pictures[1])[None])[0, width + right]
    begins, shown = (np.maximum(0, -right), np.maximum(0, right)), width - np.abs(right)
    count = height * shown
    sums = [_shown(picture, begin, shown) for picture, begin in zip(pictures, begins, strict=True)]
    energies = [_shown(picture**2, begin, shown) for picture, begin in zip(pictures, begins, strict=True)]
    floor = NOISE_VARIANCE * count
    common = products - sums[0] * sums[1] / count + floor
    powers = [energy - total**2 / count + floor for energy, total in zip(energies, sums, strict=True)]
    match = common / np.sqrt(powers[0] * powers[1])
    best = int(match.argmax())
    unlike, unmoved = 1 - match[best], 1 - match[reach]
    is_clear = bool(unlike <= CLEAR * unmoved and unmoved >= LEAST_UNLIKE)
    return Shift(int(right[best]), float(match[best]), is_clear)


def _shown(values: np.ndarray, begin: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Return the sums of (h, w) values over each of some ranges of columns: their first ones, and how many they are."""
    columns = np.concatenate([[0.0], np.cumsum(values.sum(axis=0), dtype=float)])
    sums: np.ndarray = columns[begin + shown] - columns[begin]
    return sums
