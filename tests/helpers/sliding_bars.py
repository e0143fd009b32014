"""Clips that look alike but for where they are in their motion, so that an image says more than the caption."""

import json
from pathlib import Path

import numpy as np

from sampling.pictures import write_mp4

CAPTION = "bars slide to the left"
SIZE_PX = 64
NUM_FRAMES = 27
FPS = 24.0
PHASES = 8
SHARE = 0.4
"""of a period, which a clip shows"""
LIGHT, DARK = np.array((0.95, 0.85, 0.2)), np.array((0.15, 0.3, 0.45))


def paint_bars(phase: float, share: float = SHARE, num_frames: int = NUM_FRAMES, size_px: int = SIZE_PX) -> np.ndarray:
    """Return uint8 (T, H, W, 3): two bars, from a phase on, through a share of their period."""
    x = (np.arange(size_px) + 0.5) / size_px
    t = (np.arange(num_frames)[:, None] + 0.5) / num_frames
    wave = (0.5 + 0.5 * np.sin(2 * np.pi * (2 * x[None] + phase + share * t)))[:, None, :, None]
    frames = np.broadcast_to(wave * LIGHT + (1 - wave) * DARK, (num_frames, size_px, size_px, 3))
    return (frames * 255).round().astype(np.uint8)


def write_bars(folder: Path) -> Path:
    """Write a clip for each phase, and their metadata; return the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for place in range(PHASES):
        write_mp4(paint_bars(place / PHASES), FPS, folder / f"{place}.mp4")
        items.append({"file_path": f"{place}.mp4", "text": CAPTION, "type": "video"})
    metadata = folder / "metadata.json"
    metadata.write_text(json.dumps(items), encoding="utf-8")
    return metadata
