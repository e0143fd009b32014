"""Starting the workers with Ray Train: in this process, or several that are started again when one dies."""

import json
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from core.errors import RunError, UserError
from curation.engine.ray_runner import start_ray
from models.accelerator import own_device, use_device
from models.errors import ModelError
from models.quiet import quiet_libraries
from train_bridge.config import TrainConfig
from train_bridge.loop.job import build_job, cache_folder
from train_bridge.loop.nonfinite import StoppedError
from train_bridge.loop.parallel import Worker
from train_bridge.loop.stop_when import ReachedError
from train_bridge.loop.tracking import show
from train_bridge.loop.trainer import Trainer
from train_bridge.storage import storing

os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")

# After ray_runner, which sets Ray's environment.
from ray import train  # isort: skip  # noqa: E402
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError  # isort: skip  # noqa: E402
from ray.train.torch import TorchTrainer, get_device  # isort: skip  # noqa: E402


def launch(config: TrainConfig, run: Path, ray_address: str | None = None) -> None:
    """Train on the workers that the config asks for.

    Args:
        config: the resolved config.
        run: the run's folder, with the rows in it, visible to all workers.
        ray_address: of a cluster; None: Ray is started here when there are workers.

    Raises:
        ReachedError: a condition of `watch.stop_when` held.
        RunError: the workers stopped alike, and are not started again; or the storage takes no more.
        UserError: what a worker said.
        ray.train.TrainingFailedError: a worker died more often than `launch.max_restarts`.
    """
    settings = config.launch
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    scaling = ScalingConfig(num_workers=0)
    if settings.workers:
        start_ray(ray_address)
        resources = {"CPU": float(settings.cpus_per_worker)}
        if settings.gpus_per_worker:
            resources["GPU"] = settings.gpus_per_worker
        scaling = ScalingConfig(
            num_workers=settings.workers, use_gpu=settings.gpus_per_worker > 0, resources_per_worker=resources
        )
    storage = run / ".ray_train"
    storage.mkdir(exist_ok=True)
    failures = FailureConfig(max_failures=settings.max_restarts)
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"run": str(run), "config": config},
        scaling_config=scaling,
        run_config=RunConfig(storage_path=str(storage.resolve()), name="run", failure_config=failures),
    )
    with _followed(run, config) if settings.workers else nullcontext():
        try:
            stopped = trainer.fit().return_value
        except TrainingFailedError as error:
            raise _told(error) from None
    if stopped is not None:
        why, is_reached = stopped
        raise ReachedError(why) if is_reached else RunError(why)


def train_worker(settings: dict[str, Any]) -> tuple[str, bool] | None:
    """Train as one worker; return why all of them stopped before the end, if they did, and if by `watch.stop_when`."""
    quiet_libraries()
    run = Path(settings["run"])
    config: TrainConfig = settings["config"]  # which names copies of this machine, where the file names URLs
    # More threads than CPUs booked make torch up to a hundred times slower, and one thread adds up in one order.
    torch.set_num_threads(config.launch.cpus_per_worker)
    context = train.get_context()
    alone = config.launch.workers == 0
    device = worker_device(config.launch.gpus_per_worker, alone=alone)
    use_device(device)
    worker = Worker(
        rank=0 if alone else context.get_world_rank(),
        world_size=1 if alone else context.get_world_size(),
        device=device,
        report=lambda metrics: train.report(metrics),
    )
    try:
        with storing(run, cache_folder(config, run)):
            Trainer.start(build_job(config, run, worker), worker).run()
    except StoppedError as error:
        return str(error), isinstance(error, ReachedError)  # raised, it would start the workers again
    return None


def _told(error: TrainingFailedError) -> Exception:
    """Return what a worker said for people, where one of them did, else the error itself."""
    for failure in getattr(error, "worker_failures", {}).values():
        cause = getattr(failure, "_base_exc", failure)  # Ray wraps it with its traceback
        if isinstance(cause, UserError | ModelError | RunError):
            return cause
    return error


def worker_device(gpus_per_worker: float, *, alone: bool) -> torch.device:
    """Return the device that a worker computes on.

    Args:
        alone: the worker is this process, which Ray Train gave no device.
        gpus_per_worker: that it booked; with fractions several workers share one device, which only Ray knows.
    """
    if alone:
        return own_device()
    return get_device() if gpus_per_worker else torch.device("cpu")


@contextmanager
def _followed(run: Path, config: TrainConfig) -> Iterator[None]:
    """Show here the lines that the first worker writes to its log."""
    log, ended = run / "log.jsonl", threading.Event()
    main = config.kind.trains
    place = log.stat().st_size if log.is_file() else 0

    def follow() -> None:
        shown = place
        while not ended.wait(1.0):
            size = log.stat().st_size if log.is_file() else 0
            shown = 0 if size < shown else shown  # the log was cut back to a checkpoint
            if size == shown:
                continue
            with log.open("rb") as file:
                file.seek(shown)
                whole, _, _ = file.read().rpartition(b"\n")
            shown += len(whole) + 1 if whole else 0
            for line in whole.splitlines():
                if (numbers := json.loads(line))["what"] == "train":
                    show(numbers["step"], config.train.steps, numbers, main)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
