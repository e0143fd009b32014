"""What every shot detector sees and says."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

from media.coarse import CoarseFrame

KINDS = {
    "hard": "one frame to the next",
    "jump": "a cut within one view",
    "dissolve": "two shots mixed",
    "fade_black": "through black, or another dark flat picture",
    "fade_white": "through white, or another bright flat picture",
    "wipe": "an edge that uncovers the second shot",
    "slide": "one shot moves over the other",
    "push": "one shot pushes the other out",
    "zoom": "into one shot and out of the other",
    "whip": "a pan so fast that it joins two shots",
    "flash": "bright frames within a shot; no cut",
    "glitch": "damaged frames within a shot; no cut",
    "other": "gradual, of no kind above",
}
"""Kinds of boundaries."""
NO_CUTS = frozenset({"flash", "glitch"})
"""Kinds that no clip ends at, unless a recipe says so."""
ENDINGS = tuple(kind for kind in KINDS if kind not in NO_CUTS)


@dataclass(frozen=True, order=True)
class Boundary:
    """Where one shot ends and the next begins: frames `[start, end)` belong to neither.

    A hard cut has `start == end` == the first frame of the new shot; a gradual transition covers frames.

    Attributes:
        kind: one of `KINDS`; null where the detector does not tell.
        score: confidence that it is a transition, 0 to 1; null where the detector has none.
    """

    start: int
    end: int
    kind: str | None = field(default=None, compare=False)
    score: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Mark:
    """What a detector saw within a clip, such as a flash, and no clip ends at: of `kind`, from `start_s` to `end_s`."""

    kind: str
    start_s: float
    end_s: float
    score: float | None = None


class DetectorState(Protocol):
    """A detector at work on one segment; frames go in in order, boundaries come out in order."""

    def push(self, frames: Sequence[CoarseFrame]) -> list[list[Boundary]]:
        """Take the next frames; return for each the boundaries that became certain with it, the earliest first.

        What is found does not depend on how many are pushed at a time; several cost less than one by one.
        """
        ...

    def finish(self) -> list[Boundary]:
        """Return the boundaries still open after the last frame."""
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


@runtime_checkable
class Marks(Protocol):
    """A detector that tells interruptions of a shot from cuts.

    `marks`: which of `NO_CUTS` it tells; of a detector without it, nobody knows whether a clip holds any.
    """

    marks: ClassVar[frozenset[str]]
