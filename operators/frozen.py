"""Share of the time in which nothing new is shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from core.settings import key
from curation.schema import VIDEO
from curation.types import ClipInput, Frames, Sampling, Scorer, Scores
from media.types import SourceFacts, Span

STACK_FRAMES = 32
"""Frames compared in one go: what is read then stays in the processor's cache."""
STEP_S, LONGEST_STEP_S = 1 / 24, 0.2
"""A frame of a file whose rate varies is a still picture after the one, of an even file after its own step, at most the
other. A slideshow of 1 picture in 2 s is frozen however it is stored; even footage at 5 frames per second is not."""
TICK_S = 1e-5
"""Times are rounded to the microsecond."""


def largest_block_changes(firsts: np.ndarray, seconds: np.ndarray, block_px: int) -> np.ndarray:
    """Return the largest mean |difference| of any block of each two uint8 (N, H, W) pictures, in grey levels: (N,).

    The largest block, not the mean of the picture, so that a small thing that moves in a corner counts. The pictures
    are looked at as one tall stack: a call costs more than what it does with one of them.
    """
    count, height, width = firsts.shape
    across, down = max(1, round(width / block_px)), max(1, round(height / block_px))
    change = cv2.absdiff(firsts.reshape(-1, width), seconds.reshape(-1, width)).astype(np.float32)
    blocks = cv2.resize(change, (across, count * down), interpolation=cv2.INTER_AREA)
    return blocks.reshape(count, -1).max(axis=1)


def repeats(pixels: np.ndarray, block_px: int, max_change: float) -> np.ndarray:
    """Return which frames equal the one before, bool (T,); the first one does not.

    A frame is compared with the last one that showed something new, not with its neighbour: so slow motion
    at a high frame rate adds up and counts, while codec noise does not add up.

    Args:
        pixels: uint8 (T, H, W).
        block_px: side of a block.
        max_change: grey levels; a frame with all blocks below this is equal.
    """
    found = np.zeros(len(pixels), bool)
    shown = 0
    for start in range(0, len(pixels) - 1, STACK_FRAMES):
        firsts, seconds = pixels[start:-1][:STACK_FRAMES], pixels[start + 1 :][:STACK_FRAMES]
        for i, step in enumerate(largest_block_changes(firsts, seconds, block_px).tolist(), start + 1):
            if shown < i - 1:  # the frame before was a repeat, so that the step from it says nothing
                step = largest_block_changes(pixels[shown, None], pixels[i, None], block_px)[0]
            found[i] = step < max_change
            shown = shown if found[i] else i
    return found


def frozen_share(
    pixels: np.ndarray, block_px: int, max_change: float, shown_s: np.ndarray | None = None, step_s: float = 1.0
) -> float | None:
    """Return the share of the time in which nothing new is shown; None where no frame can be compared.

    A frame that repeats the one before counts as long as it is shown; one that shows something new, for what it is
    shown beyond `step_s`. The first frame has none before it, so its own step counts for nothing. At an even rate this
    is the share of repeats among the frames after the first.

    Args:
        pixels: uint8 (T, H, W).
        block_px: side of a block.
        max_change: grey levels; a frame with all blocks below this is equal.
        shown_s: float64 (T,), how long each frame is shown, seconds; None: all equally long, and no longer than a step.
        step_s: how long a frame may be shown before it is a still picture.
    """
    if not len(pixels):
        return None
    shown_s = np.full(len(pixels), step_s) if shown_s is None else shown_s
    steps_s = np.where(shown_s < step_s + TICK_S, shown_s, step_s)
    counted_s = float(shown_s.sum() - steps_s[0])
    if counted_s < TICK_S:
        return None
    frozen_s = np.where(repeats(pixels, block_px, max_change), shown_s, shown_s - steps_s).sum()
    return float(min(1.0, frozen_s / counted_s))


def shown_times(frames: Frames, span: Span) -> np.ndarray:
    """Return how long each of a clip's frames is shown within its span, float64 (T,), seconds."""
    return np.maximum(np.diff(frames.times_s, append=span.end_s), 0.0)


def usual_step(facts: SourceFacts) -> float:
    """Return how long a moving picture may stand in a file, in seconds: longer at a low but even frame rate."""
    return min(LONGEST_STEP_S, max(STEP_S, 1 / facts.fps)) if facts.fps and not facts.is_vfr else STEP_S


@dataclass(frozen=True)
class Frozen:
    """Share of the time in which frames equal the one before, up to codec noise, at the coarse size.

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
        """Return the scoring function."""

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            return [{"frozen": self._share(clip)} for clip in clips]

        return score

    def _share(self, clip: ClipInput) -> float | None:
        shown_s, step_s = shown_times(clip.frames, clip.span), usual_step(clip.facts)
        return frozen_share(clip.frames.pixels, self.block_px, self.max_change, shown_s, step_s)
