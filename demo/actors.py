"""What moves by itself in the demo's footage: each actor draws into a frame at a time in seconds."""

from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from demo.drawing import Color

BALLOON_COLORS: tuple[Color, ...] = ((222, 62, 50), (246, 190, 60), (66, 112, 200))
FISH_COLORS: tuple[Color, ...] = ((250, 196, 60), (250, 128, 70), (230, 236, 240))
CAR_COLORS: tuple[Color, ...] = ((150, 44, 40), (58, 84, 130), (176, 176, 170), (60, 100, 84), (190, 140, 50))
CAR_OUTLINE = ((-17, 0), (-15, 7), (-8, 8), (-5, 13), (7, 13), (11, 8), (17, 6), (17, 0))


def polygon(frame: np.ndarray, points: Iterable[tuple[float, float]], color: Color) -> None:
    """Fill a polygon given in fractions of pixels."""
    cv2.fillPoly(frame, [np.round(np.array(list(points)) * 16).astype(np.int32)], color, cv2.LINE_AA, 4)


def drifting(
    frame: np.ndarray, time_s: float, count: int, speed: float, seed: int
) -> Iterator[tuple[float, float, float]]:
    """Yield x, y (px) and a size factor of things that cross the frame; they come back on the other side."""
    rng = np.random.default_rng(seed)
    width = frame.shape[1]
    for x, y, scale in rng.random((count, 3)):
        size = 0.6 + 0.8 * scale
        yield (
            (x * width * 1.2 + speed * size * time_s) % (width * 1.2) - width * 0.1,
            y * frame.shape[0],
            size,
        )


def boats(frame: np.ndarray, time_s: float) -> None:
    """Sail two boats along the horizon."""
    for x, y, s in drifting(frame, time_s, 2, -22, 1):
        y = frame.shape[0] * 0.5 + y * 0.12 + np.sin(time_s * 1.7 + x * 0.02) * 1.5
        polygon(
            frame,
            [(x - 20 * s, y), (x + 20 * s, y), (x + 13 * s, y + 8 * s), (x - 14 * s, y + 8 * s)],
            (40, 26, 28),
        )
        polygon(frame, [(x + 1, y - 2), (x + 1, y - 44 * s), (x + 17 * s, y - 3)], (250, 238, 220))
        polygon(frame, [(x - 2, y - 2), (x - 2, y - 36 * s), (x - 14 * s, y - 3)], (226, 196, 176))


def birds(frame: np.ndarray, time_s: float) -> None:
    """Fly a flock with beating wings."""
    for i, (x, y, s) in enumerate(drifting(frame, time_s, 7, 60, 2)):
        y = frame.shape[0] * 0.12 + y * 0.22
        lift = np.sin(time_s * 9 + i) * 6 * s
        wing = [
            (x - 13 * s, y - lift),
            (x - 5 * s, y - 3 * s),
            (x, y),
            (x + 5 * s, y - 3 * s),
            (x + 13 * s, y - lift),
        ]
        polygon(frame, [*wing, (x, y + 3.5 * s)], (36, 34, 40))


def balloons(frame: np.ndarray, time_s: float) -> None:
    """Let three hot-air balloons rise."""
    unit = frame.shape[0] / 360
    for i, (x, y, s) in enumerate(drifting(frame, time_s, 3, 12, 6)):
        y, r = frame.shape[0] * 0.16 + y * 0.35 - 7 * time_s, 26 * s * unit
        polygon(
            frame,
            [
                (x - r * 0.8, y + r * 0.6),
                (x + r * 0.8, y + r * 0.6),
                (x + r * 0.2, y + r * 1.5),
                (x - r * 0.2, y + r * 1.5),
            ],
            BALLOON_COLORS[i],
        )
        for share, color in ((1.0, BALLOON_COLORS[i]), (0.62, (248, 240, 226)), (0.25, BALLOON_COLORS[i])):
            axes = (int(r * share * 16), int(r * 16))
            cv2.ellipse(frame, (int(x * 16), int(y * 16)), axes, 0, 0, 360, color, -1, cv2.LINE_AA, 4)
        polygon(
            frame,
            [
                (x - r * 0.2, y + r * 1.7),
                (x + r * 0.2, y + r * 1.7),
                (x + r * 0.16, y + r * 2),
                (x - r * 0.16, y + r * 2),
            ],
            (92, 60, 36),
        )


def cars(frame: np.ndarray, time_s: float) -> None:
    """Drive cars with lights along the street at the lower edge, both ways."""
    height = frame.shape[0]
    for seed, speed, row, light in ((3, 0.42, 0.955, (255, 244, 200)), (4, -0.36, 0.905, (255, 60, 40))):
        for i, (x, _, s) in enumerate(drifting(frame, time_s, 4, speed * height, seed)):
            y, u, paint = (
                height * row,
                height / 360 * (0.8 + 0.3 * s),
                CAR_COLORS[(i + seed) % len(CAR_COLORS)],
            )
            polygon(frame, [(x + dx * u, y - dy * u) for dx, dy in CAR_OUTLINE], paint)
            front = x + (16 if speed > 0 else 15) * u
            cv2.circle(frame, (int(front * 16), int((y - 4 * u) * 16)), int(3 * u * 16), light, -1, cv2.LINE_AA, 4)


def fish(frame: np.ndarray, time_s: float) -> None:
    """Swim a shoal with waving tails."""
    for i, (x, y, s) in enumerate(drifting(frame, time_s, 16, 52, 5)):
        y = frame.shape[0] * 0.15 + y * 0.55 + np.sin(time_s * 1.3 + i) * 6
        color = FISH_COLORS[i % 3]
        wag = np.sin(time_s * 8 + i) * 4 * s
        polygon(frame, [(x - 9 * s, y), (x - 20 * s, y - 7 * s + wag), (x - 20 * s, y + 7 * s + wag)], color)
        cv2.ellipse(
            frame,
            (int(x * 16), int(y * 16)),
            (int(13 * s * 16), int(6.5 * s * 16)),
            0,
            0,
            360,
            color,
            -1,
            cv2.LINE_AA,
            4,
        )
        cv2.circle(
            frame,
            (int((x + 8 * s) * 16), int((y - 1.5 * s) * 16)),
            int(1.4 * s * 16),
            (20, 24, 30),
            -1,
            cv2.LINE_AA,
            4,
        )


def snowfall(frame: np.ndarray, time_s: float) -> None:
    """Let snow fall."""
    height, width = frame.shape[:2]
    for x, y, s in np.random.default_rng(7).random((90, 3)):
        fall = (y * height + (50 + 60 * s) * time_s) % height
        drift = (x * width + 12 * np.sin(time_s + 6 * x)) % width
        cv2.circle(
            frame,
            (int(drift * 16), int(fall * 16)),
            int((1 + 1.6 * s) * 16),
            (250, 250, 255),
            -1,
            cv2.LINE_AA,
            4,
        )
