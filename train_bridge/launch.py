"""Starting the workers with Ray Train: in this process, or several that are started again when one dies."""

import logging
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")

import torch  # noqa: E402 - Ray takes its settings from the environment
from ray import train  # noqa: E402
from ray.train import FailureConfig, RunConfig, ScalingConfig  # noqa: E402
from ray.train.torch import TorchTrainer  # noqa: E402

from curation.ray_runner import start_ray  # noqa: E402
from models.quiet import quiet_libraries  # noqa: E402
from train_bridge.config import TrainConfig, load_config  # noqa: E402
from train_bridge.job import CONFIG_FILE, build_job  # noqa: E402
from train_bridge.parallel import Worker  # noqa: E402
from train_bridge.trainer import Trainer  # noqa: E402


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
