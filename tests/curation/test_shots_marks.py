"""Flashes and damaged frames within a clip stand in its row, with their times; they end no clip."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from runs import curate, rows_of

from curation.shots import BUILT_IN
from curation.shots.divide import Divider
from curation.shots.types import NO_CUTS, Boundary, Mark, Marks
from demo.drawing import write_video
from demo.landscapes import scene

FPS = 24
FLASH, GLITCH = (30, 32), (100, 104)
"""Frames of the drawn film."""
COLUMNS = ("flashes", "glitches", "marks")
WORDS = (
    *("operators.text_area=false", "rules.text_area=false", "operators.motion=false", "rules.motion=false"),
    *("rules.short_side_px.min=100", "cut.mode=none"),
)


def _film(path: Path) -> Path:
    """Draw 6 s of a landscape that drifts, with one flash and one stretch of damaged frames."""
    rng = np.random.default_rng(4)
    wide = scene(5, 640, 360)
    frames = []
    for k in range(144):
        frame = cv2.getRectSubPix(wide, (320, 180), (200.0 + 0.4 * k, 180.0))
        if FLASH[0] <= k < FLASH[1]:
            frame = cv2.addWeighted(frame, 0.2, np.full_like(frame, 255), 0.8, 0)
        if GLITCH[0] <= k < GLITCH[1]:
            blocks = rng.integers(0, 255, (12, 20, 3), np.uint8)
            frame[24:168] = cv2.resize(blocks, (320, 144), interpolation=cv2.INTER_NEAREST)
        frames.append(frame)
    write_video(
        path, frames, FPS, options={"preset": "ultrafast", "crf": "22", "g": "24"}
    )  # segments begin at keyframes
    return path


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _film(tmp_path_factory.mktemp("film") / "film.mp4")


def _frames(mark: dict) -> tuple[float, float]:
    return mark["start_s"] * FPS, mark["end_s"] * FPS


def _check(marks: Sequence[dict]) -> None:
    assert [each["kind"] for each in marks] == ["flash", "glitch"]
    for mark, truth in zip(marks, (FLASH, GLITCH), strict=True):
        assert _frames(mark) == pytest.approx(truth, abs=1.01) and 0 < mark["score"] <= 1


def test_a_run_writes_flashes_and_damage_into_the_table(film: Path, tmp_path: Path) -> None:
    curate(film, *WORDS, out=tmp_path / "out")
    (row,) = rows_of(tmp_path / "out").values()
    assert (row["num_frames"], row["flashes"], row["glitches"]) == (144, 1, 1)
    _check(row["marks"])
    (part,) = (tmp_path / "out" / "clips").glob("*.parquet")
    assert pq.read_table(part)["marks"].to_pandas()[0][0]["kind"] == "flash"


@pytest.mark.slow
def test_segments_and_ray_write_the_same(film: Path, tmp_path: Path, ray_here: None) -> None:
    words = (*WORDS, "shots.segment_s=3", "shots.max_s=1.5", "shots.min_s=0.5")
    curate(film, *words, out=tmp_path / "inline")
    curate(film, *words, out=tmp_path / "ray", runner="ray")
    one, other = ({k: [r[c] for c in COLUMNS] for k, r in rows_of(tmp_path / n).items()} for n in ("inline", "ray"))
    assert one == other
    rows = sorted(rows_of(tmp_path / "inline").values(), key=lambda row: row["start_s"])
    assert {round(row["end_s"] * FPS) for row in rows} >= {72, 144}, "a clip ends where the first segment does"
    _check([mark for row in rows for mark in row["marks"]])
    for row in rows:
        assert all(row["start_s"] <= each["start_s"] < each["end_s"] <= row["end_s"] for each in row["marks"])
        assert (row["flashes"], row["glitches"]) == tuple(
            sum(each["kind"] == kind for each in row["marks"]) for kind in ("flash", "glitch")
        )


def test_a_rule_rejects_by_their_number(film: Path, tmp_path: Path) -> None:
    curate(film, *WORDS, "rules.flashes.max=0", "rules.glitches.max=1", out=tmp_path / "out")
    (row,) = rows_of(tmp_path / "out").values()
    assert row["reasons"] == ["flashes:high"]


def test_a_detector_that_does_not_tell_leaves_them_null_and_a_rule_rejects(film: Path, tmp_path: Path) -> None:
    curate(film, *WORDS, "shots.detector=stride", "rules.glitches.max=0", out=tmp_path / "out")
    rows = list(rows_of(tmp_path / "out").values())
    assert {(row["flashes"], row["glitches"], row["marks"]) for row in rows} == {(None, None, None)}
    assert all("glitches:missing" in row["reasons"] for row in rows)


def test_what_ends_a_clip_is_no_mark_in_it(film: Path, tmp_path: Path) -> None:
    words = (*WORDS, "shots.ends_at=[hard,flash]", "shots.min_s=0.5")
    curate(film, *words, out=tmp_path / "out")
    rows = sorted(rows_of(tmp_path / "out").values(), key=lambda row: row["start_s"])
    assert [row["kind"] for row in rows] == ["clip", "transition", "clip"]
    assert [row["flashes"] for row in rows] == [0, 0, 0]
    assert [each["kind"] for row in rows for each in row["marks"]] == ["glitch"]


def test_detectors_that_tell_say_so() -> None:
    told = {name: kind().marks for name, kind in BUILT_IN.items() if isinstance(kind(), Marks)}
    assert told == {"fused": NO_CUTS, "fused_plus": NO_CUTS}


def _marked(marks: Sequence[Boundary], feed: Callable[[Divider], None] | None = None) -> list[tuple[Mark, ...]]:
    """Divide 10 s of 10 frames per second into pieces of up to 5 s, and return their marks."""
    divider, pieces = Divider(0.5, 5.0, 0.0), []
    for k in range(100):
        divider.push(k / 10)
    for each in marks:
        divider.mark(each)
    divider.end(10.0)
    pieces += divider.finish()
    assert [(each.start, each.end) for each in pieces] == [(0, 50), (50, 100)]
    return [each.marks for each in pieces]


def test_a_mark_across_two_clips_is_divided_with_them() -> None:
    one, two = _marked([Boundary(48, 53, "glitch", 0.9)])
    assert [(each.start_s, each.end_s) for each in one] == [(4.8, 5.0)]
    assert [(each.start_s, each.end_s) for each in two] == [(5.0, pytest.approx(5.3))]


def test_a_mark_without_frames_belongs_to_the_clip_around_it_and_not_to_its_border() -> None:
    one, two = _marked([Boundary(50, 50, "jump", 0.7), Boundary(60, 60, "jump", 0.8)])
    assert one == () and two == (Mark("jump", 6.0, 6.0, 0.8),)
