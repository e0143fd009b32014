"""Everything that one worker needs to train, built from the run's folder."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from core.errors import UserError
from core.files import atomic_write
from models.geometry import Bucket
from models.losses.discriminator import PatchGAN3D
from models.losses.perceptual import LPIPS, load_lpips
from models.memory.cost import peak_flops
from models.text.table import IMAGE_ENCODERS
from models.transformers.architecture import Shape
from models.transformers.conditioning import Conditioning, moved, of_text, row_of
from models.transformers.table import defaults_of
from models.vae.video_vae import TrainableVAE, channels_of, decode_pixels, scaling_factor_of
from sampling.pictures import contact_sheet, write_image
from train_bridge.cache.cache import CacheReader
from train_bridge.cache.encoders import FolderEncoders, frames_encoder
from train_bridge.cache.fingerprint import row_key, text_key
from train_bridge.config import TrainConfig
from train_bridge.data.controls import control_shares
from train_bridge.data.drawn_captions import drawn_caption
from train_bridge.data.media_process import Decoders
from train_bridge.data.row_weights import relative_weights
from train_bridge.data.rows_file import Prepared, read_rows
from train_bridge.loop.batches import (
    Batches,
    CachedLatents,
    Conditioned,
    Controlled,
    EncodedVideo,
    Levelled,
    VideoFrames,
)
from train_bridge.loop.beside import beside_transformer
from train_bridge.loop.control_inputs import ControlInputs, MapLatents, show_control
from train_bridge.loop.fill import fill_transformer
from train_bridge.loop.parallel import Worker
from train_bridge.loop.reward_job import (
    IN_A_ROW,
    Prompts,
    keep_frames,
    load_terms,
    nothing_known,
    remember_base,
    sampler_for,
    without_adapters,
)
from train_bridge.loop.trained import config_of, load_trained
from train_bridge.loop.trainer import Job, Samples
from train_bridge.loop.watched_samples import Sampled, samples_of
from train_bridge.methods.conditions import encode_condition, encode_start_image, show_condition
from train_bridge.methods.reward import Reward
from train_bridge.methods.text_to_video import TextToVideo
from train_bridge.methods.types import Batch, Method
from train_bridge.methods.vae import VideoVae
from train_bridge.noise_levels import objective_for
from train_bridge.parts import (
    Parts,
    condition_spec,
    empty_vae,
    find_parts,
    grid_of,
    image_encoder_folder,
    load_vae,
    noises_known,
    text_encoder_folder,
)
from train_bridge.plan.family import masks_for
from train_bridge.plan.planner import Budget, Index, Schedule, plan_epoch
from train_bridge.plan.predict import InpaintPredictor, Predictor, RewardPredictor, TransformerPredictor, VaePredictor
from train_bridge.types import MicroBatch, TrainRow

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
    prepared = read_rows(run / ROWS_FILE, grid_of(parts))
    budget = Budget(config.buckets.tokens_per_micro_batch, config.buckets.micro_batches_per_step)
    rows = Index.of(prepared.train, prepared.train_buckets)
    builders = {"vae": _vae_job, "reward": _reward_job}
    build = builders.get(config.method, _transformer_job)
    method, batches_of, configs, predictor, look, sample = build(config, run, worker, parts, prepared)
    validation = None
    if prepared.validation:
        held_out = Index.of(prepared.validation, prepared.validation_buckets)
        validation = (plan_epoch(held_out, budget, seed=0, epoch=0), batches_of(prepared.validation))
        if isinstance(method, Reward) and not config.lora.rank and config.watch.validate_every:
            remember_base(method, *validation, worker)
    return Job(
        config=config,
        run=run,
        method=method,
        batches=batches_of(prepared.train),
        schedule=Schedule(rows, budget, config.train.seed),
        row_weights=relative_weights(prepared.train),
        validation=validation,
        adapters_only=config.lora.rank > 0,
        configs=configs,
        row_flops={str(bucket): predictor.flops(bucket) for bucket in prepared.train_buckets.buckets},
        peak_flops=peak_flops(worker.device, half=config.train.precision == "bf16"),
        data_id=rows.fingerprint(),
        row_ids=tuple(row.row_id for row in prepared.train),
        sample=sample,
        most_in_a_row=IN_A_ROW if config.kind.from_prompts else None,
        first_batch=None if look is None else _first_batch(run, prepared.train, look, config.train.seed),
        fill=partial(fill_transformer, parts, config.train.seed, started=config.lora.init is not None),
    )


Look = Callable[[Batch], np.ndarray]
"""a batch → uint8 (B, T, H, W, 3)"""
Built = tuple[
    Method, Callable[[Sequence[TrainRow]], Batches], dict[str, dict[str, Any]], Predictor, Look | None, Samples | None
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
            raise UserError("name the file with its weights in vae_loss.lpips_weights", field="vae_loss.lpips")
        perceptual = load_lpips(Path(loss.lpips_weights)).to(worker.device)
    network = trainable_vae(config, vae)
    method = VideoVae(network, loss, critic, perceptual)
    predictor = vae_predictor(config, trainable_vae(config, empty_vae(parts)))

    def look(batch: Batch) -> np.ndarray:
        assert batch.frames is not None
        return batch.frames.cpu().numpy()

    decoders = Decoders(config.launch.decoders)

    def read(rows: Sequence[TrainRow]) -> Batches:
        return VideoFrames(rows, decoders=decoders)

    return method, read, {"vae": config_of(vae)}, predictor, look, None


def _reward_job(config: TrainConfig, run: Path, worker: Worker, parts: Parts, prepared: Prepared) -> Built:
    found = load_trained(config, worker, parts)
    objective = objective_for(config, parts)
    encoders = make_encoders(config, parts, run)
    vae = load_vae(parts, 0, encoders.dtype_on(worker.device)).requires_grad_(False).to(worker.device)
    if config.train.cache != "none":
        reader = CacheReader(cache_folder(config, run), dtype=config.train.precision)

        def texts(prompts: Sequence[str]) -> Conditioning:
            return reader.texts([text_key(prompt, encoders.text_id) for prompt in prompts])

    else:
        encode_texts = encoders.load_text(worker.device)

        def texts(prompts: Sequence[str]) -> Conditioning:
            return of_text(encode_texts(prompts))

    spec = condition_spec(parts)
    shape = (channels_of(vae), *prepared.train_buckets.commonest.latent_shape)
    method = Reward(
        family=found.family,
        transformer=found.network,
        scheduler_config=objective.scheduler_config(),
        settings=config.reward,
        sampler=sampler_for(config, parts),
        terms=load_terms(config, worker.device),
        empty_text=moved(texts([""]), worker.device, torch.float32),
        vae=vae,
        shape=shape,
        seed=config.train.seed,
        condition=nothing_known(spec, shape),
        without_adapters=without_adapters if config.lora.rank else None,
        save=keep_frames(run, worker),
    )
    sample = None
    if config.watch.prompts and config.watch.sample_every:
        shown = moved(texts(["", *config.watch.prompts]), worker.device, torch.float32)
        sample = samples_of(config, run, worker, prepared, Sampled(found.family, vae, objective, shown, spec))
    predictor = transformer_predictor(config, found.shape, found.parameters, parts)
    return method, lambda rows: Prompts(rows, texts, config.train.seed), found.configs, predictor, None, sample


def _transformer_job(config: TrainConfig, run: Path, worker: Worker, parts: Parts, prepared: Prepared) -> Built:
    found = load_trained(config, worker, parts)
    family, transformer, shape = found.family, found.network, found.shape
    configs, trained = found.configs, found.parameters
    spec = condition_spec(parts)
    objective = objective_for(config, parts)
    noise = noises_known(config, defaults_of(str(parts.transformer)))
    masks = dict(masks_for(config.inpaint, parts))
    inpaint = dataclasses.replace(config.inpaint, masks=masks, reference_noise=noise)
    encoders = make_encoders(config, parts, run)
    vae = load_vae(parts, 0, encoders.dtype_on(worker.device)).requires_grad_(False).to(worker.device)
    cached = config.train.cache != "none"
    prompts = ["", *config.watch.prompts]
    if cached:
        reader = CacheReader(cache_folder(config, run), dtype=config.train.precision)
        texts = reader.texts([text_key(prompt, encoders.text_id) for prompt in prompts])
    else:
        encode_frames, encode_texts = frames_encoder(vae, worker.device), encoders.load_text(worker.device)
        texts = of_text(encode_texts(prompts))
    texts = moved(texts, worker.device, torch.float32)
    decoders = Decoders(config.launch.decoders)
    image = _start_image(parts, run, worker, encoders)

    def batches_of(rows: Sequence[TrainRow]) -> Batches:
        frames = VideoFrames(rows, decoders=decoders)
        batches = latents_of(rows, frames)
        sees = config.kind.condition
        ahead = frames.begin if sees == "masks" or not cached else None
        if sees == "control":
            batches = Controlled(batches, inputs_of(rows, frames), ahead)
        if sees == "masks":
            batches = Conditioned(batches, frames, partial(encode_condition, vae, inpaint, spec=spec), image)
        return Levelled.of(rows, batches, ahead)

    def key_of(row: TrainRow, bucket: Bucket) -> str:
        return row_key(prepared.content_ids[str(row.path)], row, bucket, encoders.vae_id)

    def inputs_of(rows: Sequence[TrainRow], frames: VideoFrames) -> ControlInputs:
        encode = None if cached else encode_frames
        maps = MapLatents(
            rows, lambda row, bucket: reader.latent(key_of(row, bucket))[0] if cached else None, encode, decoders
        )
        return ControlInputs(rows, spec, control_shares(config.data.control), config.control, maps, frames, vae)

    def latents_of(rows: Sequence[TrainRow], frames: VideoFrames) -> Batches:
        if not cached:
            return EncodedVideo(frames, encode_frames, encode_texts, config.train.seed)

        def key(row: int, bucket: Bucket) -> str:
            return key_of(rows[row], bucket)

        def text(row: int, epoch: int) -> str:
            return text_key(drawn_caption(rows[row], epoch, config.train.seed), encoders.text_id)

        return CachedLatents(reader, key, text)

    method = TextToVideo(
        family=family,
        transformer=transformer,
        objective=objective,
        density=config.objective.timesteps,
        text_dropout=config.objective.text_dropout,
        empty_text=row_of(texts, 0),
        scaling_factor=scaling_factor_of(vae),
    )
    predictor = transformer_predictor(config, shape, trained, parts)

    def look(batch: Batch) -> np.ndarray:
        assert batch.mean is not None
        latents = batch.mean.float().to(worker.device) * scaling_factor_of(vae)
        # Row by row, which is what the prediction of memory counts.
        shown = np.concatenate([decode_pixels(vae, row[None]) for row in latents])
        if batch.conditioning is not None and batch.conditioning.latents is not None:
            # What the network sees of each frame stands below it.
            show = partial(show_condition if "masked_video" in spec else show_control, spec=spec)
            shown = np.concatenate([shown, show(vae, condition=batch.conditioning.latents)], axis=2)
        return shown

    sample = None
    if config.watch.prompts and config.watch.sample_every:
        sample = samples_of(config, run, worker, prepared, Sampled(family, vae, objective, texts, spec))
    return method, batches_of, configs, predictor, look, sample


def _start_image(
    parts: Parts, run: Path, worker: Worker, encoders: FolderEncoders
) -> Callable[[torch.Tensor, tuple[int, ...]], dict[str, torch.Tensor]] | None:
    """Load what makes tokens of start images, where the model sees some."""
    folder = image_encoder_folder(parts, run)
    if folder is None or parts.image_kind is None:
        return None
    encoder = IMAGE_ENCODERS[parts.image_kind].load(folder, encoders.dtype_on(worker.device), worker.device)
    return partial(encode_start_image, encoder)


def trainable_vae(config: TrainConfig, vae: nn.Module) -> TrainableVAE:
    """Wrap a VAE as the config asks: recomputed or not, whole or its decoder alone."""
    return TrainableVAE(vae, checkpointing=config.train.gradient_checkpointing, decoder_only=config.vae.decoder_only)


def vae_predictor(config: TrainConfig, shadow: TrainableVAE) -> VaePredictor:
    """Return what predicts the cost of a VAE (on the meta device), with the networks that judge it."""
    with torch.device("meta"):
        critic = PatchGAN3D() if config.vae_loss.gan else None
        perceptual = LPIPS() if config.vae_loss.lpips else None
    return VaePredictor(config, shadow, critic, perceptual)


def transformer_predictor(
    config: TrainConfig, shape: Shape, trained_parameters: int, parts: Parts, frozen_bytes: int | None = None
) -> Predictor:
    """Return what predicts a transformer's cost, with that of the networks beside it."""
    beside = beside_transformer(config, parts)
    transformer = TransformerPredictor(config, shape, trained_parameters, frozen_bytes, beside)
    if config.kind.from_prompts:
        return RewardPredictor(transformer, beside.vae.vae)
    return InpaintPredictor(transformer, beside.vae.vae) if config.kind.condition == "masks" else transformer


def make_encoders(config: TrainConfig, parts: Parts, run: Path) -> FolderEncoders:
    """Return the frozen encoders of a text-to-video run."""
    text = text_encoder_folder(parts, run)
    half = config.train.precision == "bf16"
    return FolderEncoders.of(Path(parts.vae), text, config.model.text_tokens, parts.text_kind, half=half)


def cache_folder(config: TrainConfig, run: Path) -> Path:
    """Return the folder of the run's cache."""
    return Path(config.train.cache) if config.train.cache else run / "cache"


def _first_batch(
    run: Path, rows: Sequence[TrainRow], look: Look, seed: int
) -> Callable[[Sequence[MicroBatch], Sequence[Batch]], None]:
    """Show people what the network sees: pictures (decoded latents where there are some) with their captions."""

    def show(micros: Sequence[MicroBatch], batches: Sequence[Batch]) -> None:
        folder = run / "first_batch"
        folder.mkdir(exist_ok=True)
        for place, (micro, batch) in enumerate(zip(micros, batches, strict=False)):
            some = [rows[row] for row in micro.rows[:FIRST_BATCH_ROWS]]
            texts = [drawn_caption(row, micro.epoch, seed) for row in some]
            sheet = contact_sheet(list(look(batch)[: len(some)]), texts)
            write_image(sheet, folder / f"micro_batch_{place}.png")
            lines = [f"{micro.bucket}\t{row.row_id}\t{text}\n" for row, text in zip(some, texts, strict=True)]
            atomic_write(folder / f"micro_batch_{place}.txt", "".join(lines))

    return show
