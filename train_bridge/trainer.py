"""The training loop: the same for every method, on one worker or many."""

import dataclasses
import hashlib
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import nn

from curation.errors import UserError
from train_bridge.batches import Ahead, Batches, to_device
from train_bridge.checkpoint import (
    checkpoints,
    load_weights,
    optimizer_state,
    put_optimizer_state,
    put_weights,
    read_state,
    weights_of,
    write_checkpoint,
)
from train_bridge.config import TrainConfig
from train_bridge.methods.types import Batch, Method
from train_bridge.parallel import Worker, bring_together, divide, mean_over_workers
from train_bridge.planner import EpochPlan, Schedule, places_of_rank
from train_bridge.tracking import Log, Meter, show
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
        row_weights: factor on each row's loss, by position.
        validation: held-out rows as one epoch, with their batches; None without.
        adapters_only: only adapters are trained and saved.
        configs: `config.json` of each network, by name.
        row_flops: forward and backward FLOPs of one row, by bucket name.
        peak_flops: of one device.
        data_id: names the rows; a resumed run with other rows says so.
        sample: draws samples from the current weights.
        first_batch: shows people the first batch.
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
    sample: Samples | None = None
    first_batch: Callable[[Sequence[MicroBatch], Sequence[Batch]], None] | None = None


@dataclass
class Trainer:
    """The state of a run on one worker."""

    job: Job
    worker: Worker
    networks: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    ema: EMAModel | None
    step: int = 0

    @staticmethod
    def start(job: Job, worker: Worker) -> "Trainer":
        """Wrap the networks, make their optimizers, and go on from the last checkpoint there is."""
        train = job.config.train
        networks, optimizers = {}, {}
        for name, network in job.method.networks().items():
            network.train()
            networks[name] = divide(network.to(worker.device), worker, job.config.launch.sharding)
            optimizers[name] = make_optimizer([p for p in networks[name].parameters() if p.requires_grad], job.config)
        main = [p for p in networks[job.method.main].parameters() if p.requires_grad]
        ema = EMAModel(main, decay=train.ema, use_ema_warmup=True, power=0.75) if train.ema is not None else None
        trainer = Trainer(job, worker, networks, optimizers, ema)
        found = checkpoints(job.run)
        if found:
            trainer._resume(found[-1])
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
        ahead = Ahead(job.batches, self._items(self.step, steps))
        batches = iter(ahead)
        try:
            with _interruptible() as stop:
                while self.step < steps:
                    self._one_step(batches, meter)
                    meter.waited_s, ahead.waited_s = meter.waited_s + ahead.waited_s, 0.0
                    last = self.step == steps
                    if last or self.step % watch.log_every == 0:
                        self._tell(log, meter)
                    if watch.validate_every and (last or self.step % watch.validate_every == 0):
                        self._validate(log)
                    if last or self.step % watch.checkpoint_every == 0 or stop:
                        self._save()
                    if watch.sample_every and (last or self.step % watch.sample_every == 0) and job.sample:
                        with self.averaged(), self._autocast():
                            job.sample(self.step, self._bare(job.method.main))
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
        # The gradient is that of the mean over the step's real rows, wherever they are computed.
        total = max(sum(sum(micro.weights) for micro in micros), 1e-12)
        places = self._places(len(micros))
        for place in places:
            micro, batch = micros[place], to_device(next(batches), self.worker.device)
            for network in self.networks.values():
                bring_together(network, place == places[-1])
            for name, losses in self._losses(batch):
                loss = (losses * batch.weights).sum() / total
                (loss * world).backward()
                meter.add_loss(name, loss)
            meter.rows += sum(weight > 0 for weight in micro.weights)
            meter.tokens += len(micro.rows) * micro.bucket.tokens
            meter.flops += len(micro.rows) * job.row_flops[str(micro.bucket)]
        rate = config.train.learning_rate * min(1.0, (self.step + 1) / max(1, config.train.warmup_steps))
        for name, optimizer in self.optimizers.items():
            trained = [p for p in self.networks[name].parameters() if p.grad is not None]
            if not trained:
                continue  # a discriminator that has not set in
            torch.nn.utils.clip_grad_norm_(trained, config.train.max_grad_norm)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.step(self._trained())
        self.step += 1
        meter.steps += 1

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
        _, inner, plan = self.job.schedule.at(step)
        return tuple(self._weighted(micro) for micro in plan.micro_batches(inner))

    def _weighted(self, micro: MicroBatch) -> MicroBatch:
        weights = tuple(w * self.job.row_weights[row] for w, row in zip(micro.weights, micro.rows, strict=True))
        return dataclasses.replace(micro, weights=weights)

    def _items(self, first: int, end: int) -> Iterator[tuple[MicroBatch, tuple[int, ...]]]:
        seed = self.job.config.train.seed
        for step in range(first, end):
            micros = self._step_plan(step)
            for place in self._places(len(micros)):
                yield micros[place], row_seeds(seed, f"step {step}", place, len(micros[place].rows))

    def _places(self, count: int) -> range:
        return places_of_rank(count, self.worker.rank, self.worker.world_size)

    def _tell(self, log: Log | None, meter: Meter) -> None:
        metrics = mean_over_workers(meter.line(), self.worker)
        for name in {*metrics} & {"samples_per_s", "tokens_per_s", *self.networks}:
            metrics[name] *= self.worker.world_size  # sums over the workers
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

    def _save(self) -> None:
        job = self.job
        weights = {name: (self._weights(name), job.configs.get(name)) for name in self.networks}
        if self.ema is not None:
            with self.averaged():
                weights[f"ema/{job.method.main}"] = (self._weights(job.method.main), job.configs.get(job.method.main))
        # Asking an optimizer that has not begun for its state would begin it.
        begun = {name: optimizer for name, optimizer in self.optimizers.items() if optimizer.state}
        moments = {name: optimizer_state(self.networks[name], optimizer) for name, optimizer in begun.items()}
        if self.worker.rank == 0:
            state = {"data_id": job.data_id, "ema_steps": self.ema.optimization_step if self.ema else 0}
            write_checkpoint(job.run, self.step, weights, moments, state, job.config.watch.keep_checkpoints)
        self.worker.barrier()

    def _resume(self, checkpoint: Path) -> None:
        state = read_state(checkpoint)
        main = self.job.method.main
        if self.ema is not None:
            put_weights(self.networks[main], load_weights(checkpoint / "ema" / main))
            self.ema.shadow_params = [p.detach().clone() for p in self._trained()]
            self.ema.optimization_step = state["ema_steps"]
        for name, network in self.networks.items():
            put_weights(network, load_weights(checkpoint / name))
            if (moments := checkpoint / f"optimizer_{name}.pt").is_file():
                put_optimizer_state(network, self.optimizers[name], moments)
        self.step = state["step"]
        if self.worker.rank == 0:
            print(f"going on from {checkpoint}")
            if state["data_id"] != self.job.data_id:
                print(f"the rows have changed since step {self.step}: from here on their new order counts")

    def _weights(self, name: str) -> dict[str, torch.Tensor]:
        return weights_of(self.networks[name], self.job.adapters_only)

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


class _interruptible:  # noqa: N801 - reads as a statement
    """Turns the first Ctrl-C (or SIGTERM) into a wish to stop after this step; a second one stops at once."""

    def __enter__(self) -> "_interruptible":
        self.wished = False
        self.before = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._note)
        except ValueError:  # not in the main thread: whoever started the thread deals with signals
            pass
        return self

    def __bool__(self) -> bool:
        return self.wished

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        if self.wished:
            raise KeyboardInterrupt
        self.wished = True
        print("\nstopping after this step …", flush=True)


def make_optimizer(parameters: list[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    """Make the optimizer that the config asks for.

    Raises:
        UserError: 8-bit Adam without its library.
    """
    train = config.train
    settings: dict[str, Any] = {"lr": train.learning_rate, "betas": train.betas, "weight_decay": train.weight_decay}
    if train.optimizer == "adamw_8bit":
        try:
            import bitsandbytes
        except ImportError:
            raise UserError("train.optimizer adamw_8bit: needs `pip install bitsandbytes`; or set adamw") from None
        optimizer: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(parameters, **settings)
        return optimizer
    return torch.optim.AdamW(parameters, **settings)


def row_seeds(seed: int, what: str, place: int, rows: int) -> tuple[int, ...]:
    """Give a seed for each row of a micro-batch, the same on every machine and at every world size.

    32 bits each, as many as torch's generator reads.
    """
    digests = (hashlib.blake2b(f"{seed} {what} {place} {row}".encode(), digest_size=4) for row in range(rows))
    return tuple(int.from_bytes(digest.digest(), "big") for digest in digests)
