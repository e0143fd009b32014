"""Kinds and confidence of transitions, from drawn frames to the divided clips."""

from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from benchmarks.edits.joins import JOINS
from curation.recipe import ShotSettings
from curation.shots import kinds
from curation.shots.divide import Divider, Piece
from curation.shots.fused import Fused
from curation.shots.split import Splitter
from curation.shots.types import ENDINGS, KINDS, NO_CUTS, Boundary
from demo.landscapes import scene
from media.coarse import CoarseFrame

FPS = 24.0


def _shot(seed: int, count: int) -> list[np.ndarray]:
    """A picture seen by a camera that drifts slowly: uint8 (72, 128, 3) each."""
    wide = scene(seed, 256, 144)
    return [cv2.getRectSubPix(wide, (128, 72), (100.0 + k * 0.2, 72.0)) for k in range(count)]


def _frames(pictures: Sequence[np.ndarray]) -> list[CoarseFrame]:
    frames = []
    for k, picture in enumerate(pictures):
        luma, red, blue = cv2.split(cv2.cvtColor(picture, cv2.COLOR_RGB2YCrCb))
        chroma = np.stack([cv2.resize(each, (64, 36), interpolation=cv2.INTER_AREA) for each in (blue, red)])
        frames.append(CoarseFrame(k, k / FPS, luma, chroma, 1 / FPS))
    return frames


def _found(pictures: Sequence[np.ndarray]) -> list[Boundary]:
    state = Fused().start(FPS)
    return [each for certain in state.push(_frames(pictures)) for each in certain] + state.finish()


def _joined(kind: str, length: int) -> list[np.ndarray]:
    one, other = _shot(3, 60 + length), _shot(7, 60 + length)
    mixed = [JOINS[kind][0](one[60 + k], other[k], (k + 1) / (length + 1), 0) for k in range(length)]
    return one[:60] + mixed + other[length:]


@pytest.mark.parametrize("kind", ["dissolve", "fade_black", "fade_white", "wipe", "push"])
def test_a_gradual_transition_is_told_by_its_kind(kind: str) -> None:
    found = _found(_joined(kind, 18))
    assert [each.kind for each in found] == [kind]
    assert 0.5 < (found[0].score or 0) <= 1


def test_a_cut_between_scenes_is_hard_and_one_within_a_view_is_a_jump() -> None:
    one, other = _shot(3, 60), _shot(7, 60)
    assert [(each.start, each.kind) for each in _found(one + other)] == [(60, "hard")]
    closer = [cv2.resize(each[12:60, 21:106], (128, 72)) for each in one]
    assert [(each.start, each.kind) for each in _found(one + closer)] == [(60, "jump")]


@pytest.mark.parametrize("evidence", [4.0, 9.5, 12.0, 17.5])
def test_confidence_is_evidence_in_other_words(evidence: float) -> None:
    assert kinds.evidence_of(kinds.confidence(evidence)) == pytest.approx(evidence, abs=0.05)


def test_every_kind_but_those_within_a_shot_ends_a_clip() -> None:
    assert {*ENDINGS} | NO_CUTS == {*KINDS} and not {*ENDINGS} & NO_CUTS
    assert ShotSettings().ends_at == ENDINGS
    with pytest.raises(ValueError, match="fade is no kind"):
        ShotSettings(ends_at=("hard", "fade"))


class _Says:
    """A detector that knows its boundaries."""

    lag_s = 1.0

    def __init__(self, found: Sequence[Boundary]) -> None:
        self._found = list(found)

    def start(self, fps: float) -> "_Says":
        return self

    def push(self, frames: Sequence[CoarseFrame]) -> list[list[Boundary]]:
        return [[each for each in self._found if each.end == frame.index] for frame in frames]

    def finish(self) -> list[Boundary]:
        return [each for each in self._found if each.end >= 96]


def _pieces(found: Sequence[Boundary], ends_at: Sequence[str] = ENDINGS) -> list[Piece]:
    splitter, pieces = Splitter(_Says(found), Divider(0.5, 3.0, 0.0), FPS, ends_at), []
    picture, chroma = np.zeros((4, 4), np.uint8), np.zeros((2, 2, 2), np.uint8)
    for k in range(96):
        if splitter.push(CoarseFrame(k, k / FPS, picture, chroma)):
            pieces += splitter.look()
    return [each for each in [*pieces, *splitter.finish(4.0)] if isinstance(each, Piece)]


def test_clips_carry_what_ends_their_shot_and_transitions_carry_themselves() -> None:
    cut, fade = Boundary(24, 24, "hard", 0.9), Boundary(48, 60, "fade_black", 0.8)
    pieces = _pieces([cut, fade])
    assert [(each.start, each.end, each.kind) for each in pieces] == [
        (0, 24, "clip"), (24, 48, "clip"), (48, 60, "transition"), (60, 96, "clip"),
    ]  # fmt: skip
    assert [each.ended_by and each.ended_by.kind for each in pieces] == ["hard", "fade_black", "fade_black", None]


def test_a_transition_exactly_at_the_border_ends_the_last_shot() -> None:
    assert [each.ended_by and each.ended_by.kind for each in _pieces([Boundary(96, 98, "wipe", 0.7)])] == ["wipe"] * 2


def test_kinds_that_end_no_clip_are_passed_over_and_those_not_told_never_are() -> None:
    found = [Boundary(24, 26, "flash", 0.9), Boundary(48, 48, "jump", 0.9), Boundary(72, 72)]
    assert [each.start for each in _pieces(found)] == [0, 48, 72]
    assert [each.start for each in _pieces(found, ["hard", "flash"])] == [0, 24, 26, 72]
