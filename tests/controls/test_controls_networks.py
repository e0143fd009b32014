"""Maps by networks: the published pre- and post-processing, on tiny networks of the published layouts."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from controls.depth import Depth, depth_range
from controls.hed import HedEdges
from controls.mlsd import MlsdLines, draw_segments
from controls.networks import MapNetwork, at_short_side, check_network, published_weights
from controls.people import People, boxes_of, cropped, decoded, letterboxed, looked_at, open_people
from controls.pose import Pose
from controls.skeletons import bodies_of, draw_people
from core.errors import UserError
from models.annotators.depth import SMALL, load_depth, looked_at_size
from models.annotators.hed import Hed, load_hed
from models.annotators.mlsd import Mlsd, load_mlsd, segments_of
from models.annotators.skeleton import COLOURS, HAND_EDGES, LIMBS, OF_COCO
from models.errors import ModelError
from models.weights.table import WEIGHTS
from tests.helpers.tiny_annotators import (
    DEPTH,
    DETECTOR_PX,
    KEYPOINTS_PX,
    depth_folder,
    detector_onnx,
    hed_file,
    keypoints_onnx,
    mlsd_file,
)

SIZE = (96, 128)


def picture(seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return cv2.resize(small, SIZE[::-1], interpolation=cv2.INTER_CUBIC)


def bytes_of(network: torch.nn.Module, bytes_each: int) -> int:
    return sum(one.numel() * bytes_each for one in network.state_dict().values() if one.is_floating_point())


# -- the published files


def test_the_layouts_are_as_large_as_the_published_files() -> None:
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation

    with torch.device("meta"):
        hed, mlsd = Hed(), Mlsd()
        depth = DepthAnythingForDepthEstimation(DepthAnythingConfig(**SMALL))
    for network, each, name in (
        (hed, 2, "controlnet-hed"),
        (mlsd, 4, "mlsd-large"),
        (depth, 4, "depth-v2-small"),
    ):
        tensors, whole = bytes_of(network, each), WEIGHTS[name].size_bytes
        assert 0 < whole - tensors < 500 * (len(network.state_dict()) + 5), "names and padding make up the rest"


def test_names_are_as_published() -> None:
    names = set(Hed().state_dict())
    assert {"norm", "block1.convs.0.weight", "block3.convs.2.bias", "block5.projection.weight"} <= names
    assert "block1.convs.2.weight" not in names and "block4.convs.3.weight" not in names
    state = Mlsd().state_dict()
    for name, shape in (
        ("backbone.features.0.0.weight", (32, 4, 3, 3)),
        ("backbone.features.1.conv.0.0.weight", (32, 1, 3, 3)),
        ("backbone.features.13.conv.2.weight", (96, 576, 1, 1)),
        ("block15.conv1.0.weight", (64, 96, 1, 1)),
        ("block21.conv2.0.weight", (64, 16, 1, 1)),
        ("block16.conv2.0.weight", (64, 128, 3, 3)),
        ("block23.conv3.weight", (16, 64, 1, 1)),
    ):
        assert state[name].shape == shape


@pytest.mark.parametrize("control", [Depth(), Pose(), HedEdges(), MlsdLines()])
def test_a_network_names_weights_that_are_published(control: MapNetwork) -> None:
    assert isinstance(control, MapNetwork)
    assert published_weights(control) == control.weights_named and set(control.weights_named) <= set(WEIGHTS)
    assert control.gpus > 0
    assert all(WEIGHTS[name].licence == "Apache-2.0" for name in control.weights_named)


@pytest.mark.parametrize(
    ("name", "control"),
    [
        ("hed", HedEdges(weights="nowhere.pth")),
        ("mlsd", MlsdLines(weights="nowhere.pth")),
        ("depth", Depth(model="nowhere")),
        ("pose", Pose(keypoints="nowhere.onnx", detector="nowhere.onnx")),
    ],
)
def test_weights_that_are_not_there_are_one_line(name: str, control: Depth) -> None:
    with pytest.raises(UserError, match=f"controls.{name}: 'nowhere.*' is neither published weights"):
        check_network(name, control)


def test_published_weights_without_a_network_say_how_to_fetch_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELECTS_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="not on this machine .*weights fetch controlnet-hed"):
        check_network("hed", HedEdges())
    (tmp_path / "controlnet-hed.pth").write_bytes(b"other")
    with pytest.raises(UserError, match="not the published controlnet-hed"):
        check_network("hed", HedEdges())


def test_weights_of_another_network_are_one_line(tmp_path: Path) -> None:
    mlsd_file(tmp_path / "mlsd.pth")
    depth_folder(tmp_path / "depth")
    (tmp_path / "depth" / "model.safetensors").unlink()
    (tmp_path / "pose.onnx").write_bytes(b"no network")
    with pytest.raises(UserError, match=r"mlsd.pth: \d+ weights do not fit ControlNet's HED"):
        check_network("hed", HedEdges(weights=str(tmp_path / "mlsd.pth")))
    with pytest.raises(UserError, match="model.safetensors: no such file"):
        check_network("depth", Depth(model=str(tmp_path / "depth")))
    with pytest.raises(UserError, match="not readable as an ONNX network"):
        check_network("pose", Pose(detector=str(tmp_path / "pose.onnx"), keypoints=str(tmp_path / "pose.onnx")))


# -- HED


def test_hed_is_the_logistic_function_of_the_mean_of_five_enlarged_maps(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = Hed((3, 5, 4, 6, 2)).eval()
    torch.save(network.state_dict(), tmp_path / "hed.pth")
    rgb = picture()
    with torch.inference_mode():
        maps = network(torch.from_numpy(rgb).permute(2, 0, 1)[None].float())
    assert [one.shape[2:] for one in maps] == [(96, 128), (48, 64), (24, 32), (12, 16), (6, 8)]
    full = [cv2.resize(one[0, 0].numpy(), SIZE[::-1], interpolation=cv2.INTER_LINEAR) for one in maps]
    wanted = 1 / (1 + np.exp(-np.mean(full, axis=0)))
    np.testing.assert_allclose(load_hed(str(tmp_path / "hed.pth"), "cpu")(rgb), wanted, atol=1e-5)


def test_hed_finds_edges_where_they_were_drawn(tmp_path: Path) -> None:
    hed_file(tmp_path / "hed.pth")
    rgb, truth = np.full((*SIZE, 3), 40, np.uint8), np.zeros(SIZE, np.uint8)
    cv2.rectangle(rgb, (30, 20), (90, 70), (220, 220, 220), -1)
    cv2.rectangle(truth, (30, 20), (90, 70), 1)
    for scribble in (False, True):
        drawer = HedEdges(weights=str(tmp_path / "hed.pth"), scribble=scribble, device="cpu").start()
        drawn = drawer.draw(rgb, 0.0)
        assert drawn is not None and drawn.shape == SIZE and drawn.dtype == np.uint8
        assert (cv2.dilate(drawn, np.ones((5, 5)))[truth > 0] > 127).mean() > 0.95
        assert (drawn[cv2.dilate(truth, np.ones((25, 25), np.uint8)) == 0] < 64).all()
        assert drawer.finish().amount == pytest.approx(drawn.mean() / 255)


def test_detectors_look_at_sides_of_multiples_of_64() -> None:
    assert at_short_side(np.zeros((720, 1280, 3), np.uint8), 512, 64).shape == (512, 896, 3)
    assert at_short_side(np.zeros((64, 128, 3), np.uint8), 64, 64).shape == (64, 128, 3)


# -- M-LSD


def test_segments_are_decoded_from_their_middles() -> None:
    maps = torch.full((9, 32, 48), -9.0)
    maps[0, 10, 20], maps[0, 10, 21], maps[0, 25, 40] = 3.0, 2.0, 1.0  # the neighbour is no peak
    maps[1:5, 10, 20] = torch.tensor([-8.0, -4, 8, 4])
    maps[1:5, 25, 40] = torch.tensor([-2.0, 0, 3, 0])
    segments, scores = segments_of(maps)
    sure = scores > 0.5
    assert sure.sum() == 2 and scores[0] == pytest.approx(1 / (1 + np.exp(-3)))
    np.testing.assert_allclose(segments[:2], [[24, 12, 56, 28], [76, 50, 86, 50]])


def test_lines_of_mlsd_lie_at_the_pictures_own_size(tmp_path: Path) -> None:
    segments = np.array([[10.0, 10, 50, 10], [20, 5, 20, 60]])
    drawn = draw_segments(segments, (64, 64), (128, 192))
    truth = np.zeros((128, 192), np.uint8)
    cv2.line(truth, (30, 20), (150, 20), 255, 1)
    cv2.line(truth, (60, 10), (60, 120), 255, 1)
    assert np.array_equal(drawn, truth)
    settings = MlsdLines(min_score=0.5, min_length_px=3)
    kept = settings._kept(np.array([[0.0, 0, 4, 0], [0, 0, 40, 0], [0, 0, 40, 0]]), np.array([0.9, 0.9, 0.2]))
    np.testing.assert_array_equal(kept, [[0, 0, 40, 0]])


def test_mlsd_is_given_red_green_blue_and_ones_less_their_middle(tmp_path: Path) -> None:
    mlsd_file(tmp_path / "mlsd.pth")
    rgb = at_short_side(picture(), 64, 64)
    network = Mlsd().eval()
    network.load_state_dict(torch.load(tmp_path / "mlsd.pth", weights_only=True))
    given = np.concatenate([rgb, np.ones((*rgb.shape[:2], 1))], axis=2).transpose(2, 0, 1)[None] / 127.5 - 1
    with torch.inference_mode():
        maps = network(torch.from_numpy(given).float())
        wanted = segments_of(maps[0])
    assert maps.shape == (1, 9, 32, rgb.shape[1] // 2)
    for found, one in zip(load_mlsd(str(tmp_path / "mlsd.pth"), "cpu")(rgb), wanted, strict=True):
        np.testing.assert_allclose(found, one, atol=1e-3)
    drawer = MlsdLines(weights=str(tmp_path / "mlsd.pth"), short_side_px=64, device="cpu").start()
    drawn = drawer.draw(picture(), 0.0)
    assert drawn is not None and drawn.shape == SIZE and 0 <= drawer.finish().amount <= 1


# -- depth


@pytest.mark.parametrize("size", [(1280, 720), (720, 1280), (320, 180), (518, 518), (2048, 600)])
def test_depth_looks_at_the_size_that_the_published_preprocessing_chooses(size: tuple[int, int]) -> None:
    from transformers.models.dpt.image_processing_dpt import DPTImageProcessor

    processor = DPTImageProcessor(
        size={"height": 518, "width": 518}, keep_aspect_ratio=True, ensure_multiple_of=14, resample=3,
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
    )  # fmt: skip
    given = processor(np.zeros((size[1], size[0], 3), np.uint8), return_tensors="pt")["pixel_values"]
    assert looked_at_size(*size, 518) == (given.shape[3], given.shape[2])


@pytest.mark.parametrize("with_old_names", [False, True])
def test_depth_is_what_transformers_own_processing_gives(tmp_path: Path, with_old_names: bool) -> None:
    from transformers.models.dpt.image_processing_dpt import DPTImageProcessor

    network = depth_folder(tmp_path / "depth", with_old_names=with_old_names)
    processor = DPTImageProcessor(
        size={"height": 56, "width": 56}, keep_aspect_ratio=True, ensure_multiple_of=14, resample=3,
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
    )  # fmt: skip
    rgb = picture()
    with torch.inference_mode():
        output = network(**processor(rgb, return_tensors="pt"))
        (wanted,) = processor.post_process_depth_estimation(output, target_sizes=[SIZE])
    near = wanted["predicted_depth"].numpy()
    found = load_depth(str(tmp_path / "depth"), "cpu", 56)(rgb)
    assert found.shape == SIZE and near.std() > 0
    np.testing.assert_allclose(found, near, atol=0.02 * float(near.max() - near.min()))


def test_depth_is_spread_from_black_to_white(tmp_path: Path) -> None:
    depth_folder(tmp_path / "depth")
    control = Depth(model=str(tmp_path / "depth"), side_px=56, device="cpu")
    drawer = control.start()
    near = load_depth(control.model, "cpu", 56)(picture())
    drawn = drawer.draw(picture(), 0.0)
    assert drawn is not None and drawn.min() == 0 and drawn.max() == 255
    np.testing.assert_allclose(drawn, 255 * (near - near.min()) / (near.max() - near.min()), atol=1)
    assert drawer.finish().amount == pytest.approx(depth_range(near))


def test_a_steady_range_changes_slowly() -> None:
    from controls.depth import DepthDrawer

    near = iter([np.array([[0.0, 10.0]]), np.array([[0.0, 20.0]])])
    drawer = DepthDrawer(lambda _: next(near), steady=0.5)
    assert drawer.draw(picture(), 0.0).tolist() == [[0, 255]]
    drawer.draw(picture(), 0.1)
    assert drawer._range == (0.0, 15.0)


def test_a_wall_has_no_depth() -> None:
    assert depth_range(np.full((4, 4), 3.0)) == 0 and depth_range(np.zeros((4, 4))) == 0
    assert depth_range(np.linspace(0, 5, 1000).reshape(20, 50)) == pytest.approx(0.98, abs=0.01)


def test_a_folder_of_another_model_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match="neither one of depth-v2-small nor a folder with Depth Anything"):
        load_depth(str(tmp_path), "cpu")
    assert DEPTH["patch_size"] == SMALL["patch_size"]


# -- pose


def test_a_picture_fills_the_detectors_input_from_the_upper_left() -> None:
    rgb = np.zeros((320, 640, 3), np.uint8)
    rgb[..., 0] = 200
    given, scale = letterboxed(rgb, DETECTOR_PX)
    assert given.shape == (3, 640, 640) and given.dtype == np.float32 and scale == 1
    assert given[:, 0, 0].tolist() == [0, 0, 200] and given[:, 320:, :].min() == given[:, 320:, :].max() == 114
    assert letterboxed(np.zeros((1280, 720, 3), np.uint8), DETECTOR_PX)[1] == 0.5


def test_boxes_are_decoded_and_the_surer_of_two_is_kept() -> None:
    output = np.zeros((8400, 85), np.float32)
    cell = 6400 + 1600 + 3 * 20 + 5  # of the grid of 32 px: row 3, column 5
    output[cell] = [0.5, 0.25, np.log(2), np.log(4), 0.9, 1.0, *[0.0] * 79]
    output[cell + 1] = [-0.4, 0.25, np.log(2), np.log(4), 0.8, 1.0, *[0.0] * 79]  # the same thing, less sure
    output[10] = [0, 0, 0, 0, 0.25, 1.0, *[0.0] * 79]  # not sure enough
    output[20] = [0, 0, 0, 0, 1.0, 0.1, 0.9, *[0.0] * 78]  # something else
    boxes = boxes_of(output, DETECTOR_PX, 0.5)
    np.testing.assert_allclose(boxes, [[288.0, 80, 416, 336]], atol=1e-3)


def test_a_person_is_looked_at_with_room_and_at_the_networks_aspect() -> None:
    size_px = KEYPOINTS_PX[::-1]
    middle, size = looked_at(np.array([100.0, 50, 160, 250]), size_px)
    assert middle.tolist() == [130, 150] and size.tolist() == [187.5, 250]
    rgb = np.zeros((300, 300, 3), np.uint8)
    rgb[150, 130] = 255
    crop = cropped(rgb, middle, size, size_px)
    assert crop.shape == (3, *KEYPOINTS_PX)
    assert np.unravel_index(crop[0].argmax(), crop[0].shape) == (192, 144)
    assert crop[:, 0, 0] == pytest.approx([-123.675 / 58.395, -116.28 / 57.12, -103.53 / 57.375], abs=1e-4)


def test_points_are_where_both_distributions_are_highest() -> None:
    simcc_x, simcc_y = np.zeros((1, 133, 576), np.float32), np.zeros((1, 133, 768), np.float32)
    simcc_x[0, 7, 101], simcc_y[0, 7, 300] = 0.9, 0.6
    places, scores = decoded(simcc_x, simcc_y)
    assert places[0, 7].tolist() == [50.5, 150] and scores[0, 7] == pytest.approx(0.6) and scores[0, 8] == 0


def test_people_are_found_and_their_points_lie_where_they_were_drawn(tmp_path: Path) -> None:
    (tmp_path / "people.onnx").write_bytes(detector_onnx())
    points = {5: 0, 6: 1, 0: 2}  # shoulders and nose: red, green, blue
    (tmp_path / "points.onnx").write_bytes(keypoints_onnx(points))
    find = open_people(str(tmp_path / "people.onnx"), str(tmp_path / "points.onnx"), "cpu")
    rgb = np.zeros((320, 320, 3), np.uint8)  # shown to the detector at twice the size
    rgb[160:176, 80:96] = (255, 255, 0)
    found = find(rgb)
    assert found.points.shape == (1, 133, 2)
    seen = found.scores[0] > 0.3
    assert set(np.flatnonzero(seen)) <= set(points) and found.scores[0, 5] == pytest.approx(1, abs=0.01)
    assert 80 <= found.points[0, 5, 0] <= 96 and 160 <= found.points[0, 5, 1] <= 176
    assert find(np.zeros((320, 320, 3), np.uint8)).points.shape == (0, 133, 2)


def stick_figure() -> People:
    points, scores = np.zeros((1, 133, 2), np.float32), np.zeros((1, 133), np.float32)
    places = {
        0: (256, 80), 1: (266, 70), 2: (246, 70), 3: (276, 76), 4: (236, 76), 5: (310, 140), 6: (202, 140),
        7: (340, 220), 8: (172, 220), 9: (360, 300), 10: (152, 300), 11: (290, 300), 12: (222, 300), 13: (296, 390),
        14: (216, 390), 15: (300, 480), 16: (212, 480),
    }  # fmt: skip
    for place, where in places.items():
        points[0, place], scores[0, place] = where, 0.9
    return People(points, scores)


def test_people_are_drawn_as_openpose_draws_them() -> None:
    figure = stick_figure()
    (body,) = bodies_of(figure, 0.3)
    assert body[1].tolist() == [256, 140], "the neck is between the shoulders"
    drawn = draw_people(figure, (512, 512), 0.3, with_hands=True, with_face=True)
    for place, colour in enumerate(COLOURS):
        x, y = body[place].astype(int)
        assert tuple(drawn[y, x]) == colour, place
    shoulder = (body[1] + body[5]) / 2  # of the limb to the left shoulder, which has the second colour, darkened
    assert tuple(drawn[int(shoulder[1]), int(shoulder[0])]) == tuple(int(0.6 * part) for part in COLOURS[1])
    assert len(LIMBS) == 17 and len(HAND_EDGES) == 20 and len(OF_COCO) == 18
    half = draw_people(People(figure.points / 2, figure.scores), (256, 256), 0.3, with_hands=True, with_face=True)
    shrunk = cv2.resize(drawn, (256, 256), interpolation=cv2.INTER_AREA)
    assert ((half > 0).any(axis=2) == (shrunk > 60).any(axis=2)).mean() > 0.98, "widths grow with the picture"


def test_what_is_not_seen_is_not_drawn() -> None:
    figure = stick_figure()
    figure.scores[0, 6] = 0.1  # the right shoulder, and so the neck
    (body,) = bodies_of(figure, 0.3)
    assert np.isnan(body[[1, 2]]).all() and not np.isnan(body[[0, *range(3, 18)]]).any()
    figure.points[0, 91:112] = np.stack([np.linspace(20, 60, 21), np.full(21, 400)], axis=1)
    figure.scores[0, 91:112] = 0.8
    figure.points[0, 23:91] = (450, 60)
    figure.scores[0, 23:91] = 0.8
    drawn = draw_people(figure, (512, 512), 0.3, with_hands=True, with_face=True)
    assert tuple(drawn[400, 40]) == (0, 0, 255) and tuple(drawn[60, 450]) == (255, 255, 255)
    plain = draw_people(figure, (512, 512), 0.3, with_hands=False, with_face=False)
    assert not plain[400, 20:60].any() and not plain[60, 450].any() and not plain[140, 202].any()


def test_the_amount_of_a_pose_map_is_the_share_of_frames_with_somebody() -> None:
    from controls.pose import PoseDrawer

    nobody = People(np.zeros((0, 133, 2), np.float32), np.zeros((0, 133), np.float32))
    found = iter([stick_figure(), nobody, stick_figure(), nobody])
    drawer = PoseDrawer(Pose(), lambda _: next(found))
    maps = [drawer.draw(np.zeros((512, 512, 3), np.uint8), i / 24) for i in range(4)]
    assert [bool(one.any()) for one in maps] == [True, False, True, False] and drawer.finish().amount == 0.5
