"""`--runner auto`: the plain loop for little footage, Ray for much."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from footage import pan, write

import run_pipeline
from curation.engine import ray_runner
from curation.engine.choice import RAY_START_S, VIDEO_BYTES_PER_S, is_worth_ray, work_s
from curation.types import Source


@dataclass(frozen=True)
class Talker:
    slots: int = 1
    pool: str | None = None
    sampling: ClassVar[None] = None


def films(count: int, minutes: float, suffix: str = "mp4") -> list[Source]:
    size = int(minutes * 60 * VIDEO_BYTES_PER_S)
    return [Source("/films", f"{number}.{suffix}", size, 1) for number in range(count)]


def test_the_work_decides() -> None:
    assert not is_worth_ray(films(3, 0.1), Talker(), cpus=16)
    assert is_worth_ray(films(100, 10), Talker(), cpus=2)
    assert not is_worth_ray(films(100, 10), Talker(), cpus=1), "there is nothing to share"
    assert is_worth_ray(films(10_000, 0.001, "jpg"), Talker(), cpus=4)
    assert not is_worth_ray(films(20, 0.001, "jpg"), Talker(), cpus=4)


def test_more_cores_and_more_footage_never_speak_against_ray() -> None:
    for cpus in (1, 2, 4, 64):
        worth = [is_worth_ray(films(count, 1), Talker(), cpus) for count in range(0, 40, 2)]
        assert worth == sorted(worth)
    for count in range(0, 40, 2):
        worth = [is_worth_ray(films(count, 1), Talker(), cpus) for cpus in (1, 2, 4, 64)]
        assert worth == sorted(worth)


def test_it_turns_where_ray_saves_what_it_costs() -> None:
    sources = films(1, 1)
    many = int(2 * RAY_START_S / work_s(sources))
    assert not is_worth_ray(sources * many, Talker(), cpus=2)
    assert is_worth_ray(sources * (many + 1), Talker(), cpus=2)


@pytest.mark.parametrize("captioner", [Talker(slots=8), Talker(pool="vlm")])
def test_captioners_that_wait_or_hold_a_model_are_served_by_ray(captioner: Talker) -> None:
    assert is_worth_ray(films(1, 0.1), captioner, cpus=16)


def test_little_footage_does_not_start_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(ray_runner, "start_ray", never)
    write(tmp_path / "a.mp4", list(pan(96)))
    out = tmp_path / "out"
    recipe = tmp_path / "quick.yaml"
    recipe.write_text("shots: {min_s: 1.0, max_s: 3.0}\noperators: {facts: , brightness: }\n")
    words = ["curate", str(tmp_path / "a.mp4"), "--config", str(recipe), "--output", str(out), "--runner", "auto"]
    assert run_pipeline.main(words) == 0
    assert (out / "clips").is_dir()
