"""The training loop: the same for every method, on one worker or many."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import nn

from core.sanitize import printable
from models.memory.block_offload import put_on_device
from train_bridge.config import TrainConfig
from train_bridge.loop.batches import Ahead, Batches, to_device
from train_bridge.loop.checkpoint import (
    checkpoints,
    load_weights,
    optimizer_state,
    put_optimizer_state,
    put_weights,
    read_state,
    weights_of,
    write_checkpoint,
)
from train_bridge.loop.damage import last_whole
from train_bridge.loop.fill import has_meta
from train_bridge.loop.interruption import interruptible
from train_bridge.loop.learning_rate import learning_rate
from train_bridge.loop.nonfinite import StepLosses, StoppedError, first_tells, tell_rows
from train_bridge.loop.optimizer import make_optimizer
from train_bridge.loop.parallel import Worker, bring_together, divide, is_divided, mean_over_workers
from train_bridge.loop.sharded import Sharded, is_sharded, write_sharded
from train_bridge.loop.stop_when import ReachedError, reached
from train_bridge.loop.tracking import Log, Meter, show
from train_bridge.methods.types import Batch, Method
from train_bridge.plan.planner import EpochPlan, Schedule, places_of_rank
from train_bridge.types import Metrics, MicroBatch

Samples = Callable[[int, nn.Module], None]


@dataclass(frozen=True)
class Job:
    """Everything the loop needs, ready made.

    Attributes:
        config: the resolved config.
        run: the run's folder.
        method: networks and losses.
        batches: where tensors come from.
        schedule: which rows each step takes.
        row_weights: factor on each row's loss, by position; their mean is 1 (`row_weights.relative_weights`).
        validation: held-out rows as one epoch, with their batches; None without.
        adapters_only: only adapters are trained and saved.
        configs: `config.json` of each network, by name.
        row_flops: forward and backward FLOPs of one row, by bucket name.
        peak_flops: of one device.
        data_id: names the rows; a resumed run with other rows says so.
        row_ids: names of the rows, by position.
        sample: draws samples from the current weights.
        first_batch: shows people the first batch.
        most_in_a_row: skipped steps in a row that end the run; None: `train.skip_nonfinite` in all does.
        fill: gives a divided network, built on `meta`, its weights.
    """

    config: TrainConfig
    run: Path
    method: Method
    batches: Batches
    schedule: Schedule
    row_weights: Sequence[float]
    validation: tuple[EpochPlan, Batches] | None
    adapters_only: bool
    configs: Mapping[str, Mapping[str, Any]]
    row_flops: Mapping[str, float]
    peak_flops: float
    data_id: str
    row_ids: Sequence[str] = ()
    sample: Samples | None = None
    most_in_a_row: int | None = None
    first_batch: Callable[[Sequence[MicroBatch], Sequence[Batch]], None] | None = None
    fill: Callable[[nn.Module, Worker], None] | None = None


@dataclass
class Trainer:
    """The state of a run on one worker.

    Attributes:
        step: steps done, with those that were skipped.
        skipped: steps since the run began that changed nothing, since a loss or norm was not finite.
        in_a_row: how many of them were the last ones.
    """

    job: Job
    worker: Worker
    networks: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    ema: EMAModel | None
    step: int = 0
    skipped: int = 0
    in_a_row: int = 0

    @staticmethod
    def start(job: Job, worker: Worker) -> "Trainer":
        """Wrap the networks, make their optimizers, and go on from the last checkpoint there is."""
        train = job.config.train
        networks, optimizers = {}, {}
        for name, network in job.method.networks().items():
            network.train()
            half = job.config.train.precision == "bf16"
            if not has_meta(network):
                network = put_on_device(network, worker.device)
            networks[name] = divide(network, worker, job.config.launch.sharding, half=half)
            if has_meta(network) and job.fill is not None:
                job.fill(networks[name], worker)
            optimizers[name] = make_optimizer([p for p in networks[name].parameters() if p.requires_grad], job.config)
        main = [p for p in networks[job.method.main].parameters() if p.requires_grad]
        ema = EMAModel(main, decay=train.ema, use_ema_warmup=True, power=0.75) if train.ema is not None else None
        trainer = Trainer(job, worker, networks, optimizers, ema)
        # Of versions before manifests: an optimizer has moments after the first step of its network.
        started = {name: 0 if name == job.method.main else job.config.vae_loss.gan_start_step for name in networks}
        if (last := last_whole(job.run, started, worker)) is not None:
            trainer._resume(last)
        return trainer

    def run(self) -> None:
        """Train to the last step, with checkpoints, validation, samples and numbers on the way."""
        job, watch, steps = self.job, self.job.config.watch, self.job.config.train.steps
        log = Log.open(job.run, self.step) if self.worker.rank == 0 else None
        meter = Meter(job.peak_flops)
        if self.step == 0 and job.first_batch is not None and self.worker.rank == 0:
            micros = self._step_plan(0)
            seeds = [row_seeds(job.config.train.seed, "step 0", place, len(m.rows)) for place, m in enumerate(micros)]
            job.first_batch(micros, [job.batches(micro, s) for micro, s in zip(micros[:2], seeds, strict=False)])
        ahead = Ahead(job.batches, self._items(self.step, steps), device=self.worker.device)
        batches = iter(ahead)
        try:
            with interruptible() as stop:
                while self.step < steps:
                    self._one_step(batches, meter)
                    meter.waited_s, ahead.waited_s = meter.waited_s + ahead.waited_s, 0.0
                    last = self.step == steps
                    if last or self.step % watch.log_every == 0:
                        self._tell(log, meter)
                    if watch.validate_every and (last or self.step % watch.validate_every == 0):
                        self._validate(log)
                    if watch.sample_every and (last or self.step % watch.sample_every == 0) and job.sample:
                        with self.averaged(), self._autocast():
                            job.sample(self.step, self._bare(job.method.main))
                    # Last: what a killed run has not written of this step, the step done again writes.
                    if last or self.step % watch.checkpoint_every == 0 or stop:
                        self._save()
                    if stop:
                        raise KeyboardInterrupt
        finally:
            ahead.close()
            if log is not None:
                log.board.close()

    def averaged(self) -> AbstractContextManager[None]:
        """Hold the running mean in the main network's place."""
        return _Averaged(self.ema, self._trained()) if self.ema is not None else nullcontext()

    def _one_step(self, batches: Iterator[Batch], meter: Meter) -> None:
        job, config, world = self.job, self.job.config, self.worker.world_size
        micros = self._step_plan(self.step)
        # The gradient is that of the mean of weight times loss over the step's real rows, wherever they are computed.
        # Divided by the weights of this step instead, a row that is alone in its step would always count 1.
        total = max(1, self._real_rows(self.step))
        places = self._places(len(micros))
        found = StepLosses()
        for place in places:
            micro, batch = micros[place], to_device(next(batches), self.worker.device)
            for network in self.networks.values():
                bring_together(network, now=place == places[-1])
            for name, losses in self._losses(batch):
                loss = (losses * batch.weights).sum() / total
                (loss * world).backward()
                found.add(name, loss, micro.rows, losses)
            meter.rows += sum(weight > 0 for weight in micro.weights)
            meter.tokens += len(micro.rows) * micro.bucket.tokens
            meter.flops += len(micro.rows) * job.row_flops[str(micro.bucket)]
        # A discriminator that has not set in has no gradients.
        graded = {name: [p for p in n.parameters() if p.grad is not None] for name, n in self.networks.items()}
        limit = config.train.max_grad_norm
        norms = {name: torch.nn.utils.clip_grad_norm_(some, limit) for name, some in graded.items() if some}
        self.step += 1
        if (broken := found.broken_rows([*norms.values()], self.worker)) is not None:
            self._skip(broken)
            return
        self.in_a_row = 0
        for name, loss in found.losses:
            meter.add_loss(name, loss)
        for name, norm in norms.items():
            meter.add_norm("gradient_norm" if name == job.method.main else f"gradient_norm_{name}", norm)
        rate = learning_rate(config.train, self.step - 1)
        for name, optimizer in self.optimizers.items():
            if not graded[name]:
                continue
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.step(self._trained())
        meter.steps += 1

    def _skip(self, rows: Sequence[int]) -> None:
        """Forget the gradients of a step.

        Raises:
            StoppedError: as many steps were skipped as the config lets pass.
        """
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        most, ids = self.job.config.train.skip_nonfinite, tell_rows(self.job.row_ids, rows)
        self.in_a_row += 1
        in_a_row = self.job.most_in_a_row
        if self.in_a_row >= in_a_row if in_a_row is not None else self.skipped >= most:
            names = ["no checkpoint", *(path.name for path in checkpoints(self.job.run))]
            raise StoppedError(
                f"{self.job.run}: step {self.step}: the loss or the gradient is not finite, of {ids} "
                f"({self.skipped} such steps were skipped before); {names[-1]} is kept; "
                "fix or leave out the rows, lower train.learning_rate, or raise train.skip_nonfinite"
            )
        self.skipped += 1
        if self.worker.rank == 0:
            print(f"step {self.step} skipped: the loss or the gradient is not finite, of {printable(ids)}", flush=True)

    def _losses(self, batch: Batch) -> Iterator[tuple[str, torch.Tensor]]:
        losses = self.job.method.losses(self.networks, batch, self.step)
        while True:
            # Entered anew each time: the backward pass between two losses runs outside of it.
            with self._autocast():
                found = next(losses, None)
            if found is None:
                return
            yield found

    def _autocast(self) -> torch.autocast:
        half = self.job.config.train.precision == "bf16"
        return torch.autocast(self.worker.device.type, torch.bfloat16, enabled=half)

    def _step_plan(self, step: int) -> tuple[MicroBatch, ...]:
        epoch, inner, plan = self.job.schedule.at(step)
        return tuple(self._weighted(micro, epoch) for micro in plan.micro_batches(inner))

    def _real_rows(self, step: int) -> int:
        _, inner, plan = self.job.schedule.at(step)
        return plan.real_rows(inner)

    def _weighted(self, micro: MicroBatch, epoch: int) -> MicroBatch:
        weights = tuple(w * self.job.row_weights[row] for w, row in zip(micro.weights, micro.rows, strict=True))
        return dataclasses.replace(micro, weights=weights, epoch=epoch)

    def _items(self, first: int, end: int) -> Iterator[tuple[MicroBatch, tuple[int, ...]]]:
        seed = self.job.config.train.seed
        for step in range(first, end):
            micros = self._step_plan(step)
            for place in self._places(len(micros)):
                yield micros[place], row_seeds(seed, f"step {step}", place, len(micros[place].rows))

    def _epoch(self) -> float:
        """Return how often the rows have been taken, in parts of an epoch."""
        epoch, inner, plan = self.job.schedule.at(self.step - 1)
        return epoch + (inner + 1) / plan.num_steps

    def _places(self, count: int) -> range:
        return places_of_rank(count, self.worker.rank, self.worker.world_size)

    def _tell(self, log: Log | None, meter: Meter) -> None:
        metrics = mean_over_workers(meter.line() | {"skipped_steps": float(self.skipped)}, self.worker)
        for name in {*metrics} & {"samples_per_s", "tokens_per_s", *self.networks}:
            metrics[name] *= self.worker.world_size  # sums over the workers
        metrics |= {"learning_rate": learning_rate(self.job.config.train, self.step - 1), "epoch": self._epoch()}
        self.worker.report(metrics | {"step": self.step})
        if log is not None:
            log.write(self.step, metrics)
            show(self.step, self.job.config.train.steps, metrics, self.job.method.main)

    def _validate(self, log: Log | None) -> None:
        if self.job.validation is None:
            return
        plan, batches = self.job.validation
        sums: Metrics = {}
        count = 0.0
        with torch.no_grad(), self.averaged(), self._autocast():
            for step in range(plan.num_steps):
                micros = plan.micro_batches(step)
                for place in self._places(len(micros)):
                    seeds = row_seeds(0, f"validation {step}", place, len(micros[place].rows))
                    batch = to_device(batches(micros[place], seeds), self.worker.device)
                    for name, losses in self.job.method.validation_losses(self.networks, batch).items():
                        sums[name] = sums.get(name, 0.0) + float((losses * batch.weights).sum())
                    count += float(batch.weights.sum())
        totals = mean_over_workers({**sums, "rows": count}, self.worker)
        rows = max(totals.pop("rows"), 1e-12)
        metrics = {name: value / rows for name, value in totals.items()}
        if log is not None:
            log.write(self.step, metrics, "validation")
        if (why := reached(self.job.config.watch.stop_when, metrics)) is not None:
            self._save()
            raise ReachedError(
                f"{self.job.run}: step {self.step}: watch.stop_when holds: {why}; the checkpoints up to this step "
                "are kept; lower the rate or the rewards' weights, or change watch.stop_when to go on"
            )

    def _save(self) -> None:
        job = self.job
        if is_divided(job.config, self.worker):
            write_sharded(
                job.run, self.step, self._sharded(), job.configs, self._state(),
                job.config.watch.keep_checkpoints, self.worker,
            )  # fmt: skip
            return
        weights = {name: (self._weights(name), job.configs.get(name)) for name in self.networks}
        if self.ema is not None:
            with self.averaged():
                weights[f"ema/{job.method.main}"] = (self._weights(job.method.main), job.configs.get(job.method.main))
        # Asking an optimizer that has not started for its state would begin it.
        started = {name: optimizer for name, optimizer in self.optimizers.items() if optimizer.state}
        moments = {name: optimizer_state(self.networks[name], optimizer) for name, optimizer in started.items()}
        with first_tells(self.worker):
            if self.worker.rank == 0:
                state = self._state() | {"ema_steps": self.ema.optimization_step if self.ema else 0}
                write_checkpoint(job.run, self.step, weights, moments, state, job.config.watch.keep_checkpoints)

    def _state(self) -> dict[str, Any]:
        return {"data_id": self.job.data_id, "skipped": self.skipped, "in_a_row": self.in_a_row}

    def _resume(self, checkpoint: Path) -> None:
        state = read_state(checkpoint)
        if is_sharded(checkpoint):
            self._sharded().load(checkpoint)
        else:
            self._resume_whole(checkpoint, state)
        self.step, self.skipped = state["step"], int(state.get("skipped", 0))
        self.in_a_row = int(state.get("in_a_row", 0))
        if self.worker.rank == 0:
            print(f"going on from {checkpoint}")
            if state["data_id"] != self.job.data_id:
                print(f"the rows have changed since step {self.step}: from here on their new order counts")

    def _resume_whole(self, checkpoint: Path, state: Mapping[str, Any]) -> None:
        main = self.job.method.main
        # The first worker sends what it has read; where weights are whole, each reads them for itself.
        reads = self.worker.rank == 0 or not is_divided(self.job.config, self.worker)
        has_mean = (checkpoint / "ema" / main).is_dir()
        if self.ema is not None and has_mean:
            put_weights(self.networks[main], load_weights(checkpoint / "ema" / main) if reads else {})
            self.ema.shadow_params = [p.detach().clone() for p in self._trained()]
            self.ema.optimization_step = state["ema_steps"]
        for name, network in self.networks.items():
            put_weights(network, load_weights(checkpoint / name) if reads else {})
            if (moments := checkpoint / f"optimizer_{name}.pt").is_file():
                put_optimizer_state(network, self.optimizers[name], moments if reads else None)
        if self.ema is not None and not has_mean:  # train.ema was set since: the mean begins here
            self.ema.shadow_params = [p.detach().clone() for p in self._trained()]

    def _sharded(self) -> Sharded:
        return Sharded(self.networks, self.optimizers, self.ema, self.job.method.main, self.job.adapters_only)

    def _weights(self, name: str) -> dict[str, torch.Tensor]:
        return weights_of(self.networks[name], adapters_only=self.job.adapters_only)

    def _trained(self) -> list[nn.Parameter]:
        return [p for p in self.networks[self.job.method.main].parameters() if p.requires_grad]

    def _bare(self, name: str) -> nn.Module:
        network = self.networks[name]
        return network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network


class _Averaged:
    """Swaps the running mean in, and the weights back."""

    def __init__(self, ema: EMAModel, parameters: list[nn.Parameter]):
        self.ema, self.parameters = ema, parameters

    def __enter__(self) -> None:
        self.ema.store(self.parameters)
        self.ema.copy_to(self.parameters)

    def __exit__(self, *_: object) -> None:
        self.ema.restore(self.parameters)


def row_seeds(seed: int, what: str, place: int, rows: int) -> tuple[int, ...]:
    """Return a seed for each row of a micro-batch, the same on every machine and at every world size.

    32 bits each, as many as torch's generator reads.
    """
    digests = (hashlib.blake2b(f"{seed} {what} {place} {row}".encode(), digest_size=4) for row in range(rows))
    return tuple(int.from_bytes(digest.digest(), "big") for digest in digests)
