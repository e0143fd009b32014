"""How much of a picture a bucket's shape cuts away, and what is done where that is too much."""

import numpy as np

from models.geometry import Bucket
from train_bridge.types import TrainRow

ROUNDING = 1e-9


def cropped_share(aspect: np.ndarray | float, shape_aspect: np.ndarray | float) -> np.ndarray:
    """Return the share of a picture's area that lies outside a shape which it covers, 0 where the aspects are equal.

    Covering a shape cuts along one axis only, so that the share is 1 − min(a/b, b/a).

    Args:
        aspect: the picture's width / height.
        shape_aspect: the shape's.
    """
    ratio = np.asarray(aspect, np.float64) / np.asarray(shape_aspect, np.float64)
    return np.asarray(1 - np.minimum(ratio, 1 / ratio))


def is_too_much(share: np.ndarray, max_crop: float) -> np.ndarray:
    """Return which shares are above the limit, beyond the rounding of a division."""
    return np.asarray(share > max_crop + ROUNDING)


def cropped_of(row: TrainRow, bucket: Bucket) -> float:
    """Return the share of a row's picture that a bucket cuts away; nothing of a row that is fitted in whole."""
    if row.letterbox or not row.width_px or not row.height_px:
        return 0.0
    return float(cropped_share(row.width_px / row.height_px, bucket.width_px / bucket.height_px))
