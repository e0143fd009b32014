"""Camera paths as text and as Plücker maps: identities of rigid motion, and a plain loop beside the fast one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.conditions.camera_path import (
    ANGLE_RAD,
    FIRST_LINE,
    FOCAL_X,
    FOCAL_Y,
    PRESETS,
    SHIFT,
    CameraPath,
    path_text,
    preset_path,
    read_path,
    rotation,
)
from models.conditions.inpaint import resize_mask
from models.conditions.plucker import FACTOR, camera_channels, plucker_maps
from models.errors import ModelError

torch.set_num_threads(1)
LENS = [FOCAL_X, FOCAL_Y, 0.5, 0.5]
angles = st.floats(-3, 3)
shifts = st.tuples(*[st.floats(-5, 5)] * 3)


def path_of(poses: list[np.ndarray]) -> CameraPath:
    return CameraPath(np.arange(len(poses)) / 8, np.tile(LENS, (len(poses), 1)), np.array(poses))


def pose(turn: np.ndarray, shift: tuple[float, float, float]) -> np.ndarray:
    return np.concatenate([turn, np.array(shift)[:, None]], axis=1)


def plain_loop(path: CameraPath, height: int, width: int) -> np.ndarray:
    """Plücker maps by the definition, ray for ray."""
    first = np.vstack([path.poses[0], [0, 0, 0, 1]])
    maps = np.zeros((len(path), height, width, 6))
    for t, (lens, matrix) in enumerate(zip(path.intrinsics, path.poses, strict=True)):
        fx, fy, cx, cy = lens
        if width / height < 1280 / 720:
            fx = height * (1280 / 720) * fx / width
        else:
            fy = width / (1280 / 720) * fy / height
        to_world = np.linalg.inv(np.vstack([matrix, [0, 0, 0, 1]]) @ np.linalg.inv(first))
        for j in range(height):
            for i in range(width):
                ray = np.array([(i + 0.5 - cx * width) / (fx * width), (j + 0.5 - cy * height) / (fy * height), 1.0])
                ray = to_world[:3, :3] @ (ray / np.linalg.norm(ray))
                maps[t, j, i] = [*np.cross(to_world[:3, 3], ray), *ray]
    return maps


@settings(max_examples=15, deadline=None)
@given(angles, angles, angles, shifts, st.sampled_from([(3, 4), (6, 2), (2, 2)]))
def test_maps_equal_a_plain_loop(x: float, y: float, z: float, shift: tuple, size: tuple[int, int]) -> None:
    path = path_of([pose(rotation(z, x, y), shift[::-1]), pose(rotation(x, y, z), shift), pose(np.eye(3), shift)])
    np.testing.assert_allclose(plucker_maps(path, *size), plain_loop(path, *size), atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(angles, angles, angles, shifts)
def test_rays_are_lines_of_unit_direction_and_the_first_camera_is_the_world(
    x: float, y: float, z: float, shift: tuple
) -> None:
    maps = plucker_maps(path_of([pose(rotation(x, y, z), shift), pose(rotation(z, y, x), shift)]), 4, 6)
    moment, direction = maps[..., :3], maps[..., 3:]
    np.testing.assert_allclose(np.linalg.norm(direction, axis=-1), 1, atol=1e-9)
    np.testing.assert_allclose((moment * direction).sum(-1), 0, atol=1e-8)
    assert np.abs(moment[0]).max() < 1e-8, "the first camera stands at the origin"
    at_rest = plucker_maps(path_of([pose(np.eye(3), (0, 0, 0))]), 4, 6)
    np.testing.assert_allclose(maps[0], at_rest[0], atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(angles, shifts, shifts)
def test_a_world_that_is_moved_as_a_whole_gives_the_same_maps(angle: float, shift: tuple, other: tuple) -> None:
    poses = [pose(rotation(0.1 * i, 0.2 * i, 0), (0.3 * i, *shift[1:])) for i in range(3)]
    world = np.vstack([pose(rotation(angle, 1 - angle, angle), other), [0, 0, 0, 1]])
    moved = [(np.vstack([one, [0, 0, 0, 1]]) @ world)[:3] for one in poses]
    np.testing.assert_allclose(
        plucker_maps(path_of(poses), 3, 4), plucker_maps(path_of(moved), 3, 4), atol=1e-6
    )  # fmt: skip


def test_a_camera_that_turns_keeps_its_place_and_one_that_moves_keeps_its_directions() -> None:
    still = pose(np.eye(3), (0, 0, 0))
    turned = plucker_maps(path_of([still, pose(rotation(0, 0, np.pi / 2), (0, 0, 0))]), 4, 4)
    assert np.abs(turned[1, ..., :3]).max() < 1e-12
    # world-to-camera turns by 90 degrees about z, so rays turn back: (x, y) becomes (y, -x)
    np.testing.assert_allclose(turned[1, ..., 3], turned[0, ..., 4], atol=1e-12)
    np.testing.assert_allclose(turned[1, ..., 4], -turned[0, ..., 3], atol=1e-12)
    moved = plucker_maps(path_of([still, pose(np.eye(3), (-2.0, 0, 0))]), 4, 4)
    np.testing.assert_allclose(moved[1, ..., 3:], moved[0, ..., 3:], atol=1e-12)
    np.testing.assert_allclose(moved[1, ..., :3], np.cross([2.0, 0, 0], moved[0, ..., 3:]), atol=1e-12)


@pytest.mark.parametrize("size", [(3, 5), (5, 3), (9, 16)])
def test_a_picture_of_another_aspect_is_cut_from_the_middle_of_the_source(size: tuple[int, int]) -> None:
    """Where a picture is narrower or lower than the source, its pixels have the rays that they have there."""
    whole_px, (height, width) = 72, size
    scale = max(whole_px * 16 / 9 / 160, 1)
    found = plucker_maps(path_of([pose(np.eye(3), (0, 0, 0))]), height * 8, width * 8)[0, ..., 3:]
    slope = found[..., :2] / found[..., 2:]
    cover = max(height * 8, width * 8 / (1280 / 720))  # height of a source that covers the picture
    step_y = slope[1, 0, 1] - slope[0, 0, 1]
    step_x = slope[0, 1, 0] - slope[0, 0, 0]
    assert step_y == pytest.approx(1 / (FOCAL_Y * cover)) and step_x == pytest.approx(1 / (FOCAL_X * cover * 16 / 9))
    assert scale >= 1 and np.abs(slope.mean(axis=(0, 1))).max() < 1e-9


def test_the_network_sees_maps_of_latent_size_times_the_published_factor() -> None:
    path = preset_path("pan_left", 9)
    seen = camera_channels(path, 32, 48, (3, 4, 6))
    assert seen.shape == (1, 6, 3, 4, 6) and FACTOR == 6.0
    maps = torch.from_numpy(plucker_maps(path, 32, 48)).float().permute(3, 0, 1, 2)[None]
    assert torch.equal(seen, FACTOR * resize_mask(maps, (3, 4, 6)))
    first = torch.nn.functional.interpolate(maps[:, :, 0], (4, 6), mode="bilinear", align_corners=False)
    torch.testing.assert_close(seen[:, :, 0] / FACTOR, first)


def test_presets_begin_at_rest_and_go_where_they_say() -> None:
    for name, move in PRESETS.items():
        path = preset_path(name, 8, speed=2.0)
        np.testing.assert_array_equal(path.poses[0], np.eye(3, 4))
        np.testing.assert_allclose(path.poses[4, :, 3], SHIFT * np.array(move.shift))  # half of twice
        turns = path.poses[:, :, :3]
        np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.tile(np.eye(3), (8, 1, 1)), atol=1e-12)
    half = preset_path("roll_left", 2).poses[1]
    np.testing.assert_allclose(half[:, :3], rotation(0, 0, ANGLE_RAD / 2))
    # A point ahead: the camera that pans to the left sees it move to the right, one that zooms in nears it.
    point = np.array([0.2, 0.1, 5.0, 1.0])
    seen = {name: preset_path(name, 2).poses[1] @ point for name in PRESETS}
    assert seen["pan_left"][0] > 0.2 > seen["pan_right"][0] and seen["pan_up"][1] > 0.1 > seen["pan_down"][1]
    assert seen["zoom_in"][2] < 5 < seen["zoom_out"][2]
    with pytest.raises(ModelError, match="camera 'pan_lft': neither a file nor one of static, pan_left"):
        preset_path("pan_lft", 9)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(angles, angles, angles, shifts), min_size=1, max_size=5))
def test_a_path_comes_back_from_its_file(poses: list[tuple]) -> None:
    path = path_of([pose(rotation(x, y, z), shift) for x, y, z, shift in poses])
    text = path_text(path)
    back = read_path(text, "path.txt")
    assert text.splitlines()[0] == FIRST_LINE
    np.testing.assert_allclose(back.poses, path.poses, atol=1e-8)
    np.testing.assert_allclose(back.intrinsics, path.intrinsics, rtol=1e-8)
    np.testing.assert_allclose(back.times_s, path.times_s, atol=1e-6)
    assert path_text(back) == text


GOOD = "0 0.5 0.9 0.5 0.5 0 0 1 0 0 0 0 1 0 0 0 0 1 0"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no pose; after a first line each frame has a line of 19 numbers"),
        ("title\n", "no pose"),
        (f"title\n{GOOD}\n{GOOD.replace('0.9', 'wide')}", r"path.txt:3, column 7: 'wide' is no number"),
        (f"title\n{GOOD} 7", "path.txt:2, column 48: 20 numbers, not 19"),
        (f"title\n{GOOD[:-2]}", "path.txt:2, column 44: 18 numbers, not 19"),
        (f"title\n{GOOD.replace('0.5 0.9', '0 0.9')}", "path.txt:2: focal lengths 0 and 0.9 must be above 0"),
        (f"title\n{GOOD.replace('1 0 0 0 0 1', '3 0 0 0 0 1')}", "pose 1 of 1 is no rotation with a shift"),
        (f"title\n{GOOD.replace('1 0 0 0 0 1 0 0 0 0 1', '0 0 1 0 0 1 0 0 1 0 0')}", "is no rotation"),  # a mirror
        (f"title\n{GOOD.replace('1 0', 'inf 0')}", "'inf' is no number"),
    ],
)
def test_a_file_that_does_not_parse_says_where(text: str, expected: str) -> None:
    with pytest.raises(ModelError, match=expected):
        read_path(text, "path.txt")


def test_a_path_is_spread_over_another_number_of_frames() -> None:
    path = preset_path("zoom_in", 8)
    np.testing.assert_array_equal(path.spread(8).poses, path.poses)
    np.testing.assert_array_equal(path.spread(4).poses, path.poses[1::2])
    assert len(path.spread(21)) == 21 and np.array_equal(path.spread(16).poses[::2], path.poses)
