"""Kinds of transitions, told from the pictures around them, and confidence in them."""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from curation.shots import gradual
from curation.shots.evidence import View
from curation.shots.types import Boundary

EVEN_EVIDENCE, EVIDENCE_STEP = 10.0, 1.5
"""Evidence at which a cut is as likely as not, and by how much more the odds grow e-fold."""
DISSOLVE_CONFIDENCE, DIP_CONFIDENCE = 0.95, 0.95
"""Fixed scores of kinds that are found by tests which say yes or no; rough, not fitted to a measured share."""
RAMP_FRAMES = 3
"""A cut whose neighbours change for so many frames is a short gradual transition."""
FLAT_SHARE = 0.45
"""A short fade has a frame with so little of its ends' contrast."""
BLURRED = 0.5
"""Zooms and whips have so little fine detail half way, over that of their ends."""
SAME_PALETTE = 0.8
"""Likeness of the colours of two frames of one view (Bhattacharyya coefficient, 0 to 1)."""
_LUMA_BINS, _CHROMA_BINS = 8, 16


def confidence(score: float) -> float:
    """Return the confidence (0 to 1) in a cut by the evidence for it, as `Fused` adds it up."""
    return round(1 / (1 + math.exp((EVEN_EVIDENCE - score) / EVIDENCE_STEP)), 4)


def evidence_of(score: float) -> float:
    """Return the evidence by which there is such confidence."""
    return EVEN_EVIDENCE - EVIDENCE_STEP * math.log(1 / min(max(score, 1e-4), 1 - 1e-4) - 1)


def weight(boundary: Boundary) -> tuple[int, float]:
    """Return by what one of several boundaries that overlap decides about the kind: the longest, the surest."""
    return boundary.end - boundary.start, boundary.score or 0.0


def of_cut(before: View, after: View) -> str:
    """Return hard, or jump where the colours of both frames are those of one view."""
    return "jump" if likeness(before, after) >= SAME_PALETTE else "hard"


def likeness(one: View, other: View) -> float:
    """Return how alike the colours of two frames are, wherever they lie: Bhattacharyya coefficient, 0 to 1."""
    return float(np.sqrt(_palette(one) * _palette(other)).sum())


def _palette(view: View) -> np.ndarray:
    """Return the shares of colours: float32 (_LUMA_BINS * _CHROMA_BINS ** 2,)."""
    height = view.chroma.shape[0] // 2
    u, v = np.ascontiguousarray(view.chroma[:height]), np.ascontiguousarray(view.chroma[height : 2 * height])
    luma = cv2.resize(view.half, (u.shape[1], u.shape[0]), interpolation=cv2.INTER_AREA)
    bins = [_LUMA_BINS, _CHROMA_BINS, _CHROMA_BINS]
    counts: np.ndarray = cv2.calcHist([luma, u, v], [0, 1, 2], None, bins, [0, 256] * 3).ravel()
    return counts / max(1.0, float(counts.sum()))


def of_dip(flattest: View) -> tuple[str, float]:
    """Return the kind of a short fade by its flattest frame, and its score."""
    return _through(flattest), DIP_CONFIDENCE


def of_dissolve(before: View, after: View) -> tuple[str, float]:
    """Return dissolve, or a fade where one of the pictures is flat, and the score."""
    flat = next((view for view in (before, after) if gradual.is_flat(view)), None)
    return _through(flat) if flat else "dissolve", DISSOLVE_CONFIDENCE


def of_ramp(views: Sequence[View], start: int, end: int) -> str:
    """Return the kind of a short gradual transition, frames `[start, end)` of the views, that was found as a cut."""
    inside = [views[k] for k in range(max(0, start), min(end + 1, len(views)))]
    one, other = views[max(0, start - 1)], views[min(end, len(views) - 1)]
    flattest = min(inside, key=lambda view: view.spread)
    if flattest.spread < FLAT_SHARE * min(one.spread, other.spread):
        return _through(flattest)
    detail = float(np.median([view.detail for view in inside]))
    if detail < BLURRED * (one.detail + other.detail) / 2:
        return "zoom"
    return "wipe"


def _through(flat: View) -> str:
    return "fade_white" if flat.mean >= 128 else "fade_black"
