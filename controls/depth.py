"""Depth as Depth Anything V2 sees it: near is white, far is black."""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from controls.amounts import Mean
from controls.networks import loaded, map_gpus
from core.settings import key
from curation.gpus import pictures_gb
from curation.schema import BOTH
from curation.types import MapDrawer, MapFacts

if TYPE_CHECKING:
    from models.annotators.depth import FindDepth

PUBLISHED = "depth-v2-small"
OUTER = (2, 98)
"""percentiles between which the amount looks for depth"""


@dataclass(frozen=True)
class Depth:
    """Relative inverse depth, spread over black to white."""

    model: str = key(PUBLISHED, "name of published weights, or a folder in transformers' layout")
    side_px: int = key(518, "side at which pictures are looked at, as published; smaller is faster", min=56)
    steady: float = key(
        0.0,
        "share of the range of the frames before in that of a frame; 0: each by itself, as published",
        min=0,
        below=1,
    )
    device: str = key("auto", "where it computes; auto: the GPU if there is one")

    media: ClassVar[frozenset[str]] = BOTH
    suffix: ClassVar[Literal["mp4", "txt"]] = "mp4"
    packages: ClassVar[tuple[str, ...]] = ("huggingface_hub", "safetensors", "torch", "transformers")

    @property
    def takes(self) -> Literal["gray", "rgb"]:
        """Colours."""
        return "rgb"

    @property
    def weights_named(self) -> tuple[str, ...]:
        """What its settings name: published weights, or a folder."""
        return (self.model,)

    @property
    def gpus(self) -> float:
        """GPUs that one worker books where there are any."""
        return map_gpus(self.device)

    @property
    def gpu_memory_gb(self) -> float | None:
        """GB that its network takes of a GPU; null for a network of one's own."""
        return 0.3 + pictures_gb(self.side_px, 1, 2500) if self.model == PUBLISHED else None

    def start(self) -> MapDrawer:
        """Return a drawer for one clip.

        Raises:
            UserError: weights that cannot be had or do not fit.
        """
        return DepthDrawer(loaded(lambda: _network(self.model, self.device, self.side_px)), self.steady)


class DepthDrawer:
    """Spreads what the network says of each frame over black to white."""

    def __init__(self, find: "FindDepth", steady: float):
        """Take the network and the share that earlier ranges have."""
        self._find, self._steady, self._range = find, steady, (0.0, 0.0)
        self._count, self._amount = 0, Mean()

    def draw(self, picture: np.ndarray, time_s: float) -> np.ndarray:
        """Return the map of the next picture."""
        near = self._find(picture)
        low, high = float(near.min()), float(near.max())
        self._amount.add(depth_range(near))
        if self._count and self._steady:
            before, share = self._range, self._steady
            low, high = (share * b + (1 - share) * n for b, n in zip(before, (low, high), strict=True))
        self._range, self._count = (low, high), self._count + 1
        if high <= low:
            return np.zeros(near.shape, np.uint8)
        return (255 * ((near - low) / (high - low)).clip(0, 1)).astype(np.uint8)

    def finish(self) -> MapFacts:
        """Return the amount."""
        return MapFacts(self._amount.value)


def depth_range(near: np.ndarray) -> float:
    """Return how much depth there is in inverse depth, float32 (H, W): 0 of a wall seen head-on, to 1."""
    low, high = np.percentile(near, OUTER)
    most = max(abs(float(low)), abs(float(high)))
    return min(1.0, float(high - low) / most) if most > 0 else 0.0


@lru_cache(maxsize=1)
def _network(model: str, device: str, side_px: int) -> "FindDepth":
    """Load a network once in this process, for all its clips."""
    from models.annotators.depth import load_depth

    return load_depth(model, device, side_px)
