"""How much people like the picture: LAION's aesthetic predictors on CLIP embeddings, about 1..10.

The improved predictor was trained on SAC, Logos and AVA (github.com/christophschuhmann/improved-aesthetic-predictor).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from core.settings import key
from curation.gpus import score_gpus
from curation.schema import BOTH
from curation.types import ClipInput, Sampling, Scorer, Scores
from operators.clip_frames import Clip, embed_frames, number


@dataclass(frozen=True)
class Aesthetic:
    """Mean aesthetic score over a few frames, and the score of each."""

    head: str = key("mlp", "mlp (ViT-L-14), linear (ViT-L-14, ViT-B-16, ViT-B-32), or the file of a head")
    frames: int = key(4, "frames looked at, at uniform times")
    clip: Clip = key(Clip(), "the network that embeds the frames; the heads belong to OpenAI's")

    writes: ClassVar[tuple[str, ...]] = ("aesthetic", "aesthetic_frames")
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
        """Names of the weights it loads.

        Raises:
            ModelError: the network has no such head, or there is no such file.
        """
        from pathlib import Path

        from models.errors import ModelError
        from models.scorers.aesthetic import head_name
        from models.scorers.clip import needed_weights

        is_file = self.head not in ("mlp", "linear")
        if is_file and not Path(self.head).is_file():
            raise ModelError(f"operators.aesthetic.head: no such file '{self.head}'; give mlp, linear or a file")
        return (*needed_weights(self.clip.model), *(() if is_file else (head_name(self.head, self.clip.model),)))

    def load(self) -> Scorer:
        """Load the tower and the head and give the scoring function.

        Raises:
            ModelError: weights that cannot be had, or a head made for embeddings of another length.
        """
        from pathlib import Path

        from models.errors import ModelError
        from models.scorers.aesthetic import head_name, load_head
        from models.weights.find import find_weights

        named = self.head in ("mlp", "linear")
        path = find_weights(head_name(self.head, self.clip.model)) if named else Path(self.head)
        head, tower = load_head(path), self.clip.load()
        if len(head.weight) != tower.dim:
            raise ModelError(
                f"{path}: a head for embeddings of length {len(head.weight)}, but {self.clip.model} gives {tower.dim}; "
                "take the head that was trained on it"
            )

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            embedded = embed_frames(tower, [clip.frames for clip in clips], self.clip.batch_frames)
            return [_scores(head.score(vectors)) for vectors in embedded]

        return score


def _scores(values: np.ndarray) -> Scores:
    if not len(values) or not np.isfinite(values).all():
        return {"aesthetic": None, "aesthetic_frames": None}
    return {"aesthetic": number(values.mean()), "aesthetic_frames": values.tolist()}
