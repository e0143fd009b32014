"""Share of frames that show nothing new."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from curation.schema import VIDEO
from curation.settings import key
from curation.types import ClipInput, Sampling, Scorer, Scores


def largest_block_change(first: np.ndarray, second: np.ndarray, block_px: int) -> float:
    """Give the largest mean |difference| of any block of two uint8 (H, W) pictures, in grey levels.

    The largest block, not the mean of the picture, so that a small thing that moves in a corner counts.
    """
    height, width = first.shape
    blocks = (max(1, round(width / block_px)), max(1, round(height / block_px)))
    change = cv2.absdiff(first, second).astype(np.float32)
    return float(cv2.resize(change, blocks, interpolation=cv2.INTER_AREA).max())


def frozen_share(pixels: np.ndarray, block_px: int, max_change: float) -> float | None:
    """Give the share of frames equal to the one before; None with fewer than two frames.

    A frame is compared with the last one that showed something new, not with its neighbour: so slow motion
    at a high frame rate adds up and counts, while codec noise does not add up.

    Args:
        pixels: uint8 (T, H, W).
        block_px: side of a block.
        max_change: grey levels; a frame with all blocks below this is equal.
    """
    if len(pixels) < 2:
        return None
    shown, repeats = pixels[0], 0
    for frame in pixels[1:]:
        if largest_block_change(shown, frame, block_px) < max_change:
            repeats += 1
        else:
            shown = frame
    return repeats / (len(pixels) - 1)


@dataclass(frozen=True)
class Frozen:
    """Share of frames equal to the one before, up to codec noise, at the coarse size.

    Measured on drawn shots: repeats re-encoded by x264 crf 18-40 stay below 0.35 grey levels in every 8 px
    block but for a keyframe now and then; a pan of 0.5 % of the diagonal per second or a dot of 2 % of the
    height in a corner changes some block by 1 or more; sensor noise that survives the encoder by 0.5 or more.
    """

    short_side_px: int = key(72, "the coarse size every decoded frame is served at")
    block_px: int = key(8, "side of the blocks that are compared")
    max_change: float = key(0.5, "grey levels 0..255: a frame with no block changed by this is a repeat")

    writes: ClassVar[tuple[str, ...]] = ("frozen",)
    media: ClassVar[frozenset[str]] = VIDEO
    pool: ClassVar[str | None] = None

    @property
    def sampling(self) -> Sampling | None:
        """Every decoded frame, gray, at the coarse size."""
        return Sampling(None, None, None, self.short_side_px, "gray")

    def load(self) -> Scorer:
        """Give the scoring function."""

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            return [{"frozen": frozen_share(c.frames.pixels, self.block_px, self.max_change)} for c in clips]

        return score
