"""A run that does not fit is told what would: each way is predicted, and does fit."""

import dataclasses

import numpy as np
import pytest

from core.errors import UserError
from models.geometry import Bucket
from models.memory.cost import Memory
from train_bridge.config import TrainConfig
from train_bridge.plan.buckets import Assignment
from train_bridge.plan.plan import BucketPlan, Plan, Rows
from train_bridge.plan.shortage import Way, check_memory, is_short, shortage, ways_to_fit, with_changes

SMALL, LARGE = Bucket(5, 64, 64), Bucket(17, 128, 128)
GB = 10**9
CHECKPOINTING = "train.gradient_checkpointing"


@dataclasses.dataclass(frozen=True)
class Formula:
    """Weights of 20 GB that fp8 halves and offloading takes to 2; activations by token that checkpointing quarters."""

    config: TrainConfig

    def flops(self, bucket: Bucket) -> float:
        return 1.0

    def memory(self, bucket: Bucket, rows: int) -> Memory:
        weights = 20 * GB if self.config.lora.rank else 80 * GB
        weights = weights // 2 if self.config.memory.fp8_base else weights
        weights = weights // 10 if self.config.memory.offload_blocks else weights
        share = 4 if self.config.train.gradient_checkpointing else 1
        return Memory(weights, 0, 0, 0, rows * bucket.tokens * GB // 100 // share)


def config_of(tokens: int, **changes: object) -> TrainConfig:
    return with_changes(TrainConfig(), {"buckets.tokens_per_micro_batch": tokens, **changes})


def lines_of(config: TrainConfig) -> list[BucketPlan]:
    lines = []
    for bucket in (SMALL, LARGE):
        rows = max(1, config.buckets.tokens_per_micro_batch // bucket.tokens)
        lines.append(BucketPlan(bucket, 1000, rows, Formula(config).memory(bucket, rows).total, 1.0))
    return lines


def plan_of(config: TrainConfig, device_gb: float) -> Plan:
    lines = lines_of(config)
    none = Assignment((), np.zeros((0, 1), np.int32), [], 0)
    rows = Rows((), none, (), none, (), 0)
    return Plan(rows, tuple(lines), 1, 0, 1.0, max(line.memory_bytes for line in lines), int(device_gb * GB))


def changed(config: TrainConfig, way: Way) -> TrainConfig:
    pairs = dict(part.split("=") for part in way.changes.split(" and "))
    return with_changes(config, {key: value == "true" or int(value) for key, value in pairs.items()})


@pytest.mark.parametrize("device_gb", [4.0, 8.0, 12.0, 21.0, 24.0, 30.0])
def test_each_way_fits_by_prediction(device_gb: float) -> None:
    config = config_of(2000, **{"lora.rank": 64})
    plan = plan_of(config, device_gb)
    assert is_short(plan)
    ways, least = ways_to_fit(config, plan.buckets, int(device_gb * GB), Formula)
    assert least.peak_bytes <= min((way.peak_bytes for way in ways), default=least.peak_bytes)
    assert bool(ways) == (device_gb * GB >= least.peak_bytes)
    for way in ways:
        assert way.peak_bytes <= device_gb * GB
        if "no larger than" not in way.changes:
            after = changed(config, way)
            assert max(line.memory_bytes for line in lines_of(after)) == way.peak_bytes
    if device_gb == 24.0:
        assert [way.changes.split("=")[0] for way in ways][:2] == ["buckets.tokens_per_micro_batch", CHECKPOINTING]


def test_the_budget_of_tokens_is_the_largest_that_fits() -> None:
    config = config_of(2000, **{"lora.rank": 64})
    ways, _ = ways_to_fit(config, lines_of(config), 25 * GB, Formula)
    tokens = int(ways[0].changes.split("=")[1])

    def peak(tokens: int) -> int:
        after = with_changes(config, {"buckets.tokens_per_micro_batch": tokens})
        return max(line.memory_bytes for line in lines_of(after))

    assert peak(tokens) <= 25 * GB < peak(tokens + 1)


def test_a_smaller_bucket_is_named_where_only_large_ones_are_too_much() -> None:
    config = config_of(1, **{"lora.rank": 64})
    ways, _ = ways_to_fit(config, lines_of(config), int(20.5 * GB), Formula)
    assert any(f"no larger than {SMALL}" in way.changes for way in ways)


def test_a_run_is_refused_in_one_line_with_what_fits() -> None:
    config = config_of(1500, **{"lora.rank": 64})
    plan = plan_of(config, 25)
    with pytest.raises(UserError, match=r"needs about 3\d(\.\d)? GB, the device has 25 GB; what fits .*GB\)") as told:
        check_memory(config, plan, Formula)
    assert "\n" not in str(told.value)
    assert "memory.fp8_base=true" in str(told.value) and "train.gradient_checkpointing=true (2" in str(told.value)
    check_memory(config, plan_of(config, 64), Formula)
    check_memory(config, dataclasses.replace(plan, device_bytes=None), Formula)
    told_none = shortage(config, plan_of(config, 0.5), Formula)
    assert "no setting makes it fit, the least is memory.offload_blocks=true and" in told_none


def test_whole_training_is_told_of_adapters() -> None:
    config = config_of(300)
    assert "lora.rank=64" in shortage(config, plan_of(config, 30), Formula)
    vae = dataclasses.replace(config, method="vae")
    assert "lora" not in shortage(vae, plan_of(vae, 30), Formula)
