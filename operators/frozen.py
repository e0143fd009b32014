"""Share of frames that show nothing new."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from curation.schema import VIDEO
from curation.settings import key
from curation.types import ClipInput, Sampling, Scorer, Scores

STACK_FRAMES = 32
"""Frames compared in one go: what is read then stays in the processor's cache."""


def largest_block_changes(firsts: np.ndarray, seconds: np.ndarray, block_px: int) -> np.ndarray:
    """Give the largest mean |difference| of any block of each two uint8 (N, H, W) pictures, in grey levels: (N,).

    The largest block, not the mean of the picture, so that a small thing that moves in a corner counts. The pictures
    are looked at as one tall stack: a call costs more than what it does with one of them.
    """
    count, height, width = firsts.shape
    across, down = max(1, round(width / block_px)), max(1, round(height / block_px))
    change = cv2.absdiff(firsts.reshape(-1, width), seconds.reshape(-1, width)).astype(np.float32)
    blocks = cv2.resize(change, (across, count * down), interpolation=cv2.INTER_AREA)
    return blocks.reshape(count, -1).max(axis=1)


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
    steps = np.concatenate([
        largest_block_changes(pixels[i:-1][:STACK_FRAMES], pixels[i + 1 :][:STACK_FRAMES], block_px)
        for i in range(0, len(pixels) - 1, STACK_FRAMES)
    ])
    shown, repeats = 0, 0
    for i, step in enumerate(steps.tolist(), 1):
        if shown < i - 1:  # the frame before was a repeat, so that the step from it says nothing
            step = largest_block_changes(pixels[shown, None], pixels[i, None], block_px)[0]
        if step < max_change:
            repeats += 1
        else:
            shown = i
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
