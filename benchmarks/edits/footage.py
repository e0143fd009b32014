"""Stretches of real footage that hold one shot each, from the videos of any folder."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.cuts import carried
from core.errors import MediaError, UserError
from media.decode import whole_frames
from media.probe import probe_video
from media.stretch import Stretch as ToDecode

WIDTH_PX, HEIGHT_PX = 256, 144
SHORTEST_S, LONGEST_S = 2.5, 20.0
MARGIN_FRAMES = 3
"""left out next to each mark, as marks made by eye may be off by two"""
APPROXIMATE_FRAMES = 15
"""left out on both sides of marks that are approximate"""
LEAST_FPS = 10.0
"""Of slower footage, one frame may differ from the next as shots do."""
FLAT_LEVELS = 8.0
"""Frames with less contrast may be parts of fades, which marks made for cuts leave out."""
SUFFIXES = {".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v"}


@dataclass(frozen=True, eq=False)
class Stretch:
    """Consecutive frames of one shot: uint8 (HEIGHT_PX, WIDTH_PX, 3) RGB, at `fps` frames per second."""

    name: str
    frames: list[np.ndarray]
    fps: float


def read_stretches(folder: Path, marks: Path | None) -> list[Stretch]:
    """Decode the videos of a folder and divide them where shots end.

    Args:
        folder: holds videos; those that cannot be decoded are left out, as damaged ones may be among them.
        marks: JSON file of shot changes by eye, as `benchmarks.cuts` reads; videos without marks are divided wherever
            the change of one frame stands out.

    Raises:
        UserError: the folder holds no stretch long enough.
    """
    marked: dict[str, Any] = json.loads(marks.read_text(encoding="utf-8"))["videos"] if marks else {}
    found: list[Stretch] = []
    for path in sorted(each for each in folder.iterdir() if each.suffix.lower() in SUFFIXES):
        try:
            found += list(_stretches(path, marked.get(path.name)))
        except (MediaError, UserError, OSError):
            continue
    if len(found) < 2:
        raise UserError(f"{folder}: fewer than 2 shots of {SHORTEST_S} s; name a folder with more footage")
    return found


def _stretches(path: Path, marks: dict[str, Any] | None) -> Iterator[Stretch]:
    """Yield the stretches of one video, each at most `LONGEST_S` long."""
    facts, _ = probe_video(path)
    fps = facts.fps or 25.0
    if fps < LEAST_FPS:
        return
    pictures, times_s = [], []
    for frame in whole_frames(ToDecode(path, facts)):
        pictures.append(_fitted(frame.rgb(HEIGHT_PX)))
        times_s.append(frame.time_s)
        if frame.time_s > 3 * LONGEST_S:
            break
    ends = _flat(pictures) + (_stands_out(pictures) if marks is None else left_out(marks, carried(path, times_s)))
    start = 0
    for low, high in [*sorted(ends), (len(pictures), len(pictures))]:
        if min(low, len(pictures)) - start >= SHORTEST_S * fps:
            end = min(low, len(pictures), start + round(LONGEST_S * fps))
            yield Stretch(path.name, pictures[start:end], fps)
        start = max(start, high)


def _fitted(rgb: np.ndarray) -> np.ndarray:
    """Cut the middle of a picture to the films' aspect, and scale it."""
    height, width = rgb.shape[:2]
    wide = min(width, round(height * WIDTH_PX / HEIGHT_PX))
    tall = min(height, round(wide * HEIGHT_PX / WIDTH_PX))
    top, left = (height - tall) // 2, (width - wide) // 2
    inner = rgb[top : top + tall, left : left + wide]
    return cv2.resize(inner, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_AREA)


def left_out(marks: dict[str, Any], place: Callable[[int], int]) -> list[tuple[int, int]]:
    """Return the half-open ranges of frames that no stretch may hold, by the marks of a video and where they lie."""
    exact = [place(at) for name in ("hard", "ambiguous") for at in marks.get(name, ())]
    others = [name for name, value in marks.items() if name not in {"hard", "ambiguous", "ignore"} and _is_list(value)]
    approximate = [place(at) for name in others for at in marks[name]]
    ranges = [(at - MARGIN_FRAMES, at + MARGIN_FRAMES) for at in exact]
    ranges += [(at - APPROXIMATE_FRAMES, at + APPROXIMATE_FRAMES) for at in approximate]
    ignored = [(place(start), place(end)) for start, end in marks.get("ignore", ())]
    return ranges + [(start - MARGIN_FRAMES, end + MARGIN_FRAMES) for start, end in ignored]


def _is_list(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(at, int) for at in value)


def _flat(pictures: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Return ranges around frames without contrast."""
    flat = np.flatnonzero(_small(pictures).std(axis=(1, 2, 3)) < FLAT_LEVELS).tolist()
    return [(at - APPROXIMATE_FRAMES, at + APPROXIMATE_FRAMES) for at in flat]


def _stands_out(pictures: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Return ranges around frames that change far more than those near them: no detector is asked."""
    change = np.abs(np.diff(_small(pictures), axis=0)).mean(axis=(1, 2, 3))
    found = []
    for at, value in enumerate(change, 1):
        near = np.median(change[max(0, at - 13) : at + 12])
        if value > 6 + 4 * near:
            found.append((at - MARGIN_FRAMES, at + MARGIN_FRAMES))
    return found


def _small(pictures: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack([cv2.resize(each, (32, 18), interpolation=cv2.INTER_AREA) for each in pictures]).astype(float)
