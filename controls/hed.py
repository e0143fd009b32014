"""Soft edges as ControlNet's HED finds them, or the hard strokes of a scribble."""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Literal

import cv2
import numpy as np

from controls.amounts import EachPicture
from controls.networks import at_short_side, loaded, map_gpus
from controls.soft_edges import scribble
from core.settings import key
from curation.gpus import pictures_gb
from curation.schema import BOTH
from curation.types import MapDrawer

if TYPE_CHECKING:
    from models.annotators.hed import FindEdges

STEP_PX = 64
"""ControlNet rounds the sides of what its detectors look at to multiples of this"""


@dataclass(frozen=True)
class HedEdges:
    """Edges that a network finds, white on black."""

    weights: str = key("controlnet-hed", "name of published weights, or a file")
    short_side_px: int = key(512, "short side at which pictures are looked at, as published", min=64)
    scribble: bool = key(False, "thin the edges and draw them as white strokes")
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
            edges = find(at_short_side(picture, self.short_side_px, STEP_PX))
            levels = (255 * edges).clip(0, 255).astype(np.uint8)
            if levels.shape != picture.shape[:2]:
                levels = cv2.resize(levels, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
            return scribble(levels) if self.scribble else levels

        return EachPicture(drawn, lambda edges: float(edges.mean()) / 255)


@lru_cache(maxsize=1)
def _network(weights: str, device: str) -> "FindEdges":
    """Load a network once in this process, for all its clips."""
    from models.annotators.hed import load_hed

    return load_hed(weights, device)
