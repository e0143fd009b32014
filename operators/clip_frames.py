"""What the operators on CLIP share: which network, and the embeddings of the frames of a batch of clips."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from core.settings import key
from curation.types import Frames, Sampling

if TYPE_CHECKING:
    from models.scorers.clip import ClipTower


PICTURE_GB = {"ViT-L-14": 0.01, "ViT-L-14-336": 0.025, "ViT-B-16": 0.008, "ViT-B-32": 0.003}
"""of a GPU, what goes with each picture under way in half precision; in full precision twice that"""


@dataclass(frozen=True)
class Clip:
    """Which CLIP looks at the frames, and how.

    The model's own preprocessing scales and crops what it gets. The default size is twice what ViT-L/14 looks at:
    real 720p to 2160p frames that travel at it differ by 0.6 grey levels in the mean, at the network's input, from
    the pictures as decoded; at 224 px by 1.5, at full size and four times the bytes by 0.3 (JPEG alone).
    """

    model: str = key("ViT-L-14", "ViT-L-14, ViT-L-14-336, ViT-B-16, ViT-B-32, or a folder in open_clip's layout")
    device: str = key("auto", "where it computes; auto: the GPU if there is one")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = key("auto", "auto: float16 on a GPU, else float32")
    batch_frames: int = key(32, "frames that go through the network at once, of several clips")
    short_side_px: int | None = key(448, "frames are taken at this short side; null: at full size")

    def __post_init__(self) -> None:
        """Refuse settings that cannot run."""
        if self.batch_frames < 1 or (self.short_side_px is not None and self.short_side_px < 1):
            raise ValueError("batch_frames and short_side_px must be at least 1")

    @property
    def gpu_memory_gb(self) -> float | None:
        """GB that it takes of a GPU: weights that were published as float32, and a batch; null for a folder."""
        from models.scorers.clip import needed_weights
        from models.weights.table import WEIGHTS

        if self.model not in PICTURE_GB:
            return None
        weights_gb = sum(WEIGHTS[name].size_bytes for name in needed_weights(self.model)) / 1e9
        precision = 1.0 if self.dtype == "float32" else 0.5
        return precision * (weights_gb + 2 * self.batch_frames * PICTURE_GB[self.model])

    def load(self) -> "ClipTower":
        """Load the network; operators of one worker with the same settings share it."""
        from models.scorers.clip import load_tower

        return load_tower(self.model, None, self.device, self.dtype)

    def sampling(self, count: int | None, rate_fps: float = 2.0) -> Sampling:
        """Ask for frames at uniform times; all of the grid if `count` is None."""
        return Sampling(rate_fps, count, None, self.short_side_px, "rgb")


def embed_frames(tower: "ClipTower", frames: Sequence[Frames], batch_frames: int) -> list[np.ndarray]:
    """Encode the frames of several clips together, in full batches across clips.

    Returns:
        For each clip float32 (T, dim), of unit length.
    """
    vectors = tower.encode_images([picture for clip in frames for picture in clip.pixels], batch_frames)
    return np.split(vectors, np.cumsum([len(clip) for clip in frames])[:-1]) if frames else []


def number(value: float) -> float | None:
    """Return a plain number; None for what half precision made infinite or no number."""
    return float(value) if np.isfinite(value) else None
