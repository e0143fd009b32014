"""The order of training: a pure function of the rows, the budget, the seed and the epoch.

A step is a fixed number of micro-batches with equally many rows of equally many tokens, so that every worker computes
as much as the others. Workers only slice a step: how many there are does not change what it holds. No row is dropped;
where a step is not full, rows of it are repeated with weight 0. Resuming needs the number of the step, nothing else.
"""

import bisect
import hashlib
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.errors import UserError
from models.geometry import Bucket
from train_bridge.plan.buckets import Assignment
from train_bridge.plan.draws import drawn, is_whole, mix, places_of_draws, units_of
from train_bridge.types import MicroBatch, TrainRow

KEPT_PLANS = 2
"""epochs of a schedule that stay planned: the present one, and the next while loading runs ahead"""
# What a hash decides, so that one decision does not follow from another.
OPTION, ROW, MICRO_BATCH, STEP = (np.uint64(n) for n in range(1, 5))


@dataclass(frozen=True, eq=False)
class Index:
    """What the planner knows of the rows.

    Attributes:
        keys: hash of each row's id, uint64 (N,).
        options: positions in `buckets` for each row, int32 (N, K), padded with −1; a row without any is not planned.
        buckets: the shapes, sorted.
        repeats: draws of each row an epoch, in units of 1 / ONCE, uint64 (N,); None: once each.
    """

    keys: np.ndarray
    options: np.ndarray
    buckets: tuple[Bucket, ...]
    repeats: np.ndarray | None = None

    @classmethod
    def of(cls, rows: Sequence[TrainRow], assignment: Assignment) -> "Index":
        """Take ids, options and repeats; positions in the index are positions in `rows`."""
        digests = (hashlib.blake2b(row.row_id.encode("utf-8", "surrogatepass"), digest_size=8).digest() for row in rows)
        keys = np.frombuffer(b"".join(digests), "<u8")
        return cls(keys, assignment.options, assignment.buckets, units_of([row.repeat for row in rows]))

    def fingerprint(self) -> str:
        """Return 16 hex digits that change when rows or their options do, whatever the order of the rows."""
        order = np.lexsort((*self.options.T, self.keys))
        hashed = hashlib.blake2b(",".join(map(str, self.buckets)).encode(), digest_size=8)
        hashed.update(self.keys[order].astype("<u8").tobytes())
        hashed.update(self.options[order].astype("<i4").tobytes())
        if self.repeats is not None:
            hashed.update(self.repeats[order].astype("<u8").tobytes())
        return hashed.hexdigest()

    def rows_per_bucket(self, epoch: int) -> np.ndarray:
        """Count the draws of each bucket in an epoch, int64 (B,); without repeats each row is in it once."""
        return _counts(self, _chosen(self, epoch)[self.drawn(epoch)])

    def drawn(self, epoch: int) -> np.ndarray:
        """Return the positions of the rows of an epoch, ascending int64: each as often as it is drawn.

        A row with repeats r is drawn floor(r) or ceil(r) times in an epoch, and n·r times in the first n, less than
        one more or less. The epochs in which rows of equal r are drawn follow from their ids.
        """
        return np.arange(len(self.keys)) if self.repeats is None else drawn(self.keys, self.repeats, epoch)


@dataclass(frozen=True)
class Budget:
    """How much is computed at once.

    Attributes:
        tokens_per_micro_batch: video tokens of a micro-batch, which one row may exceed.
        micro_batches_per_step: micro-batches of an optimizer step over all workers.
    """

    tokens_per_micro_batch: int
    micro_batches_per_step: int

    def rows(self, tokens: int) -> int:
        """Return the rows of a full micro-batch whose rows have so many tokens."""
        return max(1, self.tokens_per_micro_batch // tokens)


@dataclass(frozen=True, eq=False)
class EpochPlan:
    """The steps of one epoch; S steps of M micro-batches.

    Attributes:
        buckets: the shapes.
        rows_per_micro_batch: of each step, fillers included, int32 (S,).
        tokens_per_row: of each step, int64 (S,).
        micro_batch_buckets: positions in `buckets`, int32 (S, M).
        rows: positions in the index, steps and micro-batches one after the other, int32.
        real: False where a row is a filler, bool, as `rows`.
        offsets: where each step begins in `rows`, int64 (S,).
    """

    buckets: tuple[Bucket, ...]
    rows_per_micro_batch: np.ndarray
    tokens_per_row: np.ndarray
    micro_batch_buckets: np.ndarray
    rows: np.ndarray
    real: np.ndarray
    offsets: np.ndarray

    @property
    def num_steps(self) -> int:
        """Steps of this epoch."""
        return len(self.offsets)

    @property
    def fillers(self) -> int:
        """Rows repeated with weight 0."""
        return int(len(self.real) - self.real.sum())

    def real_rows(self, step: int) -> int:
        """Count the rows of a step, without fillers."""
        begin = int(self.offsets[step])
        size = int(self.rows_per_micro_batch[step]) * self.micro_batch_buckets.shape[1]
        return int(self.real[begin : begin + size].sum())

    def micro_batches(self, step: int) -> tuple[MicroBatch, ...]:
        """Return all micro-batches of a step.

        Raises:
            IndexError: no such step in this epoch.
        """
        if not 0 <= step < self.num_steps:
            raise IndexError(f"step {step} of an epoch of {self.num_steps}")
        names = self.micro_batch_buckets[step].tolist()
        size, begin = int(self.rows_per_micro_batch[step]), int(self.offsets[step])
        rows = self.rows[begin : begin + size * len(names)].reshape(-1, size)
        weights = self.real[begin : begin + size * len(names)].reshape(-1, size).astype(np.float64)
        return tuple(
            MicroBatch(self.buckets[name], tuple(some), tuple(weight))
            for name, some, weight in zip(names, rows.tolist(), weights.tolist(), strict=True)
        )

    def for_rank(self, step: int, rank: int, world_size: int) -> tuple[MicroBatch, ...]:
        """Return one worker's micro-batches of a step; those of all ranks in turn are the whole step.

        Raises:
            UserError: the world size does not divide the micro-batches of a step.
            IndexError: no such step in this epoch, or no such rank.
        """
        places = places_of_rank(self.micro_batch_buckets.shape[1], rank, world_size)
        return self.micro_batches(step)[places.start : places.stop]


def places_of_rank(micro_batches_per_step: int, rank: int, world_size: int) -> range:
    """Return the places in a step of the micro-batches that one worker computes.

    Raises:
        UserError: the world size does not divide the micro-batches of a step.
        IndexError: no such rank.
    """
    if world_size < 1 or micro_batches_per_step % world_size:
        sizes = [n for n in range(1, micro_batches_per_step + 1) if micro_batches_per_step % n == 0]
        near = [str(n) for n in (*[n for n in sizes if n < world_size][-1:], *[n for n in sizes if n > world_size][:1])]
        more = -(-micro_batches_per_step // max(1, world_size)) * max(1, world_size)
        raise UserError(
            f"{world_size} workers cannot share {micro_batches_per_step} micro-batches evenly; take "
            f"{' or '.join(near)} workers, or set buckets.micro_batches_per_step to {more}"
        )
    if not 0 <= rank < world_size:
        raise IndexError(f"rank {rank} of {world_size}")
    share = micro_batches_per_step // world_size
    return range(rank * share, (rank + 1) * share)


class Schedule:
    """The steps of a whole training, epoch after epoch; epochs are planned when they are reached."""

    def __init__(self, index: Index, budget: Budget, seed: int) -> None:
        """Take what the plans follow from.

        Raises:
            UserError: no row can be planned.
        """
        counts = np.unique((index.options >= 0).sum(axis=1))
        if not counts.any():
            raise UserError("no row fits a bucket; see why rows were refused, or change buckets.* in the config")
        self._index, self._budget, self._seed = index, budget, seed
        # Options are taken in turn, so that the number of steps repeats after this many epochs.
        self._period = math.lcm(*counts[counts > 0].tolist()) if is_whole(index.repeats) else math.inf
        self._starts = [0]
        self._plans: dict[int, EpochPlan] = {}
        self._lock = threading.RLock()  # the thread that reads ahead asks, too

    def at(self, step: int) -> tuple[int, int, EpochPlan]:
        """Return the epoch that a step of the training falls in, the step within it, and that epoch's plan.

        Raises:
            IndexError: the step is negative.
        """
        if step < 0:
            raise IndexError(f"step {step} is negative")
        with self._lock:
            while len(self._starts) <= self._period and self._starts[-1] <= step:
                self._starts.append(self._starts[-1] + self._num_steps(len(self._starts) - 1))
        # All starts are known up to the step, or a whole period of them.
        cycles, rest = divmod(step, self._starts[-1]) if len(self._starts) > self._period else (0, step)
        within = bisect.bisect_right(self._starts, rest) - 1
        epoch = cycles * int(self._period) + within if cycles else within
        return epoch, rest - self._starts[within], self.plan(epoch)

    def plan(self, epoch: int) -> EpochPlan:
        """Return an epoch's plan; the last ones asked for are kept."""
        with self._lock:
            if epoch not in self._plans:
                while len(self._plans) >= KEPT_PLANS:
                    del self._plans[next(iter(self._plans))]
                self._plans[epoch] = plan_epoch(self._index, self._budget, self._seed, epoch)
            return self._plans[epoch]

    def _num_steps(self, epoch: int) -> int:
        counts = self._index.rows_per_bucket(epoch)
        return sum(g.steps for _, groups in _groups(self._index.buckets, counts, self._budget) for g in groups)


def plan_epoch(index: Index, budget: Budget, seed: int, epoch: int) -> EpochPlan:
    """Divide all rows into steps.

    Each row comes once with weight 1, or as often as its repeats say (`Index.drawn`). Where it has several options, it
    takes them in turn from epoch to epoch. A class is the buckets with equally many tokens; each is divided so that it
    needs the fewest fillers, at most `micro_batches_per_step` − 1. Rows, micro-batches and steps are ordered by hashes
    of ids, shapes and ordinals with seed and epoch: the order of the rows in the index does not matter, and one row
    more moves few others.

    In epoch 0 the step that needs most memory (rows × tokens, then frames) comes first. Where rows have one option
    each, all epochs are made of the same shapes, so that memory runs out at that step or never.

    Args:
        index: the rows and their options.
        budget: rows of a micro-batch and micro-batches of a step.
        seed: decides the order.
        epoch: counts from 0.
    """
    draws = index.drawn(epoch)
    chosen = _chosen(index, epoch)[draws]
    counts = _counts(index, chosen)
    places = mix(index.keys ^ _salt(seed, epoch, ROW))
    order = np.lexsort((places if index.repeats is None else places_of_draws(places, draws), chosen))
    sequence = draws[order].astype(np.int32)
    cursors = len(sequence) - counts.sum() + np.cumsum(counts) - counts  # rows without option sort first

    labels, rows, real, sizes, step_keys = [], [], [], [], []
    for members, groups in _groups(index.buckets, counts, budget):
        done = 0
        for group in groups:
            place = _shuffled(index.buckets, members, group.parts, _salt(seed, epoch, MICRO_BATCH))
            filled = []
            for bucket, parts, number in zip(members.tolist(), group.parts.tolist(), group.real.tolist(), strict=True):
                filled.append(_fill(sequence[cursors[bucket] : cursors[bucket] + number], parts, group.rows))
                cursors[bucket] += number
            labels.append(np.repeat(members, group.parts)[place].reshape(group.steps, -1))
            rows.append(np.concatenate([some for some, _ in filled])[place].ravel())
            real.append(np.concatenate([some for _, some in filled])[place].ravel())
            sizes.append(np.full(group.steps, group.rows))
            ordinals = np.arange(done, done + group.steps, dtype=np.uint64)
            tokens = np.uint64(index.buckets[members[0]].tokens)
            step_keys.append(mix(mix(tokens ^ _salt(seed, epoch, STEP)) + ordinals))
            done += group.steps
    if not labels:
        none = np.zeros(0, np.int32)
        shape = (0, budget.micro_batches_per_step)
        return EpochPlan(index.buckets, none, none, none.reshape(shape), none, none.astype(bool), none)

    names, size = np.concatenate(labels), np.concatenate(sizes)
    tokens_per_row = np.array([bucket.tokens for bucket in index.buckets])[names[:, 0]]
    frames = np.array([bucket.num_frames for bucket in index.buckets])[names].max(axis=1)
    widths = size * names.shape[1]
    order = np.argsort(np.concatenate(step_keys), kind="stable")
    if epoch == 0:
        heaviest = np.lexsort((frames, size * tokens_per_row))[-1]
        order = np.concatenate([[heaviest], order[order != heaviest]])
    return EpochPlan(
        buckets=index.buckets,
        rows_per_micro_batch=size[order].astype(np.int32),
        tokens_per_row=tokens_per_row[order],
        micro_batch_buckets=names[order].astype(np.int32),
        rows=np.concatenate(rows),
        real=np.concatenate(real),
        offsets=(np.cumsum(widths) - widths)[order],
    )


@dataclass(frozen=True, eq=False)
class _Group:
    """Steps of one class with equally many rows per micro-batch.

    Attributes:
        steps: how many.
        rows: rows per micro-batch, fillers included.
        parts: micro-batches of each bucket, over all of these steps.
        real: rows of each bucket, over all of these steps, without fillers.
    """

    steps: int
    rows: int
    parts: np.ndarray
    real: np.ndarray


def _groups(buckets: Sequence[Bucket], counts: np.ndarray, budget: Budget) -> list[tuple[np.ndarray, list[_Group]]]:
    """Divide each class: positions of its buckets, and its steps."""
    tokens = np.array([bucket.tokens for bucket in buckets], np.int64)
    classes = [np.flatnonzero((tokens == n) & (counts > 0)) for n in np.unique(tokens).tolist()]
    return [
        (members, _divide(counts[members], budget.rows(buckets[members[0]].tokens), budget.micro_batches_per_step))
        for members in classes
        if len(members)
    ]


def _divide(counts: np.ndarray, most_rows: int, parts: int) -> list[_Group]:
    """Divide one class's rows into steps with the fewest fillers, largest micro-batches first.

    Steps without fillers are taken with as many rows per micro-batch as give one, until the rest fits one step
    with the fewest rows that can hold it, ceil(rest / parts). Fillers are thus −rows mod parts.

    Args:
        counts: rows of each bucket.
        most_rows: rows of a micro-batch at most.
        parts: micro-batches of a step.
    """
    left, groups = counts.copy(), []
    while total := int(left.sum()):
        rows = -(-total // parts)
        needed = -(-left // rows)
        if rows <= most_rows and needed.sum() <= parts:
            groups.append(_Group(1, rows, _spread(left, needed, parts), left))
            break
        # One row per micro-batch always gives a full step here, as fewer rows than `parts` were finished above.
        low, high = 1, min(most_rows, total // parts)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if (left // middle).sum() >= parts else (low, middle - 1)
        full = left // low
        steps = int(full.sum()) // parts
        taken = np.diff(np.minimum(np.cumsum(full), steps * parts), prepend=0)
        groups.append(_Group(steps, low, taken, taken * low))
        left = left - taken * low
    return groups


def _spread(rows: np.ndarray, needed: np.ndarray, parts: int) -> np.ndarray:
    """Return spare micro-batches to the buckets with most rows in each, so that few hold nothing but fillers."""
    given = needed.copy()
    for _ in range(parts - int(needed.sum())):
        given[np.argmax(rows / np.maximum(given, 1))] += 1
    return given


def _fill(rows: np.ndarray, parts: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide rows evenly into micro-batches of a size; each goes on with the rows after its own, as fillers.

    Returns:
        Rows and whether they count, both (parts, size).
    """
    bounds = np.arange(parts + 1) * len(rows) // max(1, parts)
    slots = np.arange(size)
    real = slots < np.diff(bounds)[:, None]
    return rows[(bounds[:-1, None] + slots) % max(1, len(rows))], real


def _shuffled(buckets: Sequence[Bucket], members: np.ndarray, parts: np.ndarray, salt: np.ndarray) -> np.ndarray:
    """Order micro-batches by hash of their shape and ordinal, so that a step mixes the buckets of its class."""
    shapes = [buckets[i] for i in members.tolist()]
    codes = np.array([(b.num_frames << 40) ^ (b.height_px << 20) ^ b.width_px for b in shapes], np.uint64)
    ordinals = np.concatenate([np.arange(n, dtype=np.uint64) for n in parts.tolist()])
    return np.argsort(mix(mix(np.repeat(codes, parts) ^ salt) + ordinals), kind="stable")


def _chosen(index: Index, epoch: int) -> np.ndarray:
    """Return the bucket of each row in an epoch, −1 for rows without any; int32 (N,)."""
    if index.options.shape[1] == 1:
        return index.options[:, 0]
    count = np.maximum((index.options >= 0).sum(axis=1), 1)
    first = (mix(index.keys ^ OPTION) % count.astype(np.uint64)).astype(np.int64)
    return np.take_along_axis(index.options, ((first + epoch) % count)[:, None], axis=1)[:, 0]


def _counts(index: Index, chosen: np.ndarray) -> np.ndarray:
    return np.bincount(chosen[chosen >= 0], minlength=len(index.buckets))


def _salt(seed: int, epoch: int, purpose: np.uint64) -> np.ndarray:
    """Return one number, as an array of one: numpy warns when single numbers overflow."""
    return mix(mix(mix(np.array([seed % 2**64], np.uint64)) + np.uint64(epoch)) + purpose)
