"""Footage that stands still for seconds gets the same verdicts whether held frames are repeated or stored once."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.floor import without_text
from core.cpu_time import StepClock
from curation.analysis.analyse import analyse, probe_source
from curation.analysis.samples import SampleStore
from curation.inputs.sources import find_sources
from curation.shots import DETECTORS
from curation.shots.holds import HELD_S, Holds
from curation.shots.types import Boundary
from curation.types import ClipInput, Frames, Row, Sampling
from curation.work import Plan
from demo.drawing import write_video
from demo.landscapes import scene
from media.coarse import CoarseFrame
from media.frame import RgbFrame
from media.types import SourceFacts, Span, no_heartbeat
from operators import OPERATORS

FPS = 25
WIDTH, HEIGHT = 256, 144
Shown = list[tuple[np.ndarray, float]]
"""pictures, and how long each is shown in seconds"""


def photo(seed: int) -> np.ndarray:
    return scene(seed, WIDTH, HEIGHT)


def photos() -> Shown:
    return [(photo(k), s) for k, s in enumerate((2.4, 3.0, 2.0, 3.2, 2.8))]


def crossfades() -> Shown:
    """Photos that stand for 3 s and melt into the next within 0.6 s."""
    shown: Shown = []
    for k in range(4):
        one, other = photo(k).astype(float), photo(k + 1).astype(float)
        shown.append((photo(k), 3.0))
        shown += [((one + (other - one) * step / 16).astype(np.uint8), 1 / FPS) for step in range(1, 16)]
    return [*shown, (photo(4), 3.0)]


def bursts() -> Shown:
    """A picture that stands, moves for 0.4 s, and stands again."""
    wide = scene(3, 3 * WIDTH, HEIGHT)
    shown: Shown = []
    for k in range(4):
        shown.append((wide[:, 60 * k : 60 * k + WIDTH], 2.0))
        shown += [(wide[:, 60 * k + 6 * step : 60 * k + 6 * step + WIDTH], 1 / FPS) for step in range(1, 10)]
    return shown


def evenly(shown: Shown) -> Shown:
    """The same at an even rate."""
    return [(picture, 1 / FPS) for picture, s in shown for _ in range(round(s * FPS))]


def rows_of(folder: Path, name: str, shown: Shown) -> list[Row]:
    """Write a file without loss and analyse it; the last frame, whose length a file may not tell, is short."""
    shown = [*shown, (shown[-1][0], 1 / FPS)]
    times_s = np.cumsum([0.0, *(s for _, s in shown[:-1])]).round(6).tolist()
    lossless = {"preset": "ultrafast", "qp": "0"}
    write_video(folder / f"{name}.mp4", [p for p, _ in shown], FPS, pts=times_s, options=lossless)
    plan = Plan(without_text(), str(folder / "out"))
    Path(plan.out).mkdir(exist_ok=True)
    (source,) = find_sources([str(folder / f"{name}.mp4")])
    return [
        row
        for task in probe_source(plan, source, no_heartbeat)
        for row in analyse(plan, task, no_heartbeat, StepClock())
    ]


@pytest.mark.parametrize("draw", [photos, crossfades, bursts], ids=lambda draw: draw.__name__)
def test_a_file_without_repeats_is_judged_like_its_even_twin(tmp_path: Path, draw: Callable[[], Shown]) -> None:
    short, long = (rows_of(tmp_path, name, s) for name, s in (("held", draw()), ("even", evenly(draw()))))
    assert [(r["kind"], r["status"]) for r in short] == [(r["kind"], r["status"]) for r in long]
    assert [r["start_s"] for r in short] == pytest.approx([r["start_s"] for r in long], abs=1.5 / FPS)
    for one, other in zip(short, long, strict=True):
        if one["duration_s"] < 1:
            continue
        # An even file says a little less than the eye sees of how still it is: its repeats count, new frames do not.
        assert one["frozen"] == pytest.approx(other["frozen"], abs=0.02)
        for name in ("motion", "camera_pan_x"):  # of a few moments in each clip
            assert one[name] == pytest.approx(other[name], rel=0.1, abs=0.1), name
        for name in ("brightness", "sharpness", "visual_quality"):
            assert one[name] == pytest.approx(other[name], rel=0.02, abs=0.02), name


def test_a_slideshow_is_cut_between_its_photos_and_does_not_move(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "held", photos())
    assert [r["start_s"] for r in rows] == pytest.approx([0, 2.4, 5.4, 7.4, 10.6])
    assert all(r["frozen"] > 0.9 and r["motion"] < 0.05 for r in rows)


# -- shot detectors


def coarse(picture: np.ndarray, index: int, time_s: float, shown_s: float = 0.0) -> CoarseFrame:
    return RgbFrame(picture, index, time_s, shown_s).coarse()


def coarse_frames(shown: Sequence[tuple[np.ndarray, float]]) -> list[CoarseFrame]:
    times_s = np.cumsum([0.0, *(s for _, s in shown)]).tolist()
    return [coarse(p, k, times_s[k], s) for k, (p, s) in enumerate(shown)]


def found_at(name: str, shown: Shown) -> list[float]:
    """When the boundaries begin that a detector finds."""
    frames = coarse_frames(shown)
    state = DETECTORS[name]().start(len(frames) / sum(s for _, s in shown))
    found = [b for each in state.push(frames) for b in each] + state.finish()
    return [frames[b.start].time_s for b in found]


@pytest.mark.parametrize("name", ["fused", "content", "adaptive", "cascade", "histogram", "hash"])
def test_every_detector_cuts_held_photos_as_it_cuts_repeated_ones(name: str) -> None:
    assert found_at(name, photos()) == pytest.approx(found_at(name, evenly(photos())))


class _Echo:
    """A detector that tells of every frame it sees, and of the range from each to the next but one."""

    def __init__(self) -> None:
        self.seen: list[CoarseFrame] = []

    def push(self, frames: Sequence[CoarseFrame]) -> list[list[Boundary]]:
        self.seen += frames
        return [[Boundary(frame.index, frame.index + 2)] for frame in frames]

    def finish(self) -> list[Boundary]:
        return []


def test_repeats_fill_the_time_and_boundaries_are_told_in_real_frames() -> None:
    picture = photo(0)
    times_s = [0.0, 0.04, 1.04, 1.08, 1.08 + HELD_S, 8000.0, 8000.04]
    echo = _Echo()
    holds = Holds(echo, 1.0)
    frames = [coarse(picture, 700 + k, t) for k, t in enumerate(times_s)]
    told = [found for part in (frames[:3], frames[3:]) for found in holds.push(part)]
    assert len(told) == len(frames)
    assert [frame.index for frame in echo.seen] == list(range(700, 700 + len(echo.seen)))
    steps_s = np.diff([frame.time_s for frame in echo.seen])
    assert (steps_s > 0).all() and np.count_nonzero(steps_s > HELD_S) == 1  # the middle of a long hold is left out
    assert all(700 <= b.start <= b.end <= 708 for found in told for b in found)
    assert told[1][-1] == Boundary(701, 702)  # the range ends within the hold, so with the frame that follows it
    assert told[2][0] == Boundary(702, 702)  # a repeat is no frame
    assert told[6] == [Boundary(706, 708)]


# -- samples


def test_a_held_frame_is_taken_at_each_time_of_the_grid() -> None:
    grid, pairs = Sampling(2.0, None, None, None, "gray"), Sampling(2.0, None, 0.15, None, "gray")
    few, coarse_few = Sampling(2.0, 4, None, None, "rgb"), Sampling(None, 4, None, None, "gray")
    store = SampleStore([grid, pairs, few, coarse_few])
    times_s = [0.0, 0.04, 0.2, 3.0, 3.04, 4.0]
    for index, time_s in enumerate(times_s[:-1]):
        frame = RgbFrame(np.full((4, 4, 3), 10 * index, np.uint8), index, time_s, times_s[index + 1] - time_s)
        store.offer(frame, frame.coarse())

    def taken(sampling: Sampling) -> list[tuple[float, int]]:
        frames = store.take(sampling, Span(0.0, 4.0, 0, 5))
        assert frames is not None
        levels = frames.pixels.reshape(len(frames), -1)[:, 0].round(-1) // 10
        return list(zip(frames.times_s.tolist(), levels.tolist(), strict=True))

    held = [(0.5, 2), (1.0, 2), (1.5, 2), (2.0, 2), (2.5, 2)]
    assert taken(grid) == [(0.0, 0), *held, (3.0, 3), (3.5, 4)]
    assert taken(pairs)[:4] == [(0.0, 0), (0.2, 2), (0.5, 2), (0.65, 2)]
    assert taken(pairs)[-4:] == [(3.0, 3), (3.15, 4), (3.5, 4), (3.65, 4)]
    assert taken(few) == [(0.5, 2), (1.5, 2), (2.5, 2), (3.5, 4)]
    assert taken(coarse_few) == [(0.5, 2), (1.5, 2), (2.5, 2), (3.5, 4)]


def test_a_frame_that_is_held_for_an_hour_is_taken_a_bounded_number_of_times() -> None:
    grid = Sampling(2.0, None, None, None, "gray")
    store = SampleStore([grid])
    frame = RgbFrame(np.zeros((4, 4, 3), np.uint8), 0, 0.0, 3600.0)
    store.offer(frame, frame.coarse())
    frames = store.take(grid, Span(0.0, 3600.0, 0, 1))
    assert frames is not None and 100 <= len(frames) <= 200
    assert np.diff(frames.times_s).max() < 40


# -- frozen


def frozen(levels: Sequence[int], times_s: Sequence[float], end_s: float, is_vfr: bool = True) -> float | None:
    pixels = np.stack([np.full((16, 16), level, np.uint8) for level in levels])
    facts = SourceFacts("video", 16, 16, "h264", fps=len(levels) / end_s, is_vfr=is_vfr)
    clip = ClipInput(facts, Span(0.0, end_s, 0, len(levels)), Frames(pixels, np.array(times_s, float)))
    return OPERATORS["frozen"]().load()([clip])[0]["frozen"]


def test_frozen_is_a_share_of_time() -> None:
    assert frozen([10], [0.0], 4.0) == 1.0
    assert frozen([10, 50], [0.0, 3.0], 6.0) == pytest.approx(0.99, abs=0.01)
    moving = [k / FPS for k in range(FPS)]
    assert frozen([2 * k for k in range(FPS)], moving, 1.0) == 0.0
    assert frozen([*(2 * k for k in range(FPS)), 90], [*moving, 1.0], 4.0) == pytest.approx(0.75, abs=0.02)
    assert frozen([*(2 * k for k in range(FPS)), 48, 48], [*moving, 1.0, 2.5], 4.0) == pytest.approx(0.75, abs=0.02)


def test_even_footage_of_few_frames_per_second_moves_and_an_even_slideshow_does_not() -> None:
    assert frozen([10, 20, 30, 40, 50], [0.0, 0.2, 0.4, 0.6, 0.8], 1.0, is_vfr=False) == 0.0
    assert frozen([10, 20, 30, 40], [0.0, 3.0, 6.0, 9.0], 12.0, is_vfr=False) > 0.9
