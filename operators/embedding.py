"""A clip as one CLIP vector, for search by text or picture and for near-duplicates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from core.settings import key
from curation.gpus import score_gpus
from curation.schema import BOTH
from curation.types import ClipInput, Sampling, Scorer, Scores
from operators.clip_frames import Clip, embed_frames


def mean_direction(vectors: np.ndarray) -> list[float] | None:
    """Return the mean of unit vectors, brought to unit length again and rounded to float16.

    Args:
        vectors: float32 (T, D).

    Returns:
        D numbers, each exact in float16; None without vectors, or where they have no direction.
    """
    mean = vectors.mean(axis=0) if len(vectors) else np.zeros(1)
    length = np.linalg.norm(mean)
    if not np.isfinite(length) or length < 1e-6:
        return None
    return list((mean / length).astype(np.float16).astype(float).tolist())


@dataclass(frozen=True)
class Embedding:
    """Mean direction of the CLIP embeddings of a few frames."""

    frames: int = key(4, "frames looked at, at uniform times")
    clip: Clip = key(Clip(), "the network that embeds the frames")

    writes: ClassVar[tuple[str, ...]] = ("embedding",)
    media: ClassVar[frozenset[str]] = BOTH
    pool: ClassVar[str | None] = "clip"

    def __post_init__(self) -> None:
        """Refuse settings that look at nothing."""
        if self.frames < 1:
            raise ValueError("frames must be at least 1")

    @property
    def sampling(self) -> Sampling | None:
        """A few RGB frames at uniform times."""
        return self.clip.sampling(self.frames)

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

    @property
    def dim(self) -> int:
        """Numbers of its column's fixed-size list; told without loading the network.

        Raises:
            ModelError: no such model.
        """
        from models.scorers.clip import embedding_dim

        return embedding_dim(self.clip.model)

    def load(self) -> Scorer:
        """Load the tower and give the scoring function."""
        tower = self.clip.load()

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            embedded = embed_frames(tower, [clip.frames for clip in clips], self.clip.batch_frames)
            return [{"embedding": mean_direction(vectors)} for vectors in embedded]

        return score
