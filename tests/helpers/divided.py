"""One of several processes that train a divided transformer on the CPU: `divided.py FOLDER RANK WORLD JOB`.

JOB is JSON: `run`, `steps`, `lora` (rank), `dora`, `half`, `sharding`, `poison` (row whose latents
are not finite). What it saw is left in RUN/rank-N.json.
"""

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import distributed as dist
from torch import nn

from models.denoise.objectives import make_objective
from models.geometry import Bucket
from models.lora.adapters import add_lora
from models.lora.form import AdapterForm
from models.transformers.conditioning import Conditioning
from models.transformers.table import build_empty, build_transformer
from train_bridge.config import LaunchSettings, TrainConfig, TrainSettings, WatchSettings
from train_bridge.loop import fill as fill_module
from train_bridge.loop.nonfinite import StoppedError
from train_bridge.loop.parallel import Worker, is_divided
from train_bridge.loop.trainer import Job, Trainer
from train_bridge.methods.text_to_video import TextToVideo
from train_bridge.methods.types import Batch
from train_bridge.parts import Parts
from train_bridge.plan.buckets import Assignment
from train_bridge.plan.planner import Budget, Index, Schedule
from train_bridge.types import MicroBatch, TrainRow

BUCKET = Bucket(5, 32, 32)
ROWS = tuple(TrainRow(f"row {i}", Path("x"), "c", "video") for i in range(6))


def batch_of(micro: MicroBatch, seeds: tuple[int, ...]) -> Batch:
    generator = torch.Generator().manual_seed(micro.rows[0])
    mean = torch.randn(len(micro.rows), 16, *BUCKET.latent_shape, generator=generator)
    text = torch.randn(len(micro.rows), 4, 64, generator=generator)
    return Batch(seeds, torch.tensor(micro.weights), mean, torch.full_like(mean, -9.0), conditioning=Conditioning(text))


def make_job(folder: Path, worker: Worker, run: Path, steps: int, lora: int, dora: bool, half: bool) -> Job:
    parts = Parts("vae", str(folder / "base"))
    config = TrainConfig(
        train=TrainSettings(steps=steps, learning_rate=3e-3, ema=0.9, precision="bf16" if half else "float32"),
        watch=WatchSettings(log_every=1, checkpoint_every=3),
        launch=LaunchSettings(workers=worker.world_size, sharding="fsdp"),
    )
    family, transformer = (build_empty if is_divided(config, worker) else build_transformer)(str(folder / "base"))
    if lora:
        transformer = transformer.to(torch.bfloat16) if half else transformer
        add_lora(transformer, AdapterForm(lora, None, dora=dora), family.lora_targets)
    unused = family.unused_parameters(transformer)
    for name, parameter in transformer.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name not in unused)
    index = Index.of(ROWS, Assignment((BUCKET,), np.zeros((len(ROWS), 1), np.int32), [], 0))
    method = TextToVideo(
        family, transformer, make_objective("flow", 1.0, None), "uniform", 0.0, Conditioning(torch.zeros(1, 4, 64)), 1.0
    )
    return Job(
        config=config, run=run, method=method, batches=batch_of, schedule=Schedule(index, Budget(8, 2), 0),
        row_weights=(1.0,) * len(ROWS), validation=None, adapters_only=lora > 0, configs={"transformer": {"a": 1}},
        row_flops={str(BUCKET): 1.0}, peak_flops=1e9, data_id="d",
        row_ids=tuple(row.row_id for row in ROWS), fill=partial(fill_module.fill_transformer, parts, 0),
    )  # fmt: skip


def held(network: nn.Module) -> int:
    """Count the bytes of weights that this process holds."""
    local = [p.to_local() if hasattr(p, "to_local") else p for p in network.parameters()]
    return sum(p.numel() * p.element_size() for p in local)


def main(folder: Path, rank: int, world: int, job: dict[str, object]) -> None:
    torch.set_num_threads(1)
    opened: list[str] = []

    def noting(file: Path, kind: str) -> object:
        opened.append(Path(file).name)
        return safe_open(file, kind)

    fill_module.safe_open = noting
    if world > 1:
        meeting = folder / str(job.pop("meeting"))
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    worker = Worker(rank, world)
    run = folder / str(job.pop("run"))
    run.mkdir(exist_ok=True)
    poison = int(str(job.pop("poison", -1)))
    built = make_job(folder, worker, run, **job)  # type: ignore[arg-type]

    def poisoned(micro: MicroBatch, seeds: tuple[int, ...]) -> Batch:
        batch = built.batches(micro, seeds)
        assert batch.mean is not None
        return replace(batch, mean=batch.mean * float("nan")) if poison in micro.rows else batch

    trainer = Trainer.start(replace(built, batches=poisoned), worker)
    network = trainer.networks["transformer"]
    seen = {"opened": sorted(set(opened)), "held": held(network), "begun_at": trainer.step}
    try:
        trainer.run()
    except StoppedError as error:
        seen["stopped"] = str(error)
    (run / f"rank-{rank}.json").write_text(json.dumps(seen))
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4]))
