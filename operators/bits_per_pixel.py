"""How many bits the file spends on a pixel: bit rate over pixels per second, from what the container says.

Footage that was enlarged, or encoded too hard for its size, has few: 1080p at 24 fps and 8 Mbit/s has 0.16. It says
nothing across codecs that differ much in what they need (H.264 against AV1), nor for a still shot.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from curation.schema import VIDEO
from curation.types import ClipInput, Sampling, Scorer, Scores
from media.types import SourceFacts


def bits_per_pixel(facts: SourceFacts) -> float | None:
    """Return bit/s over width, height and mean frame rate; None where one of them is unknown."""
    pixels_per_s = facts.width_px * facts.height_px * (facts.fps or 0.0)
    if not facts.bit_rate_bps or pixels_per_s <= 0:
        return None
    return facts.bit_rate_bps / pixels_per_s


@dataclass(frozen=True)
class BitsPerPixel:
    """Bits that the source's video stream spends on a pixel, from the probe; null where its bit rate is unknown."""

    writes: ClassVar[tuple[str, ...]] = ("bits_per_pixel",)
    media: ClassVar[frozenset[str]] = VIDEO
    pool: ClassVar[str | None] = None

    @property
    def sampling(self) -> Sampling | None:
        """No frames."""
        return None

    def load(self) -> Scorer:
        """Return the scoring function."""

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            return [{"bits_per_pixel": bits_per_pixel(clip.facts)} for clip in clips]

        return score
