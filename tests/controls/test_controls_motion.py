"""Paths of points and of the camera, on drawn movements that are known."""

import io
import math

import cv2
import numpy as np
import pytest

from controls.camera import Camera
from controls.tracking import corners, follow
from controls.trajectory import Trajectory
from curation.types import MapFacts
from demo.drawing import blend, noise, to_pixels
from media.frame import luma_of
from models.conditions.camera_path import FOCAL_Y, POSE_RATIO
from models.conditions.heat_map import heat_map

WIDTH, HEIGHT, FPS = 320, 240, 24.0
MIDDLE = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])


def texture(seed: int = 0, size: tuple[int, int] = (800, 1000)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return to_pixels(blend((20, 40, 60), (240, 220, 160), noise(rng, size, (20, 25), 5)))


def seen(ground: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """Return a view of the middle of a texture after a movement of the picture, (3, 3), px from its middle."""
    to_middle = np.array([[1, 0, MIDDLE[0]], [0, 1, MIDDLE[1]], [0, 0, 1.0]])
    ground_middle = np.array([[1, 0, -ground.shape[1] / 2], [0, 1, -ground.shape[0] / 2], [0, 0, 1.0]])
    return cv2.warpAffine(ground, (to_middle @ motion @ ground_middle)[:2], (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)


def similarity(scale: float = 1.0, turn_rad: float = 0.0, x_px: float = 0.0, y_px: float = 0.0) -> np.ndarray:
    cos, sin = scale * math.cos(turn_rad), scale * math.sin(turn_rad)
    return np.array([[cos, -sin, x_px], [sin, cos, y_px], [0, 0, 1.0]])


def run(control: Camera | Trajectory, pictures: list[np.ndarray]) -> tuple[list[np.ndarray], MapFacts]:
    drawer = control.start()
    drawn = [drawer.draw(luma_of(picture), i / FPS) for i, picture in enumerate(pictures)]
    return [picture for picture in drawn if picture is not None], drawer.finish()


# -- trajectories


def moving_disc(path: np.ndarray) -> list[np.ndarray]:
    """Return pictures of a textured disc on a plain ground, its middle on a path (T, 2)."""
    pictures, skin = [], texture(1, (41, 41))
    mask = cv2.circle(np.zeros((41, 41), np.float32), (20, 20), 14, 1.0, -1, cv2.LINE_AA)
    for x, y in path:
        picture = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        shift = np.array([[1, 0, x - 20], [0, 1, y - 20.0]])
        over = cv2.warpAffine(mask, shift, (WIDTH, HEIGHT))[..., None]
        body = cv2.warpAffine(skin, shift, (WIDTH, HEIGHT))
        pictures.append((picture * (1 - over) + body * over).astype(np.uint8))
    return pictures


def middle_of(heat: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[: heat.shape[0], : heat.shape[1]]
    return np.array([(x * heat).sum(), (y * heat).sum()]) / max(1.0, float(heat.sum(dtype=np.float64)))


PATHS = {
    "straight": lambda t: np.stack([60 + 180 * t, 80 + 60 * t], axis=1),
    "curved": lambda t: np.stack([160 + 80 * np.cos(3 * t), 120 + 60 * np.sin(3 * t)], axis=1),
    "at rest": lambda t: np.stack([150 + 0 * t, 110 + 0 * t], axis=1),
}


@pytest.mark.parametrize("name", PATHS)
def test_a_trajectory_follows_the_path_of_what_moves(name: str) -> None:
    path = PATHS[name](np.linspace(0, 1, 48))
    maps, facts = run(Trajectory(points=1), moving_disc(path))
    found = np.array([middle_of(heat) for heat in maps])
    off = np.hypot(*((found - found[0]) - (path - path[0])).T)
    assert off.mean() <= 2.0, off.mean()
    reach = np.hypot(*(path - path[0]).T).max() / math.hypot(WIDTH, HEIGHT)
    assert facts.amount == pytest.approx(reach, abs=0.01)


def test_points_that_are_hidden_are_let_go_and_others_take_their_place() -> None:
    path = PATHS["straight"](np.linspace(0, 1, 24))
    pictures = moving_disc(path)
    pictures[12:] = [np.full_like(pictures[0], 90)] * 12
    maps, _ = run(Trajectory(points=1), pictures)
    assert maps[10].any() and not any(heat.any() for heat in maps[13:])
    back, _ = run(Trajectory(points=1), [*pictures, *moving_disc(path[:5])])
    assert all(heat.any() for heat in back[-4:])


def test_a_followed_point_comes_back_and_a_lost_one_is_told() -> None:
    ground = texture(3)
    before, after = (luma_of(seen(ground, similarity(x_px=x))) for x in (0.0, 4.5))
    points = corners(before, 60, 0.01)
    there, is_seen = follow(before, after, points)
    assert is_seen.mean() > 0.8
    assert np.median(np.hypot(*(there - points - (4.5, 0))[is_seen].T)) < 0.2
    _, still = follow(before, luma_of(texture(9, (HEIGHT, WIDTH))), points)
    assert still.mean() < 0.2


def test_a_heat_map_is_the_published_one() -> None:
    heat = heat_map(np.array([[160.0, 120.0], [40.0, 60.0]]), (HEIGHT, WIDTH))
    radius = int(50 * math.sqrt(HEIGHT * WIDTH / (1280 * 720)))
    assert heat.max() >= 250 and heat[120, 160] >= 250 and heat[60, 40] >= 250
    ys, xs = np.nonzero(heat[:, 100:])
    assert abs((ys.max() - ys.min()) / 2 - radius) <= 1 and abs((xs.max() - xs.min()) / 2 - radius) <= 1
    # sigma is 40 of the published 100 px of radius: half a radius off the middle
    assert heat[120 + radius // 2, 160] == pytest.approx(255 * math.exp(-0.5 * (0.5 / 0.4) ** 2), abs=12)
    both = heat_map(np.array([[160.0, 120.0], [165.0, 120.0]]), (HEIGHT, WIDTH))
    one, other = (heat_map(np.array([[x, 120.0]]), (HEIGHT, WIDTH)) for x in (160.0, 165.0))
    assert np.array_equal(both, np.maximum(one, other))
    assert heat_map(np.array([[2.0, 120.0]]), (HEIGHT, WIDTH))[:, :20].any(), "squeezed, not lost, at an edge"
    assert not heat_map(np.zeros((0, 2)), (HEIGHT, WIDTH)).any()


# -- the camera


def read_path(text: str) -> np.ndarray:
    """Read a file as CameraCtrl does: the first line is passed over; return poses (T, 3, 4)."""
    rows = np.loadtxt(io.StringIO(text), skiprows=1, ndmin=2)
    assert rows.shape[1] == 19 and (rows[:, 5:7] == 0).all() and (rows[:, 3:5] == 0.5).all()
    assert rows[0, 1:3] == pytest.approx((0.474812461, 0.844111024))
    return rows[:, 7:].reshape(-1, 3, 4)


MOVES = {
    "pan": lambda i: similarity(x_px=-1.7 * i, y_px=0.6 * i),
    "zoom in": lambda i: similarity(scale=1.008**i),
    "zoom out": lambda i: similarity(scale=0.994**i),
    "roll": lambda i: similarity(turn_rad=math.radians(0.5) * i),
    "all": lambda i: similarity(1.004**i, math.radians(0.3) * i, 0.8 * i, -0.5 * i),
}


@pytest.mark.parametrize("name", MOVES)
def test_the_path_of_a_known_camera_is_found_within_5_percent(name: str) -> None:
    motions = [MOVES[name](i) for i in range(49)]
    ground = texture(5)
    _, facts = run(Camera(), [seen(ground, motion) for motion in motions])
    assert facts.amount == 1.0 and facts.text is not None
    found = read_path(facts.text)
    assert len(found) == 49 and found[0] == pytest.approx(np.eye(3, 4), abs=1e-9)
    # The truth, by projecting: a point of the plane at distance 1 must be seen where the drawn picture has it.
    focal_px = FOCAL_Y * max(HEIGHT, WIDTH / POSE_RATIO)
    places = np.array([[x, y, 1.0] for x in (-100, 0, 100) for y in (-80, 0, 80)]).T
    for motion, pose in zip(motions[8:], found[8:], strict=True):
        camera = pose @ np.vstack([places[:2] / focal_px, np.ones((2, places.shape[1]))])
        shown, wanted = focal_px * camera[:2] / camera[2], (motion @ places)[:2]
        moved = np.hypot(*(wanted - places[:2])).mean()
        assert np.hypot(*(shown - wanted)).mean() <= 0.05 * moved
    rotations = found[:, :, :3]
    assert np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)).max() < 1e-6


def test_a_camera_at_rest_has_a_path_that_stays_where_it_is() -> None:
    _, facts = run(Camera(), [seen(texture(5), similarity())] * 25)
    assert facts.text is not None and np.abs(read_path(facts.text) - np.eye(3, 4)).max() < 1e-3


def test_a_foreground_that_moves_by_itself_and_fills_the_picture_has_no_path() -> None:
    rng = np.random.default_rng(2)
    skins = [texture(seed, (80, 80)) for seed in range(8)]
    places, speeds = rng.uniform(0, 1, (60, 2)) * (WIDTH, HEIGHT), rng.normal(0, 2.5, (60, 2))
    pictures = []
    for i in range(36):
        picture = seen(texture(5), similarity())
        for number, (x, y) in enumerate(places + speeds * i):
            x, y = round(x % (WIDTH + 80) - 40), round(y % (HEIGHT + 80) - 40)
            left, top, right, bottom = max(0, x), max(0, y), min(WIDTH, x + 60), min(HEIGHT, y + 60)
            if right > left and bottom > top:
                picture[top:bottom, left:right] = skins[number % 8][top - y : bottom - y, left - x : right - x]
        pictures.append(picture)
    _, facts = run(Camera(), pictures)
    assert facts.text is None and facts.amount < 0.5


def test_a_camera_sees_past_something_small_that_moves() -> None:
    ground, pictures = texture(5), []
    for i in range(25):
        picture = seen(ground, similarity(x_px=-1.5 * i))
        picture[90:150, 40 + 6 * i : 100 + 6 * i] = texture(1, (60, 60))[:, : max(0, min(60, WIDTH - 40 - 6 * i))]
        pictures.append(picture)
    _, facts = run(Camera(), pictures)
    assert facts.text is not None
    focal_px = FOCAL_Y * max(HEIGHT, WIDTH / POSE_RATIO)
    assert read_path(facts.text)[-1, 0, 3] == pytest.approx(-1.5 * 24 / focal_px, rel=0.05)


def test_a_plain_picture_and_a_single_frame_have_no_path() -> None:
    assert run(Camera(), [np.full((HEIGHT, WIDTH, 3), 90, np.uint8)] * 12)[1] == MapFacts(0.0, None)
    assert run(Camera(), [seen(texture(5), similarity())])[1] == MapFacts(0.0, None)
