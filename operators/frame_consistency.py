"""Whether a clip is one shot: the lowest likeness of two frames that follow each other.

The check of EasyAnimate's pipeline (semantic consistency by CLIP, kept at 0.8 or more), on frames of a time grid: a
cut that shot detection missed lies between two of them, and their likeness falls far below that of its neighbours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from core.settings import key
from curation.gpus import score_gpus
from curation.schema import VIDEO
from curation.types import ClipInput, Sampling, Scorer, Scores
from operators.clip_frames import Clip, embed_frames, number


def lowest_likeness(vectors: np.ndarray) -> float | None:
    """Return the lowest cosine of neighbours.

    Args:
        vectors: float32 (T, D) of unit length, in order of time.

    Returns:
        −1..1; None with fewer than two.
    """
    if len(vectors) < 2:
        return None
    return number((vectors[:-1] * vectors[1:]).sum(axis=1).min())


@dataclass(frozen=True)
class FrameConsistency:
    """Lowest cosine of the CLIP embeddings of neighbouring frames; 1: nothing changes."""

    rate_fps: float = key(2.0, "frames per second looked at")
    frames: int | None = key(None, "of these, so many at uniform times; null: all")
    clip: Clip = key(Clip(), "the network that embeds the frames")

    writes: ClassVar[tuple[str, ...]] = ("frame_consistency",)
    media: ClassVar[frozenset[str]] = VIDEO
    pool: ClassVar[str | None] = "clip"

    def __post_init__(self) -> None:
        """Refuse settings that compare nothing."""
        if self.rate_fps <= 0 or (self.frames is not None and self.frames < 2):
            raise ValueError("rate_fps must be above 0, frames at least 2 or null")

    @property
    def sampling(self) -> Sampling | None:
        """RGB frames of the grid; those of operators that want fewer are among them, and are encoded once."""
        return self.clip.sampling(self.frames, self.rate_fps)

    @property
    def gpus(self) -> float:
        """GPUs that one worker books where there are any."""
        return score_gpus(self.clip.device)

    @property
    def gpu_memory_gb(self) -> float | None:
        """GB that its network takes of a GPU."""
        return self.clip.gpu_memory_gb

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the weights it loads."""
        from models.scorers.clip import needed_weights

        return needed_weights(self.clip.model)

    def load(self) -> Scorer:
        """Load the tower and give the scoring function."""
        tower = self.clip.load()

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            embedded = embed_frames(tower, [clip.frames for clip in clips], self.clip.batch_frames)
            return [{"frame_consistency": lowest_likeness(vectors)} for vectors in embedded]

        return score
