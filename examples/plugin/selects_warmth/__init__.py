"""An operator that a package of somebody else adds to Selects: how warm the colours of a clip are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from core.settings import key
from curation.schema import BOTH, Column
from curation.types import ClipInput, Sampling, Scorer, Scores


@dataclass(frozen=True)
class Warmth:
    """Mean of red minus blue over a few frames, -1 (blue) to 1 (red)."""

    frames: int = key(4, "frames looked at, at uniform times", min=1)

    writes: ClassVar[tuple[str, ...]] = ("warmth",)
    columns: ClassVar[tuple[Column, ...]] = (
        Column("warmth", pa.float64(), "", "mean of red minus blue, -1..1", writer="warmth"),
    )
    media: ClassVar[frozenset[str]] = BOTH
    pool: ClassVar[str | None] = None

    @property
    def sampling(self) -> Sampling | None:
        """A few small RGB frames."""
        return Sampling(2.0, self.frames, None, 64, "rgb")

    def load(self) -> Scorer:
        """Return the scoring function."""

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            return [{"warmth": _warmth(clip) if len(clip.frames) else None} for clip in clips]

        return score


def _warmth(clip: ClipInput) -> float:
    red, _, blue = clip.frames.pixels.mean(axis=(0, 1, 2)) / 255
    return float(red - blue)
