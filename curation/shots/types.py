"""What every shot detector sees and says."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np


@dataclass(frozen=True, eq=False)
class CoarseFrame:
    """A small view of one decoded frame, scaled straight from its YUV planes.

    Values are full range whatever the file's range: luma 0 (black) to 255 (white), chroma 128 = grey.

    Attributes:
        index: decoded frame index, counted from the first frame of the segment.
        time_s: presentation time in seconds from the first frame of the source.
        luma: uint8 (H, W), short side `COARSE_SHORT_SIDE_PX` (never enlarged), displayed aspect.
        chroma: uint8 (2, H // 2, W // 2): U (Cb) and V (Cr).
    """

    index: int
    time_s: float
    luma: np.ndarray
    chroma: np.ndarray

    def rgb(self) -> np.ndarray:
        """Give the small picture as uint8 (H, W, 3)."""
        height, width = self.luma.shape
        u, v = (cv2.resize(plane, (width, height)) for plane in self.chroma)
        return cv2.cvtColor(np.dstack([self.luma, v, u]), cv2.COLOR_YCrCb2RGB)


COARSE_SHORT_SIDE_PX = 72


@dataclass(frozen=True, order=True)
class Boundary:
    """Where one shot ends and the next begins: frames `[start, end)` belong to neither.

    A hard cut has `start == end` == the first frame of the new shot; a gradual transition covers frames.
    """

    start: int
    end: int


class DetectorState(Protocol):
    """A detector at work on one segment; frames go in in order, boundaries come out in order."""

    def push(self, frames: Sequence[CoarseFrame]) -> list[list[Boundary]]:
        """Take the next frames; give for each the boundaries that became certain with it, the earliest first.

        What is found does not depend on how many are pushed at a time; several cost less than one by one.
        """
        ...

    def finish(self) -> list[Boundary]:
        """Give the boundaries still open after the last frame."""
        ...


class ShotDetector(Protocol):
    """Settings of a detector: a frozen dataclass whose fields are recipe keys.

    `lag_s`: once a frame at time t was pushed, no boundary that starts before `t - lag_s` will be reported.
    """

    @property
    def lag_s(self) -> float:
        """Seconds by which a boundary may be reported late."""
        ...

    def start(self, fps: float) -> DetectorState:
        """Begin a segment whose nominal rate is `fps` frames per second."""
        ...
