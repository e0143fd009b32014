"""The dry run: every row accounted for, and what each bucket will cost, before anything is loaded."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import torch

from curation.errors import UserError
from models.cost import ASSUMED_SHARE_OF_PEAK, PEAK_TFLOPS, peak_flops
from train_bridge.buckets import Assignment, assign
from train_bridge.conditions import mask_probabilities
from train_bridge.config import TrainConfig
from train_bridge.facts import probe_rows
from train_bridge.metadata import read_metadata
from train_bridge.planner import Budget, Index, plan_epoch
from train_bridge.predict import Predictor
from train_bridge.types import Bucket, Refusal, TrainRow


@dataclass(frozen=True)
class Rows:
    """The rows of a run, after all that can be refused without decoding has been.

    Attributes:
        train: rows trained on, and their buckets.
        validation: rows held out, and theirs.
        refused: rows not used, and why.
        left_out: rows that `data.where` leaves out.
    """

    train: tuple[TrainRow, ...]
    train_buckets: Assignment
    validation: tuple[TrainRow, ...]
    validation_buckets: Assignment
    refused: tuple[Refusal, ...]
    left_out: int

    @property
    def index(self) -> Index:
        """What the planner knows of the training rows."""
        return Index.of(self.train, self.train_buckets)


@dataclass(frozen=True)
class BucketPlan:
    """One line of the plan.

    Attributes:
        bucket: the shape.
        rows: in the first epoch.
        rows_per_micro_batch: of a full one.
        memory_bytes: predicted peak on one device.
        micro_batch_s: predicted seconds of a full micro-batch.
    """

    bucket: Bucket
    rows: int
    rows_per_micro_batch: int
    memory_bytes: int
    micro_batch_s: float


@dataclass(frozen=True)
class Plan:
    """What a run would do."""

    rows: Rows
    buckets: tuple[BucketPlan, ...]
    steps_per_epoch: int
    fillers: int
    step_s: float
    peak_bytes: int
    device_bytes: int | None


def collect_rows(config: TrainConfig, memo: Path | None = None) -> Rows:
    """Read metadata, look at files whose size it does not tell, and find each row's buckets.

    Args:
        config: the resolved config.
        memo: file that remembers what was found in media files.

    Raises:
        UserError: the metadata cannot be read, or no row is left.
    """
    metadata = read_metadata(config.data, captions=config.method != "vae")
    rows, refused = probe_rows(metadata.rows, metadata.refused, memo=memo)
    held_out = [row for row in rows if _held_out(row, config.data.validation)]
    kept = [row for row in rows if not _held_out(row, config.data.validation)]
    train, train_buckets, train_refused = _fitting(kept, config)
    validation, validation_buckets, validation_refused = _fitting(held_out, config)
    refused = (*refused, *train_refused, *validation_refused)
    if not train:
        why = f"; the first of {len(refused)} refused: {refused[0]}" if refused else ""
        raise UserError(f"{config.data.metadata}: no row is left to train on ({metadata.left_out} by where{why})")
    return Rows(train, train_buckets, validation, validation_buckets, tuple(refused), metadata.left_out)


def make_plan(config: TrainConfig, rows: Rows, predictor: Predictor, device: torch.device) -> Plan:
    """Predict steps, memory and time.

    Args:
        config: the resolved config.
        rows: from `collect_rows`.
        predictor: what one micro-batch costs.
        device: what it would run on.
    """
    settings = config.buckets
    budget = Budget(settings.tokens_per_micro_batch, settings.micro_batches_per_step)
    index = rows.index
    epoch = plan_epoch(index, budget, config.train.seed, 0)
    named = config.launch.device
    if named is not None and named not in PEAK_TFLOPS:
        raise UserError(f"launch.device {named}: not known; known: {', '.join(PEAK_TFLOPS)}")
    peak = PEAK_TFLOPS[named] * 1e12 if named else peak_flops(device, config.train.precision == "bf16")
    speed = peak * ASSUMED_SHARE_OF_PEAK
    lines = []
    for bucket, count in zip(index.buckets, index.rows_per_bucket(0).tolist(), strict=True):
        size = min(budget.rows(bucket.tokens), max(1, count))
        seconds = predictor.flops(bucket) * size / speed
        lines.append(BucketPlan(bucket, count, size, predictor.memory(bucket, size).total, seconds))
    per_worker = settings.micro_batches_per_step / max(1, config.launch.workers)
    by_tokens = {line.bucket.tokens: line.micro_batch_s / line.rows_per_micro_batch for line in lines}
    steps_s = [
        float(rows_each) * by_tokens[int(tokens)] * per_worker
        for rows_each, tokens in zip(epoch.rows_per_micro_batch, epoch.tokens_per_row, strict=True)
    ]
    return Plan(
        rows=rows,
        buckets=tuple(lines),
        steps_per_epoch=epoch.num_steps,
        fillers=epoch.fillers,
        step_s=float(np.mean(steps_s)),
        peak_bytes=max(line.memory_bytes for line in lines),
        device_bytes=device_memory(config, device),
    )


def device_memory(config: TrainConfig, device: torch.device) -> int | None:
    """Give the bytes that a device has for us: as told, else free now; None where the workers' are elsewhere."""
    if config.train.memory_gb is not None:
        return int(config.train.memory_gb * 1e9)
    if config.launch.device or (config.launch.gpus_per_worker and device.type != "cuda"):
        return None
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def check_memory(config: TrainConfig, plan: Plan) -> None:
    """Refuse a run that would not fit.

    Raises:
        UserError: with what is needed, what there is, and what to change.
    """
    if plan.device_bytes is None or plan.peak_bytes <= plan.device_bytes:
        return
    worst = max(plan.buckets, key=lambda line: line.memory_bytes)
    mends = [f"lower buckets.tokens_per_micro_batch (now {config.buckets.tokens_per_micro_batch})"]
    if not config.train.gradient_checkpointing:
        mends.insert(0, "set train.gradient_checkpointing=true")
    if not config.lora.rank and config.method != "vae":
        mends.append("train adapters with lora.rank=64")
    if config.launch.workers > 1 and config.launch.sharding == "ddp":
        mends.append("share the weights with launch.sharding=fsdp")
    raise UserError(
        f"not enough memory: bucket {worst.bucket} with {worst.rows_per_micro_batch} rows needs about "
        f"{worst.memory_bytes / 1e9:.3g} GB, the device has {plan.device_bytes / 1e9:.3g} GB; {', or '.join(mends)}"
    )


def render_plan(config: TrainConfig, plan: Plan) -> str:
    """Write the plan for people: rows, buckets, costs."""
    rows = plan.rows
    total = len(rows.train) + len(rows.validation) + len(rows.refused) + rows.left_out
    lines = [
        f"{total} rows: {len(rows.train)} to train on, {len(rows.validation)} held out, "
        f"{rows.left_out} left out by where, {len(rows.refused)} refused",
        *_refusals(rows.refused),
        "",
        f"{'bucket (frames x height x width)':34}{'rows':>9}{'tokens':>9}{'at once':>9}{'GB':>8}{'s':>9}",
        *(
            f"{line.bucket!s:34}{line.rows:>9}{line.bucket.tokens:>9}{line.rows_per_micro_batch:>9}"
            f"{line.memory_bytes / 1e9:>8.2f}{line.micro_batch_s:>9.3g}"
            for line in plan.buckets
        ),
        "",
        f"{plan.steps_per_epoch} steps an epoch of {config.buckets.micro_batches_per_step} micro-batches each, "
        f"{plan.fillers} rows repeated with weight 0 to fill them, none dropped",
    ]
    if config.method == "inpaint":
        lines.append(f"masks: {_shares(mask_probabilities(config.inpaint))}")
    if rows.train_buckets.upscaled:
        lines.append(f"{rows.train_buckets.upscaled} rows are enlarged: every size has more pixels than they")
    epochs = config.train.steps / plan.steps_per_epoch
    lines += [
        f"{config.train.steps} steps are {epochs:.3g} epochs, about {_duration(config.train.steps * plan.step_s)} at "
        f"{plan.step_s:.3g} s a step (predicted at {ASSUMED_SHARE_OF_PEAK:.0%} of the device's peak)",
        f"memory of one device: about {plan.peak_bytes / 1e9:.3g} GB of "
        + (
            "an unknown size; set train.memory_gb" if plan.device_bytes is None else f"{plan.device_bytes / 1e9:.3g} GB"
        ),
    ]
    return "\n".join(lines)


def _refusals(refused: Sequence[Refusal]) -> list[str]:
    lines = []
    for (key, reason), count in Counter((r.key, r.reason) for r in refused).most_common():
        first = next(r for r in refused if (r.key, r.reason) == (key, reason))
        lines.append(f"  {count:>7} {key}: {reason}; {first.mend} (first: {first.where})")
    return lines


def _shares(shares: Mapping[str, float]) -> str:
    total = sum(shares.values())
    return ", ".join(f"{name} {share / total:.0%}" for name, share in shares.items() if share)


def _fitting(
    rows: Sequence[TrainRow], config: TrainConfig
) -> tuple[tuple[TrainRow, ...], Assignment, tuple[Refusal, ...]]:
    assignment = assign(rows, config.buckets)
    fits: np.ndarray = np.asarray((assignment.options >= 0).any(axis=1), bool)
    kept = tuple(row for row, fit in zip(rows, fits.tolist(), strict=True) if fit)
    return kept, replace(assignment, options=assignment.options[fits]), tuple(assignment.refused)


def _held_out(row: TrainRow, share: float) -> bool:
    if not share:
        return False
    digest = hashlib.blake2b(b"held out " + row.row_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def _duration(seconds: float) -> str:
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.0f} seconds"
