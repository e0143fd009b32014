"""First looks at the windows in which gradual transitions are searched for, many windows at a time."""

import math
from collections import deque
from collections.abc import Sequence

import numpy as np

from curation.shots import evidence, gradual
from curation.shots.evidence import View

BLOCK_FRAMES = 16
"""Frames whose windows are looked at together: a call costs more than what it does with one window."""
_WINDOW_RATIO = 1.6
_SHORTEST_WINDOW_S = 0.5

Look = tuple[list[bool], list[bool]]
"""Which windows that end at one frame may hold a dissolve, and which a composite: see `gradual.first_look`."""


class FirstLooks:
    """The smallest pictures of the frames held, and the looks that are due with the frames about to be pushed."""

    def __init__(self, lengths: Sequence[int], tick: int, lag: int, held: int) -> None:
        """Begin a segment.

        Args:
            lengths: of the windows, in frames.
            tick: after every such number of frames, all windows that end at one frame are looked at.
            lag: frames from the end of these windows to the newest frame.
            held: frames that the detector holds; no window reaches further back.
        """
        self._lengths, self._tick, self._lag, self._held = np.array(lengths, int), tick, lag, held
        self._rows = np.empty((3 * held + BLOCK_FRAMES, evidence.TINY_SIZE), np.uint8)
        self._first = self._end = 0  # frames of the first row and after the last one
        self._due: deque[Look] = deque()

    def take(self, block: Sequence[View]) -> None:
        """Look ahead at what is due with the next frames, at most `BLOCK_FRAMES`."""
        count = self._end
        self._keep(block)
        ticks = range(count - count % self._tick + self._tick, self._end + 1, self._tick)
        self._due += self.at([tick - self._lag for tick in ticks])

    def due(self) -> Look:
        """Return the next look of those that are due, one for each tick."""
        return self._due.popleft()

    def at(self, ends: Sequence[int]) -> list[Look]:
        """Look at the windows that end at each of some frames, exclusive; what begins before frame 0 says nothing."""
        if not ends:
            return []
        after = np.array(ends)[:, None] - self._first
        firsts = after - self._lengths
        lasts = np.broadcast_to(after - 1, firsts.shape)
        looks = gradual.first_look(self._rows, *(np.maximum(each, 0).ravel() for each in (firsts, lasts)))
        dissolves, composites = (look.reshape(firsts.shape).tolist() for look in looks)
        return list(zip(dissolves, composites, strict=True))

    def tiny(self, count: int) -> np.ndarray:
        """Return the `tiny` of the frames held once `count` were pushed: uint8 (T, TINY_SIZE)."""
        end = count - self._first
        return self._rows[end - min(self._held, count) : end]

    def _keep(self, block: Sequence[View]) -> None:
        """Keep the `tiny` of the next frames as rows of one array, moved to its front whenever it is full."""
        end = self._end - self._first
        if end + len(block) > len(self._rows):
            kept = min(self._held, self._end)
            self._rows[:kept] = self._rows[end - kept : end]
            self._first, end = self._end - kept, kept
        for row, seen in enumerate(block, end):
            self._rows[row] = seen.tiny
        self._end += len(block)


def windows(longest_s: float, fps: float) -> list[int]:
    """Return the lengths in frames of the windows searched, each about 1.6 times the next one, the longest first."""
    if longest_s <= 0:
        return []
    # A window must hold the transition and some of what it joins.
    spread = max(1.0, 1.25 * longest_s / _SHORTEST_WINDOW_S)
    count = max(1, math.ceil(math.log(spread, _WINDOW_RATIO)))
    lengths_s = [_SHORTEST_WINDOW_S * _WINDOW_RATIO**k for k in range(count + 1)]
    return sorted({max(gradual.SAMPLES, round(length_s * fps)) for length_s in lengths_s}, reverse=True)
