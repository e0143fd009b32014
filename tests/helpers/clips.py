"""Four clips that anyone can tell apart, drawn with their captions, as a trainer's metadata."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sampling.pictures import write_mp4

SIZE_PX = 64
NUM_FRAMES = 25
FPS = 12.0

Painter = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


def _disc(x: np.ndarray, y: np.ndarray, t: float) -> np.ndarray:
    inside = (x - 0.15 - 0.7 * t) ** 2 + (y - 0.5) ** 2 < 0.04
    return np.where(inside[..., None], (0.9, 0.15, 0.1), (0.1, 0.15, 0.45))


def _bars(x: np.ndarray, y: np.ndarray, t: float) -> np.ndarray:
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * (2 * x + t))
    return wave[..., None] * np.array((0.95, 0.85, 0.2)) + (1 - wave[..., None]) * np.array((0.2, 0.35, 0.1))


def _square(x: np.ndarray, y: np.ndarray, t: float) -> np.ndarray:
    inside = (np.abs(x - 0.5) < 0.1 + 0.25 * t) & (np.abs(y - 0.5) < 0.1 + 0.25 * t)
    return np.where(inside[..., None], (0.95, 0.95, 0.95), (0.45, 0.1, 0.5))


def _dusk(x: np.ndarray, y: np.ndarray, t: float) -> np.ndarray:
    light = np.clip(1.1 - y - 0.8 * t, 0, 1)
    return light[..., None] * np.array((0.95, 0.55, 0.2)) + np.array((0.0, 0.05, 0.12))


CLIPS: dict[str, Painter] = {
    "a red disc rolls to the right over a blue field": _disc,
    "yellow and green bars slide to the left": _bars,
    "a white square grows on a violet wall": _square,
    "an orange sky grows dark at dusk": _dusk,
}
OTHER_CLIPS: dict[str, Painter] = {
    "a green disc falls through grey mist": lambda x, y, t: np.where(
        ((x - 0.5) ** 2 + (y - 0.1 - 0.8 * t) ** 2 < 0.05)[..., None], (0.1, 0.8, 0.2), (0.55, 0.55, 0.6)
    ),
    "a black frame closes around a yellow window": lambda x, y, t: np.where(
        (np.maximum(np.abs(x - 0.5), np.abs(y - 0.5)) > 0.5 - 0.3 * t)[..., None], (0.02, 0.02, 0.02), (0.9, 0.9, 0.4)
    ),
}


def paint(painter: Painter, num_frames: int = NUM_FRAMES, size_px: int = SIZE_PX) -> np.ndarray:
    """Return uint8 (T, H, W, 3)."""
    y, x = np.mgrid[0:size_px, 0:size_px] / size_px
    frames = [painter(x, y, (i + 0.5) / num_frames) for i in range(num_frames)]
    return (np.clip(np.stack(frames), 0, 1) * 255).round().astype(np.uint8)


def write_clips(folder: Path, clips: dict[str, Painter], num_frames: int = NUM_FRAMES) -> Path:
    """Write the clips and their JSON; return the JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for place, (caption, painter) in enumerate(clips.items()):
        write_mp4(paint(painter, num_frames), FPS, folder / f"{place}.mp4")
        items.append({"file_path": f"{place}.mp4", "text": caption, "type": "video"})
    metadata = folder / "metadata.json"
    metadata.write_text(json.dumps(items), encoding="utf-8")
    return metadata


def nearest(frames: np.ndarray, clips: dict[str, Painter]) -> str:
    """Return the caption of the clip with the least squared difference of pixels."""
    errors = {
        caption: float(np.square(frames.astype(np.float64) - paint(painter, len(frames), frames.shape[1])).mean())
        for caption, painter in clips.items()
    }
    return min(errors, key=lambda caption: errors[caption])
