"""Rows are drawn as often as their repeats say, quotas hold, and without either nothing changes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_commands import plan, said

import run_pipeline
from core.errors import UserError
from curation.expressions import parse, weights
from models.geometry import Bucket
from train_bridge.data.quotas import codes_of, level_of, limited, with_quotas
from train_bridge.data.row_weights import relative_weights
from train_bridge.loop.batches import Levelled
from train_bridge.methods.types import Batch
from train_bridge.plan.buckets import Assignment
from train_bridge.plan.draws import ONCE
from train_bridge.plan.planner import Budget, EpochPlan, Index, Schedule, plan_epoch
from train_bridge.types import MicroBatch, TrainRow

BUCKETS = (Bucket(1, 32, 32), Bucket(5, 32, 32), Bucket(9, 32, 32))
repeat = st.sampled_from([0.0, 0.01, 0.25, 1 / 3, 0.5, 1.0, 1.5, 2.0, 3.0, 7.3])
budgets = st.builds(Budget, st.sampled_from([1, 8, 20, 64]), st.sampled_from([1, 2, 4]))


def rows_of(repeats: list[float]) -> list[TrainRow]:
    return [TrainRow(f"row {i}", Path(f"{i}"), "", "video", repeat=r) for i, r in enumerate(repeats)]


def index_of(repeats: list[float], options: list[int] | None = None) -> Index:
    chosen = np.array(options or [0] * len(repeats), np.int32).reshape(-1, 1)
    return Index.of(rows_of(repeats), Assignment(BUCKETS, chosen, [], 0))


def draws(found: EpochPlan, count: int) -> np.ndarray:
    """How often each row counts in an epoch."""
    return np.bincount(found.rows[found.real], minlength=count)


def same(one: EpochPlan, other: EpochPlan) -> bool:
    names = ("rows_per_micro_batch", "tokens_per_row", "micro_batch_buckets", "rows", "real", "offsets")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(repeat, st.integers(0, 2)), min_size=1, max_size=40), budgets, st.integers(0, 2**40))
def test_every_row_is_drawn_as_often_as_its_repeats_say(rows, budget, seed):
    repeats, options = [r for r, _ in rows], [o for _, o in rows]
    index = index_of(repeats, options)
    total = np.zeros(len(repeats), int)
    for epoch in range(8):
        drawn = draws(plan_epoch(index, budget, seed, epoch), len(repeats))
        assert ((drawn >= np.floor(repeats)) & (drawn <= np.ceil(repeats))).all()
        total += drawn
        assert (np.abs(total - np.array(repeats) * (epoch + 1)) < 1 + 1e-6).all()
        assert index.rows_per_bucket(epoch).sum() == drawn.sum()


@settings(max_examples=60, deadline=None)
@given(st.lists(repeat, min_size=1, max_size=20), budgets, st.integers(0, 2**40), st.integers(0, 60))
def test_a_schedule_finds_the_same_steps_as_the_epochs_one_after_another(repeats, budget, seed, step):
    index = index_of(repeats)
    if sum(repeats) < 1 - 1e-6:
        with pytest.raises(UserError, match=r"data\.repeat"):
            Schedule(index, budget, seed)
        return
    epoch, first = 0, 0
    while first + (steps := plan_epoch(index, budget, seed, epoch).num_steps) <= step:
        epoch, first = epoch + 1, first + steps
    found_epoch, inner, found = Schedule(index, budget, seed).at(step)
    assert (found_epoch, inner) == (epoch, step - first)
    assert found.micro_batches(inner) == plan_epoch(index, budget, seed, epoch).micro_batches(step - first)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(repeat, st.integers(0, 2)), min_size=1), budgets, st.integers(0, 99), st.randoms())
def test_the_order_of_the_rows_does_not_matter(rows, budget, seed, random):
    given_rows = rows_of([r for r, _ in rows])
    order = list(range(len(rows)))
    random.shuffle(order)
    options = np.array([[o] for _, o in rows], np.int32)
    one = Index.of(given_rows, Assignment(BUCKETS, options, [], 0))
    other = Index.of([given_rows[i] for i in order], Assignment(BUCKETS, options[order], [], 0))
    assert one.fingerprint() == other.fingerprint()
    first, second = plan_epoch(one, budget, seed, 3), plan_epoch(other, budget, seed, 3)
    assert np.array_equal(first.rows, np.array(order, np.int32)[second.rows])
    assert np.array_equal(first.real, second.real)


def test_repeats_of_one_change_no_bit():
    options = [i % 3 for i in range(50)]
    plain = index_of([1.0] * 50, options)
    assert plain.repeats is None
    said_so = replace(plain, repeats=np.full(50, ONCE, np.uint64))
    for epoch in (0, 1, 7):
        assert same(plan_epoch(plain, Budget(20, 2), 3, epoch), plan_epoch(said_so, Budget(20, 2), 3, epoch))
    assert plain.fingerprint() != index_of([1.0] * 49 + [2.0], options).fingerprint()


def test_a_row_that_is_drawn_twice_is_not_drawn_beside_itself():
    found = plan_epoch(index_of([2.0] * 100), Budget(4, 2), 0, 0)
    rows = found.rows[found.real].tolist()
    beside = sum(a == b for a, b in zip(rows, rows[1:], strict=False))
    assert beside < 10, "by chance one of a hundred"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.01, 50), st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=60),
    st.sampled_from([0.02, 0.2, 0.34, 0.5, 0.9]),
    st.sampled_from([0.3, 0.6, 1.0]),
)
def test_quotas_hold_where_they_can_and_take_nothing_away_wholly(rows, share, second):
    repeats = np.array([r for r, _, _ in rows])
    codes = [np.array([c for _, c, _ in rows]), np.array([c for _, _, c in rows])]
    one = limited(repeats, codes[:1], [share])
    assert (one > 0).all() and (one <= repeats * (1 + 1e-9)).all()
    sums = np.bincount(codes[0], one)
    sums = sums[sums > 0]
    if len(sums) * share >= 1:
        assert sums.max() <= share * sums.sum() * (1 + 1e-6)
    elif np.bincount(codes[0], repeats).max() > share * repeats.sum():
        assert np.allclose(sums, sums.min()), "so few groups are brought to one size"
    ratio = one / repeats
    assert all(np.allclose(ratio[codes[0] == c], ratio[codes[0] == c][:1]) for c in set(codes[0].tolist()))
    both = limited(repeats, codes, [share, second])
    assert (both > 0).all() and (both <= repeats * (1 + 1e-9)).all()


def test_a_quota_is_kept_exactly_and_no_more_than_that():
    # 90 rows alike and ten that are not, and no cluster above a fifth: 2.5 draws of the crowd, 10 of the others.
    names = ["crowd"] * 90 + [None] * 10
    left = limited(np.ones(100), [codes_of(names)], [0.2])
    assert left[:90].sum() == pytest.approx(2.5) and (left[90:] == 1).all()
    assert level_of(np.array([90.0, *[1.0] * 10]), 0.2) == pytest.approx(2.5)
    assert level_of(np.array([1.0, 1.0]), 0.5) == float("inf")
    assert level_of(np.array([5.0, 3.0]), 0.02) == 3.0


def test_weights_count_by_how_often_rows_are_drawn():
    rows = [replace(row, weight=w) for row, w in zip(rows_of([3.0, 1.0]), (1.0, 5.0), strict=True)]
    found = relative_weights(rows)
    assert found[1] / found[0] == pytest.approx(5)
    assert (3 * found[0] + found[1]) / 4 == pytest.approx(1), "the mean over the draws"


def test_tiers_and_choices_are_numbers_of_expressions():
    table = pa.table({"motion": [0.5, 1.0, 4.9, 5.0, None], "kind": ["a", "b", None, "a", "b"]})
    assert weights(table, parse("tier(motion, 0.25, 1, 1, 5, 1.5)", "x"))[:4].tolist() == [0.25, 1, 1, 1.5]
    assert np.isnan(weights(table, parse("tier(motion, 0.25, 1, 1, 5, 1.5)", "x"))[4])
    chosen = weights(table, parse("2 if kind == 'a' else 0.5", "x"))
    assert chosen[[0, 1, 3, 4]].tolist() == [2, 0.5, 2, 0.5] and np.isnan(chosen[2])
    assert weights(table, parse("rank(motion)", "x"))[:4].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    found = parse("2 * quota(kind, 0.3) * tier(motion, 1, 2, 3) * quota(motion, 0.5)", "x", quotas=True)
    assert [(q.column, q.share) for q in found.quotas] == [("kind", 0.3), ("motion", 0.5)]
    assert weights(table, found)[:4].tolist() == [2, 2, 6, 6]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1 + quota(cluster, 0.02)", "factors of the whole"),
        ("quota(cluster, 0)", "above 0 and up to 1"),
        ("quota(cluster, 2)", "above 0 and up to 1"),
        ("quota('cluster', 0.1)", "a column and a share"),
        ("quota(cluster, motion)", "a column and a share"),
        ("tier(motion, 1)", "tier takes"),
        ("tqd(motion)", "tqd takes"),
    ],
)
def test_what_is_no_quota_is_refused(text, why):
    with pytest.raises(UserError, match=why):
        parse(text, "data.repeat", quotas=True)


def test_quotas_are_for_repeats_only():
    with pytest.raises(UserError, match=r"factors of the whole of data\.repeat"):
        parse("quota(cluster, 0.02)", "data.where")


def test_quotas_of_nothing_are_refused():
    with pytest.raises(UserError, match="0 for all 2 rows"):
        with_quotas(rows_of([0.0, 0.0]), [])


def test_the_plan_prints_the_mixture(parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = json.loads((parts / "clips" / "metadata.json").read_text())
    for place, item in enumerate(items):
        (tmp_path / item["file_path"]).write_bytes((parts / "clips" / item["file_path"]).read_bytes())
        item |= {"motion": float(place), "cluster": "a" if place < 3 else "b"}
    (tmp_path / "all.json").write_text(json.dumps(items))
    words = [*map(str, plan(parts))]
    words[3] = str(tmp_path / "all.json")
    assert len(items) == 4
    assert run_pipeline.main(words) == 0
    assert "mixture" not in capsys.readouterr().out
    repeat = "data.repeat=tier(motion, 0, 1, 2) * quota(cluster, 0.6)"
    assert run_pipeline.main([*words, repeat, "data.timesteps=tqd(motion, cluster_size); min(t) = 100"]) == 2
    assert "cluster_size" in capsys.readouterr().err
    assert run_pipeline.main([*words, repeat, "data.timesteps=tqd(motion, 0 - motion); min(t) = 100"]) == 0
    shown = capsys.readouterr().out
    assert "4 rows: 3 to train on, 1 never drawn, 0 held out" in shown
    # Twice each of two rows in a and one in b: a is brought down to 0.6 of the whole, three draws beside two.
    assert "mixture: 5 draws an epoch of 3 rows" in shown and "1.5 times: 2 rows, 60.0% of the draws" in shown
    assert "quota(cluster, 0.6): 2 groups; kept" in shown
    assert "noise levels:" in shown and "bounded, to 100..1000" in shown
    assert run_pipeline.main([*words, "data.repeat=1", "data.timesteps=0"]) == 0
    shown = capsys.readouterr().out
    assert "mixture" not in shown and "noise levels" not in shown and "4 rows: 4 to train on, 0 held out" in shown
    assert "0 for all 4 rows" in said(capsys, *words, "data.repeat=0")
    assert "(did you mean 'motion'?)" in said(capsys, *words, "data.repeat=moton")
    assert "is negative" in said(capsys, *words, "data.repeat=0 - 1 - motion")
    assert "factor of 3 or more" in said(capsys, *words, "data.repeat=0.1")


def test_batches_have_levels_only_where_a_row_has_its_own():
    def read(micro: MicroBatch, seeds: tuple[int, ...]) -> Batch:
        return Batch(seeds, torch.tensor(micro.weights))

    rows = rows_of([1.0] * 3)
    assert Levelled.of(rows, read, None) is read
    rows[1] = replace(rows[1], tilt=2.5, max_t=700.0)
    levels = Levelled.of(rows, read, None)(MicroBatch(BUCKETS[0], (1, 0), (1.0, 1.0)), (1, 2)).levels
    assert levels is not None and levels.tolist() == [[2.5, 0, 700], [0, 0, 1000]]
