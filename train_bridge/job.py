"""Everything that one worker needs to train, built from the run's folder."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLMagvit
from torch import nn

from curation.errors import UserError
from models.architecture import Architecture, Shape
from models.cost import peak_flops
from models.discriminator import PatchGAN3D
from models.generate import generate_latents
from models.lora import add_lora
from models.objectives import Objective, make_objective
from models.perceptual import load_lpips
from models.samplers import make_scheduler
from models.video_vae import TrainableVAE, decode_pixels
from train_bridge.batches import Batches, CachedLatents, Conditioned, EncodedVideo, VideoFrames
from train_bridge.cache import CacheReader
from train_bridge.conditions import encode_condition, show_condition
from train_bridge.config import TrainConfig
from train_bridge.encoders import FolderEncoders
from train_bridge.fingerprint import latent_key, span_of, text_key
from train_bridge.methods.text_to_video import TextToVideo
from train_bridge.methods.types import Batch, Method
from train_bridge.methods.vae import VideoVae
from train_bridge.parallel import Worker
from train_bridge.parts import Parts, empty_vae, find_parts, load_transformer, load_vae, text_encoder_folder
from train_bridge.pictures import contact_sheet, write_image
from train_bridge.planner import Budget, Index, Schedule, plan_epoch
from train_bridge.predict import InpaintPredictor, Predictor, TransformerPredictor, VaePredictor
from train_bridge.rows_file import Prepared, read_rows
from train_bridge.trainer import Job, Samples
from train_bridge.types import Bucket, MicroBatch, TrainRow

CONFIG_FILE = "config.yaml"
ROWS_FILE = "rows.parquet"
FIRST_BATCH_ROWS = 8


def build_job(config: TrainConfig, run: Path, worker: Worker) -> Job:
    """Load networks and open data, as `run.prepare` left them in the run's folder.

    Raises:
        UserError: a part does not fit.
        ModelError: likewise.
    """
    parts = find_parts(config)
    prepared = read_rows(run / ROWS_FILE)
    budget = Budget(config.buckets.tokens_per_micro_batch, config.buckets.micro_batches_per_step)
    rows = Index.of(prepared.train, prepared.train_buckets)
    build = _vae_job if config.method == "vae" else _transformer_job
    method, batches_of, configs, predictor, look, sample = build(config, run, worker, parts, prepared)
    validation = None
    if prepared.validation:
        held_out = Index.of(prepared.validation, prepared.validation_buckets)
        validation = (plan_epoch(held_out, budget, seed=0, epoch=0), batches_of(prepared.validation))
    return Job(
        config=config,
        run=run,
        method=method,
        batches=batches_of(prepared.train),
        schedule=Schedule(rows, budget, config.train.seed),
        row_weights=tuple(row.weight for row in prepared.train),
        validation=validation,
        adapters_only=config.lora.rank > 0,
        configs=configs,
        row_flops={str(bucket): predictor.flops(bucket) for bucket in prepared.train_buckets.buckets},
        peak_flops=peak_flops(worker.device, config.train.precision == "bf16"),
        data_id=rows.fingerprint(),
        sample=sample,
        first_batch=_first_batch(run, prepared.train, look),
    )


Look = Callable[[Batch], np.ndarray]
"""a batch → uint8 (B, T, H, W, 3)"""
Built = tuple[
    Method, Callable[[Sequence[TrainRow]], Batches], dict[str, dict[str, Any]], Predictor, Look, Samples | None
]


def _vae_job(config: TrainConfig, run: Path, worker: Worker, parts: Parts, prepared: Prepared) -> Built:
    vae = load_vae(parts, config.train.seed)
    loss = config.vae_loss
    critic, perceptual = None, None
    if loss.gan:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.train.seed + 1)
            critic = PatchGAN3D()
    if loss.lpips:
        if loss.lpips_weights is None:
            raise UserError("vae_loss.lpips: name the file with its weights in vae_loss.lpips_weights")
        perceptual = load_lpips(Path(loss.lpips_weights)).to(worker.device)
    network = TrainableVAE(vae, config.train.gradient_checkpointing)
    method = VideoVae(network, loss, critic, perceptual)
    with torch.device("meta"):
        shadow = TrainableVAE(type(vae).from_config(vae.config))
    predictor = VaePredictor(config, shadow)

    def look(batch: Batch) -> np.ndarray:
        assert batch.frames is not None
        return batch.frames.cpu().numpy()

    return method, VideoFrames, {"vae": config_of(vae)}, predictor, look, None


def _transformer_job(config: TrainConfig, run: Path, worker: Worker, parts: Parts, prepared: Prepared) -> Built:
    # A frozen base loses nothing by it; trained weights stay in float32 beneath autocast.
    half = torch.bfloat16 if config.lora.rank and config.train.precision == "bf16" else None
    family, transformer = load_transformer(parts, config.train.seed, half)
    configs = {"transformer": config_of(transformer)}
    shape = family.shape(transformer)
    if config.lora.rank:
        add_adapter(transformer, family, config)
    unused = set(family.unused_parameters(transformer))
    for name, parameter in transformer.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name not in unused)
    if config.train.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()  # type: ignore[operator]
    objective = make_objective(config.objective.kind, config.objective.shift, parts.scheduler)
    encoders = make_encoders(config, parts, run)
    vae = load_vae(parts, 0, encoders.dtype).requires_grad_(False).to(worker.device)
    cached = config.train.cache != "none"
    prompts = ["", *config.watch.prompts]
    if cached:
        reader = CacheReader(cache_folder(config, run))
        texts = torch.stack([reader.text(text_key(prompt, encoders.text_id)) for prompt in prompts])
    else:
        encode_texts = encoders.load_text()
        texts = encode_texts(prompts)
    texts = texts.float().to(worker.device)

    def batches_of(rows: Sequence[TrainRow]) -> Batches:
        if config.method == "inpaint":
            frames = VideoFrames(rows)
            return Conditioned(latents_of(rows, frames), frames, partial(encode_condition, vae, config.inpaint))
        return latents_of(rows, VideoFrames(rows))

    def latents_of(rows: Sequence[TrainRow], frames: VideoFrames) -> Batches:
        if not cached:
            return EncodedVideo(frames, encoders.load_vae(), encode_texts)

        def key(row: int, bucket: Bucket) -> str:
            content_id = prepared.content_ids[str(rows[row].path)]
            return latent_key(content_id, span_of(rows[row]), bucket, encoders.vae_id)

        return CachedLatents(reader, key, [text_key(row.caption, encoders.text_id) for row in rows])

    method = TextToVideo(
        family=family,
        transformer=transformer,
        objective=objective,
        density=config.objective.timesteps,
        text_dropout=config.objective.text_dropout,
        empty_text=texts[:1],
        scaling_factor=vae.config.scaling_factor,
    )
    trained = sum(p.numel() for p in transformer.parameters() if p.requires_grad)
    predictor = transformer_predictor(config, shape, trained, parts)

    def look(batch: Batch) -> np.ndarray:
        assert batch.mean is not None
        shown = decode_pixels(vae, batch.mean.float().to(worker.device) * vae.config.scaling_factor)
        if batch.condition is not None:  # what is known of each frame stands below it
            shown = np.concatenate([shown, show_condition(vae, batch.condition)], axis=2)
        return shown

    sample = None
    if config.watch.prompts and config.watch.sample_every:
        sample = _sampler(config, run, worker, method, vae, objective, texts, prepared)
    return method, batches_of, configs, predictor, look, sample


def transformer_predictor(config: TrainConfig, shape: Shape, trained_parameters: int, parts: Parts) -> Predictor:
    """Give what predicts a transformer's cost, with that of encoding its condition."""
    transformer = TransformerPredictor(config, shape, trained_parameters)
    return InpaintPredictor(transformer, empty_vae(parts)) if config.method == "inpaint" else transformer


def add_adapter(transformer: nn.Module, family: Architecture, config: TrainConfig) -> None:
    """Freeze a transformer and add the adapter that the config asks for."""
    lora = config.lora
    add_lora(transformer, lora.rank, lora.alpha, lora.targets or family.lora_targets, lora.dora, seed=config.train.seed)


def make_encoders(config: TrainConfig, parts: Parts, run: Path) -> FolderEncoders:
    """Give the frozen encoders of a text-to-video run."""
    text = text_encoder_folder(parts, run)
    return FolderEncoders.of(Path(parts.vae), text, config.model.text_tokens, config.train.precision == "bf16")


def cache_folder(config: TrainConfig, run: Path) -> Path:
    """Give the folder of the run's cache."""
    return Path(config.train.cache) if config.train.cache else run / "cache"


def config_of(network: nn.Module) -> dict[str, Any]:
    """Give what diffusers writes as a network's `config.json`."""
    values: dict[str, Any] = json.loads(network.to_json_string())  # type: ignore[operator]
    return values


def _first_batch(
    run: Path, rows: Sequence[TrainRow], look: Look
) -> Callable[[Sequence[MicroBatch], Sequence[Batch]], None]:
    """Show people what the network sees: pictures (decoded latents where there are some) with their captions."""

    def show(micros: Sequence[MicroBatch], batches: Sequence[Batch]) -> None:
        folder = run / "first_batch"
        folder.mkdir(exist_ok=True)
        for place, (micro, batch) in enumerate(zip(micros, batches, strict=False)):
            some = [rows[row] for row in micro.rows[:FIRST_BATCH_ROWS]]
            sheet = contact_sheet(list(look(batch)[: len(some)]), [row.caption for row in some])
            write_image(sheet, folder / f"micro_batch_{place}.png")
            lines = [f"{micro.bucket}\t{row.row_id}\t{row.caption}\n" for row in some]
            (folder / f"micro_batch_{place}.txt").write_text("".join(lines), encoding="utf-8")

    return show


def _sampler(
    config: TrainConfig,
    run: Path,
    worker: Worker,
    method: TextToVideo,
    vae: AutoencoderKLMagvit,
    objective: Objective,
    texts: torch.Tensor,
    prepared: Prepared,
) -> Samples:
    """Sample the config's prompts with fixed seeds, in the shape that most rows have."""
    shape = (vae.config.latent_channels, *prepared.train_buckets.commonest.latent_shape)
    # Nothing known: an inpaint model's text-to-video.
    nothing = torch.zeros(1, 1 + shape[0], *shape[1:]) if config.method == "inpaint" else None

    def sample(step: int, transformer: nn.Module) -> None:
        scheduler = make_scheduler(objective.scheduler_config(), config.watch.sample_steps)
        transformer.eval()
        videos = []
        for seed, text in enumerate(texts[1:]):
            latents = generate_latents(
                method.family, transformer, scheduler, text[None], texts[:1], shape, config.watch.sample_steps,
                guidance=3.0, generator=torch.Generator().manual_seed(seed), condition=nothing,
            )  # fmt: skip
            videos.append(decode_pixels(vae, latents)[0])
        transformer.train()
        if worker.rank == 0:
            (run / "samples").mkdir(exist_ok=True)
            write_image(contact_sheet(videos, config.watch.prompts), run / "samples" / f"step-{step:08d}.png")

    return sample
