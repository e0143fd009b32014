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

from curation.ray_runner import start_ray
from models.quiet import quiet_libraries
from train_bridge.config import TrainConfig, load_config
from train_bridge.job import CONFIG_FILE, build_job
from train_bridge.parallel import Worker
from train_bridge.tracking import show
from train_bridge.trainer import Trainer

os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")

# After ray_runner, which sets Ray's environment.
from ray import train  # isort: skip  # noqa: E402
from ray.train import FailureConfig, RunConfig, ScalingConfig  # isort: skip  # noqa: E402
from ray.train.torch import TorchTrainer  # isort: skip  # noqa: E402


def launch(config: TrainConfig, run: Path, ray_address: str | None = None) -> None:
    """Train on the workers that the config asks for.

    Args:
        config: the resolved config.
        run: the run's folder, with the config and the rows in it, visible to all workers.
        ray_address: of a cluster; None: Ray is started here when there are workers.

    Raises:
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
        train_loop_config={"run": str(run)},
        scaling_config=scaling,
        run_config=RunConfig(storage_path=str(storage.resolve()), name="run", failure_config=failures),
    )
    with _followed(run, config) if settings.workers else nullcontext():
        trainer.fit()


def train_worker(settings: dict[str, Any]) -> None:
    """Train as one worker."""
    quiet_libraries()
    run = Path(settings["run"])
    config = load_config(run / CONFIG_FILE)
    # More threads than CPUs booked make torch up to a hundred times slower, and one thread adds up in one order.
    torch.set_num_threads(config.launch.cpus_per_worker)
    context = train.get_context()
    alone = config.launch.workers == 0
    device = torch.device("cpu")
    if torch.cuda.is_available() and (alone or config.launch.gpus_per_worker):
        device = torch.device("cuda", 0 if alone else context.get_local_rank())
        torch.cuda.set_device(device)
    worker = Worker(
        rank=0 if alone else context.get_world_rank(),
        world_size=1 if alone else context.get_world_size(),
        device=device,
        report=lambda metrics: train.report(metrics),
    )
    Trainer.start(build_job(config, run, worker), worker).run()


@contextmanager
def _followed(run: Path, config: TrainConfig) -> Iterator[None]:
    """Show here the lines that the first worker writes to its log."""
    log, ended = run / "log.jsonl", threading.Event()
    main = "vae" if config.method == "vae" else "transformer"
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
