"""A training run from start to end: rows, plan, cache, workers, export."""

import dataclasses
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any, Literal

import diffusers
import peft
import torch
import transformers

from curation.errors import UserError
from curation.files import atomic_write, remove_leftovers
from curation.lock import locked
from curation.outside_text import printable, printable_lines
from curation.settings import plain
from curation.settings_file import render
from models.architectures import ARCHITECTURES
from models.lora import trainable
from models.masks import check_probabilities
from models.objectives import make_objective
from models.quiet import quiet_libraries
from models.samplers import make_scheduler
from models.video_vae import PRESETS, TrainableVAE
from train_bridge.cache_build import CacheItem, CacheRunner, InlineRunner, build_cache
from train_bridge.conditions import mask_probabilities
from train_bridge.config import TrainConfig, load_config
from train_bridge.fingerprint import content_ids
from train_bridge.finish import export_run
from train_bridge.job import CONFIG_FILE, ROWS_FILE, add_adapter, cache_folder, make_encoders, transformer_predictor
from train_bridge.parallel import own_device
from train_bridge.parts import TINY_TEXT, Parts, empty_transformer, find_parts, load_vae
from train_bridge.plan import Plan, Rows, check_memory, collect_rows, make_plan, render_plan
from train_bridge.planner import places_of_rank
from train_bridge.predict import Predictor, VaePredictor
from train_bridge.rows_file import without, write_rows

# What may differ when a run goes on: how long, on what, and what is written; the weights would not be others.
MAY_CHANGE = ("watch", "launch")
MAY_CHANGE_IN_TRAIN = ("steps", "cache", "memory_gb")


def plan_run(config: TrainConfig, memo: Path | None = None) -> Plan:
    """Account for every row and predict costs; loads no weights.

    Raises:
        UserError: the config, the metadata or the model's parts do not fit.
    """
    parts = check_config(config)
    rows = collect_rows(config, memo)
    return make_plan(config, rows, make_predictor(config, parts), own_device())


def train(config: TrainConfig, run: Path, runner: Literal["ray", "inline"], ray_address: str | None = None) -> Path:
    """Train, or go on where the run's last checkpoint was.

    Args:
        config: the resolved config.
        run: the run's folder.
        runner: who encodes the cache: Ray Data, or a loop in this process.
        ray_address: of a cluster; None: Ray is started here where it is needed.

    Returns:
        The folder of the trained model.

    Raises:
        UserError: as `plan_run`; or the folder holds a run with another config, or another process holds it.
    """
    quiet_libraries()
    torch.set_num_threads(config.launch.cpus_per_worker)
    config, run = absolute(config), run.absolute()
    parts = check_config(config)
    run.mkdir(parents=True, exist_ok=True)
    with locked(run):
        remove_leftovers(run, older_than_s=0)
        _agree(config, run)
        rows = collect_rows(config, run / "facts.parquet")
        plan = make_plan(config, rows, make_predictor(config, parts), own_device())
        print(printable_lines(render_plan(config, plan)))
        check_memory(config, plan)
        ids: dict[str, str] = {}
        if config.method != "vae" and config.train.cache != "none":
            rows, ids = _build_cache(config, run, parts, rows, _cache_runner(runner, ray_address))
        atomic_write(run / CONFIG_FILE, render(config))
        write_rows(run / ROWS_FILE, rows, ids)
        _write_facts(run, plan)
        from train_bridge.launch import launch  # takes seconds to import

        launch(config, run, ray_address)
        return export_run(config, run, parts)


def absolute(config: TrainConfig) -> TrainConfig:
    """Make paths absolute, since workers begin in folders of their own; names of presets stay."""
    presets = {*PRESETS, TINY_TEXT, *(name for family in ARCHITECTURES.values() for name in family.presets)}

    def whole(value: str | None) -> str | None:
        return str(Path(value).absolute()) if value and value not in presets and Path(value).exists() else value

    model, data, train = config.model, config.data, config.train
    names: dict[str, Any] = {key: whole(getattr(model, key)) for key in ("base", "transformer", "vae", "text_encoder")}
    cache = train.cache if train.cache in (None, "none") else str(Path(train.cache).absolute())
    return dataclasses.replace(
        config,
        model=dataclasses.replace(model, **names),
        data=dataclasses.replace(data, metadata=whole(data.metadata) or "", root=whole(data.root)),
        train=dataclasses.replace(train, cache=cache),
        vae_loss=dataclasses.replace(config.vae_loss, lpips_weights=whole(config.vae_loss.lpips_weights)),
    )


def check_config(config: TrainConfig) -> Parts:
    """Find what can be found wrong before anything is read.

    Raises:
        UserError: with the key and the mend.
        ModelError: likewise, told by the models.
    """
    places_of_rank(config.buckets.micro_batches_per_step, 0, max(1, config.launch.workers))
    if config.method == "inpaint":
        check_probabilities(mask_probabilities(config.inpaint))
    parts = find_parts(config)
    if config.method != "vae":
        objective = make_objective(config.objective.kind, config.objective.shift, parts.scheduler)
        if config.watch.prompts and config.watch.sample_every:
            make_scheduler(objective.scheduler_config(), config.watch.sample_steps)
    elif config.lora.rank:
        raise UserError("lora.rank: adapters are for transformers; the VAE is trained whole")
    elif config.launch.sharding == "fsdp":
        raise UserError("launch.sharding fsdp: divides the transformer's blocks; the VAE is trained with ddp")
    if config.train.optimizer == "adamw_8bit" and not (torch.cuda.is_available() or config.launch.gpus_per_worker):
        raise UserError("train.optimizer adamw_8bit: needs a GPU; set train.optimizer=adamw")
    return parts


def make_predictor(config: TrainConfig, parts: Parts) -> Predictor:
    """Give what predicts a micro-batch's cost."""
    if config.method == "vae":
        with torch.device("meta"):
            return VaePredictor(config, TrainableVAE(load_vae(parts, 0)))
    family, model = empty_transformer(parts)
    shape = family.shape(model)
    if config.lora.rank:
        with torch.device("meta"):
            add_adapter(model, family, config)
    return transformer_predictor(config, shape, sum(p.numel() for p in trainable(model)), parts)


def _build_cache(
    config: TrainConfig, run: Path, parts: Parts, rows: Rows, runner: CacheRunner
) -> tuple[Rows, dict[str, str]]:
    encoders = make_encoders(config, parts, run)
    cache = cache_folder(config, run)
    cache.mkdir(parents=True, exist_ok=True)
    items = [
        CacheItem(row, buckets.buckets[option])
        for some, buckets in ((rows.train, rows.train_buckets), (rows.validation, rows.validation_buckets))
        for row, options in zip(some, buckets.options.tolist(), strict=True)
        for option in options
        if option >= 0
    ]
    captions = [*(row.caption for row in (*rows.train, *rows.validation)), *config.watch.prompts]
    report = build_cache(cache, items, captions, encoders, config.train.precision, runner, _progress)
    print(f"cache: {report.encoded} encoded, {report.reused} there already, {len(report.failed)} failed")
    for refusal in report.failed[:5]:
        print(f"  {printable(str(refusal))}")
    rows = without(rows, report.failed)
    if not rows.train:
        raise UserError(f"{cache}: no row could be encoded; the first: {report.failed[0]}")
    found = content_ids((row.path for row in (*rows.train, *rows.validation)), cache / "files.parquet")
    return rows, {str(path): name for path, name in found.ids.items()}


def _cache_runner(runner: Literal["ray", "inline"], ray_address: str | None) -> CacheRunner:
    if runner == "inline":
        return InlineRunner()
    from train_bridge.cache_ray import RayCacheRunner  # takes seconds to import

    return RayCacheRunner(ray_address)


def _agree(config: TrainConfig, run: Path) -> None:
    """Refuse to go on with a run under another config.

    Raises:
        UserError: with the keys that differ.
    """
    file = run / CONFIG_FILE
    if not (run / "checkpoints").is_dir() or not file.is_file():
        return
    now, then = _flat(plain(_comparable(config))), _flat(plain(_comparable(load_config(file))))
    differing = [key for key in now if now[key] != then.get(key)]
    if differing:
        key = differing[0]
        raise UserError(
            f"{run}: holds a run with {key}={then.get(key)!r}, this one asks for {now[key]!r}; "
            "go on with its own config, or take another --output"
        )


def _comparable(config: TrainConfig) -> TrainConfig:
    standard = TrainConfig()
    train = dataclasses.replace(config.train, **{key: getattr(standard.train, key) for key in MAY_CHANGE_IN_TRAIN})
    return dataclasses.replace(config, train=train, **{key: getattr(standard, key) for key in MAY_CHANGE})


def _flat(values: object, prefix: str = "") -> dict[str, object]:
    if isinstance(values, dict):
        return {k: v for key, inner in values.items() for k, v in _flat(inner, f"{prefix}{key}.").items()}
    return {prefix.rstrip("."): values}


def _write_facts(run: Path, plan: Plan) -> None:
    versions = {module.__name__: module.__version__ for module in (torch, diffusers, transformers, peft)}
    facts = {
        "command": " ".join(sys.argv),
        "versions": versions | {"python": platform.python_version()},
        "machine": {"cpus": os.cpu_count(), "device": str(own_device())},
        "rows": len(plan.rows.train),
        "held_out": len(plan.rows.validation),
        "refused": len(plan.rows.refused),
        "left_out": plan.rows.left_out,
        "steps_per_epoch": plan.steps_per_epoch,
        "fillers_per_epoch": plan.fillers,
    }
    atomic_write(run / "run.json", json.dumps(facts, indent=2) + "\n")


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[Kencoding {done}/{total}", end="\n" if done >= total else "", file=sys.stderr, flush=True)
