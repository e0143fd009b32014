"""Jumps within one view, and what only looks like a transition: damaged frames, pans, insets, lost frames."""

from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from benchmarks.edits.decoys import DECOYS
from curation.shots import evidence, within
from curation.shots.divide import Divider
from curation.shots.fused import Fused
from curation.shots.split import Splitter
from curation.shots.types import ENDINGS, NO_CUTS, Boundary
from demo.landscapes import scene
from media.coarse import CoarseFrame

FPS = 24.0
PERSON = cv2.ellipse(np.zeros((72, 128), np.uint8), (64, 36), (14, 33), 20, 0, 360, 1, -1)


def _frames(pictures: Sequence[np.ndarray]) -> list[CoarseFrame]:
    frames = []
    for k, picture in enumerate(pictures):
        luma, red, blue = cv2.split(cv2.cvtColor(picture, cv2.COLOR_RGB2YCrCb))
        luma, red, blue = (cv2.resize(each, (128, 72), interpolation=cv2.INTER_AREA) for each in (luma, red, blue))
        chroma = np.stack([cv2.resize(each, (64, 36), interpolation=cv2.INTER_AREA) for each in (blue, red)])
        frames.append(CoarseFrame(k, k / FPS, luma, chroma, 1 / FPS))
    return frames


def _found(pictures: Sequence[np.ndarray]) -> list[Boundary]:
    state = Fused().start(FPS)
    return [each for certain in state.push(_frames(pictures)) for each in certain] + state.finish()


def _cuts(pictures: Sequence[np.ndarray]) -> list[Boundary]:
    return [each for each in _found(pictures) if each.kind not in NO_CUTS]


def _with_person(x: float, seed: int = 3) -> np.ndarray:
    """A dark slanted figure before a landscape that stands still, `x` pixels from the left: uint8 (72, 128, 3)."""
    picture = cv2.resize(scene(seed, 256, 144), (128, 72), interpolation=cv2.INTER_AREA)
    moved = cv2.warpAffine(PERSON, np.array([[1, 0, x - 64], [0, 1, 0]], np.float32), (128, 72))
    picture[moved > 0] = (40, 20, 30)
    return picture


def _drifting(seed: int, count: int, size: tuple[int, int] = (256, 144)) -> list[np.ndarray]:
    wide = scene(seed, 2 * size[0], 2 * size[1])
    return [cv2.getRectSubPix(wide, size, (float(size[0]) + k * 0.2, float(size[1]))) for k in range(count)]


def test_a_figure_that_is_elsewhere_at_once_is_a_jump_and_one_that_walks_is_none() -> None:
    walks = [_with_person(30 + 0.5 * k) for k in range(100)]
    assert _cuts(walks) == []
    jumps = walks[:50] + [_with_person(95 + 0.3 * k) for k in range(50)]
    assert [(each.start, each.end, each.kind) for each in _cuts(jumps)] == [(50, 50, "jump")]


def test_a_figure_that_is_back_soon_is_no_jump() -> None:
    pictures = [_with_person(40)] * 80
    pictures[40:42] = [_with_person(95)] * 2
    assert _cuts(pictures) == []


def test_a_rectangle_that_appears_is_no_jump() -> None:
    pictures = _drifting(3, 100)
    inset = cv2.resize(scene(7, 256, 144), (90, 50), interpolation=cv2.INTER_AREA)
    for picture in pictures[40:70]:
        picture[6:56, 6:96] = inset
    assert _cuts(pictures) == []


@pytest.mark.parametrize("seed", range(4))
def test_damaged_frames_are_marked_and_are_no_cut(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shot, end = DECOYS["glitch"](_drifting(5, 100), 50, 12, rng, _drifting(7, 20))
    found = _found(shot)
    assert [each.kind for each in found] == ["glitch"]
    assert abs(found[0].start - 50) <= 1 and abs(found[0].end - end) <= 1 and found[0].score is not None


def test_grey_rows_that_were_taken_for_a_fade_are_damage_also_where_its_range_began_a_frame_early() -> None:
    pictures = _drifting(5, 40)
    for picture, top in zip(pictures[20:24], (10, 100, 20, 60), strict=True):
        picture[top:] = (120, 135, 120)
    views = evidence.views(_frames(pictures))[0]
    found = within.judged(views, Boundary(19, 24, "fade_white", 0.9), 10)
    assert found is not None and found.kind in NO_CUTS and (found.start, found.end) == (20, 24)


@pytest.mark.parametrize("seed", range(3))
def test_a_fast_pan_is_no_transition(seed: int) -> None:
    shot, _ = DECOYS["whip_pan"](_drifting(5 + seed, 90), 40, 10, np.random.default_rng(seed), _drifting(7, 20))
    assert _cuts(shot) == []


def test_a_picture_that_moves_at_once_as_a_whole_is_no_jump() -> None:
    wide = scene(5, 300, 180)
    places = [80.0 + 0.05 * k + (9.0 if k >= 40 else 0.0) for k in range(80)]
    assert _cuts([cv2.getRectSubPix(wide, (128, 72), (x, 80.0)) for x in places]) == []


def test_a_recipe_chooses_whether_flashes_end_clips() -> None:
    pictures = _drifting(3, 96)
    for picture in pictures[50:52]:
        picture[:] = cv2.addWeighted(picture, 0.2, np.full_like(picture, 255), 0.8, 0)

    def spans(ends_at: Sequence[str]) -> list[tuple[int, int, str]]:
        splitter = Splitter(Fused(), Divider(0.5, 10.0, 0.0), FPS, ends_at)
        pieces = []
        for frame in _frames(pictures):
            if splitter.push(frame):
                pieces += list(splitter.look())
        pieces += list(splitter.finish(96 / FPS))
        return [(each.start, each.end, each.kind) for each in pieces]

    assert spans(ENDINGS) == [(0, 96, "clip")]
    assert spans([*ENDINGS, "flash"]) == [(0, 50, "clip"), (50, 52, "transition"), (52, 96, "clip")]
