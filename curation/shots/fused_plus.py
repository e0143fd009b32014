"""`fused` where it is sure, and TransNetV2 where it is not.

The detector without weights proposes. What it is sure of, and what it refuses by far, stands: that is nearly all. For
the rest the network looks at a short window around the proposal, and its log-odds add to the evidence. Windows are
shorter than the paper's, as the question is only whether a cut lies there; so many frames at most are looked at that
the cost is bounded whatever the footage is.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from core.settings import key
from curation.shots import jumps, kinds
from curation.shots.fused import Fused, FusedState
from curation.shots.holds import Holds, even_rate
from curation.shots.transnet import check_installed, small_picture
from curation.shots.types import NO_CUTS, Boundary
from media.coarse import CoarseFrame

SHORT_S = 0.5
"""Fades no longer than this are confirmed, too: damaged frames and whip pans pass for short fades."""
FIRST_WINDOWS = 4
"""Windows that the network may see of every segment, however short."""
LEAST_JUMP_ODDS = -4.0
"""Log-odds of the network from which on it does not deny a cut within one view."""
NEAR_FRAMES = 3
"""The network's middle may lie so far from the proposal."""


@dataclass(frozen=True)
class FusedPlus:
    """Settings of the detector; those of `fused` keep their defaults."""

    threshold: float = key(12.0, "evidence of both that makes a cut: that of `fused`, plus the network's")
    weight: float = key(1.2, "evidence for each unit of the network's log-odds; even odds say nothing")
    sure: float = key(16.5, "evidence of `fused` from which on the network is not asked")
    least: float = key(11.0, "evidence of `fused` below which it is not asked, either: there is no cut")
    window_frames: int = key(32, "frames that the network sees around a proposal")
    most_seen: float = key(0.08, "largest share (0 to 1) of all frames that the network may see; then `fused` decides")
    max_gradual_s: float = key(2.0, "longest dissolve or ramp of a fade that is looked for; 0 finds hard cuts only")
    marks: ClassVar[frozenset[str]] = Fused.marks

    def __post_init__(self) -> None:
        """Refuse settings that cannot work.

        Raises:
            ValueError: a setting is out of bounds, the window is too short, or the threshold lies outside the band.
        """
        if not 0 <= self.most_seen <= 1 or self.max_gradual_s < 0 or self.weight < 0:
            raise ValueError(f"most_seen must lie between 0 and 1, weight and max_gradual_s not be negative: {self}")
        if self.window_frames < 4 * NEAR_FRAMES or not self.least <= self.threshold <= self.sure:
            raise ValueError(f"window_frames must be {4 * NEAR_FRAMES} or more, threshold in least to sure: {self}")

    @property
    def lag_s(self) -> float:
        """That of `fused`: a window lies within it."""
        return self._fused.lag_s

    @property
    def _fused(self) -> Fused:
        return Fused(self.threshold, max_gradual_s=self.max_gradual_s)

    def start(self, fps: float) -> Holds:
        """Begin a segment of nominally `fps` frames per second.

        Raises:
            UserError: torch or the network's weights are missing.
        """
        check_installed()
        rate = even_rate(fps)
        return Holds(FusedPlusState(self, FusedState(self._fused, rate, self.least), rate), fps)


class FusedPlusState:
    """The detector at work; holds the coarse frames of the lag and half a window."""

    def __init__(self, settings: FusedPlus, fused: FusedState, fps: float) -> None:
        """Begin a segment of `fps` frames per second; `fused` stands at its first frame."""
        self._settings, self._fused = settings, fused
        self._short = round(SHORT_S * fps)
        half = settings.window_frames // 2
        self._frames: deque[CoarseFrame] = deque(maxlen=round((settings.lag_s + 1) * fps) + 2 * half)
        self._taken = self._seen = 0  # frames in all, and those that the network looked at
        self._told = 0

    def push(self, frames: Sequence[CoarseFrame]) -> list[list[Boundary]]:
        """Take the next frames; see `DetectorState`."""
        # What the network sees must not depend on how many frames are pushed at a time.
        return [self._push(frame, found) for frame, found in zip(frames, self._proposed(frames), strict=True)]

    def _proposed(self, frames: Sequence[CoarseFrame]) -> list[list[Boundary]]:
        """Return what `fused` reports with each frame."""
        return self._fused.push(frames)

    def _push(self, frame: CoarseFrame, found: list[Boundary]) -> list[Boundary]:
        self._frames.append(frame)
        self._taken += 1
        due_s = frame.time_s - self._settings.lag_s + 1e-6
        first = self._frames[0]
        doubtful = [each for each in self._fused.doubtful if self._time_s(each.start, first) <= due_s]
        return self._decided(found, doubtful)

    def _time_s(self, index: int, first: CoarseFrame) -> float:
        at = index - first.index
        return self._frames[at].time_s if 0 <= at < len(self._frames) else math.copysign(math.inf, at)

    def finish(self) -> list[Boundary]:
        """Decide about what is left; see `DetectorState`."""
        found = self._fused.finish()
        return self._decided(found, list(self._fused.doubtful))

    def _decided(self, found: list[Boundary], doubtful: list[Boundary]) -> list[Boundary]:
        """Return which of the boundaries found, and of the doubtful ones, are confirmed."""
        if not found and not doubtful:
            return []
        self._fused.doubtful = [each for each in self._fused.doubtful if each not in doubtful]
        certain = []
        for each in sorted([*found, *doubtful]):
            is_doubtful = each not in found
            if is_doubtful and (each.start <= self._told or any(b.start - 1 <= each.start <= b.end for b in found)):
                continue
            if self._is_confirmed(each, is_doubtful=is_doubtful):
                self._told = each.end
                certain.append(each)
        return certain

    def _is_confirmed(self, boundary: Boundary, *, is_doubtful: bool) -> bool:
        """Return whether a boundary stands, by its own evidence or by what the network says."""
        settings, length = self._settings, boundary.end - boundary.start
        is_fade = boundary.kind in ("fade_black", "fade_white") and kinds.RAMP_FRAMES <= length <= self._short
        is_cut = length < kinds.RAMP_FRAMES
        is_jump = boundary.kind == "jump" and not is_doubtful
        if boundary.kind in NO_CUTS or (is_jump and boundary.score == jumps.CONFIDENCE):
            return True  # the network was not trained on what moves within one view
        total = math.inf if boundary.score is None else kinds.evidence_of(boundary.score)
        if not (is_fade or is_cut) or total >= settings.sure:
            return True
        allowed = settings.most_seen * self._taken + FIRST_WINDOWS * settings.window_frames
        if self._seen + settings.window_frames > allowed:
            return not is_doubtful
        probability = min(max(self._probability(boundary), 1e-6), 1 - 1e-6)
        odds = math.log(probability / (1 - probability))
        return odds >= LEAST_JUMP_ODDS if is_jump else total + settings.weight * odds >= settings.threshold

    def _probability(self, boundary: Boundary) -> float:
        """Let the network look around a boundary; return the largest probability of a middle in it."""
        from curation.shots import transnet_net

        half = self._settings.window_frames // 2
        middle = (boundary.start + boundary.end) // 2 - self._frames[0].index
        places = np.clip(np.arange(middle - half, middle + half), 0, len(self._frames) - 1)
        window = np.stack([small_picture(self._frames[place]) for place in places.tolist()])
        self._seen += len(window)
        reach = min(half, (boundary.end - boundary.start) // 2 + NEAR_FRAMES)
        return float(transnet_net.predict(window[None])[0, half - reach : half + reach, 0].max())
