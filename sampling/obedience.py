"""How well a sample obeys what it was steered by: the map made of the sample beside the map that was asked for."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from core.errors import UserError
from media.point_tracking import track_both_ways
from models.conditions.camera_path import FOCAL_Y, CameraPath, read_path
from models.conditions.plucker import relative
from models.conditions.spec import ConditionSpec
from models.denoise.long_video import length_of
from models.errors import ModelError
from models.geometry import Bucket
from sampling.control import FINER, Steering, fitted, look_at_control, read_control
from sampling.joints import pose_scores
from sampling.media import ANY_SIZE, look
from sampling.obeyed import Obedience
from sampling.request import AS_IS, MapMaker, Request
from sampling.settings_file import settings_of

EDGES = frozenset({"canny", "lines", "soft_edges", "hed", "mlsd"})
WITHIN_PX = 2
"""how far from where it was asked for an edge may lie, at a short side of `AT_SHORT_SIDE_PX` or less"""
AT_SHORT_SIDE_PX = 320
EDGE_LEVEL = 64
"""from which on a pixel of a map is an edge"""
WINDOW_PX, HALVINGS, MOST_BACK_PX = 21, 3, 1.0
ANY = ConditionSpec("any", ("control", "camera", "reference"))


def measure(sample: Path, maps: Mapping[str, MapMaker]) -> Obedience | None:
    """Measure a sample by the settings that lie beside it; None where it was not steered.

    Args:
        sample: a video or picture that the sampler wrote.
        maps: what makes maps of footage, by kind.
    """
    settings = settings_of(sample)
    if not any(name in settings for name in ("control", "camera", "trajectory")):
        return None
    try:
        request = _request(settings)
        steering = look_at_control(request, ANY, maps)
        medium = look("sample", sample)
        count = 1 if medium.file.kind == "image" else medium.file.extent.num_frames or 1
        bucket = Bucket(count, medium.height_px, medium.width_px, ANY_SIZE)
        whole, fps = max(count, _whole_frames(settings, count)), float(settings.get("fps") or 8.0)
        steering = fitted(steering, request, whole, fps, bucket, maps)
        frames = medium.read(bucket)
        if steering.camera is not None:
            return _of_camera(frames, fps, steering.camera.taken(np.arange(count)), maps)
        if steering.trajectory is not None:
            places = steering.trajectory.places(whole, medium.width_px, medium.height_px)[:, :count]
            return Obedience({"control_trajectory_px": trajectory_error_px(frames, places)})
        kind = _kind(steering)
        if kind not in maps:
            return Obedience({}, f"which map {request.control} is cannot be told from its folder")
        asked = read_control(steering, whole, fps, _read_at(bucket, steering, kind), maps)
        return _of_map(frames, fps, asked, kind, maps)
    except (UserError, ModelError, TypeError, ValueError) as error:  # files that have gone, settings that were changed
        return Obedience({}, " ".join(str(error).split()))


def _request(settings: Mapping[str, Any]) -> Request:
    """Return what was asked of the control, as far as the settings say it."""

    def path(name: str) -> Path | None:
        return Path(str(settings[name])) if settings.get(name) else None

    return Request(
        "",
        control=path("control"),
        control_kind=str(settings.get("control_kind", AS_IS)),
        trajectory=path("trajectory"),
        camera=str(settings["camera"]) if settings.get("camera") else None,
        camera_speed=float(settings.get("camera_speed", 1.0)),
    )


def _whole_frames(settings: Mapping[str, Any], count: int) -> int:
    """Return the frames of all segments together, over which the control was spread."""
    segments, overlap = int(settings.get("segments", 1)), int(settings.get("overlap", 0))
    one = int(settings.get("segment_frames", count))
    return length_of(segments, one, overlap) if segments > 1 else count


def _read_at(bucket: Bucket, steering: Steering, kind: str) -> Bucket:
    """Return the size to read the asked map at: that of a pose map is its own, at which its joints can be told."""
    medium = steering.medium
    if kind != "pose" or steering.kind != AS_IS or medium is None:
        return bucket
    finer = max(1, min(FINER, medium.width_px // bucket.width_px, medium.height_px // bucket.height_px))
    return replace(bucket, height_px=finer * bucket.height_px, width_px=finer * bucket.width_px)


def _kind(steering: Steering) -> str:
    """Return which map the control is: what it was made as, else as its folder is called."""
    if steering.kind != AS_IS or steering.medium is None:
        return steering.kind
    return steering.medium.file.path.resolve().parent.name


def _of_map(
    frames: np.ndarray, fps: float, asked: np.ndarray | None, kind: str, maps: Mapping[str, MapMaker]
) -> Obedience:
    made = maps[kind](frames, fps)[0]
    if made is None or asked is None:
        return Obedience({}, f"a map of kind {kind} is no picture")
    asked = asked[: len(made)]
    if kind == "pose":
        return Obedience(pose_scores(made, asked))
    made, asked = made.mean(axis=3), asked.mean(axis=3)
    scores: dict[str, float | None] = {"control_correlation": correlation(made, asked)}
    if kind in EDGES:
        scores["control_edges_f1"] = edges_f1(made >= EDGE_LEVEL, asked >= EDGE_LEVEL)
    return Obedience(scores)


def edges_f1(made: np.ndarray, asked: np.ndarray) -> float | None:
    """Return the F1 of edges of all frames; None where neither has any.

    Args:
        made: bool (T, H, W).
        asked: likewise.
    """
    within = max(1, round(WITHIN_PX * max(1.0, min(made.shape[1:]) / AT_SHORT_SIDE_PX)))
    near = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * within + 1, 2 * within + 1))
    right = found = 0
    for one, other in zip(made, asked, strict=True):
        right += int((one & (cv2.dilate(other.astype(np.uint8), near) > 0)).sum())
        found += int((other & (cv2.dilate(one.astype(np.uint8), near) > 0)).sum())
    drawn, wanted = int(made.sum()), int(asked.sum())
    if not drawn and not wanted:
        return None
    precision, recall = right / max(1, drawn), found / max(1, wanted)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def correlation(made: np.ndarray, asked: np.ndarray) -> float | None:
    """Return the mean over frames (T, H, W) of Pearson's correlation; frames that are flat in one of them are 0.

    None where the asked map is flat throughout.
    """
    found = []
    for one, other in zip(made.reshape(len(made), -1), asked.reshape(len(asked), -1), strict=True):
        spread = float(one.std() * other.std())
        if other.std() > 0:
            found.append(float(((one - one.mean()) * (other - other.mean())).mean()) / spread if spread else 0.0)
    return float(np.mean(found)) if found else None


def trajectory_error_px(frames: np.ndarray, places: np.ndarray) -> float | None:
    """Follow what is at the asked points in the first frame, and return how far from the asked paths it goes.

    Args:
        frames: uint8 (T, H, W, 3).
        places: (paths, T, 2), px.

    Returns:
        The mean distance over frames and points that can be followed; None where none can be.
    """
    grays = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    height, width = grays[0].shape
    inside = ((places[:, 0] >= 0) & (places[:, 0] < (width, height))).all(axis=1)
    asked, at = places[inside], places[inside, 0].astype(np.float32)
    errors: list[float] = []
    for t in range(1, len(grays)):
        if not len(at):
            break
        there, off, is_found = track_both_ways(grays[t - 1], grays[t], at, WINDOW_PX, HALVINGS)
        is_same = is_found & (np.hypot(*off.T) <= MOST_BACK_PX)
        at, asked = there[is_same], asked[is_same]
        errors += np.hypot(*(at - asked[:, t]).T).tolist()
    return float(np.mean(errors)) if errors else None


def _of_camera(frames: np.ndarray, fps: float, asked: CameraPath, maps: Mapping[str, MapMaker]) -> Obedience:
    text = maps["camera"](frames, fps)[1]
    if text is None:
        return Obedience({"control_camera_error": None})
    return Obedience({"control_camera_error": camera_error(read_path(text, "sample"), asked)})


def camera_error(made: CameraPath, asked: CameraPath) -> float | None:
    """Return how far points at distance 1 are seen from where they were asked to be, as a share of their way.

    Only one scale fits all of the scene's unknown depth: the made path is compared at the one that suits it best.

    Returns:
        0 for the same path, 1 for a camera at rest; None where the asked camera rests.
    """
    wanted, found = _seen(asked), _seen(made)
    moved = float(np.square(wanted).sum())
    if moved < 1e-9:
        return None
    depth = max(0.0, float((wanted * found).sum()) / max(1e-12, float(np.square(found).sum())))
    return float(np.sqrt(np.square(depth * found - wanted).sum() / moved))


def _seen(path: CameraPath) -> np.ndarray:
    """Return how far points of a plane at distance 1 are seen from where they began: (T, points, 2), focal lengths."""
    x, y = np.meshgrid(np.linspace(-0.5, 0.5, 5) / FOCAL_Y, np.linspace(-0.5, 0.5, 5) / FOCAL_Y)
    points = np.stack([x.ravel(), y.ravel(), np.ones(x.size), np.ones(x.size)])
    camera = relative(path) @ points
    ahead = np.maximum(camera[:, 2:3], 0.05)
    return np.asarray((camera[:, :2] / ahead - points[None, :2]).transpose(0, 2, 1))
