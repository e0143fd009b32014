"""A perceptual hash of a clip's course, without weights: copies differ in few bits, however they were encoded.

The pictures' half is pHash (Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010): the
signs of low-frequency cosine coefficients, here of frames at uniform times. The motion's half carries the transform
on into time, as the 3D-DCT hash does (Coskun, Sankur and Memon, Spatio-Temporal Transform Based Video Hashing,
IEEE Trans. Multimedia 8(6), 2006), so that pieces of one unmoving shot differ. Frames that show next to nothing
are told as PDQ does (Meta, 2019): what their bits say is noise.

Measured on 81 stretches of 5 s of 36 real videos, medians of the 512 picture and 256 motion bits that differ: crf 18
to 35 2 to 8 and 2 to 6; a half and a third of the size 7 to 9 and 4 to 5; other frame rates 6 to 8 and 5 to 8; bars
8 to 11 and 3 to 6; 2 % cut off every side 39 and 20, 5 % 90 and 40. Stretches of different videos: 163 picture bits
at least. Stretches of one unmoving scene: 40 motion bits at least, unless nothing moves at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from curation.schema import BOTH
from curation.types import ClipInput, Sampling, Scorer, Scores
from operators.letterbox import content_box

FRAMES = 8
SIDE_PX = 32
COEFFICIENTS = 64
BAR_LEVEL = 32
"""Bars up to this luma are left out, also when the copy is brighter."""
MIN_STRENGTH = 0.1
"""Grey levels (root mean square over the picture) that a coefficient has where it says something."""
MIN_SHARE = 0.5
"""Share of the coefficients that must say something, else the frame is nearly uniform."""
MIN_FRAMES = 4
MIN_MOTION = 0.05
"""Grey levels above which a coefficient moves: re-encoding at crf 35 changes the median one by 0.02."""


def _zigzag(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the coefficients of lowest frequency, the mean first."""
    grid = [(i, j) for i in range(SIDE_PX) for j in range(SIDE_PX)]
    lowest = sorted(grid, key=lambda place: (sum(place), max(place), place))[:count]
    rows, columns = np.array(lowest).T
    return rows, columns


_LOWEST = _zigzag(COEFFICIENTS + 1)
_PACKED = np.concatenate([np.arange(COEFFICIENTS)[rest::3] for rest in range(3)])
"""Order of the bits in a word: each third has coefficients of every frequency, for whoever looks a third up."""


def coefficients(pixels: np.ndarray) -> np.ndarray:
    """Return each frame's mean and its 64 cosine coefficients of lowest frequency, bars left out.

    Args:
        pixels: uint8 (T, H, W) luma.

    Returns:
        float32 (T, 65), grey levels: root mean square over the picture of what each contributes.
    """
    box = content_box(pixels.max(axis=0), BAR_LEVEL)
    if box is not None:
        left, top, right, bottom = box
        pixels = pixels[:, top:bottom, left:right]
    small = [cv2.resize(p, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA).astype(np.float32) for p in pixels]
    return np.stack([cv2.dct(p)[_LOWEST] for p in small]) / SIDE_PX


def temporal_hash(pixels: np.ndarray) -> list[int] | None:
    """Hash eight frames of a clip.

    Args:
        pixels: uint8 (8, H, W) luma at uniform times.

    Returns:
        Twelve signed 64-bit words: one for each picture, the signs of its coefficients (all 0 for one that is
        nearly uniform); four for the motion: which coefficients of the two slowest temporal frequencies are
        above, then which below zero. None when fewer than four frames show anything.
    """
    spectrum = coefficients(pixels)
    pictures = spectrum[:, 1:]
    shows = (np.abs(pictures) > MIN_STRENGTH).mean(axis=1) >= MIN_SHARE
    if shows.sum() < MIN_FRAMES:
        return None
    waves = np.cos(np.pi * np.outer([1, 2], np.arange(FRAMES) + 0.5) / FRAMES) * np.sqrt(2) / FRAMES
    motion = waves.astype(np.float32) @ spectrum[:, :COEFFICIENTS]
    signs = (pictures > 0) & shows[:, None]
    bits = np.concatenate([signs, motion > MIN_MOTION, motion < -MIN_MOTION])
    words: list[int] = np.packbits(bits[:, _PACKED].ravel(), bitorder="little").view("<i8").tolist()
    return words


@dataclass(frozen=True)
class TemporalHash:
    """Perceptual hash of the clip's course, to find copies by; null when nearly all of it is uniform.

    It has no settings, so that the hashes of all tables can be compared.
    """

    writes: ClassVar[tuple[str, ...]] = ("temporal_hash",)
    media: ClassVar[frozenset[str]] = BOTH
    pool: ClassVar[str | None] = None

    @property
    def sampling(self) -> Sampling | None:
        """Gray frames at uniform times of all decoded ones, at the coarse size: they cost nothing more."""
        return Sampling(None, FRAMES, None, None, "gray")

    def load(self) -> Scorer:
        """Return the hashing function."""

        def hash_clip(clip: ClipInput) -> list[int] | None:
            if not len(clip.frames):
                return None
            wanted_s = clip.span.start_s + (np.arange(FRAMES) + 0.5) / FRAMES * clip.span.duration_s
            # A still, or a clip of fewer frames, shows some of them more than once.
            nearest = np.abs(clip.frames.times_s[:, None] - wanted_s).argmin(axis=0)
            return temporal_hash(clip.frames.pixels[nearest])

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            return [{"temporal_hash": hash_clip(clip)} for clip in clips]

        return score
