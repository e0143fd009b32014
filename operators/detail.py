"""Up to which frequency a picture holds detail: enlarged footage has none in the upper part of its spectrum.

Natural pictures have a power spectrum of about 1 / f² (Field, J. Opt. Soc. Am. A 4(12), 1987), so that power times f²
is about level up to where the detail ends. An enlargement by s ends at 1 / s of the Nyquist frequency; bilinear ones
fall off before. Blur ends detail, too: the number says what is there, not why it is missing. Noise and grain added
after the enlargement hide it.

Measured on drawn textures at 960x540, as drawn and after x264 crf 18 to 23: 1.0 where nothing was enlarged; enlarged
1.5 times 0.48 to 0.53 (bilinear), 0.58 to 0.63 (bicubic), 0.62 to 0.67 (Lanczos); twice 0.40 to 0.56; three times 0.31
to 0.41. From crf 28 on, the coding's own noise may hide an enlargement of 1.5 times.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from core.settings import key
from curation.schema import BOTH
from curation.types import ClipInput, Sampling, Scorer, Scores
from operators.letterbox import content_box

BINS = 64
"""Steps of the frequency axis, from 0 to the Nyquist frequency."""
SMOOTH_BINS = 3
REFERENCE = slice(3, 13)
"""Bins of low frequencies (0.05 to 0.2 of Nyquist), which footage enlarged up to threefold still has."""
BANDS, LINES_OF_A_BAND = 8, 16
"""A picture is judged in bands, of which the median counts: sharp subtitles do not make an enlarged picture sharp."""
MIN_SIDE_PX = 128
BAR_LEVEL = 32
"""Bars up to this luma are left out: their edges are sharp whatever was done to the picture."""
MIN_POWER = 1.0
"""Variance along lines, squared grey levels, below which a band shows nothing."""


def power_spectrum(lines: np.ndarray) -> np.ndarray:
    """Return the power of float32 (N, L) lines, L even, mean over lines: float64 (64,), from 0 up to Nyquist."""
    length = lines.shape[1]
    window = np.hanning(length).astype(np.float32)
    centred = (lines - lines.mean(axis=1, keepdims=True)) * window
    # Packed: the mean, then real and imaginary part of each frequency, then the Nyquist frequency.
    parts = cv2.dft(centred, flags=cv2.DFT_ROWS)[:, 1:-1].reshape(len(lines), -1, 2)
    power = np.einsum("nfc,nfc->f", parts, parts) / len(lines)
    bins = np.arange(1, length // 2) * 2 * BINS // length
    return np.bincount(bins, power, BINS) / np.maximum(1, np.bincount(bins, minlength=BINS))


def cutoff(power: np.ndarray, drop_db: float) -> float:
    """Return the first frequency, as a share of Nyquist, at which power times f² is `drop_db` below the low ones."""
    middles = (np.arange(BINS) + 0.5) / BINS
    level_db = 10 * np.log10(power * middles**2 + 1e-9)
    level_db = np.convolve(np.pad(level_db, SMOOTH_BINS // 2, "edge"), np.full(SMOOTH_BINS, 1 / SMOOTH_BINS), "valid")
    fallen = level_db < np.median(level_db[REFERENCE]) - drop_db
    fallen[: REFERENCE.stop] = False
    return float(fallen.argmax() / BINS) if fallen.any() else 1.0


def along_rows(gray: np.ndarray, drop_db: float) -> float | None:
    """Return the median cut-off of the bands of uint8 (H, W), along rows; None where too little is shown."""
    found = []
    length = cv2.getOptimalDFTSize(gray.shape[1] // 2)
    length = 2 * length if 2 * length <= gray.shape[1] else gray.shape[1] // 2 * 2
    for band in np.array_split(gray[:, :length], BANDS):
        lines = band[:: max(1, len(band) // LINES_OF_A_BAND)].astype(np.float32)
        if lines.var(axis=1).mean() >= MIN_POWER:
            found.append(cutoff(power_spectrum(lines), drop_db))
    return float(np.median(found)) if len(found) * 4 >= BANDS else None


def detail_cutoff(gray: np.ndarray, drop_db: float) -> float | None:
    """Return up to which share of the Nyquist frequency uint8 (H, W) holds detail; None where too little is shown.

    The better one of both axes: a camera that pans blurs along its way, an enlargement along both.
    """
    box = content_box(gray, BAR_LEVEL)
    if box is not None:
        left, top, right, bottom = box
        gray = gray[top:bottom, left:right]
    if min(gray.shape) < MIN_SIDE_PX:
        return None
    found = [along_rows(lines, drop_db) for lines in (gray, np.ascontiguousarray(gray.T))]
    return max((value for value in found if value is not None), default=None)


@dataclass(frozen=True)
class Detail:
    """Spectrum cut-off of luma at full resolution, as a share of Nyquist, median of a few frames."""

    frames: int = key(3, "frames looked at, at uniform times")
    rate_fps: float = key(0.5, "of so many candidates per second; each is held at full size")
    drop_db: float = key(8.0, "decibels below a spectrum of 1 / f² at which detail ends")

    writes: ClassVar[tuple[str, ...]] = ("detail_cutoff",)
    media: ClassVar[frozenset[str]] = BOTH
    pool: ClassVar[str | None] = None

    @property
    def sampling(self) -> Sampling | None:
        """A few gray frames of full size; RGB ones are held at 1080 lines at most, which would hide a false 4K."""
        return Sampling(self.rate_fps, self.frames, None, None, "gray")

    def load(self) -> Scorer:
        """Return the scoring function."""

        def score_clip(clip: ClipInput) -> Scores:
            found = [detail_cutoff(gray, self.drop_db) for gray in clip.frames.pixels]
            known = [value for value in found if value is not None]
            return {"detail_cutoff": float(np.median(known)) if known else None}

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            return [score_clip(clip) for clip in clips]

        return score
