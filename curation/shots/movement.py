"""By how much a picture moves as a whole from one frame to the next."""

from dataclasses import dataclass

import cv2
import numpy as np

STRIP = 0.5
"""Share of the width and of the height that is looked for in the next picture."""
LEAST_SPREAD_LEVELS = 4.0
"""Standard deviation of what can be looked for."""
CLEAR = 0.5
"""What is left unlike, over what is without movement, where a movement is clear."""


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
