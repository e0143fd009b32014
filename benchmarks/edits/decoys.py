"""What happens within one shot and is no cut.

Each function takes the shot's frames, the first frame and the number of frames of the event, a generator and the
frames of another shot. It returns the shot's frames with the event, and its last frame, exclusive.
"""

from collections.abc import Callable

import cv2
import numpy as np

from benchmarks.edits.joins import zoomed

Frames = list[np.ndarray]
Decoy = Callable[[Frames, int, int, np.random.Generator, Frames], tuple[Frames, int]]


def flash(shot: Frames, at: int, count: int, rng: np.random.Generator, other: Frames) -> tuple[Frames, int]:
    """Brighten one to four frames, as a photographer's flash does."""
    length = int(rng.integers(1, 5))
    strength = rng.uniform(0.5, 1.0)
    for k in range(length):
        share = strength * (1 - k / length)
        shot[at + k] = cv2.addWeighted(shot[at + k], 1 - share, np.full_like(shot[at + k], 255), share, 0)
    return shot, at + length


def shake(shot: Frames, at: int, count: int, rng: np.random.Generator, other: Frames) -> tuple[Frames, int]:
    """Move the picture at random by up to 6 % of its size."""
    height, width = shot[0].shape[:2]
    for k in range(at, at + count):
        move = rng.uniform(-0.06, 0.06, 2) * (width, height)
        shift = np.array([[1, 0, move[0]], [0, 1, move[1]]], np.float32)
        shot[k] = cv2.warpAffine(shot[k], shift, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    return shot, at + count


def whip_pan(shot: Frames, at: int, count: int, rng: np.random.Generator, other: Frames) -> tuple[Frames, int]:
    """Pan fast from the left part of the enlarged picture to the right one, or back."""
    length = max(5, min(count, 12))
    ends = (0.0, 1.0) if rng.random() < 0.5 else (1.0, 0.0)
    for k in range(len(shot)):
        way = float(np.clip((k - at + 1) / (length + 1), 0, 1))
        x = ends[0] + (ends[1] - ends[0]) * way * way * (3 - 2 * way)
        picture = zoomed(shot[k], 2.2, x, 0.5)
        speed = 6 * way * (1 - way) / (length + 1)
        shot[k] = cv2.blur(picture, (max(1, round(speed * picture.shape[1] * 0.6)), 1))
    return shot, at + length


def exposure(shot: Frames, at: int, count: int, rng: np.random.Generator, other: Frames) -> tuple[Frames, int]:
    """Change the gain gradually, for the rest of the shot."""
    gain = rng.choice((0.4, 0.55, 1.6, 2.2))
    for k in range(at, len(shot)):
        way = min(1.0, (k - at + 1) / count)
        shot[k] = cv2.convertScaleAbs(shot[k], alpha=float(1 + (gain - 1) * way))
    return shot, at + count


def subtitle(shot: Frames, at: int, count: int, rng: np.random.Generator, other: Frames) -> tuple[Frames, int]:
    """Show one or two lines of text, and change them once."""
    lines = [" ".join("abcdefghij"[: int(rng.integers(3, 9))] for _ in range(4)) for _ in range(2)]
    for k in range(at, at + count):
        shot[k] = shot[k].copy()
        text, where = lines[(k - at) * 2 // count], (16, shot[k].shape[0] - 14)
        for colour, thick in (((0, 0, 0), 4), ((255, 255, 255), 1)):
            cv2.putText(shot[k], text, where, cv2.FONT_HERSHEY_SIMPLEX, 0.55, colour, thick, cv2.LINE_AA)
    return shot, at + count


def inset(shot: Frames, at: int, count: int, rng: np.random.Generator, other: Frames) -> tuple[Frames, int]:
    """Show another shot in a corner: picture in picture."""
    height, width = shot[0].shape[:2]
    tall, wide = int(height * rng.uniform(0.25, 0.4)), int(width * rng.uniform(0.25, 0.4))
    top, left = (int(rng.choice((6, end))) for end in (height - tall - 6, width - wide - 6))
    for k in range(at, at + count):
        shot[k] = shot[k].copy()
        small = cv2.resize(other[k % len(other)], (wide, tall), interpolation=cv2.INTER_AREA)
        shot[k][top : top + tall, left : left + wide] = small
    return shot, at + count


def noise(shot: Frames, at: int, count: int, rng: np.random.Generator, other: Frames) -> tuple[Frames, int]:
    """Add strong grain."""
    strength = rng.uniform(15, 40)
    for k in range(at, at + count):
        grain = rng.normal(0, strength, shot[k].shape)
        shot[k] = np.clip(shot[k] + grain, 0, 255).astype(np.uint8)
    return shot, at + count


def glitch(shot: Frames, at: int, count: int, rng: np.random.Generator, other: Frames) -> tuple[Frames, int]:
    """Damage a few frames as decoders do: blocks displaced, rows frozen, parts grey."""
    length = int(rng.integers(2, 9))
    for k in range(at, at + length):
        picture, height = shot[k].copy(), shot[k].shape[0]
        for _ in range(int(rng.integers(20, 90))):
            y, x = int(rng.integers(0, height - 16)), int(rng.integers(0, picture.shape[1] - 48))
            dy, dx = int(rng.integers(0, height - 16)), int(rng.integers(0, picture.shape[1] - 48))
            picture[y : y + 16, x : x + 48] = shot[k][dy : dy + 16, dx : dx + 48]
        if rng.random() < 0.4:
            picture[int(rng.integers(0, height)) :] = (120, 135, 120)
        shot[k] = picture
    return shot, at + length


def speed(shot: Frames, at: int, count: int, rng: np.random.Generator, other: Frames) -> tuple[Frames, int]:
    """Play three to six times as fast for a while, with a ramp into it and out of it."""
    fastest = float(rng.uniform(3, 6))
    length = count
    places = list(range(at))
    place = float(at)
    for k in range(length):
        place += 1 + (fastest - 1) * np.sin(np.pi * (k + 0.5) / length)
        places.append(int(place))
    places += range(int(place) + 1, len(shot))
    return [shot[k] for k in places if k < len(shot)], at + length


def slideshow(shot: Frames, at: int, count: int, rng: np.random.Generator, other: Frames) -> tuple[Frames, int]:
    """Hold one picture, on which lines of text appear one after another; the shot then goes on where it stood."""
    board = shot[at].copy()
    step = max(4, count // 4)
    held = []
    for k in range(count):
        if k % step == 0:
            row = 28 + 24 * (k // step)
            cv2.putText(board, "point " + "abcdefgh"[: row % 7 + 2], (20, row), 0, 0.6, (250, 250, 240), 2, cv2.LINE_AA)
        held.append(board.copy())
    return [*shot[:at], *held, *shot[at:]], at + count


DECOYS: dict[str, Decoy] = {
    "flash": flash,
    "shake": shake,
    "whip_pan": whip_pan,
    "exposure": exposure,
    "subtitle": subtitle,
    "inset": inset,
    "noise": noise,
    "glitch": glitch,
    "speed": speed,
    "slideshow": slideshow,
}
