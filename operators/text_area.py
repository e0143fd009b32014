"""How much of the frame is under text: the union of the quads that a text detector finds.

The default detector is PP-OCR's (differentiable binarisation: Liao et al., AAAI 2020), whose weights ship inside the
`rapidocr` package; only this stage runs, nothing is read and nothing is downloaded. The other is EasyOCR's CRAFT.

A clip's text area is the largest of its frames': a line that stands for a part of the clip is in the clip. Three frames
are looked at for the price of one, the middle one a little smaller, the others at half the size. Where text is found,
the frame is looked at once more at full size: rows of trees and waves pass for text in a small picture. (White lines
over a drawn background, 1080p: 28 px high ones are seen at a short side of 192, 40 px at 160; 32 px lines at all of the
sizes above; processor time is in proportion to the input's area, 576x320 = 1, 384x224 + 2 · 288x160 = 0.97.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import cv2
import numpy as np

from core.packages import package_folders
from core.settings import key
from curation.gpus import pictures_gb, score_gpus
from curation.schema import BOTH
from curation.types import ClipInput, Sampling, Scorer, Scores

NETWORK_STEP_PX = 32
CRAFT_BATCH = 8
KERNEL_LEVEL = 0.3
"""Probability above which a pixel belongs to the kernel (the shrunk shape) of a text line."""
GROW = 1.6
"""A line is grown from its kernel by `GROW * area / perimeter` on each side, as the network was taught."""
MIN_KERNEL_PX = 3
SMALLER = (0.2, 0.4, 0.6)
"""Huge letters are found at these scales, too. Fur or a sofa, which the network takes for a letter at one scale, are
not."""
MIN_SHARED = 0.6
"""So much of what is found at the scales together is found at each."""
SAME_LEVELS = 1.0
"""A frame of which no part differs by more from one that was looked at has the same text."""


def network_size(width_px: int, height_px: int, short_side_px: int, long_side_px: int) -> tuple[int, int]:
    """Return the width and height that a frame is scaled to: multiples of 32, the long side bounded."""
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
    return all_quads(probability, min_score, max_height)[0]


def all_quads(
    probability: np.ndarray, min_score: float, max_height: float
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the quads of text lines, and those which are thicker, by the arguments of `text_quads`."""
    mask = (probability > KERNEL_LEVEL).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    lines: list[np.ndarray] = []
    huge: list[np.ndarray] = []
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
        is_huge = min(width, height) + margin > max_height * min(probability.shape)
        (huge if is_huge else lines).append(cv2.boxPoints((centre, (width + margin, height + margin), angle)))
    return lines, huge


def covered(quads: Sequence[np.ndarray], width_px: int, height_px: int) -> np.ndarray:
    """Return which pixels lie under at least one quad, uint8 (H, W), 0 or 1."""
    found = np.zeros((height_px, width_px), dtype=np.uint8)
    for quad in quads:
        cv2.fillPoly(found, [np.round(quad).astype(np.int32)], 1)
    return found


def union_share(quads: Sequence[np.ndarray], width_px: int, height_px: int) -> float:
    """Return the share of a frame that lies under at least one quad; what overlaps counts once."""
    return float(covered(quads, width_px, height_px).mean())


def are_same(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two pictures of uint8 (H, W, 3) show the same, but for noise."""
    if one.shape != other.shape:
        return False
    across, down = max(1, one.shape[1] // 16), max(1, one.shape[0] // 16)
    change = cv2.absdiff(one, other).astype(np.float32)
    return float(cv2.resize(change, (across, down), interpolation=cv2.INTER_AREA).max()) <= SAME_LEVELS


def load_detector() -> Any:
    """Open the detector that ships with rapidocr, on one thread.

    Raises:
        FileNotFoundError: the installed rapidocr has no detector inside.
    """
    import onnxruntime  # type: ignore[import-untyped]

    from models.scorers.onnx_session import one_thread

    # The package is located, not imported: its import sets up logging and a downloader.
    found = sorted(path for folder in package_folders("rapidocr") for path in (folder / "models").glob("*det*.onnx"))
    if not found:
        raise FileNotFoundError("text_area needs the package rapidocr with its PP-OCR detector (pip install rapidocr)")
    return onnxruntime.InferenceSession(str(found[0]), one_thread(), providers=["CPUExecutionProvider"])


Quads = list[np.ndarray]
"""float32 (4, 2) each, corners x, y"""


class FoundText(NamedTuple):
    """Quads of lines and of what is thicker, and the size (width, height) that they are pixels of."""

    lines: Quads
    thick: Quads
    size: tuple[int, int]


@dataclass(frozen=True)
class PpOcr:
    """PP-OCR's detector on one picture at a time: four at once are no faster on a core, and take twice the memory.

    Attributes:
        session: of `load_detector`.
        long_side_px: bound on the input's long side.
        min_score: mean probability that a line must have.
        max_height: share of the short side above which a line is taken for a pattern.
    """

    session: Any
    long_side_px: int
    min_score: float
    max_height: float

    def __call__(self, rgb: np.ndarray, short_side_px: int) -> FoundText:
        """Return the quads of lines and of what is thicker, and the size (width, height) that they are pixels of."""
        size = network_size(rgb.shape[1], rgb.shape[0], short_side_px, self.long_side_px)
        inputs = {self.session.get_inputs()[0].name: network_input(rgb, size)[None]}
        probability = self.session.run(None, inputs)[0][0, 0]
        return FoundText(*all_quads(probability, self.min_score, self.max_height), size)


@dataclass(frozen=True)
class TextArea:
    """Share of the frame under text; the largest over the frames where there are several."""

    engine: Literal["rapidocr", "easyocr"] = key(
        "rapidocr", "text detector: rapidocr (PP-OCR, CPU, weights in the package) or easyocr (CRAFT, 83 MB of weights)"
    )
    frames: int = key(3, "frames looked at, at uniform times, of which the largest share counts; 1: the middle")
    short_side_px: int = key(320, "the detector's input: short side (smaller frames are enlarged to it)")
    shared_short_side_px: tuple[int, int] | None = key(
        (224, 160),
        "rapidocr, where there are several frames: the middle one's short side and the others', so that three cost as "
        "much as one; null: short_side_px",
    )
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
        if self.shared_short_side_px is not None and min(self.shared_short_side_px) < NETWORK_STEP_PX:
            raise ValueError("shared_short_side_px must be two sides of at least 32, or null")

    @property
    def gpus(self) -> float:
        """GPUs that one worker books where there are any: only EasyOCR's network computes on one."""
        return score_gpus(self.device) if self.engine == "easyocr" else 0.0

    @property
    def gpu_memory_gb(self) -> float | None:
        """GB that its network takes of a GPU."""
        return 1.0 + pictures_gb(self.short_side_px, CRAFT_BATCH, 500)

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

        find = load_craft(None, self.device, self.short_side_px, self.long_side_px, CRAFT_BATCH)

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            frames = [(i, rgb) for i, clip in enumerate(clips) for rgb in clip.frames.pixels]
            shares: list[list[float]] = [[] for _ in clips]
            for (i, rgb), quads in zip(frames, find([rgb for _, rgb in frames]), strict=True):
                shares[i].append(union_share(quads, rgb.shape[1], rgb.shape[0]))
            return [{"text_area": max(s) if s else None} for s in shares]

        return score

    def _load_ppocr(self) -> Scorer:
        detect = PpOcr(load_detector(), self.long_side_px, self.min_score, self.max_height)

        def look(rgb: np.ndarray, short_side_px: int) -> tuple[np.ndarray, np.ndarray]:
            """Return what lies under lines, and what under thicker quads, uint8 (h, w), 0 or 1."""
            lines, huge, size = detect(rgb, short_side_px)
            return covered(lines, *size), covered(huge, *size)

        def share_of(rgb: np.ndarray, short_side_px: int) -> float:
            lines, huge = look(rgb, short_side_px)
            if not huge.any():
                return float(lines.mean())
            every = some = huge
            for scale in SMALLER:  # the cheapest first, which turns most of them down
                smaller = look(rgb, max(NETWORK_STEP_PX, round(short_side_px * scale)))[1]
                smaller = cv2.resize(smaller, huge.shape[::-1], interpolation=cv2.INTER_NEAREST)
                every, some = every & smaller, some | smaller
                if every.sum() < MIN_SHARED * some.sum():
                    return float(lines.mean())
            return float((lines | huge).mean())

        def confirmed(rgb: np.ndarray, short_side_px: int) -> float:
            """Look at a small picture first; what is found there must be found, and is measured, at full size."""
            found = share_of(rgb, short_side_px)
            return found if not found or short_side_px >= self.short_side_px else share_of(rgb, self.short_side_px)

        def largest(pictures: np.ndarray) -> float:
            middle = len(pictures) // 2
            sides = self.shared_short_side_px if len(pictures) > 1 else None
            first, others = sides or (self.short_side_px, self.short_side_px)
            looked_at, most = [pictures[middle]], confirmed(pictures[middle], first)
            for place, rgb in enumerate(pictures):
                if place != middle and not any(are_same(rgb, other) for other in looked_at):
                    looked_at.append(rgb)
                    most = max(most, confirmed(rgb, others))
            return most

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            return [{"text_area": largest(clip.frames.pixels) if len(clip.frames) else None} for clip in clips]

        return score
