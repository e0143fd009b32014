"""The loop: what it adds up, what it keeps, and that an interruption changes nothing."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from closeness import close
from hypothesis import given
from hypothesis import strategies as st
from regression import ROWS, SMALL, final, lines, look_up, make_job
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.distributed.checkpoint import state_dict_saver

from core.errors import UserError
from models.transformers.conditioning import Conditioning
from train_bridge.config import TrainConfig, TrainSettings
from train_bridge.data.row_weights import relative_weights
from train_bridge.loop.checkpoint import checkpoints, optimizer_state, put_optimizer_state
from train_bridge.loop.learning_rate import learning_rate
from train_bridge.loop.optimizer import make_optimizer
from train_bridge.loop.parallel import Worker
from train_bridge.loop.sharded import FOLDER, Sharded
from train_bridge.loop.tracking import Meter
from train_bridge.loop.trainer import Job, Trainer, row_seeds
from train_bridge.methods.types import Batch
from train_bridge.plan.buckets import Assignment
from train_bridge.plan.planner import Budget, Index, Schedule
from train_bridge.types import MicroBatch, TrainRow

torch.set_num_threads(1)


def test_going_on_equals_never_having_stopped(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    Trainer.start(make_job(whole, 21, validate_every=7), Worker()).run()
    for steps in (5, 6, 17, 21):  # each ends with a checkpoint of its own
        Trainer.start(make_job(parts, steps, validate_every=7), Worker()).run()
    one, other = final(whole), final(parts)
    assert one.keys() == other.keys()
    assert all(close(one[name], other[name]) for name in one)
    assert not torch.equal(one["0.weight"], one["ema.0.weight"])
    a, b = lines(whole, "train"), lines(parts, "train")
    assert list(a) == list(range(1, 22)) == list(b)
    assert [b[step]["regression"] for step in a] == pytest.approx([a[step]["regression"] for step in a], rel=1e-4)
    assert lines(parts, "validation")[21]["squared"] == pytest.approx(lines(whole, "validation")[21]["squared"], 1e-4)
    assert [path.name for path in checkpoints(whole)] == ["step-00000020", "step-00000021"]


def test_what_was_logged_after_the_last_checkpoint_is_taken_back(tmp_path: Path) -> None:
    Trainer.start(make_job(tmp_path, 8), Worker()).run()
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 9, "what": "train", "regression": 1e9}\n{"step": 10, "wha')  # killed while writing
    Trainer.start(make_job(tmp_path, 12), Worker()).run()
    assert list(lines(tmp_path, "train")) == list(range(1, 13))
    assert max(line["regression"] for line in lines(tmp_path, "train").values()) < 100


def test_an_unfinished_checkpoint_is_not_taken_for_one(tmp_path: Path) -> None:
    Trainer.start(make_job(tmp_path, 8), Worker()).run()
    (tmp_path / "checkpoints" / "step-00000099").mkdir()
    (tmp_path / "checkpoints" / ".step-00000012.tmp-1-abcdef01").mkdir()
    assert checkpoints(tmp_path)[-1].name == "step-00000008"


def test_it_learns_and_its_loss_is_the_mean_of_weight_times_loss_over_real_rows(tmp_path: Path) -> None:
    job = make_job(tmp_path, 60)
    untouched = dataclasses.replace(make_job(tmp_path / "first", 1), row_weights=tuple(r.weight for r in ROWS))
    Trainer.start(job, Worker()).run()
    losses = lines(tmp_path, "train")
    assert losses[60]["regression"] < 0.2 * losses[1]["regression"]
    # The first step's loss, added up by hand from the plan.
    network = untouched.method.networks()["regression"]
    _, inner, plan = untouched.schedule.at(0)
    total, count = 0.0, 0
    for place, micro in enumerate(plan.micro_batches(inner)):
        batch = look_up(micro, row_seeds(0, "step 0", place, len(micro.rows)))
        for loss, real, row in zip(
            next(untouched.method.losses({"regression": network}, batch, 0))[1], micro.weights, micro.rows, strict=True
        ):
            total += loss.item() * real * ROWS[row].weight
            count += real > 0
    assert losses[1]["regression"] == pytest.approx(total / count, rel=1e-5)


def test_a_row_that_is_alone_in_its_step_feels_its_weight(tmp_path: Path) -> None:
    def losses(name: str, rows: tuple[TrainRow, ...]) -> dict[int, float]:
        index = Index.of(rows, Assignment((SMALL,), np.zeros((len(rows), 1), np.int32), [], 0))
        job = make_job(tmp_path / name, 1, relative_weights(rows))
        train = dataclasses.replace(job.config.train, warmup_steps=10**9)  # no step changes the weights
        config = dataclasses.replace(job.config, train=dataclasses.replace(train, steps=4))
        schedule = Schedule(index, Budget(SMALL.tokens, 1), 0)
        alone = dataclasses.replace(job, config=config, schedule=schedule, validation=None)
        Trainer.start(alone, Worker()).run()
        order = [schedule.at(step)[2].micro_batches(schedule.at(step)[1])[0].rows for step in range(4)]
        assert all(len(step) == 1 for step in order)
        log = lines(tmp_path / name, "train")
        return {row: log[step]["regression"] for step, (row,) in enumerate(order, 1)}

    rows = tuple(TrainRow(f"row {i}", Path("x"), "c", "video", weight=weight) for i, weight in enumerate((1, 2, 4, 5)))
    plain = losses("plain", tuple(dataclasses.replace(row, weight=7.0) for row in rows))  # equal weights count 1
    weighed = losses("weighed", rows)
    mean = (1 + 2 + 4 + 5) / 4
    for place, row in enumerate(rows):
        assert weighed[place] == pytest.approx(plain[place] * row.weight / mean, rel=1e-4)


@given(st.lists(st.floats(0, 1e308), min_size=1, max_size=20).filter(any), st.floats(1e-3, 1e3))
def test_relative_weights_have_mean_1_and_keep_their_ratios(weights: list[float], factor: float) -> None:
    rows = [TrainRow(str(i), Path("x"), "c", "video", weight=weight) for i, weight in enumerate(weights)]
    found = np.array(relative_weights(rows))
    assert found.mean() == pytest.approx(1)
    largest = int(np.argmax(weights))
    assert found / found[largest] == pytest.approx(np.array(weights) / weights[largest])
    scaled = [dataclasses.replace(row, weight=row.weight / 1e4 * factor) for row in rows]
    if min((row.weight for row in scaled if row.weight), default=0) > 1e-300:  # below, numbers lose digits
        assert np.array(relative_weights(scaled)) == pytest.approx(found)


def test_weights_that_are_all_0_are_refused() -> None:
    with pytest.raises(UserError, match=r"data\.weight: 0 for all 2 rows"):
        relative_weights([TrainRow(name, Path("x"), "c", "video", weight=0.0) for name in "ab"])


def test_rows_of_weight_0_change_nothing(tmp_path: Path) -> None:
    only = tuple(1.0 if i < 6 else 0.0 for i in range(len(ROWS)))
    job = make_job(tmp_path / "a", 8, only)
    Trainer.start(job, Worker()).run()

    def poisoned(micro: MicroBatch, seeds: tuple[int, ...]) -> Batch:
        batch = look_up(micro, seeds)
        rows = torch.tensor(micro.rows)[:, None] >= 6
        return dataclasses.replace(
            batch, conditioning=Conditioning(torch.where(rows, torch.tensor(1e6), batch.conditioning.text))
        )

    Trainer.start(dataclasses.replace(make_job(tmp_path / "b", 8, only), batches=poisoned), Worker()).run()
    one, other = final(tmp_path / "a"), final(tmp_path / "b")
    assert all(close(one[name], other[name]) for name in one)


def test_an_error_in_the_reading_thread_ends_the_run_with_itself(tmp_path: Path) -> None:
    def broken(micro: MicroBatch, seeds: tuple[int, ...]) -> Batch:
        raise ZeroDivisionError("in the thread")

    job = dataclasses.replace(make_job(tmp_path, 4), batches=broken)
    with pytest.raises(ZeroDivisionError, match="in the thread"):
        Trainer.start(job, Worker()).run()


def test_rate_norm_and_epoch_are_in_the_log_and_on_the_board(tmp_path: Path) -> None:
    job = make_job(tmp_path, 21)
    network = copy.deepcopy(job.method.networks()["regression"])
    Trainer.start(job, Worker()).run()
    found = lines(tmp_path, "train")
    assert [found[step]["learning_rate"] for step in (1, 2, 3, 4, 21)] == pytest.approx([
        0.05 / 3,
        0.1 / 3,
        *[0.05] * 3,
    ])
    epoch_steps = job.schedule.plan(0).num_steps
    assert found[1]["epoch"] == pytest.approx(1 / epoch_steps)
    assert found[epoch_steps]["epoch"] == pytest.approx(1.0)
    assert found[21]["epoch"] == pytest.approx(21 / epoch_steps)
    # The first step's norm, from gradients taken by hand, before they are clipped.
    _, inner, plan = job.schedule.at(0)
    micros = plan.micro_batches(inner)
    weights = [[w * ROWS[row].weight for w, row in zip(m.weights, m.rows, strict=True)] for m in micros]
    for place, (micro, some) in enumerate(zip(micros, weights, strict=True)):
        batch = look_up(micro, row_seeds(0, "step 0", place, len(micro.rows)))
        losses = next(job.method.losses({"regression": network}, batch, 0))[1]
        ((losses * torch.tensor(some)).sum() / sum(sum(m.weights) for m in micros)).backward()
    norm = torch.cat([p.grad.flatten() for p in network.parameters()]).norm()
    assert found[1]["gradient_norm"] == pytest.approx(norm.item(), rel=1e-4)
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for name in ("learning_rate", "gradient_norm", "epoch"):
        shown = board.Scalars(f"train/{name}")
        assert [point.step for point in shown] == list(range(1, 22))
        assert [point.value for point in shown] == pytest.approx([found[step][name] for step in range(1, 22)], rel=1e-5)


def test_norms_are_the_mean_over_the_steps_of_a_line() -> None:
    meter = Meter(1e9)
    for norm in (1.0, 2.0, 6.0):
        meter.add_norm("gradient_norm", torch.tensor(norm))
        meter.steps += 1
    assert meter.line()["gradient_norm"] == pytest.approx(3.0)
    assert "gradient_norm" not in meter.line()


@given(steps=st.integers(1, 400), warmup=st.integers(0, 500), kind=st.sampled_from(["constant", "cosine", "linear"]))
def test_the_rate_rises_then_stays_or_falls_and_is_never_0(steps: int, warmup: int, kind: Any) -> None:
    train = TrainSettings(steps=steps, warmup_steps=warmup, schedule=kind, learning_rate=0.3)
    rates = [learning_rate(train, step) for step in range(steps)]
    rising, rest = rates[:warmup], rates[warmup:]
    assert all(0 < rate <= 0.3 * (1 + 1e-9) for rate in rates)
    assert rising == sorted(rising) and (steps < warmup or not warmup or rising[-1] == pytest.approx(0.3))
    assert rest == sorted(rest, reverse=True)
    if rest:
        assert rest[0] == pytest.approx(0.3)
        assert kind != "constant" or rest[-1] == 0.3


def test_falling_rates_have_the_published_values() -> None:
    def at(kind: Any, step: int) -> float:
        return learning_rate(TrainSettings(steps=108, warmup_steps=8, schedule=kind, learning_rate=2.0), step)

    assert [at("linear", step) for step in (8, 33, 58, 83, 108)] == pytest.approx([2.0, 1.5, 1.0, 0.5, 0.0])
    expected = [2.0, 1 + 0.5**0.5, 1.0, 1 - 0.5**0.5, 0.0]
    assert [at("cosine", step) for step in (8, 33, 58, 83, 108)] == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_a_killed_run_goes_on_with_the_rates_it_would_have_had(tmp_path: Path, kind: Any) -> None:
    def job(run: Path, killed_at: int | None = None) -> Job:
        made = make_job(run, 14)
        seen = iter(range(1000))

        def dying(micro: MicroBatch, seeds: tuple[int, ...]) -> Batch:
            if next(seen) == killed_at:
                raise ZeroDivisionError
            return look_up(micro, seeds)

        train = dataclasses.replace(made.config.train, schedule=kind)
        return dataclasses.replace(made, config=dataclasses.replace(made.config, train=train), batches=dying)

    Trainer.start(job(tmp_path / "whole"), Worker()).run()
    with pytest.raises(ZeroDivisionError):
        Trainer.start(job(tmp_path / "parts", killed_at=18), Worker()).run()
    assert len(lines(tmp_path / "parts", "train")) < 14
    Trainer.start(job(tmp_path / "parts"), Worker()).run()
    a, b = lines(tmp_path / "whole", "train"), lines(tmp_path / "parts", "train")
    assert [b[step]["learning_rate"] for step in a] == [a[step]["learning_rate"] for step in a]
    one, other = final(tmp_path / "whole"), final(tmp_path / "parts")
    assert all(close(one[name], other[name]) for name in one)


def normed() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Conv1d(6, 2, 1))


def test_norms_and_biases_do_not_decay() -> None:
    network = normed()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    config = TrainConfig(train=TrainSettings(learning_rate=0.1, weight_decay=0.5))
    optimizer = make_optimizer(list(network.parameters()), config)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in network.named_parameters():
        kept = 0.95 if name in ("0.weight", "2.weight") else 1.0
        torch.testing.assert_close(parameter.detach(), kept * before[name])


def step_on_ones(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter) * parameter.detach().cos()
    optimizer.step()


@pytest.mark.parametrize("sharded", [False, True])
def test_moments_of_checkpoints_with_one_group_are_put_back_by_name(tmp_path: Path, sharded: bool) -> None:
    """As earlier versions wrote them."""
    config = TrainConfig(train=TrainSettings(learning_rate=0.1, weight_decay=0.5))
    old, new = normed(), normed()
    one_group = torch.optim.AdamW(old.parameters(), lr=0.7, weight_decay=0.25)
    step_on_ones(old, one_group)
    optimizer = make_optimizer(list(new.parameters()), config)
    if sharded:
        state_dict_saver.save(
            Sharded({"n": old}, {"n": one_group}, None, "n", False).state(begun_only=True),
            checkpoint_id=tmp_path / FOLDER,
        )
        Sharded({"n": new}, {"n": optimizer}, None, "n", False).load(tmp_path)
    else:
        torch.save(optimizer_state(old, one_group), tmp_path / "o.pt")
        put_optimizer_state(new, optimizer, tmp_path / "o.pt")
        new.load_state_dict(old.state_dict())
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]
    for before, after in zip(old.parameters(), new.parameters(), strict=True):
        assert close(after, before)
        for name in ("exp_avg", "exp_avg_sq", "step"):
            assert close(optimizer.state[after][name], one_group.state[before][name])
    for group in one_group.param_groups + optimizer.param_groups:
        group["lr"], group["weight_decay"] = 0.1, 0.0
    step_on_ones(old, one_group)
    step_on_ones(new, optimizer)
    assert all(close(after, before) for before, after in zip(old.parameters(), new.parameters(), strict=True))


def test_seeds_are_different_for_every_row_and_step() -> None:
    seeds = [s for step in range(50) for place in range(4) for s in row_seeds(0, f"step {step}", place, 16)]
    assert len(set(seeds)) == len(seeds)
    assert row_seeds(0, "step 3", 1, 4) == row_seeds(0, "step 3", 1, 8)[:4]
