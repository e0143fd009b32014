"""Fitting the steps to a machine, and running many pools on two CPUs."""

import shutil
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import ray
from PIL import Image
from runs import assert_same_output, rows_of

from captioners import CAPTIONERS
from core.errors import UserError
from curation.engine.booking import book_workers, elastic
from curation.engine.capacity import NodeCapacity
from curation.engine.connecting import not_joined
from curation.engine.ray_runner import RayRunner, start_ray
from curation.engine.runners import InlineRunner
from curation.inputs.sources import find_sources
from curation.pipeline import curate
from curation.recipe import Recipe, Tables, Workers, resolve
from curation.steps import steps_of
from curation.types import ClipInput, Scorer, Scores
from curation.work import Plan
from operators import OPERATORS
from operators.brightness import Brightness
from operators.letterbox import Letterbox
from operators.sharpness import Sharpness
from operators.visual_quality import VisualQuality


@dataclass(frozen=True)
class PooledBrightness(Brightness):
    pool: ClassVar[str | None] = "light"


@dataclass(frozen=True)
class PooledSharpness(Sharpness):
    pool: ClassVar[str | None] = "focus"


@dataclass(frozen=True)
class PooledLetterbox(Letterbox):
    pool: ClassVar[str | None] = "bars"


@dataclass(frozen=True)
class PooledQuality(VisualQuality):
    pool: ClassVar[str | None] = "quality"


POOLED = OPERATORS | {
    "brightness": PooledBrightness,
    "sharpness": PooledSharpness,
    "letterbox": PooledLetterbox,
    "visual_quality": PooledQuality,
}


def five_pools() -> tuple[Recipe, object]:
    names = ("motion", "brightness", "sharpness", "letterbox", "visual_quality", "text_area")
    rules = {"brightness": {"min": 0.1}, "sharpness": {"min": 15}, "text_area": {"max": 0.02}}
    values = {"operators": dict.fromkeys(names), "rules": rules, "cut": {"preset": "ultrafast"}}
    return resolve(values, Tables(POOLED, CAPTIONERS))


@pytest.mark.parametrize("cpus", [1, 2, 3, 7.5, 16, 64, 1000])
def test_bookings_leave_room_for_a_task_of_every_step(cpus: float) -> None:
    recipe, captioner = five_pools()
    plan = Plan(recipe, "out")
    steps = steps_of(plan, captioner)
    bookings = book_workers(plan, steps, [NodeCapacity("one", cpus)])
    pools = sum(b.workers * b.cpus for s in steps if s.spec.holds_models for b in [bookings[s.spec.name]])
    assert len([s for s in steps if s.spec.holds_models]) == 5
    for step in steps:
        assert 0 < bookings[step.spec.name].cpus <= 1 and bookings[step.spec.name].workers >= 1
        assert pools + bookings[step.spec.name].cpus <= cpus


@pytest.mark.parametrize("cpus", [1, 2, 3, 7.5, 16, 64, 1000])
def test_on_a_cluster_steps_take_what_joins_and_pools_stay_within_the_recipe(cpus: float) -> None:
    recipe, captioner = five_pools()
    plan = Plan(recipe, "out")
    steps = steps_of(plan, captioner)
    bookings = book_workers(plan, steps, [NodeCapacity("one", cpus)])
    assert all(booking.is_fixed for booking in bookings.values())
    grown = elastic(bookings, plan, steps)
    for step in steps:
        before, after = bookings[step.spec.name], grown[step.spec.name]
        assert after.cpus <= before.cpus and after.workers == before.workers
        assert after.most == (before.workers if step.spec.holds_models else None)
    shares = [grown[s.spec.name].cpus for s in steps if not s.spec.holds_models]
    assert len(set(shares)) == len(shares), "equal shares would be fused"
    wide = Plan(replace(recipe, workers=Workers(score_max=500, analyse=7)), "out")
    grown = elastic(
        book_workers(wide, steps_of(wide, captioner), [NodeCapacity("one", cpus)]), wide, steps_of(wide, captioner)
    )
    assert {grown[s.spec.name].most for s in steps if s.spec.holds_models} == {500}
    assert grown["analyse"].most == 7
    on_gpu = {name: replace(booking, gpus=0.25) for name, booking in bookings.items()}
    assert {b.most for b in elastic(on_gpu, plan, steps).values()} == {None}, "GPUs are the bound"


def test_what_cannot_fit_is_said_with_its_numbers() -> None:
    recipe, captioner = five_pools()
    plan = Plan(replace(recipe, workers=Workers(score=50)), "out")
    with pytest.raises(
        UserError, match=r"5 pools of 50 model workers .* book 25.0 CPUs of 2; .* workers.score to 2 or"
    ):
        book_workers(plan, steps_of(plan, captioner), [NodeCapacity("one", 2)])


def test_what_a_worker_met_when_it_loaded_a_model_is_told_in_its_own_words() -> None:
    from ray.exceptions import ActorDiedError, RayTaskError

    from curation.engine.ray_runner import _cause

    try:
        raise UserError("no weights here; fetch them")
    except UserError as error:
        words = "".join(traceback.format_exception(error))
        met = RayTaskError("Worker.__init__", words, error)
    told = _cause(ActorDiedError(met))
    assert isinstance(told, UserError)
    assert str(told) == "no weights here; fetch them"


def test_no_cluster_is_said_at_once() -> None:
    import ray

    if ray.is_initialized():
        pytest.skip("this session's own Ray is up")
    with pytest.raises(UserError, match="no cluster answers"):
        start_ray("127.0.0.1:1")


def test_a_cluster_of_other_versions_is_told_with_both() -> None:
    told = (
        "Version mismatch: The cluster was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
        "This process on 10.0.0.1 was started with:\n    Ray: 2.55.1\n    Python: 3.12.0\n"
    )
    line = str(not_joined("10.0.0.2:6379", RuntimeError(told)))
    assert "the cluster runs Ray 2.60.0 on Python 3.11.7, and this process Ray 2.55.1 on Python 3.12.0" in line
    assert "no cluster answers (gone)" in str(not_joined("10.0.0.2:6379", ConnectionError("gone\nmore")))


@pytest.mark.slow
def test_five_pools_run_on_two_cpus(demo_footage: Path, tmp_path: Path, ray_here: None) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    for name in ("rushes.mp4", "phone.mp4", "postcard.jpg", "broken.mp4"):
        shutil.copy2(demo_footage / name, sources / name)
    recipe, captioner = five_pools()
    for name, runner in (("ray", RayRunner()), ("inline", InlineRunner())):
        curate(find_sources([str(sources)]), tmp_path / name, recipe, captioner, runner)
    assert_same_output(tmp_path / "ray", tmp_path / "inline")
    statuses = [row["status"] for row in rows_of(tmp_path / "ray").values()]
    assert sorted(statuses) == ["accepted"] * 4 + ["failed"] + ["rejected"] * 2


@dataclass(frozen=True)
class Ahead(Brightness):
    """Marks every clip that was analysed."""

    marks: str = ""

    def load(self) -> Scorer:
        usual = super().load()

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            with open(self.marks, "ab") as file:
                file.write(b".")
            return usual(clips)

        return score


def settled_size(file: Path, quiet_s: float = 3.0) -> int:
    """Wait until a file has not grown for a while; return its size."""
    size, since_s = -1, time.monotonic()
    while time.monotonic() - since_s < quiet_s:
        if (now := file.stat().st_size) != size:
            size, since_s = now, time.monotonic()
        time.sleep(0.05)
    return size


@dataclass(frozen=True)
class Behind(Sharpness):
    """Scores its first clips only when no more are analysed meanwhile, and notes how many were."""

    pool: ClassVar[str | None] = "slow"
    marks: str = ""

    def load(self) -> Scorer:
        usual = super().load()

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            noted = Path(self.marks).with_suffix(".noted")
            if not noted.exists():
                noted.write_text(str(settled_size(Path(self.marks))))
            return usual(clips)

        return score


@pytest.mark.slow
def test_no_step_runs_far_ahead_of_the_next(tmp_path: Path, ray_here: None) -> None:
    """A kill must not cost hours of analysis whose clips all wait for a slow model."""
    sources = tmp_path / "in"
    sources.mkdir()
    for number in range(160):
        Image.new("RGB", (64, 48), (number, 90, 160)).save(sources / f"{number:03d}.png")
    marks = tmp_path / "analysed"
    tables = Tables(OPERATORS | {"brightness": Ahead, "sharpness": Behind}, CAPTIONERS)
    operators = {"brightness": {"marks": str(marks)}, "sharpness": {"marks": str(marks)}}
    recipe, captioner = resolve({"operators": operators, "cut": {"mode": "none"}}, tables)
    curate(find_sources([str(sources)]), tmp_path / "out", recipe, captioner, RayRunner())
    assert len(rows_of(tmp_path / "out")) == 160
    assert int(marks.with_suffix(".noted").read_text()) < 80


@pytest.mark.slow
def test_other_graphs_of_the_process_keep_their_settings(tmp_path: Path, ray_here: None) -> None:
    before = ray.data.DataContext.get_current()
    block_bytes, progress = before.target_max_block_size, before.enable_progress_bars
    Image.new("RGB", (64, 48), (10, 90, 160)).save(tmp_path / "one.png")
    recipe, captioner = resolve(
        {"operators": {"brightness": True}, "cut": {"mode": "none"}}, Tables(OPERATORS, CAPTIONERS)
    )
    curate(find_sources([str(tmp_path / "one.png")]), tmp_path / "out", recipe, captioner, RayRunner())
    after = ray.data.DataContext.get_current()
    assert (after.target_max_block_size, after.enable_progress_bars) == (block_bytes, progress)
    assert ray.data.range(3).count() == 3 and ray.data.range(3).map(lambda row: {"id": -row["id"]}).sum("id") == -3
