"""Dividing shots into clips: nothing lost, lengths bounded, look-ahead bounded, lag without influence."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from curation.shots.divide import Divider, Piece
from curation.shots.split import Splitter
from curation.shots.stride import Stride
from curation.shots.types import Boundary
from media.coarse import CoarseFrame

EPS_S = 1e-5
GREY = np.full((72, 128), 128, np.uint8)


@dataclass
class Footage:
    """Frame times, where the last frame ends, and boundaries in order."""

    times: list[float]
    end_s: float
    boundaries: list[Boundary]

    def time(self, index: int) -> float:
        return self.times[index] if index < len(self.times) else self.end_s

    def shots(self) -> list[tuple[int, int, str]]:
        """Return (start, end, kind) of shots and transitions with frames, in order."""
        found, at = [], 0
        for b in self.boundaries:
            found += [(at, b.start, "clip"), (b.start, b.end, "transition")]
            at = b.end
        return [s for s in (*found, (at, len(self.times), "clip")) if s[1] > s[0]]


def divide(footage: Footage, limits: tuple[float, float, float], lag_s: float = 0.0, late: int = 0) -> list[Piece]:
    """Feed footage as the analysis does: boundaries come out `late` frames after they are over."""
    return [piece for piece, _ in divide_live(footage, limits, lag_s, late)]


def divide_live(footage: Footage, limits: tuple[float, float, float], lag_s: float, late: int):
    """Return (piece, time of the frame at which it was given); no lag is shorter than a transition."""
    divider, lag_s = Divider(*limits), known_lag_s(footage, lag_s)
    waiting = list(footage.boundaries)
    given = []
    for index, time_s in enumerate(footage.times):
        divider.push(time_s)
        while waiting and _is_due(footage, waiting[0], index, lag_s, late):
            given += [(piece, time_s) for piece in divider.close(waiting.pop(0))]
        given += [(piece, time_s) for piece in divider.settle(time_s - lag_s)]
    divider.end(footage.end_s)
    for boundary in waiting:
        given += [(piece, footage.end_s) for piece in divider.close(boundary)]
    return given + [(piece, footage.end_s) for piece in divider.finish()]


def known_lag_s(footage: Footage, lag_s: float) -> float:
    return max([lag_s, *(footage.time(b.end) - footage.time(b.start) for b in footage.boundaries)])


def _is_due(footage: Footage, boundary: Boundary, index: int, lag_s: float, late: int) -> bool:
    """Return whether a detector reports a boundary now: `late` frames after its end, but never past its lag."""
    if index < boundary.end:
        return False
    past_lag = footage.times[index] - lag_s > footage.times[boundary.start] - 1e-9
    return index >= boundary.end + late or past_lag


def stretch_of(piece: Piece, shots: list[tuple[int, int, str]]) -> tuple[int, int, str]:
    return next(shot for shot in shots if shot[0] <= piece.start < shot[1])


def steady(duration_s: float, fps: float = 25.0, cuts_s: tuple[float, ...] = ()) -> Footage:
    count = round(duration_s * fps)
    cuts = [round(c * fps) for c in cuts_s]
    return Footage([round(i / fps, 6) for i in range(count)], round(count / fps, 6), [Boundary(c, c) for c in cuts])


@st.composite
def footages(draw, longest_step_s: float = 2.0) -> Footage:
    """Draw up to 60 frames, even or uneven, with hard and gradual boundaries."""
    count = draw(st.integers(1, 60))
    if draw(st.booleans()):
        step_s = draw(st.floats(0.02, longest_step_s))
        steps = [step_s] * count
    else:
        # Broken muxing gives frames of one time; they are then kept a microsecond apart.
        step = st.floats(0.02, longest_step_s) | st.just(1e-6)
        steps = draw(st.lists(step, min_size=count, max_size=count))
    times = [0.0]
    for step in steps:
        times.append(round(times[-1] + step, 6))
    marks = sorted(draw(st.sets(st.integers(1, max(1, count - 1)), max_size=6))) if count > 1 else []
    boundaries, at = [], 0
    for mark in marks:
        if mark >= at and mark > 0:
            end = min(count, mark + draw(st.integers(0, 4)))
            boundaries.append(Boundary(mark, end))
            at = end
    return Footage(times[:-1], times[-1], boundaries)


@st.composite
def lengths(draw, trim: bool = False) -> tuple[float, float, float]:
    shortest = draw(st.floats(0.1, 5.0))
    longest = shortest * draw(st.floats(1.0, 4.0))
    return shortest, longest, draw(st.floats(0.01, 3.0)) if trim else 0.0


def longest_step_s(footage: Footage) -> float:
    return max(footage.time(i + 1) - footage.time(i) for i in range(len(footage.times)))


# -- examples


def spans(footage: Footage, limits: tuple[float, float, float]) -> list[tuple[float, float]]:
    return [(p.start_s, p.end_s) for p in divide(footage, limits)]


def test_25_seconds_become_10_and_two_equal_rests():
    assert spans(steady(25, fps=24), (3, 10, 0)) == [(0, 10), (10, 17.5), (17.5, 25)]


def test_a_little_over_the_maximum_becomes_two_halves():
    assert spans(steady(10.5, fps=24), (3, 10, 0)) == [(0, 5.25), (5.25, 10.5)]


def test_the_maximum_itself_is_one_piece_also_where_rates_do_not_divide_it():
    assert spans(steady(10), (3, 10, 0)) == [(0, 10)]
    ntsc = steady(10.01, fps=30000 / 1001)
    assert len(ntsc.times) == 300
    assert [p.end - p.start for p in divide(ntsc, (3, 10, 0))] == [150, 150]


def test_a_short_shot_is_one_short_piece():
    assert spans(steady(2), (3, 10, 0)) == [(0, 2)]


def test_no_frames_give_no_piece():
    divider = Divider(3, 10, 0)
    divider.end(0.0)
    assert list(divider.finish()) == []


@pytest.mark.parametrize(("fps", "frames"), [(24000 / 1001, 479), (30000 / 1001, 599), (15000 / 1001, 299)])
def test_halves_of_nearly_twice_the_maximum_stay_within_it(fps, frames):
    """An odd number of frames makes one half a frame longer than the other: 240 frames of 23.976 are 10.01 s."""
    footage = Footage([round(i / fps, 6) for i in range(frames)], round(frames / fps, 6), [])
    assert max(p.end_s - p.start_s for p in divide(footage, (3, 10, 0))) <= 10 + EPS_S


def test_a_transition_is_a_piece_of_its_own_between_two_shots():
    footage = steady(12)
    footage.boundaries = [Boundary(100, 120)]
    first, between, last = divide(footage, (3, 10, 0))
    assert [(p.start, p.end, p.kind, p.shot) for p in (first, between, last)] == [
        (0, 100, "clip", 0),
        (100, 120, "transition", 1),
        (120, 300, "clip", 1),
    ]
    assert (first.shot_start_s, first.shot_end_s) == (0.0, 4.0)
    assert between.shot_start_s == last.shot_start_s == 4.0, "a shot begins with the transition into it"
    assert last.shot_end_s == 12.0


def test_trim_comes_off_both_ends_of_a_shot_only():
    assert spans(steady(20, cuts_s=(8,)), (3, 10, 0.4)) == [(0.4, 7.6), (8.4, 14.0), (14.0, 19.6)]


def test_trim_stops_at_the_minimum_whatever_the_frame_rate():
    """3.4 s leave 0.4 s to spare; a clip one frame below the minimum would be rejected for its length."""
    for fps in (23.976, 24, 25, 29.97, 30, 50, 59.94):
        for frames in range(round(3.0 * fps) + 1, round(5.0 * fps)):
            footage = Footage([round(i / fps, 6) for i in range(frames)], round(frames / fps, 6), [])
            (piece,) = divide(footage, (3, 10, 0.5))
            assert piece.end_s - piece.start_s >= 3 - EPS_S, (fps, frames)


def test_a_last_frame_whose_length_nobody_knows_is_a_clip_all_the_same():
    """A lone frame without rate or duration: it lasts a usual step, and does not vanish."""
    for times in ([0.0], [0.0, 0.04], [0.0, 1e-6]):
        splitter = Splitter(Stride(), Divider(3, 10, 0), 25.0)
        for i, t in enumerate(times):
            splitter.push(CoarseFrame(i, t, GREY, GREY[None]))
        pieces = list(splitter.finish(times[-1]))
        assert [(p.start, p.end, p.start_s, p.end_s) for p in pieces] == [
            (0, len(times), 0.0, round(times[-1] + 0.04, 6))
        ]


# -- properties


@settings(deadline=None)
@given(footages(), lengths(), st.floats(0, 5), st.integers(0, 10))
def test_pieces_tile_the_frames(footage, limits, lag_s, late):
    pieces = divide(footage, limits, lag_s, late)
    assert [p.start for p in pieces] == [0, *[p.end for p in pieces[:-1]]]
    assert pieces[-1].end == len(footage.times)
    assert all(p.end > p.start for p in pieces)
    for p in pieces:
        assert (p.start_s, p.end_s) == (footage.time(p.start), footage.time(p.end))


@settings(deadline=None)
@given(footages(), lengths(trim=True), st.floats(0, 5), st.integers(0, 10))
def test_every_piece_lies_in_its_own_shot(footage, limits, lag_s, late):
    shots = footage.shots()
    for p in divide(footage, limits, lag_s, late):
        assert p.end > p.start
        start, end, kind = stretch_of(p, shots)
        assert p.end <= end
        assert p.kind == kind
        assert p.shot_start_s <= p.start_s
        # a piece given ahead of its shot's end does not know it, even if it turns out to be the last
        assert p.shot_end_s is None or p.kind == "transition" or p.shot_end_s >= p.end_s


@settings(deadline=None)
@given(footages(), lengths(), st.floats(0, 5))
def test_no_piece_of_a_shot_is_longer_than_the_maximum_unless_one_frame_is(footage, limits, lag_s):
    for p in divide(footage, limits, lag_s):
        if p.kind == "clip" and p.end - p.start > 1:
            assert p.end_s - p.start_s <= limits[1] + EPS_S


@settings(deadline=None)
@given(footages(longest_step_s=0.5), lengths(), st.floats(0, 5))
def test_a_shot_that_is_long_enough_gives_a_short_piece_only_where_frames_do_not_divide(footage, limits, lag_s):
    """With max >= 2 * min: a short piece and a neighbour could not have been divided fairly at any frame."""
    shortest, longest = limits[0], max(limits[1], 2 * limits[0])
    assume(longest_step_s(footage) <= longest - shortest)
    shots = footage.shots()
    pieces = divide(footage, (shortest, longest, 0), lag_s)
    for index, p in enumerate(pieces):
        start, end, kind = stretch_of(p, shots)
        if kind == "transition" or footage.time(end) - footage.time(start) < shortest:
            continue
        if p.end_s - p.start_s < shortest - EPS_S:
            assert p.end == end or pieces[index + 1].end == end, "only among the last two"
            first = p if p.end != end else pieces[index - 1]
            for border in range(first.start + 1, end):
                halves = (footage.time(border) - first.start_s, footage.time(end) - footage.time(border))
                assert min(halves) < shortest + EPS_S or max(halves) > longest - EPS_S


@settings(deadline=None)
@given(footages(), lengths(), st.floats(0, 5))
def test_shots_are_numbered_in_order_without_gaps(footage, limits, lag_s):
    shots = footage.shots()
    clips = [p for p in divide(footage, limits, lag_s) if p.kind == "clip"]
    numbers = [p.shot for p in clips]
    assert numbers == sorted(numbers)
    for before, p in zip(clips, clips[1:], strict=False):
        assert (before.shot == p.shot) == (stretch_of(before, shots) == stretch_of(p, shots))


@settings(deadline=None)
@given(footages(longest_step_s=0.1), lengths())
def test_all_but_the_last_two_pieces_are_of_maximal_length_and_those_two_are_alike(footage, limits):
    shortest, longest = limits[0], max(limits[1], 2 * limits[0])
    pieces = [p for p in divide(footage, (shortest, longest, 0)) if p.kind == "clip"]
    step_s = longest_step_s(footage)
    for shot in {p.shot for p in pieces}:
        sizes = [p.end_s - p.start_s for p in pieces if p.shot == shot]
        assert all(size > longest - step_s - EPS_S for size in sizes[:-2])
        if len(sizes) > 1:
            alike = abs(sizes[-1] - sizes[-2]) <= step_s + EPS_S
            assert alike or sizes[-2] > longest - step_s - EPS_S


@settings(deadline=None)
@given(footages(), lengths(), st.floats(0, 30), st.integers(0, 30))
def test_the_lag_has_no_influence(footage, limits, lag_s, late):
    def places(lag: float, after: int):
        return [(p.start, p.end, p.shot, p.kind) for p in divide(footage, limits, lag, after)]

    assert places(lag_s, late) == places(0, 0) == places(1e9, 1000)


@settings(deadline=None)
@given(footages(), lengths(trim=True), st.floats(0, 30), st.integers(0, 30))
def test_the_lag_has_no_influence_on_trimmed_shots(footage, limits, lag_s, late):
    def places(lag: float, after: int):
        return [(p.start, p.end, p.shot, p.kind) for p in divide(footage, limits, lag, after)]

    assert places(lag_s, late) == places(0, 0) == places(1e9, 1000)


@settings(deadline=None)
@given(footages(), lengths(), st.floats(0, 5), st.integers(0, 10))
def test_look_ahead_is_bounded(footage, limits, lag_s, late):
    """A piece of a shot is given at the first frame more than 2 * max + lag after its start."""
    most_s = 2 * limits[1] + known_lag_s(footage, lag_s) + EPS_S
    for p, given_at_s in divide_live(footage, limits, lag_s, late):
        if p.kind == "clip":
            assert all(t - p.start_s <= most_s for t in footage.times if t < given_at_s)


@settings(deadline=None)
@given(footages(), lengths(trim=True))
def test_trim_never_makes_a_clip_shorter_than_the_minimum(footage, limits):
    shots = footage.shots()
    pieces = divide(footage, limits)
    for start, end, kind in shots:
        length_s = footage.time(end) - footage.time(start)
        mine = [p for p in pieces if start <= p.start < end]
        assert mine, "no shot disappears"
        if kind == "clip" and length_s >= limits[0]:
            assert mine[-1].end_s - mine[0].start_s >= limits[0] - EPS_S
        if kind == "clip" and length_s < limits[0]:
            assert (mine[0].start, mine[-1].end) == (start, end)


@settings(deadline=None)
@given(footages(), lengths(trim=True))
def test_open_from_is_never_ahead_of_a_piece_still_to_come(footage, limits):
    divider, opens = Divider(*limits), []
    for time_s in footage.times:
        divider.push(time_s)
        starts = [p.start_s for p in divider.settle(time_s)]
        assert all(s >= o for s in starts for o in opens)
        opens = [divider.open_from_s] if divider.open_from_s is not None else []
