"""Split screens and pictures in the picture, told by straight edges that stand still while both sides change."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from core.settings import key
from curation.schema import VIDEO
from curation.types import ClipInput, Sampling, Scorer, Scores
from operators.letterbox import clip_box
from operators.standing_edges import MIN_FRAMES, divided, standing_edges


@dataclass(frozen=True)
class SplitScreen:
    """Length of the edges that stand in a changing picture, and how many pictures they divide it into.

    An edge counts where it stands through the whole clip, what is on both of its sides changes, and it divides the
    picture, with others or alone: the edges of bars, of banners that rest, of things in a scene that rests, and those
    that end somewhere do not. Where a film in the picture rests, its edges are not seen; nor where both films are
    carried along the edge by the same movement.

    Null where the clip shows too few pictures to tell, or is dark all through.
    """

    rate_fps: float = key(4.0, "frames per second looked at")
    short_side_px: int = key(180, "pictures are scaled to this short side")
    min_picture: float = key(0.02, "smallest part that counts as a picture, as a share of what is inside the bars")
    max_level: int = key(24, "luma 0..255 that a black bar does not exceed")

    writes: ClassVar[tuple[str, ...]] = ("standing_edges", "split")
    media: ClassVar[frozenset[str]] = VIDEO
    pool: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        """Refuse settings that look at nothing."""
        if self.rate_fps <= 0 or self.short_side_px < 1 or not 0 < self.min_picture < 1:
            raise ValueError("rate_fps and short_side_px must be above 0, min_picture between 0 and 1")

    @property
    def sampling(self) -> Sampling | None:
        """Gray frames on the grid."""
        return Sampling(self.rate_fps, None, None, self.short_side_px, "gray")

    def load(self) -> Scorer:
        """Return the scoring function."""

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            return [self.measure(clip.frames.pixels) for clip in clips]

        return score

    def measure(self, pixels: np.ndarray) -> Scores:
        """Return the columns of uint8 (T, H, W) luma."""
        inside = clip_box(pixels, self.max_level) if len(pixels) >= MIN_FRAMES else None
        if inside is None:
            return dict.fromkeys(self.writes)
        height, width = pixels.shape[1:]
        edges, pictures = divided(standing_edges(pixels, inside), inside, self.min_picture)
        lengths = [(edge.end - edge.start) / (height if edge.is_vertical else width) for edge in edges]
        return {"standing_edges": float(sum(lengths)), "split": pictures}
