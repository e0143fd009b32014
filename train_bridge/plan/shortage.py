"""A run that does not fit a device: what it needs, and which changes of its config would fit, predicted one by one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from core.errors import UserError
from models.geometry import Bucket
from train_bridge.config import TrainConfig
from train_bridge.loop.base_memory import check_base
from train_bridge.plan.plan import BucketPlan, Plan
from train_bridge.plan.planner import Budget
from train_bridge.plan.predict import Predictor

MOST_WAYS = 4
CHECKPOINTING = {"train.gradient_checkpointing": True}
FP8, OFFLOAD = {"memory.fp8_base": True}, {"memory.offload_blocks": True, **CHECKPOINTING}
FSDP = {"launch.sharding": "fsdp"}
ADAPTERS = {"lora.rank": 64}

Changes = Mapping[str, Any]
"""values by dotted key"""
Predict = Callable[[TrainConfig], Predictor]


@dataclass(frozen=True)
class Way:
    """Changes of a config, and the peak of memory with them.

    Attributes:
        changes: as people write them.
        peak_bytes: of one device, predicted.
    """

    changes: str
    peak_bytes: int

    def __str__(self) -> str:
        """Return it with its memory."""
        return f"{self.changes} ({self.peak_bytes / 1e9:.3g} GB)"


def is_short(plan: Plan) -> bool:
    """Return whether a plan needs more memory than the device has."""
    return plan.device_bytes is not None and plan.peak_bytes > plan.device_bytes


def check_memory(config: TrainConfig, plan: Plan, predict: Predict) -> None:
    """Refuse a run that would not fit.

    Raises:
        UserError: with what is needed, what there is, and what would fit.
    """
    if is_short(plan):
        raise UserError(shortage(config, plan, predict))


def shortage(config: TrainConfig, plan: Plan, predict: Predict) -> str:
    """Write what is needed, what there is, and what would fit, for a plan that is short of memory."""
    assert plan.device_bytes is not None
    worst = max(plan.buckets, key=lambda line: line.memory_bytes)
    needs = (
        f"not enough memory: bucket {worst.bucket} with {worst.rows_per_micro_batch} rows needs about "
        f"{worst.memory_bytes / 1e9:.3g} GB, the device has {plan.device_bytes / 1e9:.3g} GB"
    )
    ways, least = ways_to_fit(config, plan.buckets, plan.device_bytes, predict)
    if ways:
        return f"{needs}; what fits (predicted): set {', or '.join(map(str, ways))}"
    return f"{needs}; no setting makes it fit, the least is {least}: take a larger device, or a smaller model"


def ways_to_fit(
    config: TrainConfig, lines: Sequence[BucketPlan], device_bytes: int, predict: Predict
) -> tuple[list[Way], Way]:
    """Find changes that make a run fit, those that cost least first.

    Args:
        config: the resolved config.
        lines: the buckets and their rows.
        device_bytes: what there is.
        predict: what predicts the cost under a config.

    Returns:
        The ways, none where nothing fits; and the way with the lowest peak, one row at once.
    """
    ways: list[Way] = []
    used: list[Changes] = []
    predictor = predict(config)
    tokens = config.buckets.tokens_per_micro_batch
    least = Way("buckets.tokens_per_micro_batch=1", _peak(predictor, lines, 1))
    if fewer := _most_tokens(predictor, lines, tokens, device_bytes):
        ways.append(_fewer_tokens({}, predictor, lines, fewer))
    for changes in _modes(config):
        # What adds to changes that do is no other way.
        if len(ways) >= MOST_WAYS or any(smaller.items() <= changes.items() for smaller in used):
            continue
        changed = with_changes(config, changes)
        try:
            check_base(changed)
        except UserError:
            continue
        predictor = predict(changed)
        peak = _peak(predictor, lines, tokens)
        least = min(least, Way(_written(changes), _peak(predictor, lines, 1)), key=lambda way: way.peak_bytes)
        if peak <= device_bytes:
            ways.append(Way(_written(changes), peak))
            used.append(changes)
        elif not ways and (fewer := _most_tokens(predictor, lines, tokens, device_bytes)):
            ways.append(_fewer_tokens(changes, predictor, lines, fewer))
    if (smaller := _smaller_buckets(predict(config), lines, tokens, device_bytes)) is not None:
        ways.append(smaller)
    return ways, least


def with_changes(config: TrainConfig, changes: Changes) -> TrainConfig:
    """Return a config with some values changed."""
    for name, value in changes.items():
        section, key = name.split(".")
        config = replace(config, **{section: replace(getattr(config, section), **{key: value})})
    return config


def _modes(config: TrainConfig) -> list[Changes]:
    """Return changes to try, from those that cost least on; what is set already is left out of them."""
    if config.kind.trains_vae:
        modes: list[Changes] = [CHECKPOINTING]
    elif config.lora.rank:
        modes = [FP8, CHECKPOINTING, {**CHECKPOINTING, **FP8}, OFFLOAD, {**OFFLOAD, **FP8}]
    else:
        modes = [CHECKPOINTING]
        if config.launch.workers > 1:
            modes += [FSDP, {**FSDP, **CHECKPOINTING}]
        adapters = [ADAPTERS, {**ADAPTERS, **CHECKPOINTING}, {**ADAPTERS, **CHECKPOINTING, **FP8}]
        modes += [*adapters, {**ADAPTERS, **OFFLOAD, **FP8}]
    lacking = ({k: v for k, v in mode.items() if _value(config, k) != v} for mode in modes)
    return [mode for mode in lacking if mode]


def _value(config: TrainConfig, name: str) -> object:
    section, key = name.split(".")
    return getattr(getattr(config, section), key)


def _written(changes: Changes) -> str:
    return " and ".join(f"{key}={str(value).lower()}" for key, value in changes.items())


def _peak(predictor: Predictor, lines: Sequence[BucketPlan], tokens: int) -> int:
    return max(_memory(predictor, line.bucket, line.rows, tokens) for line in lines)


def _memory(predictor: Predictor, bucket: Bucket, rows: int, tokens: int) -> int:
    at_once = min(Budget(tokens, 1).rows(bucket.tokens), max(1, rows))
    return predictor.memory(bucket, at_once).total


def _most_tokens(predictor: Predictor, lines: Sequence[BucketPlan], tokens: int, device_bytes: int) -> int | None:
    """Return the largest budget of tokens below the present one that fits; None where one row at once does not."""
    if _peak(predictor, lines, 1) > device_bytes:
        return None
    low, high = 1, tokens
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _peak(predictor, lines, middle) <= device_bytes else (low, middle)
    return low


def _fewer_tokens(changes: Changes, predictor: Predictor, lines: Sequence[BucketPlan], tokens: int) -> Way:
    both = {**changes, "buckets.tokens_per_micro_batch": tokens}
    return Way(_written(both), _peak(predictor, lines, tokens))


def _smaller_buckets(predictor: Predictor, lines: Sequence[BucketPlan], tokens: int, device_bytes: int) -> Way | None:
    """Return which of the plan's buckets fit as they are; None where none does."""
    fitting = {line.bucket: _memory(predictor, line.bucket, line.rows, tokens) for line in lines}
    kept = [bucket for bucket, peak in fitting.items() if peak <= device_bytes]
    if not kept:
        return None
    largest = max(kept, key=lambda bucket: (bucket.tokens, bucket))
    peak = max(fitting[bucket] for bucket in kept)
    return Way(f"buckets.sizes_px and buckets.frames to buckets no larger than {largest}", peak)
