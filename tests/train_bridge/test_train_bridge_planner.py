"""Every row once per epoch, every worker equally much, and the same order wherever and whenever it is asked for."""

import math
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.planner import (
    BY_TOKENS,
    FIXED,
    forward_flops,
    independent_efficiency,
    index_of,
    mixed_rows,
    planned_efficiency,
)
from core.errors import UserError
from models.geometry import Bucket
from train_bridge.plan.buckets import Assignment
from train_bridge.plan.planner import Budget, EpochPlan, Index, Schedule, plan_epoch
from train_bridge.types import TrainRow

# Six classes: three with several buckets, one with buckets of different lengths.
BUCKETS = tuple(
    sorted([
        Bucket(1, 32, 32), Bucket(1, 32, 64), Bucket(1, 64, 32), Bucket(5, 16, 64), Bucket(5, 32, 32),
        Bucket(5, 64, 16), Bucket(9, 32, 48), Bucket(9, 48, 32), Bucket(9, 96, 16), Bucket(17, 48, 48),
        Bucket(33, 64, 64),
    ])
)  # fmt: skip


def index(ids: list[str], options: list[list[int]]) -> Index:
    """Rows that may have several options each, or none."""
    count = max([1, *map(len, options)])
    padded = np.array([[*some, *[-1] * (count - len(some))] for some in options], np.int32).reshape(len(ids), count)
    rows = [TrainRow(one, Path(one), "", "video") for one in ids]
    return Index.of(rows, Assignment(BUCKETS, padded, [], 0))


def named(options: list[list[int]]) -> Index:
    return index([f"row {i}" for i in range(len(options))], options)


def everything(plan: EpochPlan) -> list:
    return [plan.micro_batches(step) for step in range(plan.num_steps)]


def per_class(counts: Counter) -> Counter:
    found: Counter = Counter()
    for bucket, count in counts.items():
        found[bucket.tokens] += count
    return found


option = st.sets(st.integers(0, len(BUCKETS) - 1), max_size=3).map(sorted)
# One bucket each, crowded in a few of them, or several options.
mixes = st.one_of(
    st.lists(st.sampled_from(range(len(BUCKETS))).map(lambda i: [i]), max_size=200),
    st.lists(st.sampled_from([[1], [1], [1], [2], [3]]), max_size=200),
    st.lists(option, max_size=120),
)
budgets = st.builds(Budget, st.sampled_from([1, 8, 20, 64, 200, 10_000]), st.sampled_from([1, 2, 4, 8, 16]))
seeds = st.integers(-5, 2**70)
epochs = st.integers(0, 5)


@settings(max_examples=300, deadline=None)
@given(mixes, budgets, seeds, epochs)
def test_every_row_once_and_every_micro_batch_alike(options, budget, seed, epoch):
    rows = named(options)
    plan = plan_epoch(rows, budget, seed, epoch)
    times: Counter = Counter()
    real_per_bucket: Counter = Counter()
    fillers = 0
    for micros in everything(plan):
        assert len(micros) == budget.micro_batches_per_step
        size, tokens = len(micros[0].rows), micros[0].bucket.tokens
        assert size == 1 or size * tokens <= budget.tokens_per_micro_batch
        in_step: Counter = Counter()
        for micro in micros:
            assert len(micro.rows) == len(micro.weights) == size and micro.bucket.tokens == tokens
            for row, weight in zip(micro.rows, micro.weights, strict=True):
                assert BUCKETS.index(micro.bucket) in options[row]
                assert weight in (0.0, 1.0)
                in_step[row] += weight == 1.0
                fillers += weight == 0.0
                real_per_bucket[micro.bucket] += weight == 1.0
        assert sum(in_step.values()) > 0
        # A worker has nothing to learn from only where there are fewer rows than micro-batches.
        idle = sum(not any(micro.weights) for micro in micros)
        assert idle == max(0, budget.micro_batches_per_step - sum(in_step.values()))
        assert all(in_step[row] == 1 for micro in micros for row in micro.rows)  # fillers repeat rows of this step
        times += in_step
    assert times == Counter(i for i, some in enumerate(options) if some)
    assert rows.rows_per_bucket(epoch).tolist() == [real_per_bucket[bucket] for bucket in BUCKETS]
    assert plan.fillers == fillers == len(plan.rows) - sum(times.values())
    # No division into such steps has fewer fillers.
    assert fillers == sum(-n % budget.micro_batches_per_step for n in per_class(real_per_bucket).values())


@settings(max_examples=100, deadline=None)
@given(mixes, budgets)
def test_as_many_full_steps_as_there_can_be(options, budget):
    plan = plan_epoch(named(options), budget, 0, 1)
    micros = [micro for step in everything(plan) for micro in step]
    counts = Counter(m.bucket for m in micros for weight in m.weights if weight)
    full: Counter = Counter()
    for bucket, count in counts.items():
        full[bucket.tokens] += count // budget.rows(bucket.tokens)
    for tokens, batches in full.items():
        sizes = plan.rows_per_micro_batch[plan.tokens_per_row == tokens]
        assert (sizes == budget.rows(tokens)).sum() >= batches // budget.micro_batches_per_step
        # Rests halve from step to step at worst, or the buckets of the class run out.
        assert (sizes < budget.rows(tokens)).sum() <= math.log2(budget.rows(tokens)) + len(BUCKETS) + 1


@settings(max_examples=60, deadline=None)
@given(mixes, budgets, seeds, epochs)
def test_ranks_in_turn_are_the_step(options, budget, seed, epoch):
    plan = plan_epoch(named(options), budget, seed, epoch)
    for world_size in (1, 2, 4, 8):
        if budget.micro_batches_per_step % world_size:
            continue
        for step in range(plan.num_steps):
            shares = [plan.for_rank(step, rank, world_size) for rank in range(world_size)]
            assert sum(shares, ()) == plan.micro_batches(step)
            flops = [sum(len(m.rows) * float(forward_flops(np.array(m.bucket.tokens))) for m in s) for s in shares]
            assert max(flops) == pytest.approx(min(flops), rel=1e-12)


def test_a_world_that_does_not_divide_names_those_that_do():
    plan = plan_epoch(named([[0]] * 30), Budget(64, 12), 0, 0)
    with pytest.raises(UserError, match=r"5 workers cannot share 12 .*take 4 or 6 workers, or set .* to 15"):
        plan.for_rank(0, 0, 5)
    with pytest.raises(UserError, match=r"24 workers .*take 12 workers, or set .* to 24"):
        plan.for_rank(0, 0, 24)
    with pytest.raises(UserError, match="take 1 workers"):
        plan.for_rank(0, 0, 0)
    with pytest.raises(IndexError, match="rank 4 of 4"):
        plan.for_rank(0, 4, 4)
    with pytest.raises(IndexError, match="of an epoch of"):
        plan.micro_batches(plan.num_steps)


def test_the_order_follows_seed_and_epoch_and_nothing_else():
    rows, budget = named([[i % 11] for i in range(400)]), Budget(64, 4)
    one = everything(plan_epoch(rows, budget, 7, 3))
    assert one == everything(plan_epoch(named([[i % 11] for i in range(400)]), budget, 7, 3))
    for seed, epoch in [(8, 3), (7, 4), (3, 7), (7 + 2**32, 3)]:
        other = everything(plan_epoch(rows, budget, seed, epoch))
        assert [m.bucket for s in other for m in s] != [m.bucket for s in one for m in s]  # steps move
        groups = [{frozenset(m.rows) for s in plan for m in s if len(m.rows) > 1} for plan in (one, other)]
        assert len(groups[0] & groups[1]) < len(groups[0]) / 10  # and rows meet others


@settings(max_examples=100, deadline=None)
@given(mixes, budgets, seeds, epochs, st.randoms(use_true_random=False), st.booleans())
def test_the_order_of_the_metadata_does_not_matter(options, budget, seed, epoch, random, repeats):
    ids = [f"clip-{i // 2 if repeats else i}" for i in range(len(options))]
    if repeats:  # a row may stand twice in the metadata
        options = [options[i // 2 * 2] for i in range(len(options))]
    moved = list(range(len(ids)))
    random.shuffle(moved)
    moved_ids, moved_options = [ids[i] for i in moved], [options[i] for i in moved]
    one, two = index(ids, options), index(moved_ids, moved_options)
    assert one.fingerprint() == two.fingerprint()

    def sequence(names: list[str], rows: Index) -> list:
        plan = plan_epoch(rows, budget, seed, epoch)
        return [(m.bucket, [names[i] for i in m.rows], m.weights) for step in everything(plan) for m in step]

    assert sequence(ids, one) == sequence(moved_ids, two)


def test_the_fingerprint_tells_data_apart():
    prints = [
        named([[0], [1]]),
        named([[0], [2]]),
        named([[0], [1], [1]]),
        index(["row 0", "row 2"], [[0], [1]]),
        named([[1], [0]]),
        replace(named([[0], [1]]), buckets=(Bucket(1, 16, 16), *BUCKETS[1:])),
    ]
    assert len({p.fingerprint() for p in prints}) == len(prints)


def test_a_row_more_moves_few_others():
    options = [[i % 3] for i in range(600)]
    before = everything(plan_epoch(named(options), Budget(32, 2), 5, 1))
    after = everything(plan_epoch(named([*options, [1]]), Budget(32, 2), 5, 1))
    sets = [[frozenset(row for m in step for row in m.rows) for step in plan] for plan in (before, after)]
    assert len(sets[0]) > 15
    at = [max(range(len(sets[1])), key=lambda j: len(sets[1][j] & some)) for some in sets[0]]
    kept = [len(sets[1][j] & some) / len(some) for j, some in zip(at, sets[0], strict=True)]
    assert float(np.mean(kept)) > 0.9
    assert float(np.mean(np.diff(at) > 0)) > 0.9  # and steps stay in their order


@settings(max_examples=100, deadline=None)
@given(mixes.filter(any), budgets, seeds)
def test_the_heaviest_step_comes_first(options, budget, seed):
    plan = plan_epoch(named(options), budget, seed, 0)
    needs = [(len(s[0].rows) * s[0].bucket.tokens, max(m.bucket.num_frames for m in s)) for s in everything(plan)]
    assert needs[0] == max(needs)
    if max(map(len, options)) == 1:  # later epochs need no more
        later = [p for e in (1, 2) for p in everything(plan_epoch(named(options), budget, seed, e))]
        assert max(len(s[0].rows) * s[0].bucket.tokens for s in later) == needs[0][0]


def test_options_are_taken_in_turn():
    options = [[i % 3, 3 + i % 5, 8 + i % 3] for i in range(60)] + [[0, 4]] * 30 + [[5]] * 10
    rows = named(options)
    taken: list[Counter] = [Counter() for _ in options]
    firsts: Counter = Counter()
    for epoch in range(6):
        for step in everything(plan_epoch(rows, Budget(64, 4), 0, epoch)):
            for micro in step:
                for row, weight in zip(micro.rows, micro.weights, strict=True):
                    taken[row][BUCKETS.index(micro.bucket)] += int(weight)
                    firsts[options[row].index(BUCKETS.index(micro.bucket))] += int(weight) * (epoch == 0 and row < 60)
    for some, counted in zip(options, taken, strict=True):
        assert counted == {i: 6 // len(some) for i in some}
    assert min(firsts.values()) > 8  # rows do not all begin with the same option


@settings(max_examples=60, deadline=None)
@given(mixes.filter(any), budgets, seeds, st.integers(0, 400))
def test_resuming_at_any_step_goes_on_as_if_nothing_had_been(options, budget, seed, start):
    rows = named(options)
    whole = []
    epoch = 0
    while len(whole) <= start + 5:
        plan = plan_epoch(rows, budget, seed, epoch)
        whole += [(epoch, step, micros) for step, micros in enumerate(everything(plan))]
        epoch += 1
    resumed = Schedule(rows, budget, seed)  # has not seen any step before
    for step in range(start, start + 5):
        epoch, within, plan = resumed.at(step)
        assert (epoch, within, plan.micro_batches(within)) == whole[step]
    epoch, within, plan = resumed.at(0)  # and back
    assert (epoch, within, plan.micro_batches(within)) == whole[0]


def test_a_far_step_is_found_at_once():
    rows = named([[0, 1], [0, 2, 3], [4]])
    steps = [plan_epoch(rows, Budget(64, 1), 0, e).num_steps for e in range(6)]
    epoch, within, plan = Schedule(rows, Budget(64, 1), 0).at(10**12 * sum(steps) + steps[0])
    assert (epoch, within) == (6 * 10**12 + 1, 0)
    assert plan.num_steps == steps[1]


def test_no_rows_is_said():
    assert plan_epoch(named([[], []]), Budget(64, 4), 0, 0).num_steps == 0
    assert plan_epoch(named([]), Budget(64, 4), 0, 0).fillers == 0
    with pytest.raises(UserError, match="no row fits a bucket"):
        Schedule(named([[], []]), Budget(64, 4), 0)
    with pytest.raises(IndexError, match="negative"):
        Schedule(named([[1]]), Budget(64, 4), 0).at(-1)


@pytest.mark.parametrize("config", [FIXED, BY_TOKENS], ids=["fixed", "by tokens"])
def test_eight_ranks_compute_usefully(config):
    for count, least in ((1000, 0.85), (5000, 0.95), (20000, 0.99)):
        rows = index_of(mixed_rows(count), config)
        plan = plan_epoch(rows, Budget(16384, 8), 0, 0)
        planned = planned_efficiency(plan, 8)
        assert planned >= least, count
        own = independent_efficiency(rows, [1] * len(rows.buckets), 8)
        assert own < planned - 0.2


@pytest.mark.slow
def test_a_million_rows_are_planned_in_seconds():
    rows = index_of(mixed_rows(1_000_000), BY_TOKENS)
    began = time.process_time()
    plan_epoch(rows, Budget(16384, 8), 0, 0)
    assert time.process_time() - began < 3
