"""What the container says, as columns: no frame is looked at."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from curation.schema import BOTH
from curation.types import ClipInput, Sampling, Scorer, Scores
from media.types import SourceFacts


def facts_columns(facts: SourceFacts) -> Scores:
    """Return the columns of one source; those that only a video has are None for an image."""
    video = facts.type == "video"
    return {
        "aspect_ratio": facts.width_px / facts.height_px if facts.height_px else None,
        "bit_depth": facts.bit_depth,
        "transfer": facts.transfer,
        "interlaced": facts.interlaced if video else None,
        "bit_rate_bps": facts.bit_rate_bps if video else None,
        "is_vfr": facts.is_vfr if video else None,
        "has_audio": facts.has_audio if video else None,
        "audio_codec": facts.audio_codec,
        "audio_rate_hz": facts.audio_rate_hz,
        "audio_channels": facts.audio_channels,
    }


@dataclass(frozen=True)
class Facts:
    """Aspect ratio, bit depth, transfer, fields, bit rate, evenness of frame times, sound: copied from the probe."""

    writes: ClassVar[tuple[str, ...]] = (
        "aspect_ratio", "bit_depth", "transfer", "interlaced", "bit_rate_bps", "is_vfr", "has_audio",
        "audio_codec", "audio_rate_hz", "audio_channels",
    )  # fmt: skip
    media: ClassVar[frozenset[str]] = BOTH
    pool: ClassVar[str | None] = None

    @property
    def sampling(self) -> Sampling | None:
        """No frames."""
        return None

    def load(self) -> Scorer:
        """Return the scoring function."""

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            return [facts_columns(clip.facts) for clip in clips]

        return score
