"""Soft edges of several widths, as HED draws them, or the hard strokes of a scribble."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import cv2
import numpy as np

from controls.amounts import EachPicture
from core.settings import key
from curation.schema import BOTH
from curation.types import MapDrawer

STROKE_SIGMA_PX, STROKE_LEVEL, STROKE_REST = 3.0, 127, 4
"""how ControlNet makes scribbles of soft edges: smoothed, thinned above a level, and smoothed and cut again"""


@dataclass(frozen=True)
class SoftEdges:
    """Gradients that all scales agree on: the geometric mean of the scales' own, each times its width."""

    widths_px: tuple[float, ...] = key((1.0, 2.0, 4.0), "standard deviations of the Gaussians", above=0)
    strength: float = key(16.0, "levels of gradient at which an edge is drawn with 63 % of white", above=0)
    scribble: bool = key(False, "thin the edges and draw them as white strokes")

    media: ClassVar[frozenset[str]] = BOTH
    suffix: ClassVar[Literal["mp4", "txt"]] = "mp4"

    def __post_init__(self) -> None:
        """Refuse no scale at all."""
        if not self.widths_px:
            raise ValueError("widths_px needs at least one width")

    @property
    def takes(self) -> Literal["gray", "rgb"]:
        """Luma."""
        return "gray"

    def start(self) -> MapDrawer:
        """Return a drawer for one clip."""
        return EachPicture(self._drawn, lambda drawn: float(drawn.mean()) / 255)

    def _drawn(self, picture: np.ndarray) -> np.ndarray:
        edges = soft_edges(picture, self.widths_px, self.strength)
        return scribble(edges) if self.scribble else edges


def soft_edges(luma: np.ndarray, widths_px: tuple[float, ...], strength: float) -> np.ndarray:
    """Return the edges of uint8 (H, W), likewise.

    A step of height h has a gradient of h / (width sqrt(2 pi)) behind a Gaussian; times the width it is 0.4 h at every
    scale, and away from the step the narrow scales fade first, so that their geometric mean is as sharp as they are.
    """
    logs = np.zeros(luma.shape, np.float32)
    for width in widths_px:
        smooth = cv2.GaussianBlur(luma.astype(np.float32), (0, 0), width, borderType=cv2.BORDER_REFLECT_101)
        dx, dy = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8)
        logs += np.log(width * cv2.magnitude(dx, dy) + 1e-3)
    mean = np.exp(logs / len(widths_px))
    return np.round(255 * (1 - np.exp(-mean / strength))).astype(np.uint8)


def scribble(edges: np.ndarray) -> np.ndarray:
    """Return soft edges, uint8 (H, W), as strokes of 0 and 255: ControlNet's `nms` and what follows it."""
    smooth = cv2.GaussianBlur(edges.astype(np.float32), (0, 0), STROKE_SIGMA_PX)
    line = np.zeros((3, 3), np.uint8)
    line[1] = 1
    crest = np.zeros(edges.shape, bool)
    for across in (line, line.T, np.eye(3, dtype=np.uint8), np.eye(3, dtype=np.uint8)[::-1].copy()):
        crest |= cv2.dilate(smooth, across) == smooth
    # The level is a share of the strongest: behind the Gaussian a thin edge keeps a part of its own only.
    thin = np.where(crest & (smooth > STROKE_LEVEL / 255 * max(float(smooth.max()), 1.0)), 255, 0).astype(np.uint8)
    return np.where(cv2.GaussianBlur(thin, (0, 0), STROKE_SIGMA_PX) > STROKE_REST, 255, 0).astype(np.uint8)
