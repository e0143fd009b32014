"""Painted places for the demo's footage: a city, a wood, a reef, fields from the air.

Each painter gives the layers of one scene, large enough for a camera to move over.
"""

import cv2
import numpy as np

from demo.drawing import Color, Layer, Scene, blend, noise, smooth_step, to_pixels
from demo.landscapes import LOOKS, Look, Ridge, hills, sky


def city(seed: int, width_px: int, height_px: int) -> Scene:
    """Paint a town at dusk: a far and a near row of houses with lit windows, and a street."""
    rng, shape = np.random.default_rng(seed), (height_px, width_px)
    look = LOOKS["coast"]
    far = sky(Look((24, 30, 74), (214, 122, 110), (120, 84, 120), 0.5, (), look.ground_far, look.ground_near,
                   look.front, horizon=0.75), rng, shape)  # fmt: skip
    houses(far, None, rng, int(height_px * 0.82), (0.2, 0.5), (52, 50, 84), 0.4)
    near = np.zeros((height_px, width_px, 3), np.float32)
    opacity = np.zeros(shape, np.float32)
    houses(near, opacity, rng, int(height_px * 0.86), (0.18, 0.62), (26, 26, 44), 0.55)
    street = slice(int(height_px * 0.86), None)
    near[street] = blend((34, 34, 44), (70, 62, 66), noise(rng, near[street].shape[:2], (10, 8), 5))
    near[int(height_px * 0.93) : int(height_px * 0.935)] = (190, 180, 150)
    opacity[street] = 1
    grain = rng.normal(0, 3, (height_px, width_px, 1)).astype(np.float32)
    top = int(np.argmax(opacity.any(axis=1)))  # the air above the roofs need not be drawn twice
    return Layer(to_pixels(far + grain), depth=0.6), Layer(to_pixels(near + grain)[top:], opacity[top:], 1.1, top)


def houses(
    picture: np.ndarray,
    opacity: np.ndarray | None,
    rng: np.random.Generator,
    foot_px: int,
    heights: tuple[float, float],
    wall: Color,
    lit: float,
) -> None:
    """Paint a row of houses into a picture: heights as shares of its own, `lit` as a share of windows."""
    height, width = picture.shape[:2]
    left, unit = 0, height / 360
    while left < width:
        wide, high = int(rng.uniform(34, 92) * unit), int(rng.uniform(*heights) * height)
        house = (slice(foot_px - high, foot_px), slice(left, min(left + wide, width)))
        tone = rng.uniform(0.7, 1.35)
        picture[house] = np.asarray(wall, np.float32) * tone
        picture[house][:, : max(1, int(3 * unit))] *= 0.7  # the shaded edge
        if opacity is not None:
            opacity[house] = 1
        step_x, step_y = int(9 * unit), int(12 * unit)
        for y in range(foot_px - high + step_y // 2, foot_px - step_y, step_y):
            for x in range(left + step_x // 2, min(left + wide, width) - step_x, step_x):
                glow = (255, 214, 140) if rng.random() < 0.75 else (190, 214, 255)
                light = rng.uniform(0.55, 1.0) if rng.random() < lit else 0.16
                picture[y : y + int(6 * unit), x : x + int(5 * unit)] = np.asarray(glow, np.float32) * light
        left += wide + (int(rng.uniform(0, 26) * unit) if opacity is not None else 0)


def forest(seed: int, width_px: int = 1200, height_px: int = 420) -> Scene:
    """Paint a sunlit wood: leaves and thin trunks far away, thick trunks near, fern on the ground."""
    rng, shape = np.random.default_rng(seed), (height_px, width_px)
    leaves = noise(rng, shape, (6, 16), 6)
    down = np.linspace(0, 1, height_px, dtype=np.float32)[:, None] * np.ones((1, width_px), np.float32)
    far = blend(
        blend((232, 236, 160), (60, 116, 48), leaves * 1.5 - 0.15),
        (70, 84, 34),
        smooth_step(down, 0.55, 0.95),
    )
    trunks(far, None, rng, 38, (4, 11), (96, 92, 70), int(height_px * 0.72))
    near, opacity = np.zeros((*shape, 3), np.float32), np.zeros(shape, np.float32)
    trunks(near, opacity, rng, 11, (22, 44), (82, 60, 42), height_px)
    top, fern, cover = hills(Ridge(1.02, 0.24, 50, (18, 46, 18), (112, 150, 52), 5), rng, shape)
    near[top:] = blend(near[top:], fern, cover)
    opacity[top:] = np.maximum(opacity[top:], cover)
    return Layer(to_pixels(far), depth=0.55), Layer(to_pixels(near), opacity, 1.2)


def trunks(
    picture: np.ndarray,
    opacity: np.ndarray | None,
    rng: np.random.Generator,
    count: int,
    widths_px: tuple[int, int],
    bark: Color,
    foot_px: int,
) -> None:
    """Paint tree trunks with bark, lit from the left, into a picture."""
    height, width = picture.shape[:2]
    for i in range(count):
        wide = int(rng.integers(*widths_px))
        left = int((i + rng.uniform(0.1, 0.9)) * width / count)
        part = (slice(0, foot_px), slice(left, min(left + wide, width)))
        across = np.linspace(0, 1, wide, dtype=np.float32)[None, : part[1].stop - left]
        rough = noise(rng, (foot_px, across.shape[1]), (16, 3), 4)
        light = (1.35 - 0.95 * across) * (0.55 + 0.8 * rough)
        picture[part] = np.asarray(bark, np.float32) * light[..., None]
        if opacity is not None:
            opacity[part] = 1


def reef(seed: int, width_px: int = 1200, height_px: int = 420) -> Scene:
    """Paint a sea floor: blue depth with slanting light, sand, and corals in front."""
    rng, shape = np.random.default_rng(seed), (height_px, width_px)
    down = np.linspace(0, 1, height_px, dtype=np.float32)[:, None] * np.ones((1, width_px), np.float32)
    rays = cv2.warpAffine(noise(rng, shape, (1, 26), 3), np.array([[1, -0.35, 0], [0, 1, 0]], np.float32),
                          (width_px, height_px), borderMode=cv2.BORDER_REFLECT_101)  # fmt: skip
    far = (
        blend((70, 190, 214), (8, 56, 112), down) * (0.75 + 0.6 * smooth_step(rays, 0.35, 0.9) * (1 - down))[..., None]
    )
    for ridge in (
        Ridge(0.95, 0.4, 7, (14, 72, 116), (40, 130, 158), 5),
        Ridge(1.05, 0.28, 4, (96, 120, 110), (214, 206, 160), 6),
    ):
        top, pixels, opacity = hills(ridge, rng, shape)
        far[top:] = blend(far[top:], pixels, opacity)
    top, pixels, opacity = hills(Ridge(1.06, 0.34, 18, (110, 30, 62), (250, 128, 92), 5), rng, shape)
    return Layer(to_pixels(far), depth=0.7), Layer(to_pixels(pixels), opacity, 1.2, top)


def fields(seed: int, width_px: int = 1500, height_px: int = 600) -> Scene:
    """Paint farmland from the air: fields with furrows, hedges, trees and a river; one flat layer."""
    rng, shape = np.random.default_rng(seed), (height_px, width_px)
    rows, columns = np.mgrid[:height_px, :width_px].astype(np.float32)
    count = width_px * height_px // 9000
    points = rng.random((count, 2)).astype(np.float32) * shape
    seeds = np.full(shape, 255, np.uint8)
    seeds[points[:, 0].astype(int), points[:, 1].astype(int)] = 0
    _, label = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L1, 3, labelType=cv2.DIST_LABEL_PIXEL)
    crops = np.array([(122, 158, 70), (88, 134, 58), (206, 186, 104), (162, 124, 80), (220, 204, 140), (64, 110, 52)])
    color = (crops[rng.integers(len(crops), size=count + 1)] * rng.uniform(0.85, 1.15, (count + 1, 1)))[label]
    angle, pitch = rng.uniform(0, np.pi, count + 1)[label], rng.uniform(0.5, 1.1, count + 1)[label]
    furrows = np.sin((rows * np.sin(angle) + columns * np.cos(angle)) * pitch)
    picture = color.astype(np.float32) * (0.82 + 0.05 * furrows + 0.4 * noise(rng, shape, (16, 40), 5))[..., None]
    edges = cv2.dilate((cv2.Laplacian(label.astype(np.float32), cv2.CV_32F) != 0).astype(np.float32), np.ones((3, 3)))
    picture = blend(picture, (44, 74, 36), cv2.GaussianBlur(edges, (0, 0), 1.0))
    for _ in range(count * 6):
        x, y, radius = rng.integers(width_px), rng.integers(height_px), rng.uniform(1.5, 4.5)
        tone = rng.uniform(0.6, 1.2)
        cv2.circle(picture, (int(x + 2), int(y + 2)), int(radius), (30, 44, 28), -1, cv2.LINE_AA)
        cv2.circle(picture, (int(x), int(y)), int(radius), (40 * tone, 84 * tone, 34 * tone), -1, cv2.LINE_AA)
    course = np.abs(noise(rng, shape, (2, 3), 3) - 0.5)
    picture = blend(picture, (196, 184, 138), smooth_step(-course, -0.042, -0.03))
    ripples = (0.75 + 0.5 * noise(rng, shape, (60, 100), 4))[..., None]
    picture = blend(picture, np.asarray((44, 92, 120), np.float32) * ripples, smooth_step(-course, -0.03, -0.022))
    return (Layer(to_pixels(picture)),)
