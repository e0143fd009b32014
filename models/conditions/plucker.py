"""A camera's path as Plücker maps: for each pixel the moment and the direction of its ray (CameraCtrl, 2404.02101)."""

import numpy as np
import torch

from models.conditions.camera_path import POSE_RATIO, CameraPath
from models.conditions.inpaint import resize_mask

FACTOR = 6.0
"""what V5.1 multiplies the maps by, once they have the size of latents"""


def plucker_maps(path: CameraPath, height_px: int, width_px: int) -> np.ndarray:
    """Return the ray of each pixel: float64 (T, H, W, 6), its moment o x d and its direction d.

    Poses are taken relative to the first, whose camera is the world. The picture is cut from the middle of a source of
    1280 x 720, as far as its aspect differs.
    """
    fx, fy, cx, cy = _focal_px(path.intrinsics, height_px, width_px).T[:, :, None, None]
    y, x = np.mgrid[:height_px, :width_px] + 0.5
    direction = np.stack(np.broadcast_arrays((x - cx) / fx, (y - cy) / fy, 1.0), axis=-1)
    direction = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    to_world = np.linalg.inv(relative(path))
    direction = np.einsum("tij,thwj->thwi", to_world[:, :3, :3], direction)
    origin = np.broadcast_to(to_world[:, None, None, :3, 3], direction.shape)
    return np.concatenate([np.cross(origin, direction, axis=-1), direction], axis=-1)


def relative(path: CameraPath) -> np.ndarray:
    """Return world-to-camera matrices, float64 (T, 4, 4), of a world that is the first frame's camera."""
    whole = np.tile(np.eye(4), (len(path), 1, 1))
    whole[:, :3] = path.poses
    return np.asarray(whole @ np.linalg.inv(whole[0]))


def camera_channels(path: CameraPath, height_px: int, width_px: int, size: tuple[int, int, int]) -> torch.Tensor:
    """Return what the network sees of a path: (1, 6, f, h, w), float32.

    Args:
        path: a pose for each frame, 4n+1.
        height_px: of the video.
        width_px: of the video.
        size: frames, height and width of its latents.
    """
    maps = torch.from_numpy(plucker_maps(path, height_px, width_px)).float().permute(3, 0, 1, 2)[None]
    return resize_mask(maps, size) * FACTOR


def _focal_px(intrinsics: np.ndarray, height_px: int, width_px: int) -> np.ndarray:
    """Return fx, fy, cx, cy in pixels, (T, 4), of the picture cut from its source."""
    found = intrinsics * np.array([width_px, height_px, width_px, height_px])
    if width_px / height_px < POSE_RATIO:
        found[:, 0] = intrinsics[:, 0] * height_px * POSE_RATIO
    else:
        found[:, 1] = intrinsics[:, 1] * width_px / POSE_RATIO
    return found
