"""Straight lines as M-LSD finds them: thin and white on black."""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Literal

import cv2
import numpy as np

from controls.amounts import EachPicture, density
from controls.networks import at_short_side, loaded, map_gpus
from core.settings import key
from curation.gpus import pictures_gb
from curation.schema import BOTH
from curation.types import MapDrawer

if TYPE_CHECKING:
    from models.annotators.mlsd import FindSegments

STEP_PX = 64


@dataclass(frozen=True)
class MlsdLines:
    """Line segments that a network finds."""

    weights: str = key("mlsd-large", "name of published weights, or a file")
    short_side_px: int = key(512, "short side at which pictures are looked at, as published", min=64)
    min_score: float = key(0.1, "how sure a line must be; 0.1 as published", min=0, max=1)
    min_length_px: float = key(0.1, "shortest line, in half pixels of what is looked at; 0.1 as published", min=0)
    device: str = key("auto", "where it computes; auto: the GPU if there is one")

    media: ClassVar[frozenset[str]] = BOTH
    suffix: ClassVar[Literal["mp4", "txt"]] = "mp4"
    packages: ClassVar[tuple[str, ...]] = ("huggingface_hub", "safetensors", "torch")

    @property
    def takes(self) -> Literal["gray", "rgb"]:
        """Colours."""
        return "rgb"

    @property
    def weights_named(self) -> tuple[str, ...]:
        """What its settings name: published weights, or a file."""
        return (self.weights,)

    @property
    def gpus(self) -> float:
        """GPUs that one worker books where there are any."""
        return map_gpus(self.device)

    @property
    def gpu_memory_gb(self) -> float | None:
        """GB that its network takes of a GPU."""
        return 0.3 + pictures_gb(self.short_side_px, 1, 1500)

    def start(self) -> MapDrawer:
        """Return a drawer for one clip.

        Raises:
            UserError: weights that cannot be had or do not fit.
        """
        find = loaded(lambda: _network(self.weights, self.device))

        def drawn(picture: np.ndarray) -> np.ndarray:
            looked_at = at_short_side(picture, self.short_side_px, STEP_PX)
            segments, scores = find(looked_at)
            return draw_segments(self._kept(segments, scores), looked_at.shape[:2], picture.shape[:2])

        return EachPicture(drawn, density)

    def _kept(self, segments: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Return the segments, (N, 4), that are sure and long enough."""
        half_lengths = np.hypot(segments[:, 2] - segments[:, 0], segments[:, 3] - segments[:, 1]) / 2
        return segments[(scores > self.min_score) & (half_lengths > self.min_length_px)]


def draw_segments(segments: np.ndarray, looked_at: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """Draw segments, uint8 (H, W).

    Args:
        segments: (N, 4), x, y, x, y in pixels of what was looked at.
        looked_at: its height and width.
        shape: height and width of the map.
    """
    drawn = np.zeros(shape, np.uint8)
    scale = np.array([shape[1] / looked_at[1], shape[0] / looked_at[0]] * 2)
    for x, y, to_x, to_y in (segments * scale).astype(int).tolist():
        cv2.line(drawn, (x, y), (to_x, to_y), 255, 1)
    return drawn


@lru_cache(maxsize=1)
def _network(weights: str, device: str) -> "FindSegments":
    """Load a network once in this process, for all its clips."""
    from models.annotators.mlsd import load_mlsd

    return load_mlsd(weights, device)
