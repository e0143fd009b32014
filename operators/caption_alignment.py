"""Whether a caption fits its clip: mean CLIP cosine of the caption's chunks and the clip's frames.

CLIPScore (Hessel et al. 2021, arXiv 2104.08718) without its factor, over frames as CLIPSIM (Wu et al. 2021, arXiv
2104.14806). CLIP reads 77 tokens, so a longer caption is cut at its sentences instead of losing its end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from core.settings import key
from curation.gpus import score_gpus
from curation.types import Align, Frames, Sampling
from operators.clip_frames import Clip, embed_frames, number


@dataclass(frozen=True)
class CaptionAlignment:
    """Likeness of captions and frames, from −1 to 1.

    It is asked after captioning. Values of unlike and fitting pairs lie close together, and differ between towers:
    published filters keep what reaches 0.1 to 0.3. So the least value is for captions that speak of something else.
    """

    min_score: float = key(0.15, "captions below this are written once more, then reject their clip")
    frames: int = key(4, "frames compared, at uniform times")
    clip: Clip = key(Clip(), "the network that compares")

    writes: ClassVar[tuple[str, ...]] = ("caption_alignment",)

    def __post_init__(self) -> None:
        """Refuse settings that compare nothing."""
        if self.frames < 1 or not -1 <= self.min_score <= 1:
            raise ValueError("frames must be at least 1, min_score from -1 to 1")

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

    def load(self) -> Align:
        """Load the tower and give the function from (caption, frames) to likeness.

        It gives one number for each pair, in the same order; None where there is no caption or no frame. A caption
        fits if its number is not None and at least `min_score`. Captions should be English: OpenAI's CLIP reads
        nothing else.
        """
        tower = self.clip.load()

        def align(pairs: Sequence[tuple[str | None, Frames | None]]) -> list[float | None]:
            asked = [(i, tower.split_text(text), frames) for i, (text, frames) in enumerate(pairs) if text and frames]
            asked = [(i, parts, frames) for i, parts, frames in asked if parts]
            if not asked:
                return [None] * len(pairs)
            texts = tower.encode_texts([part for _, parts, _ in asked for part in parts])
            written = np.split(texts, np.cumsum([len(parts) for _, parts, _ in asked])[:-1])
            shown = embed_frames(tower, [frames for _, _, frames in asked], self.clip.batch_frames)
            likeness: list[float | None] = [None] * len(pairs)
            for (i, _, _), words, pictures in zip(asked, written, shown, strict=True):
                likeness[i] = number((words @ pictures.T).mean())
            return likeness

        return align
