"""Steps whose loss or gradient is not finite: they change nothing, a few are passed over, then the run ends."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from closeness import close
from regression import ROWS, Regression, final, lines, look_up, make_job

import run_pipeline
from core.errors import RunError
from models.transformers.conditioning import Conditioning
from train_bridge.config import TrainConfig
from train_bridge.loop.checkpoint import checkpoints, read_state
from train_bridge.loop.nonfinite import StepLosses, StoppedError, tell_rows
from train_bridge.loop.parallel import Worker
from train_bridge.loop.trainer import Job, Trainer
from train_bridge.methods.types import Batch, Networks
from train_bridge.types import MicroBatch

torch.set_num_threads(1)
IDS = tuple(row.row_id for row in ROWS)


def poisoned(bad: Callable[[int], bool], value: float = float("nan")) -> Callable[[MicroBatch, tuple[int, ...]], Batch]:
    """Batches in which some rows cannot be learnt."""

    def batches(micro: MicroBatch, seeds: tuple[int, ...]) -> Batch:
        batch = look_up(micro, seeds)
        rows = torch.tensor([bad(row) for row in micro.rows])[:, None]
        return dataclasses.replace(
            batch, conditioning=Conditioning(torch.where(rows, torch.tensor(value), batch.conditioning.text))
        )

    return batches


def job_with(run: Path, steps: int, most: int, **changes: object) -> Job:
    job = make_job(run, steps)
    config = dataclasses.replace(job.config, train=dataclasses.replace(job.config.train, skip_nonfinite=most))
    return dataclasses.replace(job, config=config, row_ids=IDS, **changes)  # type: ignore[arg-type]


def steps_with(job: Job, row: int, steps: int) -> list[int]:
    """Return the steps (from 1) that compute a row."""
    found = []
    for step in range(steps):
        _, inner, plan = job.schedule.at(step)
        if any(row in micro.rows for micro in plan.micro_batches(inner)):
            found.append(step + 1)
    return found


def test_a_run_that_turns_nan_ends_with_the_step_and_the_rows_and_keeps_what_was_good(tmp_path: Path) -> None:
    Trainer.start(job_with(tmp_path, 8, 0), Worker()).run()
    before = final(tmp_path)
    job = job_with(tmp_path, 40, 0, batches=poisoned(lambda row: row == 4))
    expected = next(step for step in steps_with(job, 4, 40) if step > 8)
    with pytest.raises(StoppedError, match=rf"step {expected}: .*, of row 4 \(0 such") as error:
        Trainer.start(job, Worker()).run()
    assert isinstance(error.value, RunError) and "\n" not in str(error.value)
    last = checkpoints(tmp_path)[-1]
    assert last.name in str(error.value)
    assert read_state(last)["step"] < expected
    assert all(tensor.isfinite().all() for tensor in final(tmp_path).values())
    if last.name == "step-00000008":
        assert all(close(before[name], tensor) for name, tensor in final(tmp_path).items())


def test_skipped_steps_change_nothing_and_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = job_with(tmp_path, 1, 3, batches=poisoned(lambda row: True))
    network = job.method.networks()["regression"]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    trainer = Trainer.start(job, Worker())
    trainer.run()
    assert (trainer.step, trainer.skipped) == (1, 1)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert trainer.ema is not None and trainer.ema.optimization_step == 0
    assert lines(tmp_path, "train")[1]["skipped_steps"] == 1
    assert "regression" not in lines(tmp_path, "train")[1]
    assert "step 1 skipped" in capsys.readouterr().out
    # The count is that of the run: whoever goes on has two left.
    going_on = job_with(tmp_path, 9, 3, batches=poisoned(lambda row: True))
    with pytest.raises(StoppedError, match=r"step 4: .*3 such steps"):
        Trainer.start(going_on, Worker()).run()


def test_steps_beside_a_skipped_one_train_as_if_it_had_not_been(tmp_path: Path) -> None:
    job = job_with(tmp_path, 13, 9, batches=poisoned(lambda row: row == 4))
    bad = steps_with(job, 4, 13)
    trainer = Trainer.start(job, Worker())
    trainer.run()
    assert bad and trainer.skipped == len(bad) < 13
    assert all(tensor.isfinite().all() for tensor in final(tmp_path).values())
    for step, line in lines(tmp_path, "train").items():
        assert ("regression" in line) == (step not in bad)


@dataclasses.dataclass(frozen=True)
class Steep(Regression):
    """A finite loss whose gradient is not: the root at zero."""

    def losses(self, networks: Networks, batch: Batch, step: int) -> Iterator[tuple[str, torch.Tensor]]:
        for name, loss in super().losses(networks, batch, step):
            yield name, loss + (loss - loss.detach()).sqrt() if step >= 2 else loss


def test_a_gradient_alone_that_is_not_finite_ends_it_too(tmp_path: Path) -> None:
    job = job_with(tmp_path, 9, 0)
    steep = dataclasses.replace(job, method=Steep(job.method.networks()["regression"]))
    with pytest.raises(StoppedError, match="step 3: ") as error:
        Trainer.start(steep, Worker()).run()
    _, inner, plan = job.schedule.at(2)
    for micro in plan.micro_batches(inner):
        assert all(IDS[row] in str(error.value) for row in micro.rows)


def test_infinity_is_no_better_than_nan(tmp_path: Path) -> None:
    job = job_with(tmp_path, 9, 0, batches=poisoned(lambda row: True, float("inf")))
    with pytest.raises(StoppedError, match="no checkpoint is kept"):
        Trainer.start(job, Worker()).run()
    assert not (tmp_path / "checkpoints").exists()


def test_the_workers_agree_about_what_one_of_them_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    from train_bridge.loop import nonfinite

    def reduce(flag: torch.Tensor, op: object) -> None:
        flag.zero_()  # the other worker found something

    def gather(found: list[object], mine: object) -> None:
        found[:] = [mine, ([7], [6, 7])]

    monkeypatch.setattr(nonfinite.dist, "all_reduce", reduce)
    monkeypatch.setattr(nonfinite.dist, "all_gather_object", gather)
    step = StepLosses()
    step.add("a", torch.tensor(1.0), (1, 2), torch.tensor([1.0, 1.0]))
    assert step.broken_rows([torch.tensor(1.0)], Worker(0, 2)) == (7,)
    assert step.broken_rows([torch.tensor(1.0)], Worker()) is None


def test_a_long_list_of_rows_is_cut() -> None:
    assert tell_rows(("a", "b"), (0, 1)) == "a, b"
    assert tell_rows((), range(20)) == "row 0, row 1, row 2, row 3, row 4, row 5, row 6, row 7 and 12 more"


def test_the_command_ends_with_code_1_and_exports_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from train_bridge import run as running
    from train_bridge.loop import launch as launching

    monkeypatch.setattr(launching, "build_job", lambda *_: job_with(tmp_path, 9, 0, batches=poisoned(lambda row: True)))

    def train(config: TrainConfig, run: Path, *_: object) -> Path:
        (run / "config.yaml").write_text("method: vae\n")
        launching.launch(config, run)
        raise AssertionError("exported")

    monkeypatch.setattr(running, "train", train)
    config = Path(run_pipeline.__file__).parent / "configs" / "train_vae_tiny.yaml"
    assert run_pipeline.main(["train", str(config), "--data", "x", "--output", str(tmp_path)]) == 1
    told = capsys.readouterr().err.strip()
    assert told.startswith("error: ") and "not finite" in told and "\n" not in told
    assert not (tmp_path / "model").exists()
