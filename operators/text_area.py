"""How much of the frame is under text: the union of the quads that a text detector finds.

The default detector is PP-OCR's (differentiable binarisation: Liao et al., AAAI 2020), whose weights ship inside the
`rapidocr` package; only this stage runs, nothing is read and nothing is downloaded. The other is EasyOCR's CRAFT.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import cv2
import numpy as np

from curation.schema import BOTH
from curation.settings import key
from curation.types import ClipInput, Sampling, Scorer, Scores

NETWORK_STEP_PX = 32
KERNEL_LEVEL = 0.3
"""Probability above which a pixel belongs to the kernel (the shrunk shape) of a text line."""
GROW = 1.6
"""A line is grown from its kernel by `GROW * area / perimeter` on each side, as the network was taught."""
MIN_KERNEL_PX = 3


def network_size(width_px: int, height_px: int, short_side_px: int, long_side_px: int) -> tuple[int, int]:
    """Give the width and height that a frame is scaled to: multiples of 32, the long side bounded."""
    factor = min(short_side_px / min(width_px, height_px), long_side_px / max(width_px, height_px))
    width, height = (max(1, round(side * factor / NETWORK_STEP_PX)) * NETWORK_STEP_PX for side in (width_px, height_px))
    return width, height


def network_input(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale uint8 (H, W, 3) RGB and give float32 (3, h, w) BGR in -1..1, as the network wants it."""
    shrinks = rgb.shape[1] > size[0]
    scaled = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return (scaled[..., ::-1].astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)


def text_quads(probability: np.ndarray, min_score: float, max_height: float) -> list[np.ndarray]:
    """Turn the network's map into quads of text lines, at any angle.

    Args:
        probability: float32 (h, w), 0..1.
        min_score: mean probability inside a kernel's rectangle.
        max_height: quads thicker than this share of the short side are no text: the network takes large
            patterned areas (a sofa, fur) for one huge letter.

    Returns:
        float32 (4, 2) corners x, y in pixels of the map.
    """
    mask = (probability > KERNEL_LEVEL).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    quads = []
    for contour in contours:
        centre, (width, height), angle = cv2.minAreaRect(contour)
        if min(width, height) < MIN_KERNEL_PX:
            continue
        kernel = cv2.boxPoints((centre, (width, height), angle))
        inside = np.zeros_like(mask)
        cv2.fillPoly(inside, [kernel.astype(np.int32)], 1)
        if cv2.mean(probability, inside)[0] < min_score:
            continue
        margin = 2 * GROW * width * height / (2 * (width + height))
        if min(width, height) + margin > max_height * min(probability.shape):
            continue
        quads.append(cv2.boxPoints((centre, (width + margin, height + margin), angle)))
    return quads


def union_share(quads: Sequence[np.ndarray], width_px: int, height_px: int) -> float:
    """Give the share of a frame that lies under at least one quad; what overlaps counts once."""
    covered = np.zeros((height_px, width_px), dtype=np.uint8)
    for quad in quads:
        cv2.fillPoly(covered, [np.round(quad).astype(np.int32)], 1)
    return float(covered.mean())


def load_detector() -> Any:
    """Open the detector that ships with rapidocr, on one thread.

    Raises:
        FileNotFoundError: the installed rapidocr has no detector inside.
    """
    from importlib.util import find_spec
    from pathlib import Path

    import onnxruntime  # type: ignore[import-untyped]

    # The package is located, not imported: its import sets up logging and a downloader.
    spec = find_spec("rapidocr")
    folders = list(spec.submodule_search_locations or []) if spec else []
    found = sorted(path for folder in folders for path in (Path(folder) / "models").glob("*det*.onnx"))
    if not found:
        raise FileNotFoundError("text_area needs the package rapidocr with its PP-OCR detector (pip install rapidocr)")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(found[0]), options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True)
class TextArea:
    """Share of the frame under text; the mean over the frames where there are several."""

    engine: Literal["rapidocr", "easyocr"] = key(
        "rapidocr", "text detector: rapidocr (PP-OCR, CPU, weights in the package) or easyocr (CRAFT, 83 MB of weights)"
    )
    frames: int = key(1, "frames looked at, at uniform times; 1: the middle of the clip")
    short_side_px: int = key(320, "the detector's input: short side (smaller frames are enlarged to it)")
    long_side_px: int = key(960, "bound on the input's long side")
    min_score: float = key(0.5, "rapidocr: detector's mean probability that a line must have, 0..1")
    max_height: float = key(0.4, "rapidocr: lines thicker than this share of the short side are taken for patterns")
    device: str = key("auto", "easyocr: where it computes; auto: the GPU if there is one")

    writes: ClassVar[tuple[str, ...]] = ("text_area",)
    media: ClassVar[frozenset[str]] = BOTH
    pool: ClassVar[str | None] = "text"

    def __post_init__(self) -> None:
        """Refuse settings that look at nothing."""
        if self.frames < 1 or self.short_side_px < NETWORK_STEP_PX or self.long_side_px < self.short_side_px:
            raise ValueError("frames must be at least 1, short_side_px at least 32, long_side_px no smaller")

    @property
    def takes_gpu(self) -> bool:
        """Only EasyOCR's network may."""
        return self.engine == "easyocr" and self.device != "cpu"

    @property
    def sampling(self) -> Sampling | None:
        """A few RGB frames at uniform times."""
        return Sampling(2.0, self.frames, None, self.short_side_px, "rgb")

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the weights it loads."""
        return ("craft",) if self.engine == "easyocr" else ()

    def load(self) -> Scorer:
        """Open the detector and give the scoring function."""
        return self._load_craft() if self.engine == "easyocr" else self._load_ppocr()

    def _load_craft(self) -> Scorer:
        from operators.craft import load_craft

        find = load_craft(None, self.device, self.short_side_px, self.long_side_px)

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            frames = [(i, rgb) for i, clip in enumerate(clips) for rgb in clip.frames.pixels]
            shares: list[list[float]] = [[] for _ in clips]
            for (i, rgb), quads in zip(frames, find([rgb for _, rgb in frames]), strict=True):
                shares[i].append(union_share(quads, rgb.shape[1], rgb.shape[0]))
            return [{"text_area": float(np.mean(s)) if s else None} for s in shares]

        return score

    def _load_ppocr(self) -> Scorer:
        session = load_detector()
        input_name = session.get_inputs()[0].name

        def share_of(rgb: np.ndarray) -> float:
            size = network_size(rgb.shape[1], rgb.shape[0], self.short_side_px, self.long_side_px)
            # One by one: four at once are no faster on a core, and take twice the memory.
            probability = session.run(None, {input_name: network_input(rgb, size)[None]})[0][0, 0]
            quads = text_quads(probability, self.min_score, self.max_height)
            return union_share(quads, probability.shape[1], probability.shape[0])

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            shares = [[share_of(rgb) for rgb in clip.frames.pixels] for clip in clips]
            return [{"text_area": float(np.mean(s)) if s else None} for s in shares]

        return score
