"""CRAFT: the same quads as EasyOCR's own code for the same network, in batches, in pixels of the frames."""

import hashlib
import os

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("easyocr")

from safetensors.torch import save_file  # noqa: E402

from models.errors import ModelError  # noqa: E402
from models.weights.table import WEIGHTS, Weights  # noqa: E402
from operators.craft import InputSize, input_size, load_craft, quads_of  # noqa: E402
from operators.text_area import union_share  # noqa: E402


def picture(seed, height=96, width=160):
    small = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def network():
    """CRAFT with random weights, its last layer set so that some places pass for text and some for links."""
    from easyocr.craft import CRAFT

    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        net = CRAFT().eval()
        maps = net(torch.rand(1, 3, 96, 160) * 4 - 2)[0].reshape(-1, 2)
        low, high = maps.quantile(0.6, dim=0), maps.quantile(0.97, dim=0)
        gain = 0.4 / (high - low)  # the 60th percentile becomes 0.4, the 97th 0.8
        net.conv_cls[-1].weight.mul_(gain[:, None, None, None])
        net.conv_cls[-1].bias.copy_(net.conv_cls[-1].bias * gain + 0.4 - low * gain)
    return net


@pytest.fixture(scope="module")
def published(network, tmp_path_factory):
    """Its weights as they are published: a pickled state dict from a parallel run."""
    path = tmp_path_factory.mktemp("craft") / "craft_mlt_25k.pth"
    torch.save({f"module.{name}": tensor for name, tensor in network.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def find(published):
    return load_craft(published, "cpu", short_side_px=96, long_side_px=160, batch_frames=2)


def theirs(network, rgb):
    """Find quads with EasyOCR's own code, which takes one frame at a time."""
    from easyocr.detection import test_net

    boxes, _ = test_net(2560, 1.0, network, rgb, 0.7, 0.4, 0.4, False, "cpu")
    return [np.array(box) for box in boxes[0]]


def same_quads(found, wanted, tolerance_px=0.05):
    assert len(found) == len(wanted)
    for quad, other in zip(found, wanted, strict=True):
        assert quad == pytest.approx(np.asarray(other, np.float32), abs=tolerance_px)


def test_it_finds_what_easyocr_finds(network, find):
    rgb = picture(0)
    wanted = [np.clip(box, 0, (160, 96)) for box in theirs(network, rgb)]
    assert len(wanted) >= 2, "a network that finds nothing would agree with everything"
    same_quads(find([rgb])[0], wanted)


def test_frames_of_several_sizes_and_clips_are_found_together_as_alone(find):
    frames = [picture(0), picture(1, 160, 96), picture(2), picture(3), picture(4, 160, 96)]
    together = find(frames)
    assert sum(map(len, together)) > 5
    for rgb, quads in zip(frames, together, strict=True):
        same_quads(quads, find([rgb])[0])
        assert all((quad >= 0).all() and (quad <= (rgb.shape[1], rgb.shape[0])).all() for quad in quads)
    assert find([]) == []


def test_quads_are_given_in_pixels_of_the_frame_as_it_came(find):
    rgb = picture(5)
    larger = cv2.resize(rgb, (640, 384), interpolation=cv2.INTER_NEAREST)
    same_quads(find([larger])[0], [quad * 4 for quad in find([rgb])[0]], tolerance_px=0.5)


def test_weights_load_from_safetensors_and_by_name_from_a_weights_folder(
    network, published, find, tmp_path, monkeypatch
):
    save_file(network.state_dict(), tmp_path / "craft.safetensors")
    wanted = find([picture(0)])[0]
    same_quads(load_craft(tmp_path / "craft.safetensors", "cpu", 96, 160)([picture(0)])[0], wanted)
    entry = Weights("a/b", "main", "c.pth", hashlib.sha256(published.read_bytes()).hexdigest(), "MIT", 1)
    monkeypatch.setitem(WEIGHTS, "craft", entry)
    monkeypatch.setenv("SELECTS_WEIGHTS", str(tmp_path))
    (tmp_path / "craft.pth").symlink_to(published)
    same_quads(load_craft(None, "cpu", 96, 160)([picture(0)])[0], wanted)


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path):
    torch.save({"module.conv": Attack(str(tmp_path / "run"))}, tmp_path / "craft.pth")
    with pytest.raises(ModelError, match="not readable as CRAFT's weights") as told:
        load_craft(tmp_path / "craft.pth", "cpu")
    assert not (tmp_path / "run").exists() and "\n" not in str(told.value)


@pytest.mark.parametrize("content", [{}, {"a": torch.ones(1)}, [torch.ones(1)], None])
def test_a_file_of_something_else_is_told_of_in_one_line(tmp_path, content):
    path = tmp_path / "craft.pth"
    if content is not None:
        torch.save(content, path)
    with pytest.raises(ModelError, match="not readable as CRAFT's weights") as told:
        load_craft(path, "cpu")
    assert "\n" not in str(told.value)


WHOLE = InputSize(320, 192, 320, 192)


def maps_of(*words, text=0.9, angle_deg=0.0):
    """Draw maps with a word of full score in each rectangle (x, y, width, height, in pixels of the frame)."""
    maps = np.zeros((96, 160, 2), np.float32)
    for x, y, width, height in words:
        maps[y // 2 : (y + height) // 2, x // 2 : (x + width) // 2, 0] = text
    turn = cv2.getRotationMatrix2D((80, 48), angle_deg, 1)
    return np.stack([cv2.warpAffine(np.ascontiguousarray(maps[..., i]), turn, (160, 96)) for i in (0, 1)], axis=2)


@pytest.mark.parametrize("angle_deg", [0, 30, 90])
def test_a_word_gives_one_quad_that_covers_it_at_every_angle(angle_deg):
    (quad,) = quads_of(maps_of((100, 80, 120, 24), angle_deg=angle_deg), WHOLE, 320, 192)
    maps = maps_of((100, 80, 120, 24), angle_deg=angle_deg)[..., 0]
    inside = np.zeros((192, 320), np.uint8)
    cv2.fillPoly(inside, [np.round(quad).astype(np.int32)], 1)
    word = cv2.resize(maps, (320, 192), interpolation=cv2.INTER_NEAREST) > 0.4
    assert inside[word].mean() > 0.98
    assert word.sum() <= inside.sum() < 2.2 * word.sum(), "the box is grown from the letters' middles, not boundless"


def test_words_apart_are_two_quads_and_linked_ones_are_one():
    maps = maps_of((40, 80, 60, 24), (120, 80, 60, 24))
    assert len(quads_of(maps, WHOLE, 320, 192)) == 2
    maps[40:52, 50:60, 1] = 0.9
    assert len(quads_of(maps, WHOLE, 320, 192)) == 1


def test_nothing_sure_enough_is_no_text():
    assert quads_of(maps_of((100, 80, 120, 24), text=0.6), WHOLE, 320, 192) == []
    assert quads_of(np.zeros((96, 160, 2), np.float32), WHOLE, 320, 192) == []


def test_the_share_under_text_is_that_of_the_frame_without_its_padding():
    """A 300 x 180 frame fills only part of the padded 320 x 192 input."""
    size = input_size(300, 180, 180, 300)
    assert size == InputSize(300, 180, 320, 192)
    quads = quads_of(maps_of((0, 0, 320, 192)), size, 300, 180)
    assert union_share(quads, 300, 180) == pytest.approx(1.0, abs=0.01)
    word = maps_of((200, 100, 60, 24))
    (at_input_size,), (twice_as_large,) = quads_of(word, size, 300, 180), quads_of(word, size, 600, 360)
    assert twice_as_large == pytest.approx(2 * at_input_size)
    assert at_input_size == pytest.approx(quads_of(word, WHOLE, 320, 192)[0]), "padding shifts nothing"


def test_the_input_keeps_the_shape_of_the_frame_and_is_bounded():
    assert input_size(1920, 1080, 720, 1280) == InputSize(1280, 720, 1280, 736)
    assert input_size(640, 360, 720, 1280) == InputSize(1280, 720, 1280, 736)
    assert input_size(5000, 200, 720, 1280) == InputSize(1280, 51, 1280, 64)
    assert input_size(8, 8, 720, 1280) == InputSize(720, 720, 736, 736)
