"""The detectors of PySceneDetect 0.7 (Breakthrough/PySceneDetect) behind this project's interface.

They are the original classes, fed with BGR pictures made from the coarse frames. Its command line scales to
a width of about 256 px, so that results are close, not equal.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np
from scenedetect import FrameTimecode
from scenedetect.detector import SceneDetector
from scenedetect.detectors import (
    AdaptiveDetector,
    ContentDetector,
    HashDetector,
    HistogramDetector,
    ThresholdDetector,
)

from core.settings import key
from curation.shots.holds import Holds, even_rate
from curation.shots.types import Boundary
from media.coarse import CoarseFrame

_MARGIN_S = 0.25
"""Added to lags for the rounding of times to frames, at 8 frames per second and above."""


def bgr_of(frame: CoarseFrame) -> np.ndarray:
    """Make a colour picture of a coarse frame.

    Returns:
        uint8 (H, W, 3) BGR.
    """
    height, width = frame.luma.shape
    blue, red = (cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in frame.chroma)
    return cv2.cvtColor(cv2.merge([frame.luma, red, blue]), cv2.COLOR_YCrCb2BGR)


@dataclass(frozen=True)
class Content:
    """Cut where hue, saturation and brightness change by more than a threshold (`ContentDetector`)."""

    threshold: float = key(27.0, "mean change of the three, 0 to 255")
    min_shot_s: float = key(0.6, "cuts closer than this are merged, seconds")
    luma_only: bool = key(False, "look at brightness alone")

    @property
    def lag_s(self) -> float:
        """Merging reports the last of several near cuts, which lies up to `min_shot_s` back."""
        return self.min_shot_s + _MARGIN_S

    def start(self, fps: float) -> Holds:
        """Begin a segment of nominally `fps` frames per second."""
        detector = ContentDetector(self.threshold, _frames(self.min_shot_s, fps), luma_only=self.luma_only)
        return _wrapped([(detector, 1)], fps, self.lag_s)


@dataclass(frozen=True)
class Adaptive:
    """Cut where the change exceeds that of the frames around it (`AdaptiveDetector`)."""

    threshold: float = key(3.5, "change over the mean change of the neighbours")
    window: int = key(3, "neighbours on each side, frames")
    min_shot_s: float = key(0.6, "shortest time between two cuts, seconds")
    min_content: float = key(15.0, "least mean change, 0 to 255")

    @property
    def lag_s(self) -> float:
        """The window, which is counted in frames, at 8 frames per second and above."""
        return self.window / 8 + _MARGIN_S

    def start(self, fps: float) -> Holds:
        """Begin a segment of nominally `fps` frames per second."""
        detector = AdaptiveDetector(
            adaptive_threshold=self.threshold,
            min_scene_len=_frames(self.min_shot_s, fps),
            window_width=self.window,
            min_content_val=self.min_content,
        )
        return _wrapped([(detector, 1)], fps, self.lag_s)


@dataclass(frozen=True)
class Threshold:
    """Cut in the middle of a fade through black (`ThresholdDetector`)."""

    threshold: float = key(12.0, "mean brightness below which the picture counts as black, 0 to 255")
    min_shot_s: float = key(0.6, "shortest time between two cuts, seconds")
    max_black_s: float = key(4.0, "longest stretch of black in whose middle a cut is looked for, seconds")

    @property
    def lag_s(self) -> float:
        """The cut lies half of the black back; a cut in longer black is moved up to this bound."""
        return self.max_black_s / 2 + _MARGIN_S

    def start(self, fps: float) -> Holds:
        """Begin a segment of nominally `fps` frames per second."""
        detector = ThresholdDetector(self.threshold, _frames(self.min_shot_s, fps))
        return _wrapped([(detector, 1)], fps, self.lag_s)


@dataclass(frozen=True)
class Histogram:
    """Cut where brightness histograms differ (`HistogramDetector`)."""

    threshold: float = key(0.2, "1 - correlation of the histograms, 0 to 1")
    bins: int = key(128, "bins of the histogram")
    min_shot_s: float = key(0.6, "shortest time between two cuts, seconds")

    @property
    def lag_s(self) -> float:
        """Nothing is reported late."""
        return 0.0

    def start(self, fps: float) -> Holds:
        """Begin a segment of nominally `fps` frames per second."""
        detector = HistogramDetector(self.threshold, self.bins, _frames(self.min_shot_s, fps))
        return _wrapped([(detector, 1)], fps, self.lag_s)


@dataclass(frozen=True)
class Hash:
    """Cut where perceptual hashes differ (`HashDetector`)."""

    threshold: float = key(0.35, "share of differing bits, 0 to 1")
    size: int = key(8, "side of the hash, bits")
    lowpass: int = key(2, "how many times finer than the hash its picture is")
    min_shot_s: float = key(0.6, "shortest time between two cuts, seconds")

    @property
    def lag_s(self) -> float:
        """Nothing is reported late."""
        return 0.0

    def start(self, fps: float) -> Holds:
        """Begin a segment of nominally `fps` frames per second."""
        detector = HashDetector(self.threshold, self.size, self.lowpass, _frames(self.min_shot_s, fps))
        return _wrapped([(detector, 1)], fps, self.lag_s)


@dataclass(frozen=True)
class Cascade:
    """Union of content detectors that look at every frame, every second, every third (EasyAnimate V2)."""

    thresholds: tuple[float, ...] = key(
        (10.0, 20.0, 30.0), "that of the k-th detector, which looks at every (k + 1)-th frame"
    )
    min_shot_frames: int = key(10, "cuts closer than this many frames are merged")

    @property
    def lag_s(self) -> float:
        """Merging over `min_shot_frames` and the frames left out, at 8 frames per second and above."""
        return (self.min_shot_frames + len(self.thresholds)) / 8 + _MARGIN_S

    def start(self, fps: float) -> Holds:
        """Begin a segment of nominally `fps` frames per second."""
        detectors = [(ContentDetector(t, self.min_shot_frames), k + 1) for k, t in enumerate(self.thresholds)]
        return _wrapped(detectors, fps, self.lag_s)


class WrappedState:
    """Original detectors at work; their cuts are held for `lag_s`, sorted and united.

    Cuts of two detectors are one when they lie closer than the longest step.
    """

    def __init__(self, detectors: Sequence[tuple[SceneDetector, int]], fps: float, lag_s: float) -> None:
        """Begin a segment.

        Args:
            detectors: each with its step: it sees every step-th frame.
            fps: nominal frames per second.
            lag_s: seconds by which a cut may be reported late; older ones are moved up.

        Raises:
            ValueError: `fps` is not a positive number.
        """
        if not (math.isfinite(fps) and fps > 0):
            raise ValueError(f"fps must be positive, got {fps}")
        self._detectors = detectors
        self._longest_step = max(step for _, step in detectors)
        self._rate = Fraction(fps).limit_denominator(1001)
        self._lag_s = lag_s
        self._first = self._count = 0
        self._held_s: deque[tuple[int, float]] = deque()
        self._open: set[int] = set()
        self._reported = 0

    def push(self, frames: Sequence[CoarseFrame]) -> list[list[Boundary]]:
        """Take the next frames; see `DetectorState`."""
        return [self._push(frame) for frame in frames]

    def _push(self, frame: CoarseFrame) -> list[Boundary]:
        if not self._count:
            self._first = frame.index
        picture = bgr_of(frame)
        self._held_s.append((self._count, frame.time_s))
        while self._held_s[0][1] < frame.time_s - self._lag_s:
            self._held_s.popleft()
        for detector, step in self._detectors:
            if self._count % step == 0:
                self._take(detector.process_frame(FrameTimecode(self._count, self._rate), picture))
        self._count += 1
        if not self._lag_s:
            return self._release(self._count)
        # What lies further back than the lag was clamped, so nothing earlier than the oldest held can come.
        return self._release(self._held_s[0][0] + 1)

    def finish(self) -> list[Boundary]:
        """Return what is open, and what the detectors add after the last frame."""
        for detector, _ in self._detectors:
            if self._count:
                self._take(detector.post_process(FrameTimecode(self._count - 1, self._rate)))
        return self._release(self._count)

    def _take(self, cuts: Sequence[FrameTimecode]) -> None:
        """Hold cuts, those older than the lag moved up to the oldest frame held."""
        for cut in cuts:
            frame = max(cut.frame_num, self._held_s[0][0])
            if frame > self._reported:
                self._open.add(frame)

    def _release(self, before: int) -> list[Boundary]:
        """Return the cuts at frames below `before`."""
        ready = []
        for frame in sorted(self._open):
            if frame >= before:
                break
            self._open.remove(frame)
            # A detector that looks at every third frame sees a cut up to two frames late.
            if not self._reported or frame - self._reported >= self._longest_step:
                self._reported = frame
                ready.append(Boundary(frame + self._first, frame + self._first))
        return ready


def _wrapped(detectors: Sequence[tuple[SceneDetector, int]], fps: float, lag_s: float) -> Holds:
    """Return original detectors at work, which see held frames repeated."""
    return Holds(WrappedState(detectors, even_rate(fps), lag_s), fps)


def _frames(time_s: float, fps: float) -> int:
    """Return a time in whole frames, as the detectors see them."""
    return round(time_s * even_rate(fps))
