"""Painted landscapes for the demo's footage: sky, hills and ground, and what stands in front of them."""

from dataclasses import dataclass

import cv2
import numpy as np

from demo.drawing import Color, Layer, Scene, blend, noise, smooth_step, to_pixels


@dataclass(frozen=True)
class Ridge:
    """A line of hills: foot and height as shares of the scene, bumps across, colours low and high."""

    foot: float
    height: float
    bumps: int
    low: Color
    high: Color
    octaves: int = 6


@dataclass(frozen=True)
class Look:
    """How a landscape looks, from the sky down."""

    sky_top: Color
    sky_low: Color
    cloud: Color
    clouds: float
    ridges: tuple[Ridge, ...]
    ground_far: Color
    ground_near: Color
    front: Ridge
    horizon: float = 0.5
    is_water: bool = False
    sun: tuple[float, float, Color] | None = None
    flowers: tuple[Color, ...] = ()


LOOKS = {
    "coast": Look(
        (44, 62, 120), (250, 164, 96), (255, 198, 150), 0.55,
        (Ridge(0.5, 0.10, 5, (92, 72, 110), (150, 104, 118)),),
        (236, 150, 104), (22, 52, 92), Ridge(1.0, 0.16, 3, (18, 20, 26), (84, 62, 50)),
        is_water=True, sun=(0.42, 0.36, (255, 236, 180)),
    ),
    "mountains": Look(
        (58, 116, 196), (190, 216, 238), (252, 252, 252), 0.45,
        (Ridge(0.62, 0.46, 4, (86, 108, 142), (246, 248, 252), 7),
         Ridge(0.68, 0.26, 6, (52, 80, 78), (148, 150, 140), 7)),
        (104, 136, 74), (64, 104, 42), Ridge(1.02, 0.24, 40, (14, 36, 22), (50, 92, 44), 5), horizon=0.64,
    ),
    "meadow": Look(
        (74, 142, 220), (206, 228, 244), (255, 255, 255), 0.6,
        (Ridge(0.48, 0.14, 4, (92, 134, 120), (134, 170, 130)),
         Ridge(0.5, 0.07, 14, (40, 86, 44), (96, 142, 62), 5)),
        (150, 186, 78), (58, 128, 34), Ridge(1.03, 0.16, 60, (30, 84, 22), (110, 170, 60), 4), horizon=0.47,
        flowers=((236, 70, 60), (250, 214, 70), (246, 240, 250), (180, 90, 200)),
    ),
    "desert": Look(
        (88, 150, 208), (246, 222, 186), (250, 240, 224), 0.3,
        (Ridge(0.56, 0.18, 3, (196, 136, 92), (236, 184, 128), 3),
         Ridge(0.72, 0.22, 2, (180, 104, 54), (244, 186, 112), 3)),
        (226, 166, 100), (196, 122, 62), Ridge(1.0, 0.26, 2, (126, 66, 34), (232, 160, 88), 4), horizon=0.55,
    ),
    "snow": Look(
        (120, 150, 190), (226, 222, 232), (240, 240, 248), 0.5,
        (Ridge(0.56, 0.26, 4, (122, 144, 178), (244, 246, 252), 7),
         Ridge(0.6, 0.12, 46, (34, 54, 66), (150, 172, 184), 5)),
        (226, 234, 246), (178, 198, 226), Ridge(1.02, 0.22, 36, (20, 40, 50), (196, 212, 226), 5),
        horizon=0.58,
    ),
}  # fmt: skip


def scene(seed: int, width_px: int = 1200, height_px: int = 420) -> np.ndarray:
    """Return one textured landscape picture, uint8 (height, width, 3); the seed also chooses the kind."""
    look = list(LOOKS.values())[seed % len(LOOKS)]
    return landscape(look, seed, width_px, height_px)[0].pixels


def landscape(look: Look, seed: int, width_px: int = 1200, height_px: int = 420) -> Scene:
    """Paint sky, hills and ground as one far layer, and what stands in front as a near one."""
    rng, shape = np.random.default_rng(seed), (height_px, width_px)
    far = sky(look, rng, shape)
    horizon_px = int(look.horizon * height_px)
    far[horizon_px:] = ground(look, rng, (height_px - horizon_px, width_px), horizon_px)
    for ridge in look.ridges:
        top, pixels, opacity = hills(ridge, rng, shape)
        # Hills end where the ground begins: the horizon hides their feet.
        end = max(horizon_px, int(ridge.foot * height_px)) - top
        far[top : top + end] = blend(far[top : top + end], pixels[:end], opacity[:end])
    top, pixels, opacity = hills(look.front, rng, shape)
    return Layer(to_pixels(far), depth=0.75), Layer(to_pixels(pixels), opacity, 1.25, top)


def sky(look: Look, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Paint air, sun and clouds over the whole picture; float32 (H, W, 3)."""
    height, width = shape
    down = np.linspace(0, 1 / look.horizon, height, dtype=np.float32)[:, None] * np.ones((1, width), np.float32)
    picture = blend(look.sky_top, look.sky_low, down**0.8)
    if look.sun is not None:
        picture = blend(picture, look.sun[2], sun_light(look, shape))
    billows = noise(rng, shape, (5, 6), 6)
    cover = smooth_step(billows, 0.78 - 0.5 * look.clouds, 0.95 - 0.25 * look.clouds) * (1 - 0.55 * np.clip(down, 0, 1))
    shade = np.roll(billows, -6, axis=0) - billows  # lit from above, grey below
    return blend(picture, np.asarray(look.cloud, np.float32) + 420 * np.minimum(shade, 0.05)[..., None], cover * 0.9)


def sun_light(look: Look, shape: tuple[int, int]) -> np.ndarray:
    """Return the share of sunlight in the sky: a disc with a glow around it."""
    height, width = shape
    assert look.sun is not None
    y, x = np.ogrid[:height, :width]
    distance = np.hypot(x - look.sun[0] * width, y - look.sun[1] * height).astype(np.float32)
    return 0.75 * np.exp(-distance / (0.22 * height)) + smooth_step(-distance, -0.062 * height, -0.052 * height)


def ground(look: Look, rng: np.random.Generator, shape: tuple[int, int], horizon_px: int) -> np.ndarray:
    """Paint a plane that recedes to the horizon at its first row; float32 (H, W, 3)."""
    height, width = shape
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    nearness = (rows + 4) / height
    stretch = 0.35 if look.is_water else 1.0
    bumps = noise(rng, (512, 1024), (24, 48), 5)
    u = (columns - width / 2) / nearness * 0.55 * stretch + 330  # off the mirror axis of the noise
    v = 170 / nearness * (1.6 if look.is_water else 1.0)
    texture = cv2.remap(bumps, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101) - 0.5
    texture *= smooth_step(nearness, 0.0, 0.25)  # too fine to be seen far away
    picture = (
        blend(look.ground_far, look.ground_near, nearness**0.7)
        * (1 + (0.9 if look.is_water else 0.7) * texture)[..., None]
    )
    if look.sun is not None and look.is_water:
        path = np.exp(-(((columns - look.sun[0] * width) / (26 + 90 * nearness)) ** 2))
        picture = blend(picture, look.sun[2], path * smooth_step(texture, -0.02, 0.16 + 0.1 * nearness))
    for _ in range(700 if look.flowers else 0):
        row = int(height * rng.random() ** 0.6)
        radius = 0.5 + 3.2 * (row / height) ** 1.5
        color = look.flowers[int(rng.integers(len(look.flowers)))]
        center = (int(rng.integers(width) * 16), row * 16)
        cv2.ellipse(picture, center, (int(radius * 16), int(radius * 11)), 0, 0, 360, color, -1, cv2.LINE_AA, 4)
    return picture


def hills(ridge: Ridge, rng: np.random.Generator, shape: tuple[int, int]) -> tuple[int, np.ndarray, np.ndarray]:
    """Paint a line of hills, lit from the left.

    Returns:
        Its first row in the scene, its pixels float32 (h, W, 3), and its opacity float32 (h, W).
    """
    height, width = shape
    top = max(0, int((ridge.foot - ridge.height) * height) - 2)
    crest = (ridge.foot - ridge.height * noise(rng, (8, width), (1, ridge.bumps), ridge.octaves)[4]) * height
    below = np.arange(top, height, dtype=np.float32)[:, None] - crest[None, :]
    relief = noise(rng, below.shape, (3, 12), 7) * 60 - below * 0.3
    slope = relief - np.roll(relief, 3, axis=1)
    slope[:, :3] = slope[:, 3:4]  # where the roll wrapped around
    light = np.clip(0.55 + 0.16 * slope, 0, 1.2)
    share = np.clip(1 - below / (ridge.height * height), 0, 1) * 0.55 + 0.45 * light
    pixels = blend(ridge.low, ridge.high, share) * (0.6 + 0.5 * light)[..., None]
    return top, pixels, np.clip(below + 0.5, 0, 1).astype(np.float32)
