"""How well a sample obeys its control: on drawn videos for which the answer is known."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipelines import moving
from runs import rows_of

import run_pipeline
from controls import CONTROLS
from controls.frames import map_makers
from controls.people import People
from controls.skeletons import bodies_of, draw_people
from demo.drawing import blend, noise, to_pixels
from models.conditions.camera_path import path_text, preset_path
from sampling.joints import READ, joints_in, pose_scores
from sampling.obedience import camera_error, correlation, edges_f1, measure, trajectory_error_px
from sampling.pictures import write_mp4

MAPS = map_makers(CONTROLS)
FPS = 8.0


def boxes(left: int, count: int = 9, size: int = 96) -> np.ndarray:
    """Return uint8 (T, H, W, 3): a bright box whose left side is here, moving to the right by 1 px a frame."""
    frames = np.full((count, size, size, 3), 30, np.uint8)
    for t in range(count):
        frames[t, 30:60, left + t : left + t + 30] = 220
    return frames


def sample(path: Path, frames: np.ndarray, **asked: object) -> Path:
    """Write a sample with the settings that say what it was steered by."""
    write_mp4(frames, FPS, path, crf=4)
    path.with_suffix(".json").write_text(json.dumps({"prompt": "a box", "fps": FPS, **asked}))
    return path


def scores(path: Path) -> dict[str, float | None]:
    found = measure(path, MAPS)
    assert found is not None and found.why_not is None, found
    return dict(found.scores)


def test_edges_where_they_were_asked_for_score_1_and_elsewhere_less(tmp_path: Path) -> None:
    write_mp4(boxes(20), FPS, tmp_path / "asked.mp4", crf=4)
    asked = {"control": str(tmp_path / "asked.mp4"), "control_kind": "canny"}
    found = {
        name: scores(sample(tmp_path / f"{name}.mp4", frames, **asked))["control_edges_f1"]
        for name, frames in {"same": boxes(20), "near": boxes(22), "far": boxes(40), "none": 0 * boxes(0)}.items()
    }
    assert found["same"] == 1.0 and found["none"] == 0.0
    assert found["near"] is not None and found["far"] is not None
    assert found["near"] >= 0.95 and found["far"] <= 0.75  # what lies along the way is shared
    other = {"control": str(tmp_path / "asked.mp4"), "control_kind": "gray"}
    gray = [scores(sample(tmp_path / "gray.mp4", f, **other))["control_correlation"] for f in (boxes(20), boxes(50))]
    assert gray[0] is not None and gray[1] is not None and gray[0] > 0.99 > 0.2 > gray[1]


def test_a_map_of_an_output_is_known_by_its_folder_and_another_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "control" / "canny"
    folder.mkdir(parents=True)
    drawn = MAPS["canny"](boxes(20), FPS)[0]
    assert drawn is not None
    write_mp4(drawn, FPS, folder / "a.mp4", crf=4)
    made = sample(tmp_path / "made.mp4", boxes(20), control=str(folder / "a.mp4"), control_kind="as_is")
    assert scores(made)["control_edges_f1"] == pytest.approx(1.0, abs=0.02)
    (folder / "a.mp4").rename(tmp_path / "a.mp4")
    made = sample(tmp_path / "made.mp4", boxes(20), control=str(tmp_path / "a.mp4"), control_kind="as_is")
    unknown = measure(made, MAPS)
    assert unknown is not None and unknown.why_not is not None and "cannot be told from its folder" in unknown.why_not
    gone = measure(sample(tmp_path / "made.mp4", boxes(20), control="gone.mp4", control_kind="canny"), MAPS)
    assert gone is not None and "no such file" in str(gone.why_not)
    assert measure(sample(tmp_path / "made.mp4", boxes(20)), MAPS) is None


def texture(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return to_pixels(blend((20, 40, 60), (240, 220, 160), noise(rng, (400, 400), (20, 20), 5)))


def pan(step_x: float, count: int = 17) -> np.ndarray:
    """Return frames of a ground that moves by so many px to the right each."""
    shift = [np.array([[1, 0, step_x * t - 100], [0, 1, -100.0]]) for t in range(count)]
    return np.stack([cv2.warpAffine(texture(), one, (160, 96)) for one in shift])


def test_a_camera_that_goes_as_asked_has_a_small_error(tmp_path: Path) -> None:
    right = sample(tmp_path / "a.mp4", pan(2.0), camera="pan_left")  # a camera that pans left sees things go right
    wrong = sample(tmp_path / "b.mp4", pan(-2.0), camera="pan_left")
    one, other = scores(right)["control_camera_error"], scores(wrong)["control_camera_error"]
    assert one is not None and other is not None and one < 0.1 and other >= 0.95
    still = scores(sample(tmp_path / "c.mp4", np.repeat(pan(0.0)[:1], 17, axis=0), camera="pan_left"))
    assert still["control_camera_error"] == pytest.approx(1.0, abs=0.05)
    none = scores(sample(tmp_path / "d.mp4", np.zeros((9, 96, 160, 3), np.uint8), camera="pan_left"))
    assert none["control_camera_error"] is None
    path = preset_path("zoom_in", 9)
    assert camera_error(path, path) == pytest.approx(0, abs=1e-9)
    assert camera_error(preset_path("static", 9), path) == pytest.approx(1)
    assert camera_error(path, preset_path("static", 9)) is None
    (tmp_path / "path.txt").write_text(path_text(preset_path("pan_left", 17)))
    filed = scores(sample(tmp_path / "a.mp4", pan(2.0), camera=str(tmp_path / "path.txt")))
    assert filed["control_camera_error"] == pytest.approx(one, abs=0.02)


def test_points_that_follow_their_path_have_a_small_error(tmp_path: Path) -> None:
    frames = pan(2.0)
    (tmp_path / "right.json").write_text(json.dumps([[[60, 50], [92, 50]], [[40, 30], [72, 30]]]))
    (tmp_path / "wrong.json").write_text(json.dumps([[60, 50], [28, 50]]))
    right = scores(sample(tmp_path / "a.mp4", frames, trajectory=str(tmp_path / "right.json")))
    wrong = scores(sample(tmp_path / "b.mp4", frames, trajectory=str(tmp_path / "wrong.json")))
    assert right["control_trajectory_px"] is not None and right["control_trajectory_px"] < 1.0
    assert wrong["control_trajectory_px"] == pytest.approx(34, abs=3)  # the mean of 4, 8 … 64
    outside = np.full((1, 17, 2), -50.0)
    assert trajectory_error_px(frames, outside) is None


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_f1_and_correlation_keep_their_bounds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = rng.random((2, 3, 24, 24)) < rng.random((2, 1, 1, 1)) * 0.2
    both, back = edges_f1(one, other), edges_f1(other, one)
    assert both == back and (both is None or 0 <= both <= 1)
    assert edges_f1(one, one) in (None, 1.0)
    values = rng.random((2, 3, 24, 24))
    found = correlation(values[0], values[1])
    assert found is not None and -1 <= found <= 1
    assert correlation(values[0], values[0]) == pytest.approx(1) == correlation(3 * values[0] + 1, values[0])
    assert correlation(values[0], 0 * values[1]) is None and correlation(0 * values[0], values[1]) == 0.0


def test_evaluate_has_obedience_as_columns(tmp_path: Path) -> None:
    moving(tmp_path / "asked.mp4", num_frames=9, size=96)
    folder = tmp_path / "samples"
    folder.mkdir()
    asked = {"control": str(tmp_path / "asked.mp4"), "control_kind": "canny"}
    sample(folder / "a.mp4", boxes(20, count=17), **asked)
    sample(folder / "b.mp4", boxes(20, count=17))
    sample(folder / "c.mp4", boxes(20, count=17), control="gone.mp4", control_kind="canny")
    config = tmp_path / "recipe.yaml"
    config.write_text("operators: {brightness: true}\n")
    words = ["evaluate", folder, "--config", config, "--runner", "inline", "--output", tmp_path / "found"]
    assert run_pipeline.main([str(word) for word in words]) == 0
    found = json.loads((tmp_path / "found" / "evaluate.json").read_text())
    column = found["scores"]["control_edges_f1"]
    assert column["operator"] == "control" and "edges within 2 px" in column["meaning"]
    assert column["samples"]["count"] == 3 and column["samples"]["missing"] == 2
    assert found["obedience"]["a.mp4"]["control_edges_f1"] == column["samples"]["mean"]
    assert "no such file" in found["obedience"]["c.mp4"]["why_not"] and "b.mp4" not in found["obedience"]
    assert len(rows_of(tmp_path / "found" / "samples")) == 3


# -- pose


def figure(shift_px: float = 0.0) -> People:
    """Return a person of 17 points within 256 x 256."""
    places = [
        (128, 40), (133, 35), (123, 35), (140, 40), (116, 40), (155, 70), (101, 70), (170, 110), (86, 110), (180, 150),
        (76, 150), (145, 150), (111, 150), (148, 195), (108, 195), (150, 240), (106, 240),
    ]  # fmt: skip
    points, sure = np.zeros((1, 133, 2), np.float32), np.zeros((1, 133), np.float32)
    points[0, :17], sure[0, :17] = np.array(places) + (shift_px, 0), 0.9
    return People(points, sure)


def pose_map(people: People, count: int = 3, size: int = 256) -> np.ndarray:
    return np.stack([draw_people(people, (size, size), 0.3, with_hands=True, with_face=True)] * count)


def test_joints_are_read_where_they_were_drawn() -> None:
    (body,) = bodies_of(figure(), 0.3)
    for place, found in zip(READ, joints_in(pose_map(figure())[0]), strict=True):
        assert len(found) == 1 and np.abs(found[0] - body[place]).max() <= 1.5, place
    assert not any(len(found) for found in joints_in(np.zeros((256, 256, 3), np.uint8)))


@settings(deadline=None, max_examples=10)
@given(st.floats(0, 12))
def test_the_distance_of_a_pose_is_how_far_its_joints_are(shift_px: float) -> None:
    found = pose_scores(pose_map(figure(shift_px)), pose_map(figure()))
    assert found["control_pose_distance"] == pytest.approx(shift_px / np.hypot(256, 256), abs=0.004)
    assert found["control_pose_found"] == 1


def test_joints_that_are_not_there_are_not_far_but_missing() -> None:
    asked, half = pose_map(figure()), figure()
    half.scores[0, 11:] = 0  # no legs
    found = pose_scores(pose_map(half), asked)
    assert found["control_pose_found"] == pytest.approx(12 / 17, abs=0.01)  # of 17 that can be told
    assert pose_scores(0 * asked, asked) == {"control_pose_distance": None, "control_pose_found": 0.0}
    assert pose_scores(asked, 0 * asked) == {"control_pose_distance": None, "control_pose_found": None}


def test_a_pose_map_of_an_output_is_compared_with_the_sample(tmp_path: Path) -> None:
    folder = tmp_path / "control" / "pose"
    folder.mkdir(parents=True)
    write_mp4(pose_map(figure(), 9), FPS, folder / "a.mp4", crf=4)
    made = sample(tmp_path / "made.mp4", np.zeros((9, 256, 256, 3), np.uint8), control=str(folder / "a.mp4"))
    maps = {**MAPS, "pose": lambda frames, fps: (pose_map(figure(6.0), len(frames)), None, 1.0)}
    found = measure(made, maps)
    assert found is not None and found.why_not is None
    assert found.scores["control_pose_distance"] == pytest.approx(6 / np.hypot(256, 256), abs=0.004)
    assert found.scores["control_pose_found"] is not None and found.scores["control_pose_found"] > 0.9


# -- depth


def test_depth_is_compared_up_to_a_factor_and_a_shift(tmp_path: Path) -> None:
    folder = tmp_path / "control" / "depth"
    folder.mkdir(parents=True)
    ramp = np.repeat(np.tile(np.linspace(20, 120, 96, dtype=np.uint8), (9, 96, 1))[..., None], 3, axis=3)
    write_mp4(ramp, FPS, folder / "a.mp4", crf=4)
    made = sample(tmp_path / "made.mp4", ramp, control=str(folder / "a.mp4"))
    for drawn, wanted in ((2 * ramp, 1.0), (ramp[:, :, ::-1], -1.0)):
        maps = {**MAPS, "depth": lambda frames, fps, drawn=drawn: (drawn, None, 0.5)}
        found = measure(made, maps)
        assert found is not None and found.scores["control_correlation"] == pytest.approx(wanted, abs=0.02)
