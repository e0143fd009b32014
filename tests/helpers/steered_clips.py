"""Clips of one caption that differ in where a bright figure is, so that only a map says what shall be seen."""

from pathlib import Path

import numpy as np

from sampling.pictures import write_mp4

CAPTION = "a bright figure moves over a dark ground"
SIZE_PX = 64
NUM_FRAMES = 25
FPS = 12.0


def paint_figure(seed: int, num_frames: int = NUM_FRAMES, size_px: int = SIZE_PX) -> np.ndarray:
    """Return uint8 (T, H, W, 3): a rectangle or an ellipse of any size and place that drifts a little."""
    rng = np.random.default_rng(seed)
    y, x = (np.mgrid[:size_px, :size_px] + 0.5) / size_px
    half_x, half_y = rng.uniform(0.13, 0.28, 2)
    at, drift = rng.uniform(0.25, 0.75, 2), rng.uniform(-0.12, 0.12, 2)
    is_round = bool(rng.integers(2))
    frames = []
    for t in np.linspace(-0.5, 0.5, num_frames):
        off_x, off_y = (x - at[0] - drift[0] * t) / half_x, (y - at[1] - drift[1] * t) / half_y
        inside = off_x**2 + off_y**2 < 1 if is_round else np.maximum(np.abs(off_x), np.abs(off_y)) < 1
        frames.append(np.where(inside[..., None], (235, 225, 190), (25, 35, 60)))
    return np.stack(frames).astype(np.uint8)


def write_figures(folder: Path, seeds: range) -> None:
    """Write a clip for each seed, and its caption beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        write_mp4(paint_figure(seed), FPS, folder / f"{seed:03d}.mp4")
        (folder / f"{seed:03d}.txt").write_text(CAPTION)
