"""Shot detectors on drawn frames whose cuts are known."""

import itertools
from collections import Counter

import cv2
import numpy as np
import pytest

from benchmarks.cuts import CutTruth, score_cuts
from curation.shots import evidence, gradual
from curation.shots.fused import Fused
from curation.shots.pyscenedetect import Adaptive, Cascade, Content, Hash, Histogram, Threshold
from curation.shots.stride import Stride
from curation.shots.types import NO_CUTS, Boundary, DetectorState
from media.coarse import CoarseFrame

HEIGHT, WIDTH = 72, 128
Pictures = list[np.ndarray]


def _scene(seed: int, width: int = WIDTH, level: int = 130, contrast: float = 45.0) -> np.ndarray:
    """A picture of blobs: float32 (HEIGHT, width, 3) of luma, U, V."""
    rng = np.random.default_rng(seed)
    planes = []
    for base, amount in ((level, contrast), (rng.integers(90, 166), 14.0), (rng.integers(90, 166), 14.0)):
        picture = np.zeros((HEIGHT, width), np.float32)
        for cells in (4, 12, 30):
            size = (max(2, cells * HEIGHT // WIDTH), cells * width // WIDTH)
            noise = rng.normal(size=size).astype(np.float32)
            picture += cv2.resize(noise, (width, HEIGHT), interpolation=cv2.INTER_CUBIC)
        planes.append(base + amount * picture / picture.std())
    return np.stack(planes, axis=2)


def _frames(pictures: Pictures, fps: float, noise: float = 1.0) -> list[CoarseFrame]:
    """Coarse frames of pictures, with a little grain."""
    rng = np.random.default_rng(0)
    frames = []
    for index, picture in enumerate(pictures):
        luma = picture[..., 0] + rng.normal(0, noise, picture.shape[:2])
        chroma = cv2.resize(picture[..., 1:], (WIDTH // 2, HEIGHT // 2), interpolation=cv2.INTER_AREA)
        levels = [np.clip(np.rint(p), 0, 255).astype(np.uint8) for p in (luma, chroma.transpose(2, 0, 1))]
        frames.append(CoarseFrame(index, index / fps, levels[0], levels[1]))
    return frames


def _found(detector, pictures: Pictures, fps: float = 24.0) -> list[Boundary]:
    state = detector.start(fps)
    return _pushed(state, _frames(pictures, fps)) + state.finish()


def _pushed(state: DetectorState, frames: list[CoarseFrame]) -> list[Boundary]:
    return [boundary for found in state.push(frames) for boundary in found]


def _mix(first: np.ndarray, second: np.ndarray, count: int) -> Pictures:
    return [first + (second - first) * (k + 1) / (count + 1) for k in range(count)]


def _black() -> np.ndarray:
    picture = np.full((HEIGHT, WIDTH, 3), 128, np.float32)
    picture[..., 0] = 4
    return picture


DETECTORS = [Fused(), Content(), Adaptive(), Histogram(), Hash(), Cascade()]


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda d: type(d).__name__)
def test_hard_cuts_are_found_at_their_frame(detector) -> None:
    pictures = [_scene(1, level=90)] * 40 + [_scene(2, level=170)] * 40 + [_scene(3, level=100)] * 40
    assert _found(detector, pictures) == [Boundary(40, 40), Boundary(80, 80)]


@pytest.mark.parametrize("detector", [*DETECTORS, Threshold()], ids=lambda d: type(d).__name__)
def test_a_still_picture_is_one_shot(detector) -> None:
    assert _found(detector, [_scene(1)] * 100) == []


@pytest.mark.parametrize("detector", [*DETECTORS, Threshold(), Stride()], ids=lambda d: type(d).__name__)
@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_few_frames(detector, count: int) -> None:
    assert _found(detector, [_scene(1)] * count) == []


@pytest.mark.parametrize("seed", [5, 6])
def test_fused_finds_cuts_between_dark_grey_shots(seed: int) -> None:
    pictures = [_scene(seed, level=50, contrast=14)] * 30 + [_scene(seed + 10, level=50, contrast=14)] * 30
    for picture in pictures:
        picture[..., 1:] = 128
    assert _found(Fused(), pictures) == [Boundary(30, 30)]


def test_fused_finds_short_shots() -> None:
    pictures = [picture for seed in range(20, 28) for picture in [_scene(seed)] * 8]
    assert _found(Fused(), pictures) == [Boundary(k, k) for k in range(8, 64, 8)]


def test_fused_does_not_cut_pans() -> None:
    wide = _scene(7, width=WIDTH * 6)
    for px_per_frame in (1, 4, 8):
        pictures = [wide[:, k * px_per_frame : k * px_per_frame + WIDTH] for k in range(70)]
        assert _found(Fused(), pictures) == [], px_per_frame


@pytest.mark.parametrize(("fps", "length"), [(24.0, 1), (24.0, 3), (60.0, 6)])
def test_fused_does_not_cut_flashes(fps: float, length: int) -> None:
    pictures = [_scene(8)] * 120
    white = pictures[0] * 0.3 + np.float32([178, 90, 90])
    pictures[60 : 60 + length] = [white] * length
    assert [(b.start, b.end, b.kind) for b in _found(Fused(), pictures, fps)] == [(60, 60 + length, "flash")]
    assert "flash" in NO_CUTS


def test_fused_does_not_cut_exposure_steps_and_captions() -> None:
    scene = _scene(9, level=110, contrast=30)
    brighter = scene * np.float32([1.4, 1, 1])
    captioned = scene.copy()
    captioned[58:68, 20:108, 0] = 250
    assert _found(Fused(), [scene] * 40 + [brighter] * 40) == []
    assert _found(Fused(), [scene] * 40 + [captioned] * 40 + [scene] * 40) == []


@pytest.mark.parametrize("fps", [24.0, 60.0])
@pytest.mark.parametrize("length_s", [0.5, 1.0, 1.5])
def test_fused_finds_dissolves_as_ranges(fps: float, length_s: float) -> None:
    first, second, edge, count = _scene(11), _scene(12), round(2 * fps), round(length_s * fps)
    (boundary,) = _found(Fused(), [first] * edge + _mix(first, second, count) + [second] * edge, fps)
    assert abs(boundary.start - edge) <= 0.1 * fps
    assert abs(boundary.end - edge - count) <= 0.1 * fps


def test_fused_gives_a_fade_through_black_as_one_range() -> None:
    first, second, black = _scene(13), _scene(14), _black()
    pictures = [first] * 48 + _mix(first, black, 18) + [black] * 6 + _mix(black, second, 18) + [second] * 48
    (boundary,) = _found(Fused(), pictures)
    assert abs(boundary.start - 48) <= 3
    assert abs(boundary.end - 90) <= 3


def test_fused_gives_long_black_as_a_shot() -> None:
    first, second, black = _scene(13), _scene(14), _black()
    pictures = [first] * 48 + _mix(first, black, 12) + [black] * 144 + _mix(black, second, 12) + [second] * 48
    fade_out, fade_in = _found(Fused(), pictures)
    assert fade_out.start < fade_out.end < fade_in.start < fade_in.end
    assert fade_in.start - fade_out.end > 120


def test_repeated_frames_do_not_move_cuts() -> None:
    wide = [_scene(seed, width=WIDTH * 2) for seed in (15, 16, 17)]
    pictures = [scene[:, 2 * k : 2 * k + WIDTH] for scene in wide for k in range(36)]
    assert _found(Fused(), pictures, 24.0) == [Boundary(36, 36), Boundary(72, 72)]
    repeated = [pictures[k * 24 // 60] for k in range(108 * 60 // 24)]
    assert _found(Fused(), repeated, 60.0) == [Boundary(90, 90), Boundary(180, 180)]


def _busy_pictures() -> Pictures:
    """Cuts, a dissolve, fades and long black."""
    scenes, black = [_scene(seed) for seed in range(30, 36)], _black()
    pictures = [scenes[0]] * 30 + [scenes[1]] * 30 + _mix(scenes[1], scenes[2], 24) + [scenes[2]] * 30
    pictures += _mix(scenes[2], black, 20) + [black] * 100 + _mix(black, scenes[3], 20) + [scenes[3]] * 30
    return pictures + [scenes[4]] * 12 + [scenes[5]] * 30 + _mix(scenes[5], black, 20) + [black] * 10


EVERY = [*DETECTORS, Threshold(), Stride(2.0), Fused(max_gradual_s=0)]


@pytest.mark.parametrize("detector", EVERY, ids=lambda d: type(d).__name__)
@pytest.mark.parametrize("fps", [12.0, 24.0, 60.0])
def test_lag_is_kept_and_boundaries_come_in_order(detector, fps: float) -> None:
    state = detector.start(fps)
    found: list[Boundary] = []
    before_s = float("-inf")
    frames = _frames(_busy_pictures(), fps)
    for frame, certain in zip(frames, state.push(frames), strict=True):
        for boundary in certain:
            assert boundary.start / fps >= before_s - detector.lag_s - 1e-6
            found.append(boundary)
        before_s = frame.time_s
    for boundary in state.finish():
        assert boundary.start / fps >= before_s - detector.lag_s - 1e-6
        found.append(boundary)
    assert found == sorted(found)
    assert all(a.end <= b.start for a, b in zip(found, found[1:], strict=False))
    assert all(0 <= b.start <= b.end <= len(frames) for b in found)


def test_indices_are_those_of_the_source() -> None:
    frames = _frames([_scene(1)] * 40 + [_scene(2)] * 40, 24.0)
    moved = [CoarseFrame(f.index + 500, f.time_s + 20, f.luma, f.chroma) for f in frames]
    for detector in (Fused(), Content(), Cascade()):
        state = detector.start(24.0)
        assert _pushed(state, moved) + state.finish() == [Boundary(540, 540)]


@pytest.mark.parametrize("detector", EVERY, ids=lambda d: type(d).__name__)
def test_what_is_found_does_not_depend_on_how_many_frames_are_pushed_at_a_time(detector) -> None:
    frames = _frames(_busy_pictures(), 24.0)
    found = []
    for lengths in ([len(frames)], [1], [7, 1, 16, 0]):
        state, told, at = detector.start(24.0), [], 0
        for length in itertools.cycle(lengths):
            told += state.push(frames[at : at + length])
            at += length
            if at >= len(frames):
                break
        found.append((told, state.finish()))
    assert len(found[0][0]) == len(frames)
    assert found[0] == found[1] == found[2]


def test_the_first_look_for_dissolves_keeps_what_the_whole_look_would_find() -> None:
    """A window turned down by its ends and its middle holds no dissolve by the definition, written out."""
    rng = np.random.default_rng(5)
    picture, other = rng.integers(0, 256, (2, evidence.TINY_SIZE)).astype(float)
    course = np.concatenate([np.zeros(20), np.linspace(0, 1, 24), np.ones(20), np.linspace(1, 0.98, 16)])
    tiny = (picture + course[:, None] * (other - picture)).round().astype(np.uint8)
    for last in range(30, len(tiny)):
        firsts = np.array([last - length for length in (8, 13, 21, 30)])
        looks, _ = gradual.first_look(tiny, firsts, np.full(4, last))
        for first, may in zip(firsts.tolist(), looks.tolist(), strict=True):
            change, middle = (tiny[i].astype(float) - tiny[first] for i in (last, first + (last - first) // 2))
            share = middle @ change / max(1.0, change @ change)
            misfit = ((middle - share * change) ** 2).sum() / max(1.0, change @ change)
            differs = np.sqrt((change**2).mean()) >= gradual.MIN_DIFFERENCE_LEVELS
            assert may == (differs and 0 <= share <= 1 and misfit <= gradual.MAX_MISFIT), (first, last)


def test_stride_cuts_at_fixed_times() -> None:
    assert [b.start for b in _found(Stride(1.5), [_scene(1)] * 100)] == [36, 72]


def test_threshold_cuts_in_the_middle_of_black() -> None:
    first, second, black = _scene(13), _scene(14), _black()
    (boundary,) = _found(Threshold(), [first] * 48 + [black] * 24 + [second] * 48)
    assert abs(boundary.start - 60) <= 1


def test_impossible_settings_are_refused() -> None:
    for call in (lambda: Fused().start(0), lambda: Content().start(float("nan")), lambda: Stride(0)):
        with pytest.raises(ValueError):
            call()


def test_portrait_and_tiny_frames() -> None:
    for height, width in ((128, 72), (8, 8), (72, 172), (3, 5)):
        rng = np.random.default_rng(1)
        state = Fused().start(24.0)
        for index in range(30):
            luma = rng.integers(0, 256, (height, width), dtype=np.uint8)
            chroma = rng.integers(0, 256, (2, max(1, height // 2), max(1, width // 2)), dtype=np.uint8)
            state.push([CoarseFrame(index, index / 24, luma, chroma)])
        state.finish()


def test_score_matches_one_to_one() -> None:
    score = score_cuts([Boundary(10, 10), Boundary(12, 12), Boundary(30, 30)], CutTruth((11, 50)))
    assert (score.hits, score.false, score.missed) == (1, (12, 30), (50,))
    assert (score.precision, score.recall) == (pytest.approx(1 / 3), 0.5)
    assert score.f1 == pytest.approx(0.4)


def test_score_leaves_out_ignored_and_ambiguous_frames() -> None:
    truth = CutTruth((100,), ignore=((20, 40), (95, 110)), ambiguous=(60,))
    found = [Boundary(20, 20), Boundary(39, 45), Boundary(40, 40), Boundary(62, 62), Boundary(63, 63)]
    score = score_cuts(found, truth)
    assert (score.hits, score.false, score.missed) == (0, (40, 63), ())
    assert score_cuts([Boundary(80, 98)], truth).hits == 1


def test_scores_of_nothing() -> None:
    assert score_cuts([], CutTruth(())).f1 == 1.0
    assert score_cuts([], CutTruth((5,))).f1 == 0.0
    total = score_cuts([Boundary(5, 5)], CutTruth((5,))) + score_cuts([], CutTruth((7,)))
    assert (total.hits, total.missed) == (1, (7,))


def test_what_looks_for_gradual_transitions_is_asked_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    """One first look for a block of frames, and none for a dip where the contrast never falls to a third."""
    asked: Counter[str] = Counter()

    def counted(name: str) -> None:
        measure = getattr(gradual, name)

        def counting(*args: object) -> object:
            asked[name] += 1
            return measure(*args)

        monkeypatch.setattr(gradual, name, counting)

    counted("first_look")
    counted("dip")
    rng = np.random.default_rng(3)
    frames = [CoarseFrame(i, i / 25, *_noisy(rng)) for i in range(160)]
    state = Fused().start(25.0)
    for first in range(0, len(frames), 16):
        state.push(frames[first : first + 16])
    state.finish()
    assert asked["first_look"] <= 11
    assert asked["dip"] == 0


def _noisy(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A picture whose contrast differs from frame to frame: luma uint8 (72, 128), chroma uint8 (2, 36, 64)."""
    luma = 128 + rng.uniform(30, 50) * np.sin(np.arange(72 * 128) / 9).reshape(72, 128)
    return luma.astype(np.uint8), np.full((2, 36, 64), 128, np.uint8)
