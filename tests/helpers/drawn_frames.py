"""Videos whose frames can be told apart by their grey."""

from pathlib import Path

import numpy as np

from demo.drawing import write_video

STEP = 5  # grey levels between frames; H.264 keeps flat ones to within 2


def grey(index: int, width: int = 32, height: int = 32) -> np.ndarray:
    return np.full((height, width, 3), 20 + STEP * index, np.uint8)


def draw(path: Path, count: int, fps: float = 10.0, **how) -> Path:
    write_video(path, [grey(i) for i in range(count)], fps, **how)
    return path


def shown(frames: np.ndarray) -> list[int]:
    """Return which drawn frames these are."""
    return [round((float(f.mean()) - 20) / STEP) for f in frames]
