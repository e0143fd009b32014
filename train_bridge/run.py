"""A training run from start to end: rows, plan, cache, workers, export."""

import dataclasses
import json
import os
import platform
import sys
from functools import partial
from pathlib import Path
from typing import Any, Literal

import diffusers
import peft
import torch
import transformers

from core.errors import RunError, UserError
from core.files import atomic_write, make_folder, tidy
from core.lock import locked
from core.sanitize import printable, printable_lines, without_secrets
from core.settings import plain
from core.settings_file import render
from models.accelerator import own_device
from models.conditions.masks import check_probabilities
from models.denoise.samplers import make_scheduler
from models.lora.adapters import trainable
from models.quiet import quiet_libraries
from models.transformers.table import ARCHITECTURES
from models.vae.video_vae import PRESETS
from train_bridge.cache.build import CacheRunner, Encoding, InlineRunner, build_cache
from train_bridge.cache.fingerprint import content_ids
from train_bridge.cache.wanted import CacheItem, Wanted
from train_bridge.config import TrainConfig
from train_bridge.data.captions import caption_notes
from train_bridge.data.controls import control_row, is_camera
from train_bridge.data.drawn_captions import all_captions
from train_bridge.data.rows_file import without, write_rows
from train_bridge.data.webdataset import is_pattern
from train_bridge.loop.base_memory import base_bytes, check_base
from train_bridge.loop.beside import cache_rows
from train_bridge.loop.checkpoint import prune
from train_bridge.loop.finish import export_run
from train_bridge.loop.job import (
    CONFIG_FILE,
    ROWS_FILE,
    cache_folder,
    make_encoders,
    trainable_vae,
    transformer_predictor,
    vae_predictor,
)
from train_bridge.loop.reward_job import check_reward, check_reward_weights
from train_bridge.loop.stop_when import ReachedError, check_stop_when
from train_bridge.loop.trained import add_adapter, begin_adapter
from train_bridge.methods.conditions import mask_probabilities
from train_bridge.named import as_named
from train_bridge.noise_levels import objective_for, with_shift
from train_bridge.old_runs import as_begun, load_run_config
from train_bridge.parts import TINY_TEXT, Parts, check_frames, empty_transformer, empty_vae, find_parts, grid_of
from train_bridge.plan.cards import plan_notes
from train_bridge.plan.family import family_notes, masks_for
from train_bridge.plan.plan import Plan, Rows, collect_rows, make_plan, render_plan
from train_bridge.plan.planner import places_of_rank
from train_bridge.plan.predict import Predictor
from train_bridge.plan.prompts import collect_prompts
from train_bridge.plan.rates import at_family_rate
from train_bridge.plan.shortage import check_memory, is_short, shortage
from train_bridge.resume import (
    DATA_KEYS,
    check_allowed,
    check_rows,
    check_settings,
    check_weights,
    is_allowed,
    without_keys,
)
from train_bridge.storage import storing
from train_bridge.used_weights import NAMED, read_used, used_weights, write_used

# What may differ when a run goes on: how long, on what, and what is written; the weights would not be others.
MAY_CHANGE = ("watch", "launch", "vae", "resume")
MAY_CHANGE_IN_TRAIN = ("steps", "cache", "memory_gb", "skip_nonfinite")


def plan_run(config: TrainConfig, memo: Path | None = None) -> Plan:
    """Account for every row and predict costs; loads no weights.

    Raises:
        UserError: the config, the metadata or the model's parts do not fit.
    """
    parts = check_config(config)
    config = at_family_rate(config, parts)
    rows = _collect(config, memo, parts)
    plan = _noted(config, parts, make_plan(config, rows, make_predictor(config, parts), own_device()))
    if is_short(plan):
        line = shortage(config, plan, partial(make_predictor, parts=parts))
        plan = dataclasses.replace(plan, notes=(*plan.notes, line))
    return plan


def _collect(config: TrainConfig, memo: Path | None, parts: Parts) -> Rows:
    if config.kind.from_prompts:
        return collect_prompts(config, grid_of(parts))
    return collect_rows(config, memo, parts)


def _noted(config: TrainConfig, parts: Parts, plan: Plan) -> Plan:
    captions = all_captions((*plan.rows.train, *plan.rows.validation))
    notes = [
        *family_notes(config, parts),
        *caption_notes(config, parts, captions),
        *plan_notes(config, parts, plan.buckets, own_device()),
    ]
    masks = masks_for(config.inpaint, parts) if config.kind.condition == "masks" else {}
    return dataclasses.replace(plan, notes=tuple(notes), masks=masks)


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
        OutputError: the storage refuses to be written.
        RunError: it stopped before the end; one that `watch.stop_when` stopped is exported as it was then.
    """
    quiet_libraries()
    torch.set_num_threads(config.launch.cpus_per_worker)
    config, run = absolute(config), run.absolute()
    parts = check_config(config)
    config = with_shift(at_family_rate(as_begun(config, run / CONFIG_FILE), parts), parts)
    predict = partial(make_predictor, parts=parts)
    if config.kind.from_prompts:
        check_reward_weights(config)
    make_folder(run)
    with storing(run, cache_folder(config, run)), locked(run):
        tidy(run, *run.glob("[!.]*"), *run.glob("[!.]*/[!.]*"))
        used = used_weights(config, parts)
        moved = _agree(config, run, used)
        rows = _collect(config, run / "facts.parquet", parts)
        if moved is not None:
            _find_moved(config, run, moved, rows)
        plan = _noted(config, parts, make_plan(config, rows, predict(config), own_device()))
        print(printable_lines(render_plan(config, plan)))
        check_memory(config, plan, predict)
        ids: dict[str, str] = {}
        if not config.kind.trains_vae and config.train.cache != "none":
            rows, ids = _build_cache(config, run, parts, rows, _cache_runner(runner, ray_address))
        atomic_write(run / CONFIG_FILE, render(as_named(config)))
        write_used(run, used)
        write_rows(run / ROWS_FILE, rows, ids)
        _write_facts(run, plan)
        from train_bridge.loop.launch import launch  # takes seconds to import

        try:
            launch(config, run, ray_address)
        except ReachedError as error:
            model = export_run(config, run, parts)
            _write_facts(run, plan, str(error))
            raise RunError(f"{error}; what it had learnt by then is in {model}") from None
        prune(run, config.watch.keep_checkpoints)
        return export_run(config, run, parts)


def absolute(config: TrainConfig) -> TrainConfig:
    """Make paths absolute, since workers begin in folders of their own; names of presets stay."""
    presets = {*PRESETS, TINY_TEXT, *(name for family in ARCHITECTURES.values() for name in family.presets)}

    def whole(value: str | None) -> str | None:
        return str(Path(value).absolute()) if value and value not in presets and Path(value).exists() else value

    model, data, train = config.model, config.data, config.train
    parts = ("base", "transformer", "vae", "text_encoder", "image_encoder")
    names: dict[str, Any] = {key: whole(getattr(model, key)) for key in parts}
    cache = train.cache if train.cache in (None, "none") else str(Path(train.cache).absolute())
    return dataclasses.replace(
        config,
        model=dataclasses.replace(model, **names),
        data=dataclasses.replace(
            data,
            metadata=str(Path(data.metadata).absolute()) if is_pattern(data.metadata) else whole(data.metadata) or "",
            root=whole(data.root),
            unpacked=str(Path(data.unpacked).expanduser().absolute()) if data.unpacked else data.unpacked,
        ),
        reward=dataclasses.replace(
            config.reward,
            prompts=whole(config.reward.prompts),
            held_out=whole(config.reward.held_out),
            weights=whole(config.reward.weights),
        ),
        lora=dataclasses.replace(config.lora, init=whole(config.lora.init)),
        train=dataclasses.replace(train, cache=cache),
        vae_loss=dataclasses.replace(config.vae_loss, lpips_weights=whole(config.vae_loss.lpips_weights)),
    )


def check_config(config: TrainConfig) -> Parts:
    """Find what can be found wrong before anything is read.

    Raises:
        UserError: with the key and the fix.
        ModelError: likewise, told by the models.
    """
    places_of_rank(config.buckets.micro_batches_per_step, 0, max(1, config.launch.workers))
    if config.kind.condition == "masks":
        check_probabilities(mask_probabilities(config.inpaint))
    check_base(config)
    parts = find_parts(config)
    check_frames(config, parts)
    if not config.kind.trains_vae:
        objective = objective_for(config, parts)
        if config.watch.prompts and config.watch.sample_every:
            make_scheduler(objective.scheduler_config(), config.watch.sample_steps)
        if config.kind.from_prompts:
            check_reward(config, parts)
        else:
            check_stop_when(config.watch.stop_when)
        if config.lora.init and not config.lora.rank:
            raise UserError("begins an adapter from another", field="lora.init", fix="set lora.rank to that one's rank")
    elif config.lora.rank:
        raise UserError("adapters are for transformers", field="lora.rank", fix="the VAE is trained whole")
    elif config.launch.sharding == "fsdp":
        raise UserError(
            "divides the transformer's blocks", field="launch.sharding", value="fsdp", fix="the VAE is trained with ddp"
        )
    if config.train.optimizer == "adamw_8bit" and not (own_device().type != "cpu" or config.launch.gpus_per_worker):
        raise UserError("needs a GPU", field="train.optimizer", value="adamw_8bit", fix="set train.optimizer=adamw")
    return parts


def make_predictor(config: TrainConfig, parts: Parts) -> Predictor:
    """Return what predicts a micro-batch's cost."""
    if config.kind.trains_vae:
        return vae_predictor(config, trainable_vae(config, empty_vae(parts)))
    family, model = empty_transformer(parts)
    shape = family.shape(model)
    if config.lora.rank:
        with torch.device("meta"):
            add_adapter(model, family, config)
        begin_adapter(model, config)
    trained = sum(p.numel() for p in trainable(model))
    return transformer_predictor(config, shape, trained, parts, base_bytes(config, model))


def _build_cache(
    config: TrainConfig, run: Path, parts: Parts, rows: Rows, runner: CacheRunner
) -> tuple[Rows, dict[str, str]]:
    encoders = make_encoders(config, parts, run)
    cache = cache_folder(config, run)
    cache.mkdir(parents=True, exist_ok=True)
    items = [
        CacheItem(one, buckets.buckets[option])
        for some, buckets in ((rows.train, rows.train_buckets), (rows.validation, rows.validation_buckets))
        for row, options in zip(some, buckets.options.tolist(), strict=True)
        for option in options
        if option >= 0 and not config.kind.from_prompts
        for one in (row, *(control_row(row, path) for _, path in row.controls if not is_camera(path)))
    ]
    captions = [*all_captions((*rows.train, *rows.validation)), *config.watch.prompts]
    at_once = cache_rows(config, parts, own_device())

    def waiting(owner: str) -> None:
        print(f"cache {cache}: {owner} is encoding into it; waiting until it has ended", flush=True)

    report = build_cache(
        cache,
        Wanted(items, captions),
        Encoding(encoders, config.train.precision, at_once=at_once),
        runner,
        progress=_progress,
        waiting=waiting,
    )
    print(f"cache: {report.encoded} encoded, {report.reused} there already, {len(report.failed)} failed")
    for refusal in report.failed[:5]:
        print(f"  {printable(str(refusal))}")
    rows = without(rows, report.failed)
    if not rows.train:
        raise UserError(f"{cache}: no row could be encoded; the first: {report.failed[0]}")
    every = () if config.kind.from_prompts else (*rows.train, *rows.validation)
    files = (path for row in every for path in (row.path, *(control for _, control in row.controls)))
    found = content_ids(files, cache / "files.parquet")
    return rows, {str(path): name for path, name in found.ids.items()}


def _cache_runner(runner: Literal["ray", "inline"], ray_address: str | None) -> CacheRunner:
    if runner == "inline":
        return InlineRunner()
    from train_bridge.cache.ray_build import RayCacheRunner  # takes seconds to import

    return RayCacheRunner(ray_address)


def _agree(config: TrainConfig, run: Path, used: dict[str, str]) -> str | None:
    """Refuse to go on with a run under another config, or with other weights.

    Returns:
        A key that names the data elsewhere than before; whether they are the same is to be seen.

    Raises:
        UserError: with the key that differs.
    """
    file, allowed = run / CONFIG_FILE, config.resume.allow
    now = _flat(plain(_comparable(as_named(config))))
    check_allowed(allowed, {*_flat(plain(TrainConfig())), *now})
    if not (run / "checkpoints").is_dir() or not file.is_file():
        return None
    then = _flat(plain(_comparable(load_run_config(file))))
    begun_with = read_used(run)
    if begun_with is not None:  # else an older run, of which names are all that is known
        now, then = without_keys(now, NAMED), without_keys(then, NAMED)
    moved = [key for key in DATA_KEYS if now[key] != then.get(key) and not is_allowed(key, allowed)]
    if not (run / ROWS_FILE).is_file():
        moved = []
    changed = check_settings(run, without_keys(now, moved), without_keys(then, moved), allowed)
    if begun_with is not None:
        check_weights(run, used, begun_with, allowed)
    for key in changed:
        print(printable(f"{key}: {then.get(key)!r} until now, {now.get(key)!r} from here on"))
    return moved[0] if moved else None


def _find_moved(config: TrainConfig, run: Path, key: str, rows: Rows) -> None:
    """See whether data that lie elsewhere are the same.

    Raises:
        UserError: they are not.
    """
    if not check_rows(run, key, run / ROWS_FILE, rows, None):
        cache = cache_folder(config, run)
        cache.mkdir(parents=True, exist_ok=True)
        found = content_ids((row.path for row in (*rows.train, *rows.validation)), cache / "files.parquet")
        check_rows(run, key, run / ROWS_FILE, rows, found.ids)
    print(f"{key} lies elsewhere now; its rows are those that the run was started with")


def _comparable(config: TrainConfig) -> TrainConfig:
    standard = TrainConfig()
    train = dataclasses.replace(config.train, **{key: getattr(standard.train, key) for key in MAY_CHANGE_IN_TRAIN})
    return dataclasses.replace(config, train=train, **{key: getattr(standard, key) for key in MAY_CHANGE})


def _flat(values: object, prefix: str = "") -> dict[str, object]:
    if isinstance(values, dict):
        return {k: v for key, inner in values.items() for k, v in _flat(inner, f"{prefix}{key}.").items()}
    return {prefix.rstrip("."): values}


def _write_facts(run: Path, plan: Plan, stopped: str | None = None) -> None:
    versions = {module.__name__: module.__version__ for module in (torch, diffusers, transformers, peft)}
    facts = {
        "command": without_secrets(" ".join(sys.argv)),
        "versions": versions | {"python": platform.python_version()},
        "machine": {"cpus": os.cpu_count(), "device": str(own_device())},
        "rows": len(plan.rows.train),
        "held_out": len(plan.rows.validation),
        "refused": len(plan.rows.refused),
        "left_out": plan.rows.left_out,
        "steps_per_epoch": plan.steps_per_epoch,
        "fillers_per_epoch": plan.fillers,
        "stopped": stopped,
    }
    atomic_write(run / "run.json", json.dumps(facts, indent=2) + "\n")


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[Kencoding {done}/{total}", end="\n" if done >= total else "", file=sys.stderr, flush=True)
