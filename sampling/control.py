"""What a sample is steered by: a control map, a camera's path, points, a reference image; checked, then read."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from core.errors import UserError
from core.files import read_bounded
from core.storage.place import called
from models.conditions.camera_path import PRESETS, CameraPath, preset_path, read_path
from models.conditions.spec import ConditionSpec
from models.conditions.trajectory import Trajectory, read_trajectory
from models.geometry import Bucket
from sampling.media import Medium, look, look_at_image
from sampling.request import AS_IS, MapMaker, Request

MOST_FILE_BYTES = 64 << 20
OFF = 0.02
"""share by which a control may be shorter or longer than the video without a word"""
FINER = 4
"""maps of footage are drawn at up to so many times the video's size, as those of training clips were"""
BLANK_LEVELS = 8
"""a frame is empty whose values differ by no more"""
MUST_MOVE = frozenset({"trajectory", "camera"})


@dataclass(frozen=True)
class Steering:
    """What steers a sample, with every choice made.

    Attributes:
        medium: the map, or the footage that it is made of; or none.
        kind: which map is made of footage; `as_is`: it is a map.
        span_s: how much of it is used, from its begin; None: all.
        camera: a pose for each frame of the whole video; or none.
        trajectory: points; or none.
        reference: an image; or none.
        scale: factor on the control or the camera.
        start: share of the steps before which it does not act.
        end: share of the steps from which on it does not.
        files: all that is read, for the request's id.
        notes: what the user should know, a line each.
    """

    medium: Medium | None = None
    kind: str = AS_IS
    span_s: float | None = None
    camera: CameraPath | None = None
    trajectory: Trajectory | None = None
    reference: Medium | None = None
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def media(self) -> list[Medium]:
        """What has a size, which the video takes where none is asked for."""
        return [medium for medium in (self.medium, self.reference) if medium is not None]


NOTHING = Steering()


def look_at_control(request: Request, spec: ConditionSpec, maps: Mapping[str, MapMaker]) -> Steering:
    """Look at what a request is steered by.

    Args:
        request: what was asked.
        spec: what the model sees.
        maps: what makes maps of footage, by kind.

    Raises:
        UserError: something that the model does not see, or that cannot be.
    """
    _check_numbers(request)
    pictures = [("control", request.control), ("trajectory", request.trajectory)]
    asked = [option for option, file in pictures if file is not None]
    if len(asked) > 1:
        raise UserError(
            "both take the place of the control map", field="control", value="with `trajectory`", fix="give one"
        )
    for option in asked:
        _check_seen(option, "control", spec)
    if request.camera is not None:
        _check_seen("camera", "camera", spec)
    if request.reference is not None:
        _check_seen("reference", "reference", spec)
    if request.control_kind != AS_IS and request.control is None:
        raise UserError(
            "there is no `control`",
            field="control_kind",
            value=request.control_kind,
            fix="give the footage to make it of",
        )
    if request.control_kind != AS_IS and request.control_kind not in maps:
        known = ", ".join((AS_IS, *maps))
        raise UserError("there is none", field="control_kind", value=request.control_kind, fix=f"known: {known}")
    medium = look("control", request.control) if request.control else None
    if medium and medium.file.kind == "image" and request.control_kind in MUST_MOVE:
        problem = f"an image has no {request.control_kind}"
        raise UserError(problem, field="control", value=request.control, fix="give a video")
    if request.control_kind == "camera":
        raise UserError(
            "a path is no picture", field="control_kind", value="camera", fix="give the footage as `camera`"
        )
    reference = look_at_image("reference", request.reference) if request.reference else None
    files = [file for file in (request.control, request.trajectory, request.reference) if file]
    files += [Path(request.camera)] if request.camera is not None and request.camera not in PRESETS else []
    return Steering(
        medium,
        request.control_kind,
        trajectory=_trajectory(request.trajectory) if request.trajectory else None,
        reference=reference,
        scale=request.control_scale,
        start=request.control_start,
        end=request.control_end,
        files=tuple(files),
    )


def fitted(
    steering: Steering, request: Request, num_frames: int, fps: float, size: Bucket, maps: Mapping[str, MapMaker]
) -> Steering:
    """Bring what steers a sample to its length.

    Args:
        steering: from `look_at_control`.
        request: what was asked.
        num_frames: of the whole video.
        fps: its rate.
        size: its height and width.
        maps: what makes maps of footage, by kind.

    Raises:
        UserError: a camera's path that cannot be told.
    """
    notes = list(steering.notes)
    length_s, medium, span_s = num_frames / fps, steering.medium, None
    if medium is not None and medium.file.kind == "video":
        there_s = medium.file.extent.duration_s
        if there_s >= length_s:
            span_s = length_s
        if there_s > length_s * (1 + OFF):
            notes.append(f"`control` lasts {there_s:.2f} s: its first {length_s:.2f} s are used")
        elif there_s < length_s * (1 - OFF):
            notes.append(f"`control` lasts {there_s:.2f} s: it is stretched to the video's {length_s:.2f} s")
    elif medium is not None and num_frames > 1:
        notes.append("`control` is one image: it holds for all frames")
    camera = None
    if request.camera is not None:
        camera = _camera(request, num_frames, fps, size, maps)
        if len(camera) != num_frames:
            notes.append(f"`camera` has {len(camera)} poses: they are spread over the video's {num_frames} frames")
            camera = camera.spread(num_frames)
    return replace(steering, span_s=span_s, camera=camera, notes=tuple(notes))


def read_control(
    steering: Steering, num_frames: int, fps: float, bucket: Bucket, maps: Mapping[str, MapMaker]
) -> np.ndarray | None:
    """Return the control map of the whole video: uint8 (T, H, W, 3); None where there is none.

    A map of footage is drawn at up to `FINER` times the video's size and then brought to it, as those that models are
    trained on are drawn at the size of the clips.

    Raises:
        UserError: it cannot be read.
    """
    height, width = bucket.height_px, bucket.width_px
    if steering.trajectory is not None:
        return np.repeat(steering.trajectory.maps(num_frames, height, width)[..., None], 3, axis=3)
    medium = steering.medium
    if medium is None:
        return None
    finer = 1
    if steering.kind != AS_IS:
        finer = max(1, min(FINER, medium.width_px // width, medium.height_px // height))
    count = 1 if medium.file.kind == "image" else num_frames
    pixels = medium.read(
        replace(bucket, num_frames=count, height_px=finer * height, width_px=finer * width), steering.span_s
    )
    if steering.kind != AS_IS:
        made = maps[steering.kind](pixels, fps)[0]
        assert made is not None, "kinds that are texts have been refused"
        pixels = made
    if finer > 1:
        pixels = np.stack([cv2.resize(one, (width, height), interpolation=cv2.INTER_AREA) for one in pixels])
    return np.repeat(pixels, num_frames, axis=0) if len(pixels) == 1 else pixels


def empty_share(pixels: np.ndarray) -> float:
    """Return the share of a map's frames, uint8 (T, H, W, 3), in which there is nothing."""
    flat = pixels.reshape(len(pixels), -1)
    return float(np.mean(flat.max(axis=1).astype(int) - flat.min(axis=1) <= BLANK_LEVELS))


def _check_numbers(request: Request) -> None:
    if not math.isfinite(request.control_scale):
        fix = "1 is as trained, 0 is without"
        raise UserError("must be a number", field="control_scale", value=request.control_scale, fix=fix)
    if not 0 <= request.control_start <= request.control_end <= 1:
        raise UserError(
            "are shares of steps, from 0 to 1, the start first",
            field="control_start",
            value=f"{request.control_start:g}, `control_end` {request.control_end:g}",
        )
    if not math.isfinite(request.camera_speed):
        raise UserError("must be a number", field="camera_speed", value=request.camera_speed, fix="1 is as published")


def _check_seen(field: str, part: str, spec: ConditionSpec) -> None:
    if part in spec:
        return
    needs = {
        "control": "a control model (16 + 16 channels, or with a reference 16 + 16 + 16)",
        "camera": "a camera model (16 + 6 + 16 channels)",
        "reference": "a control or camera model of V5.1",
    }
    problem = f"this model ({spec.name}) has no channels to see it by"
    raise UserError(problem, field=field, fix=f"take {needs[part]}")


def _read_text(field: str, file: Path) -> str:
    try:
        return read_bounded(file, MOST_FILE_BYTES).decode("utf-8")
    except (OSError, ValueError) as error:
        problem = f"cannot be read as text ({' '.join(str(error).split())})"
        raise UserError(problem, field=field, value=file) from None


def _trajectory(file: Path) -> Trajectory:
    return read_trajectory(_read_text("trajectory", file), f"trajectory {file}")


def _camera(request: Request, num_frames: int, fps: float, size: Bucket, maps: Mapping[str, MapMaker]) -> CameraPath:
    assert request.camera is not None
    if request.camera in PRESETS:
        return preset_path(request.camera, num_frames, request.camera_speed, fps)
    file = Path(request.camera)
    if not file.is_file():
        raise UserError(f"neither a file nor one of {', '.join(PRESETS)}", field="camera", value=file)
    if file.suffix.lower() == ".txt":
        return _faster(read_path(_read_text("camera", file), f"camera {file}"), request.camera_speed)
    medium = look("camera", file)
    if medium.file.kind == "image" or "camera" not in maps:
        problem = f"give a path (.txt), a video that shows one, or one of {', '.join(PRESETS)}"
        raise UserError(problem, field="camera", value=file)
    there = medium.file.extent.num_frames or num_frames
    looked = replace(size, num_frames=size.grid.nearest_frames(max(num_frames, min(there, 4 * num_frames)))[0])
    frames = medium.read(looked)
    text = maps["camera"](frames, len(frames) / (medium.file.extent.duration_s or 1.0))[1]
    if text is None:
        raise UserError(
            "its movement is not that of one camera",
            field="camera",
            value=file,
            fix="give a path (.txt) or other footage",
        )
    return _faster(read_path(text, f"camera {file}"), request.camera_speed).spread(num_frames)


def _faster(path: CameraPath, speed: float) -> CameraPath:
    """Return a path whose camera goes so many times as far from where it began, turning as it did."""
    if speed == 1:
        return path
    poses = path.poses.copy()
    poses[:, :, 3] = poses[0, :, 3] + speed * (poses[:, :, 3] - poses[0, :, 3])
    return replace(path, poses=poses)


def control_settings(request: Request) -> dict[str, object]:
    """Return what a sample was steered by, as it is written beside the file; nothing where nothing was asked for."""
    found: dict[str, object] = {}
    if request.control is not None:
        found |= {"control": called(request.control), "control_kind": request.control_kind}
    if request.trajectory is not None:
        found["trajectory"] = called(request.trajectory)
    if request.camera is not None:
        found |= {"camera": _camera_name(request.camera), "camera_speed": request.camera_speed}
    if request.reference is not None:
        found["reference"] = called(request.reference)
    if found:
        found |= {"control_scale": request.control_scale, "control_start": request.control_start}
        found["control_end"] = request.control_end
    return found


def _camera_name(camera: str) -> str:
    name = called(Path(camera))
    return camera if camera in PRESETS or name == str(Path(camera)) else name


def notes_of(steering: Steering, pixels: np.ndarray | None) -> Sequence[str]:
    """Return what the user should know, once the map is read."""
    share = 0.0 if pixels is None else empty_share(pixels)
    warning = (f"the control map is empty in {share:.0%} of its frames, which steer nothing",) if share else ()
    return (*steering.notes, *warning)
