"""Bars around the picture, black, of another even colour, or blurred: where they end and how much they cover."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from core.settings import key
from curation.schema import BOTH
from curation.types import ClipInput, Sampling, Scorer, Scores
from media.shape import PixelBox
from operators.bars import inner_box

NOISE_LEVELS = 10
"""A bar's pixel may be this much brighter than the bar: noise and ringing at the picture's edge."""
DARK_SHARE = 0.985
"""Share of a line that must be dark for a bar: a few specks do not end it."""
MAX_UNEVEN = 4
TEXT_DARK_SHARE = 0.35
"""A line of a bar that carries a subtitle is still dark to this share, and dark at both ends."""
TEXT_MARGIN = 0.1
"""Length of those ends, share of the line."""


def bar_length(lines: np.ndarray, max_level: int) -> int:
    """Return how many lines, from the first one inwards, belong to a bar.

    Lines that look like a subtitle are stepped over, and belong to the bar if dark lines follow them.

    Args:
        lines: uint8 (N, M): the N lines in order from the picture's edge, M pixels each.
        max_level: a bar is no brighter than this.
    """
    level = float(np.median(lines[:2]))
    if level > max_level:
        return 0
    dark = lines <= min(level + NOISE_LEVELS, max_level)
    share = dark.mean(axis=1)
    margin = max(1, round(lines.shape[1] * TEXT_MARGIN))
    ends = np.minimum(dark[:, :margin].mean(axis=1), dark[:, -margin:].mean(axis=1))
    is_bar = share >= DARK_SHARE
    is_text = (share >= TEXT_DARK_SHARE) & (ends >= DARK_SHARE)
    length = 0
    for index in range(len(lines)):
        if is_bar[index]:
            length = index + 1
        elif not is_text[index]:
            break
    return length


def bar_pair(lines: np.ndarray, max_level: int) -> tuple[int, int]:
    """Return the lengths of the bars at the first and at the last line.

    Bars come in pairs: a night sky or black space at one side only is a part of the picture, so one bar
    counts up to `MAX_UNEVEN` times the length of the other.
    """
    first, last = bar_length(lines, max_level), bar_length(lines[::-1], max_level)
    longest = MAX_UNEVEN * min(first, last)
    return min(first, longest), min(last, longest)


def content_box(brightest: np.ndarray, max_level: int) -> PixelBox | None:
    """Return the picture inside the bars: left, top, right, bottom in pixels; None when all is dark.

    Args:
        brightest: uint8 (H, W), the largest luma of each pixel over the clip, so that what lights up once
            is no bar.
        max_level: a bar is no brighter than this.
    """
    height, width = brightest.shape
    if np.mean(brightest > max_level) < 1 - DARK_SHARE:
        return None
    top, below = bar_pair(brightest, max_level)
    bottom = height - below
    if top >= bottom:
        return None
    # Only between the bars above and below: a subtitle in those would end a bar at the side.
    columns = brightest[top:bottom].T
    left, beyond = bar_pair(columns, max_level)
    right = width - beyond
    return PixelBox(left, top, right, bottom) if left < right else None


def clip_box(pixels: np.ndarray, max_level: int) -> PixelBox | None:
    """Return the picture inside the bars of a clip, uint8 (T, H, W), of any kind: see `content_box` and `bars`."""
    box = content_box(pixels.max(axis=0), max_level)
    if box is None:
        return None
    left, top, right, bottom = box
    inner = inner_box(pixels[:, top:bottom, left:right])
    return box if inner is None else PixelBox(left + inner[0], top + inner[1], left + inner[2], top + inner[3])


@dataclass(frozen=True)
class Letterbox:
    """Share of the picture covered by bars above, below, left and right, and the box inside them.

    Bars are black, of another even colour, or a blurred copy of the picture; all stand through the whole clip.

    Null when the clip is dark all through: then no bars can be told.
    """

    rate_fps: float = key(2.0, "frames per second looked at")
    short_side_px: int = key(360, "pictures are scaled to this short side")
    max_level: int = key(24, "luma 0..255 that a black bar does not exceed")

    writes: ClassVar[tuple[str, ...]] = ("letterbox", "content_box")
    media: ClassVar[frozenset[str]] = BOTH
    pool: ClassVar[str | None] = None

    @property
    def sampling(self) -> Sampling | None:
        """Gray frames on the grid."""
        return Sampling(self.rate_fps, None, None, self.short_side_px, "gray")

    def load(self) -> Scorer:
        """Return the scoring function."""

        def score_clip(clip: ClipInput) -> Scores:
            box = clip_box(clip.frames.pixels, self.max_level) if len(clip.frames) else None
            if box is None:
                return dict.fromkeys(self.writes)
            height, width = clip.frames.pixels.shape[1:]
            left, top, right, bottom = box
            covered = 1 - (right - left) * (bottom - top) / (width * height)
            return {
                "letterbox": float(covered),
                "content_box": [left / width, top / height, right / width, bottom / height],
            }

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            return [score_clip(clip) for clip in clips]

        return score
