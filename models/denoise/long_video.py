"""Videos longer than a model makes at once: segments that continue each other, blended where they overlap."""

import math
from collections.abc import Sequence

import numpy as np


def segments_for(length: int, num_frames: int, overlap: int) -> int:
    """Return how many segments it takes.

    Args:
        length: frames of the whole.
        num_frames: of a segment.
        overlap: frames that neighbours share, fewer than `num_frames`.
    """
    return max(1, math.ceil((length - overlap) / (num_frames - overlap)))


def length_of(segments: int, num_frames: int, overlap: int) -> int:
    """Return the frames of the whole."""
    return num_frames + (segments - 1) * (num_frames - overlap)


def join(segments: Sequence[np.ndarray], overlap: int) -> np.ndarray:
    """Put segments behind each other; over the overlap the later one comes in evenly.

    Args:
        segments: uint8 (T, H, W, 3) each, at least one.
        overlap: frames that neighbours share.

    Returns:
        uint8 (T', H, W, 3).
    """
    whole = segments[0]
    # Neither end of the overlap is all of one segment, so that no step is larger than the others.
    share = (np.arange(1, overlap + 1, dtype=np.float32) / (overlap + 1))[:, None, None, None]
    for segment in segments[1:]:
        before, after = whole[len(whole) - overlap :], segment[:overlap]
        mixed = ((1 - share) * before + share * after).round().astype(np.uint8)
        whole = np.concatenate([whole[: len(whole) - overlap], mixed, segment[overlap:]])
    return whole
