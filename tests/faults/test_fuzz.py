"""Damaged and lying files through `curate`: the run goes on, every file has a row, nothing hangs.

`SELECTS_MUTANTS` says how many files are tried.
"""

import json
import math
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import pytest
from mutants import Mutant, Seed, drawn_seeds, mutant, real_seeds
from PIL import Image
from runs import curate, rows_of

from core.progress import Display, Tally
from curation.engine import runners
from curation.schema import BY_NAME
from curation.step_spec import Step
from curation.types import Row
from curation.work import Plan

pytestmark = pytest.mark.chaos

MUTANTS = int(os.environ.get("SELECTS_MUTANTS", "50"))
LONGEST_S = 60.0
"""Most wall time for one file on a busy machine: two tries of `silence_s` and what decoding takes."""
SETTINGS = (
    *("shots.min_s=0.5", "limits.silence_s=10", "cut.preset=ultrafast"),
    # Most of what can be decoded is to be cut as well.
    *(f"rules.{name}=false" for name in ("short_side_px", "motion", "sharpness", "visual_quality", "letterbox")),
)
NO_TEXT = ("operators.text_area=false", "rules.text_area=false")
IN_SEGMENTS = ("shots.max_s=1", "shots.segment_s=2", "shots.trim_s=0.1", "cut.crop_bars=true", "cut.fps=12")
COPIED = ("cut.mode=copy",)
CASCADE = ("shots.detector=cascade", "shots.min_s=0.2", "cut.short_side_px=33")
SHARES = ("brightness", "clipped", "frozen", "letterbox", "text_area", "visual_quality")
SIGNED = ("camera_pan_x", "camera_pan_y", "camera_zoom")
VARIANTS = {
    "default": NO_TEXT,
    "segments": (*NO_TEXT, *IN_SEGMENTS),
    "copy": (*NO_TEXT, *COPIED),
    "cascade": (*NO_TEXT, *CASCADE),
}
BATCH = max(10, min(50, math.ceil(MUTANTS / len(VARIANTS))))


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> list[Seed]:
    """Drawn clips, and real footage where there is some."""
    drawn = drawn_seeds(tmp_path_factory.mktemp("drawn"))
    try:
        videos = request.getfixturevalue("shared_videos")
    except pytest.skip.Exception:
        return drawn
    return drawn + real_seeds(videos, tmp_path_factory.mktemp("real"))


@pytest.mark.parametrize("first", range(0, MUTANTS, BATCH))
def test_no_file_breaks_the_run(first: int, seeds: list[Seed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variant = list(VARIANTS)[first // BATCH % len(VARIANTS)]
    made = [mutant(number, seeds) for number in range(first, min(first + BATCH, MUTANTS))]
    run_mutants(made, VARIANTS[variant], tmp_path, monkeypatch)


def test_no_file_breaks_the_run_that_reads_text(
    seeds: list[Seed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = min(25, max(5, MUTANTS // 10))
    run_mutants([mutant(100_000 + number, seeds) for number in range(count)], (), tmp_path, monkeypatch)


def test_the_seeds_themselves_are_sound(seeds: list[Seed], tmp_path: Path) -> None:
    """So that what the mutants show is the damage, not the seed."""
    drawn = [seed for seed in seeds if "__" not in seed.name and "_" not in seed.name]
    for seed in drawn:
        (tmp_path / seed.name).write_bytes(seed.data)
    out = tmp_path / "out"
    curate(*(tmp_path / seed.name for seed in drawn), *SETTINGS, *NO_TEXT, out=out)
    rows = rows_of(out).values()
    assert {row["source_path"] for row in rows if row["status"] == "accepted"} == {seed.name for seed in drawn}
    assert [row["error"] for row in rows if row["error"]] == []


def test_a_number_always_makes_the_same_mutant(seeds: list[Seed]) -> None:
    made = [mutant(number, seeds) for number in range(66)]
    assert made == [mutant(number, seeds) for number in range(66)]
    sound = {seed.data for seed in seeds}
    assert sum(m.data in sound for m in made if "disguise" not in m.name) <= 3, "nearly every mutant is damaged"
    assert len({m.data for m in made}) > 60


# -- one run and what it leaves


def run_mutants(made: list[Mutant], settings: Iterable[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for one in made:
        (folder / one.name).write_bytes(one.data)
    wall_s = timed(monkeypatch)
    curate(folder, *SETTINGS, *settings, out=out)
    rows = list(rows_of(out).values())
    run = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert run["problems"] == []
    assert {row["source_path"] for row in rows} == {one.name for one in made}, "every file has a row"
    assert wall_s.keys() == {one.name for one in made}
    assert max(wall_s.values()) < LONGEST_S, max(wall_s, key=lambda name: wall_s[name])
    for row in rows:
        check_row(row, out)
    kept = {row["clip_path"] for row in rows if row["status"] == "accepted"}
    assert {f"train/{p.name}" for p in (out / "train").glob("*")} == kept, "no file but those of accepted clips"
    wall_s.clear()
    curate(folder, out=out)
    assert wall_s == {}, "nothing is left to do"


def timed(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Let the inline runner note how long each source took: the loop takes the next when one is done."""
    wall_s: dict[str, float] = {}

    def noted(rows: list[Row]) -> Iterator[Row]:
        for row in rows:
            begin = time.monotonic()
            yield row
            wall_s[row["source_path"]] = time.monotonic() - begin

    def run(self: object, plan: Plan, steps: list[Step], rows: list[Row], display: Display) -> Tally:
        return runners.run_inline(steps, noted(rows), display)  # type: ignore[arg-type]

    monkeypatch.setattr(runners.InlineRunner, "run", run)
    return wall_s


def check_row(row: Row, out: Path) -> None:
    what = (row["source_path"], row["start_s"])
    assert row["status"] in ("accepted", "rejected", "failed"), what
    assert bool(row["reasons"]) == (row["status"] == "rejected"), what
    assert (row["error"] is not None) == (row["status"] == "failed"), what
    if row["error"] is not None:
        assert row["error"].isprintable() and 10 < len(row["error"]) < 400, (what, row["error"])
        assert "internal error" not in row["error"], (what, row["error"])
    for column, value in row.items():
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float):
                check_number(number, column, what)
    if row["type"] == "video" and row["end_s"] is not None:
        assert row["start_s"] < row["end_s"], what
        assert (row["num_frames"] is None) == (row["status"] == "failed"), what  # a damaged stretch has no frames
        assert row["status"] == "failed" or row["num_frames"] > 0, what
    if row["status"] == "accepted":
        check_file(row, out / row["clip_path"])


def check_number(number: float, column: str, what: tuple[object, ...]) -> None:
    assert math.isfinite(number), (what, column, number)
    if column not in SIGNED:
        assert number >= 0, (what, column, number)
    if column in SHARES or column == "content_box":
        assert number <= 1 + 1e-9, (what, column, number)
    if BY_NAME[column].unit == "s":
        assert number <= 172_800, (what, column, number)


def check_file(row: Row, file: Path) -> None:
    wanted = (row["clip_width_px"], row["clip_height_px"])
    if row["type"] == "image":
        with Image.open(file) as picture:
            assert (*picture.size, row["clip_num_frames"]) == (*wanted, 1), file
            picture.load()
        return
    with av.open(str(file)) as container:
        sizes = [shown_size(frame) for frame in container.decode(video=0)]
    assert len(sizes) == row["clip_num_frames"], row["source_path"]
    assert set(sizes) == {wanted}, row["source_path"]


def shown_size(frame: av.VideoFrame) -> tuple[int, int]:
    """A copied clip keeps its rotation as the container says it."""
    return (frame.height, frame.width) if frame.rotation % 180 else (frame.width, frame.height)
