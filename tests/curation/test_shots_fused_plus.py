"""The detector with two evidences: what one of them is sure of stands, the other one decides about the rest."""

import numpy as np
import pytest

from core.errors import UserError
from curation.shots import fused_plus, kinds
from curation.shots.fused_plus import FusedPlus, FusedPlusState
from curation.shots.types import Boundary
from media.coarse import CoarseFrame

FPS, COUNT = 25.0, 400
SURE, UNSURE = kinds.confidence(22.0), kinds.confidence(13.0)


class _Proposes:
    """Stands in for `fused`: reports boundaries 3 s after they begin."""

    def __init__(self, found: list[Boundary], doubtful: list[Boundary]) -> None:
        self.doubtful = list(doubtful)
        self._left, self._at = list(found), 0

    def push(self, frames: list[CoarseFrame]) -> list[list[Boundary]]:
        told = []
        for _ in frames:
            told.append([each for each in self._left if each.start + 75 <= self._at])
            self._left = [each for each in self._left if each not in told[-1]]
            self._at += 1
        return told

    def finish(self) -> list[Boundary]:
        return self._left


def _frames() -> list[CoarseFrame]:
    picture, chroma = np.zeros((72, 128), np.uint8), np.zeros((2, 36, 64), np.uint8)
    return [CoarseFrame(k, k / FPS, picture, chroma) for k in range(COUNT)]


def _found(
    monkeypatch: pytest.MonkeyPatch,
    probability: float,
    found: list[Boundary],
    doubtful: list[Boundary] | None = None,
    settings: FusedPlus | None = None,
    block: int = 16,
) -> tuple[list[Boundary], list[Boundary]]:
    """Return what is reported, and what the network was asked about, where it always says the same."""
    asked: list[Boundary] = []
    settings = settings or FusedPlus()
    state = FusedPlusState(settings, _Proposes(found, doubtful or []), FPS)  # type: ignore[arg-type]

    def say(boundary: Boundary) -> float:
        asked.append(boundary)
        state._seen += settings.window_frames
        return probability

    monkeypatch.setattr(state, "_probability", say)
    frames, told = _frames(), []
    for at in range(0, COUNT, block):
        for frame, certain in zip(frames[at : at + block], state.push(frames[at : at + block]), strict=True):
            assert all(each.start / FPS >= frame.time_s - settings.lag_s - 2 / FPS for each in certain)
            told += certain
    return told + state.finish(), asked


CUT, WEAK = Boundary(100, 100, "hard", SURE), Boundary(200, 200, "hard", UNSURE)
FADE, DISSOLVE = Boundary(260, 266, "fade_black", 0.95), Boundary(300, 320, "dissolve", 0.95)


def test_sure_cuts_and_dissolves_stand_and_the_rest_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    every = [CUT, WEAK, FADE, DISSOLVE]
    told, asked = _found(monkeypatch, 0.9, every, settings=FusedPlus(most_seen=1.0))
    assert (told, asked) == (every, [WEAK, FADE])
    told, asked = _found(monkeypatch, 0.0, every, settings=FusedPlus(most_seen=1.0))
    assert (told, asked) == ([CUT, DISSOLVE], [WEAK, FADE])


@pytest.mark.parametrize("block", [1, 7, COUNT])
def test_doubtful_cuts_need_the_network_whatever_is_pushed_at_a_time(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    doubtful = [Boundary(150, 150, "hard", kinds.confidence(11.5)), Boundary(310, 310, "hard", 0.6)]
    told, _ = _found(monkeypatch, 0.9, [CUT, DISSOLVE], doubtful, FusedPlus(most_seen=1.0), block)
    assert told == [CUT, doubtful[0], DISSOLVE], "one within a dissolve is part of it"
    assert _found(monkeypatch, 0.0, [CUT, DISSOLVE], doubtful, block=block)[0] == [CUT, DISSOLVE]


def test_the_network_sees_a_bounded_share_of_the_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    weak = [Boundary(k, k, "hard", UNSURE) for k in range(10, 300, 10)]
    settings = FusedPlus()
    told, asked = _found(monkeypatch, 0.0, weak, settings=settings)
    assert (
        len(asked) * settings.window_frames
        <= settings.most_seen * COUNT + fused_plus.FIRST_WINDOWS * settings.window_frames
    )
    assert told == [each for each in weak if each not in asked], "what is not asked for is decided by the cheap one"


def test_both_evidences_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for total, probability, stands in ((11.0, 0.9, True), (11.0, 0.6, False), (14.0, 0.2, True), (14.0, 0.1, False)):
        cut = Boundary(100, 100, "hard", kinds.confidence(total))
        told, _ = _found(monkeypatch, probability, [], [cut])
        assert told == [cut] * stands


def test_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise UserError("selects-video[cuts]")

    monkeypatch.setattr(fused_plus, "check_installed", missing)
    with pytest.raises(UserError, match="cuts"):
        FusedPlus().start(FPS)


@pytest.mark.parametrize(
    "wrong",
    [{"most_seen": 2.0}, {"weight": -0.1}, {"window_frames": 4}, {"least": 20.0}, {"max_gradual_s": -1.0}],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        FusedPlus(**wrong)  # type: ignore[arg-type]
