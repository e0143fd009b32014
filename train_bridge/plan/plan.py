"""The dry run: every row accounted for, and what each bucket will cost, before anything is loaded."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import psutil
import torch

from core.errors import UserError
from curation.empty_maps import EMPTY_BELOW
from curation.expressions import parse
from curation.grammar import Quota
from models.geometry import MAGVIT, Bucket, LatentGrid
from models.memory.cost import ASSUMED_SHARE_OF_PEAK, PEAK_TFLOPS, peak_flops
from train_bridge.config import DataSettings, TrainConfig
from train_bridge.data.controls import check_controls, control_names, empty_counts
from train_bridge.data.drawn_captions import caption_share_notes
from train_bridge.data.facts import probe_rows
from train_bridge.data.held_out import all_held_out, divide_rows, split_notes
from train_bridge.data.metadata import REPEAT, read_metadata
from train_bridge.data.quotas import with_quotas
from train_bridge.data.row_weights import relative_weights
from train_bridge.data.spans import rate_fps
from train_bridge.data.windows import at_rate, letterboxed
from train_bridge.parts import Parts, condition_spec, find_parts, grid_of
from train_bridge.plan.buckets import Assignment, assign
from train_bridge.plan.crops import cropped_of
from train_bridge.plan.mixture import level_notes, mixture_notes
from train_bridge.plan.planner import Budget, Index, Schedule
from train_bridge.plan.predict import Predictor
from train_bridge.types import Refusal, TrainRow

Spread = tuple[float, float, float]
"""lowest, median and highest"""


@dataclass(frozen=True)
class Rows:
    """The rows of a run, after all that can be refused without decoding has been.

    Attributes:
        train: rows trained on, and their buckets.
        validation: rows held out, and theirs.
        refused: rows not used, and why.
        left_out: rows that `data.where` leaves out.
        added: how many more rows there are because long clips are divided into windows.
        notes: lines for people on how rows were divided, and what they are drawn by.
        never_drawn: rows to train on that `data.repeat` is 0 for.
        empty_maps: by control, clips to train on in whose map there is next to nothing, and all that have the map.
    """

    train: tuple[TrainRow, ...]
    train_buckets: Assignment
    validation: tuple[TrainRow, ...]
    validation_buckets: Assignment
    refused: tuple[Refusal, ...]
    left_out: int
    added: int = 0
    notes: tuple[str, ...] = ()
    never_drawn: int = 0
    empty_maps: Mapping[str, tuple[int, int]] = field(default_factory=dict)

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
        rates_fps: lowest, median and highest rate of the rows that may take it; None for images.
        cropped: lowest, median and highest share of their pictures that it cuts away.
    """

    bucket: Bucket
    rows: int
    rows_per_micro_batch: int
    memory_bytes: int
    micro_batch_s: float
    rates_fps: Spread | None = None
    cropped: Spread | None = None


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
    notes: tuple[str, ...] = ()
    """lines for people, on the family, what lies beside the training and which cards would do"""
    masks: Mapping[str, float] = field(default_factory=dict)
    """share of each kind of mask, where there are some"""


def collect_rows(config: TrainConfig, memo: Path | None = None, parts: Parts | None = None) -> Rows:
    """Read metadata, look at files whose size it does not tell, and find each row's buckets.

    Args:
        config: the resolved config.
        memo: file that remembers what was found in media files.
        parts: of the model; None: a VAE of EasyAnimate V5's compression.

    Raises:
        UserError: the metadata cannot be read, or no row is left.
    """
    grid = MAGVIT if parts is None else grid_of(parts)
    quotas = quotas_of(config.data)
    sees_control = config.kind.condition == "control"
    metadata = read_metadata(config.data, captions=not config.kind.trains_vae, controls=sees_control)
    rows, refused = probe_rows(metadata.rows, metadata.refused, memo=memo)
    if sees_control:
        rows, unfit = check_controls(rows, memo, sees_camera="camera" in condition_spec(parts or find_parts(config)))
        refused = (*refused, *unfit)
        if not rows:
            raise UserError(f"{config.data.metadata}: no row is left to train on; the first refused: {refused[0]}")
    split = divide_rows(rows, config.data)
    if why := all_held_out(config.data, split):
        raise UserError(f"{config.data.metadata}: no row is left to train on ({why})")
    train, train_buckets, train_refused = _fitting(split.train, config, grid)
    validation, validation_buckets, validation_refused = _fitting(split.held_out, config, grid)
    refused = (*refused, *train_refused, *validation_refused)
    if not train:
        why = f"; the first of {len(refused)} refused: {refused[0]}" if refused else ""
        raise UserError(f"{config.data.metadata}: no row is left to train on ({metadata.left_out} by where{why})")
    wanted = train
    train, train_buckets = _drawn(with_quotas(train, quotas), train_buckets)
    if config.data.repeat is not None:  # each held-out row counts once
        validation = tuple(replace(row, repeat=1.0, groups=()) for row in validation)
    relative_weights(train)  # tells here of weights that are all 0
    notes = (
        *split_notes(config.data, split, len(validation), config.watch.validate_every),
        *mixture_notes(train, wanted, quotas),
        *level_notes(train),
        *caption_share_notes(train),
    )
    added = len(wanted) + len(validation) + len(train_refused) + len(validation_refused) - len(rows)
    left_out = metadata.left_out
    never = len(wanted) - len(train)
    empty = empty_counts(split.train, metadata.empty_maps)  # before clips are divided into windows
    notes = (*notes, *empty_notes(empty))
    return Rows(
        train, train_buckets, validation, validation_buckets, tuple(refused), left_out, added, notes, never, empty
    )


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
    number, _, epoch = Schedule(index, budget, config.train.seed).at(0)
    named = config.launch.device
    if named is not None and named not in PEAK_TFLOPS:
        raise UserError("not known", field="launch.device", value=named, fix=f"known: {', '.join(PEAK_TFLOPS)}")
    peak = PEAK_TFLOPS[named] * 1e12 if named else peak_flops(device, half=config.train.precision == "bf16")
    speed = peak * ASSUMED_SHARE_OF_PEAK
    lines = []
    counts = index.rows_per_bucket(number).tolist()
    for (bucket, members), count in zip(_members(rows), counts, strict=True):
        rates = _spread([rate_fps(row, bucket) for row in members])
        cropped = _spread([cropped_of(row, bucket) for row in members])
        size = min(budget.rows(bucket.tokens), max(1, count))
        seconds = predictor.flops(bucket) * size / speed
        lines.append(BucketPlan(bucket, count, size, predictor.memory(bucket, size).total, seconds, rates, cropped))
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
    """Return the bytes that a device has for us: as told, else free now; None where the workers' are elsewhere."""
    if config.train.memory_gb is not None:
        return int(config.train.memory_gb * 1e9)
    if config.launch.device or (config.launch.gpus_per_worker and device.type != "cuda"):
        return None
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def render_plan(config: TrainConfig, plan: Plan) -> str:
    """Write the plan for people: rows, buckets, costs."""
    rows = plan.rows
    used = len(rows.train) + rows.never_drawn + len(rows.validation)
    total = used + len(rows.refused) + rows.left_out - rows.added
    never = f"{rows.never_drawn} never drawn, " if rows.never_drawn else ""
    lines = [
        f"{total} rows: {len(rows.train)} to train on, {never}{len(rows.validation)} held out, "
        f"{rows.left_out} left out by where, {len(rows.refused)} refused",
        *_refusals(rows.refused),
        *([f"long clips are divided into windows, which makes {rows.added} rows more"] if rows.added else []),
        *rows.notes,
        "",
        f"{'bucket (frames x height x width)':34}{'rows':>9}{'tokens':>9}{'at once':>9}{'GB':>8}{'s':>9}"
        f"{'cropped':>10}{'most':>6}{'fps: min':>11}{'median':>8}{'max':>8}",
        *map(_shown, plan.buckets),
        "",
        f"{plan.steps_per_epoch} steps an epoch of {config.buckets.micro_batches_per_step} micro-batches each, "
        f"{plan.fillers} rows repeated with weight 0 to fill them, none dropped",
    ]
    if rows.index.repeats is not None:
        lines.append("steps, rows and fillers are those of the first epoch; others differ where repeats are fractions")
    if config.kind.condition == "control":
        lines.append(f"control maps: {_counts(control_names(rows.train))}")
    if plan.masks:
        lines.append(f"masks: {_shares(plan.masks)}")
    if whole := sum(row.letterbox for row in rows.train):
        lines.append(
            f"{whole} rows are fitted in whole between black bars: cropping would take more than data.max_crop"
        )
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
    return "\n".join([*lines, *plan.notes])


def _shown(line: BucketPlan) -> str:
    cropped = "{:>10.0%}{:>6.0%}".format(*line.cropped[1:]) if line.cropped else f"{'-':>10}{'-':>6}"
    rates = "{:>11.3g}{:>8.3g}{:>8.3g}".format(*line.rates_fps) if line.rates_fps else f"{'-':>11}{'-':>8}{'-':>8}"
    return (
        f"{line.bucket!s:34}{line.rows:>9}{line.bucket.tokens:>9}{line.rows_per_micro_batch:>9}"
        f"{line.memory_bytes / 1e9:>8.2f}{line.micro_batch_s:>9.3g}{cropped}{rates}"
    )


def _refusals(refused: Sequence[Refusal]) -> list[str]:
    lines = []
    for (key, reason), count in Counter((r.key, r.reason) for r in refused).most_common():
        first = next(r for r in refused if (r.key, r.reason) == (key, reason))
        lines.append(f"  {count:>7} {key}: {reason}; {first.fix} (first: {first.where})")
    return lines


def empty_notes(empty: Mapping[str, tuple[int, int]]) -> list[str]:
    """Return a warning for each control with empty maps: such rows teach a model to pass over its control."""
    return [
        f"warning: the {name} map of {bare} of {there} clips ({bare / there:.0%}) is empty; leave them out with "
        f'data.where="control_{name}_amount >= {EMPTY_BELOW:g}"'
        for name, (bare, there) in empty.items()
    ]


def _shares(shares: Mapping[str, float]) -> str:
    total = sum(shares.values())
    return ", ".join(f"{name} {share / total:.0%}" for name, share in shares.items() if share)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} of {count} rows" for name, count in counts.items())


def _fitting(
    rows: Sequence[TrainRow], config: TrainConfig, grid: LatentGrid
) -> tuple[tuple[TrainRow, ...], Assignment, tuple[Refusal, ...]]:
    assignment = assign(rows, config.buckets, config.data.max_crop, grid, letterbox=config.data.letterbox)
    fits: np.ndarray = np.asarray((assignment.options >= 0).any(axis=1), bool)
    kept = tuple(row for row, fit in zip(rows, fits.tolist(), strict=True) if fit)
    found = replace(assignment, options=assignment.options[fits])
    taken = at_rate(letterboxed(kept, found, config.data.max_crop), found, config.buckets)
    return *taken, tuple(assignment.refused)


def quotas_of(settings: DataSettings) -> tuple[Quota, ...]:
    """Return the quotas of `data.repeat`.

    Raises:
        UserError: it is not readable.
    """
    return () if settings.repeat is None else parse(settings.repeat, REPEAT, quotas=True).quotas


def _drawn(rows: Sequence[TrainRow], assignment: Assignment) -> tuple[tuple[TrainRow, ...], Assignment]:
    """Leave out rows that are never drawn."""
    drawn = np.array([row.repeat > 0 for row in rows], bool)
    if drawn.all():
        return tuple(rows), assignment
    kept = tuple(row for row, is_drawn in zip(rows, drawn.tolist(), strict=True) if is_drawn)
    return kept, replace(assignment, options=assignment.options[drawn])


def _members(rows: Rows) -> Iterator[tuple[Bucket, list[TrainRow]]]:
    """Return each bucket with the rows that may take it."""
    for place, bucket in enumerate(rows.train_buckets.buckets):
        found = np.flatnonzero((rows.train_buckets.options == place).any(axis=1)).tolist()
        yield bucket, [rows.train[i] for i in found]


def _spread(values: Iterable[float | None]) -> Spread | None:
    """Return the lowest, the median and the highest of what is known."""
    known = [value for value in values if value is not None]
    return (min(known), float(np.median(known)), max(known)) if known else None


def _duration(seconds: float) -> str:
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.0f} seconds"
