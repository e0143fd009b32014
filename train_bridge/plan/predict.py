"""What one micro-batch costs, by method, predicted without weights or data."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models.geometry import Bucket
from models.memory.cost import Memory, RowsAtOnce, TrainedHow, saved_bytes, training_flops, training_memory
from models.memory.vae_need import VaeNeed
from models.transformers.architecture import Shape
from models.vae.video_vae import TrainableVAE, channels_of, encode_moments, grid_of
from train_bridge.config import TrainConfig, TrainSettings
from train_bridge.loop.beside import Beside
from train_bridge.method_settings import RewardSettings

DECODER_STAGES = 8
"""times what decoding takes at its peak that its backward pass keeps without recomputing, about"""


class Predictor(Protocol):
    """Predicts for one bucket."""

    def flops(self, bucket: Bucket) -> float:
        """Return forward and backward FLOPs of one row."""
        ...

    def memory(self, bucket: Bucket, rows: int) -> Memory:
        """Return one device's peak for a micro-batch."""
        ...


@dataclass(frozen=True)
class TransformerPredictor:
    """By formula, from the transformer's shape.

    Attributes:
        config: the resolved config.
        shape: the transformer's.
        trained_parameters: those with gradients.
        frozen_bytes: of those without, on the device; None: all of them, in the type they compute in.
        beside: other networks on the device; None: not counted.
    """

    config: TrainConfig
    shape: Shape
    trained_parameters: int
    frozen_bytes: int | None = None
    beside: Beside | None = None

    def flops(self, bucket: Bucket) -> float:
        """Return forward and backward FLOPs of one row."""
        checkpointing = self.config.train.gradient_checkpointing
        return training_flops(self.shape, bucket.tokens, self.config.model.text_tokens, checkpointing=checkpointing)

    def memory(self, bucket: Bucket, rows: int) -> Memory:
        """Return one device's peak for a micro-batch."""
        launch = self.config.launch
        found = training_memory(
            self.shape,
            RowsAtOnce(bucket.tokens, self.config.model.text_tokens, rows),
            self.trained_parameters,
            trained_how(self.config.train),
            shards=max(1, launch.workers) if launch.sharding == "fsdp" else 1,
            frozen_bytes=self.frozen_bytes,
        )
        return found if self.beside is None else self.beside.added_to(found, bucket, rows)


def trained_how(train: TrainSettings) -> TrainedHow:
    """Return what of the settings decides on memory."""
    return TrainedHow(
        checkpointing=train.gradient_checkpointing,
        half=train.precision == "bf16",
        eight_bit=train.optimizer == "adamw_8bit",
        ema=train.ema is not None,
    )


@dataclass(frozen=True, eq=False)
class InpaintPredictor:
    """The transformer by formula, and what encoding each row's masked video adds, by its shapes on the meta device.

    Attributes:
        transformer: trained.
        vae: frozen, on the meta device; it encodes one row after the other while the transformer computes.
    """

    transformer: TransformerPredictor
    vae: Any

    def flops(self, bucket: Bucket) -> float:
        """Return forward and backward FLOPs of one row, and those of encoding it."""
        return self.transformer.flops(bucket) + self._encoding(bucket)

    def memory(self, bucket: Bucket, rows: int) -> Memory:
        """Return one device's peak for a micro-batch; the transformer's `beside` counts the VAE."""
        return self.transformer.memory(bucket, rows)

    def _encoding(self, bucket: Bucket) -> float:
        # Frames are encoded a few at a time, each few at the same cost.
        step = grid_of(self.vae).frame_step
        counted = min(bucket.num_frames, 1 + 2 * step if bucket.num_frames % step else 2 * step)
        flops = self._counted(counted, bucket.height_px, bucket.width_px)
        if counted < bucket.num_frames:
            one = flops - self._counted(counted - step, bucket.height_px, bucket.width_px)
            flops += one * ((bucket.num_frames - counted) // step)
        return flops

    @lru_cache(maxsize=256)  # noqa: B019 - one predictor lives as long as the plan
    def _counted(self, num_frames: int, height_px: int, width_px: int) -> float:
        frames = torch.zeros(1, 3, num_frames, height_px, width_px, device="meta")
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            encode_moments(self.vae, frames)
        return float(counter.get_total_flops())


@dataclass(frozen=True)
class RewardPredictor:
    """The transformer by formula, along a whole trajectory, and the decoder's gradient.

    Attributes:
        transformer: trained.
        vae: frozen, on the meta device; what it decodes has a gradient. Networks that judge are not counted.
    """

    transformer: TransformerPredictor
    vae: Any

    def flops(self, bucket: Bucket) -> float:
        """Return forward FLOPs of all steps of one row, and forward and backward ones of the kept steps."""
        asked, passes = self._asked, 4 if self.transformer.config.train.gradient_checkpointing else 3
        forward = self.transformer.flops(bucket) / passes
        kept = 1 if asked.gradient == "last" else asked.gradient_steps
        again = kept if asked.checkpointing else 0
        return self._calls * forward * (asked.steps + 2 * kept + again)

    def memory(self, bucket: Bucket, rows: int) -> Memory:
        """Return one device's peak: the activations of one kept step, or of all, and those of the decoder."""
        asked = self._asked
        kept = 1 if asked.checkpointing or asked.gradient == "last" else asked.gradient_steps
        one = self.transformer.memory(bucket, rows * self._calls)
        decoded = rows * self._decoder(min(asked.decoded_latents, bucket.latent_shape[0]), bucket)
        return replace(one, activations=max(kept * one.activations, decoded))

    @property
    def _asked(self) -> RewardSettings:
        return self.transformer.config.reward

    @property
    def _calls(self) -> int:
        """Rows that the network sees of each: two with guidance."""
        return 2 if self._asked.guidance > 1 else 1

    def _decoder(self, latents: int, bucket: Bucket) -> int:
        frames = grid_of(self.vae).num_frames(latents)
        working = VaeNeed(self.vae, 4).decoding(frames, bucket.height_px, bucket.width_px)
        return working if self._asked.checkpointing else DECODER_STAGES * working


@dataclass(frozen=True, eq=False)
class VaePredictor:
    """By running the network's shapes on the meta device, where nothing is computed.

    Attributes:
        config: the resolved config.
        vae: on the meta device.
        critic: likewise, where the loss asks for one.
        perceptual: likewise; frozen.
    """

    config: TrainConfig
    vae: TrainableVAE
    critic: nn.Module | None = None
    perceptual: nn.Module | None = None

    def flops(self, bucket: Bucket) -> float:
        """Return forward and backward FLOPs of one row."""
        return self._counted(bucket)[0]

    def memory(self, bucket: Bucket, rows: int) -> Memory:
        """Return one device's peak for a micro-batch."""
        averaged = sum(p.numel() for p in self.vae.parameters() if p.requires_grad)
        trained = averaged + (0 if self.critic is None else sum(p.numel() for p in self.critic.parameters()))
        moments = 2 if self.config.train.optimizer == "adamw_8bit" else 8
        ema = 4 * averaged if self.config.train.ema is not None else 0
        frozen = sum(4 * p.numel() for p in self.vae.parameters() if not p.requires_grad)
        frozen += 0 if self.perceptual is None else sum(4 * p.numel() for p in self.perceptual.parameters())
        return Memory(4 * trained, 4 * trained, moments * trained, ema, self._counted(bucket)[1] * rows, frozen)

    @lru_cache(maxsize=256)  # noqa: B019 - one predictor lives as long as the plan
    def _counted(self, bucket: Bucket) -> tuple[float, int]:
        frames = torch.zeros(1, 3, bucket.num_frames, bucket.height_px, bucket.width_px, device="meta")
        noise = torch.zeros(1, channels_of(self.vae.vae), *bucket.latent_shape, device="meta")
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self.vae(frames, noise)
        judged = _Judged(self.vae, self.critic, self.perceptual)
        passes = 4 if self.config.train.gradient_checkpointing else 3
        return passes * counter.get_total_flops(), saved_bytes(judged, frames, noise)


class _Judged(nn.Module):
    """What autograd sees of a VAE's step: the reconstruction, and the networks that judge it."""

    def __init__(self, vae: nn.Module, critic: nn.Module | None, perceptual: nn.Module | None):
        super().__init__()
        self.vae, self.critic, self.perceptual = vae, critic, perceptual

    def forward(self, frames: torch.Tensor, noise: torch.Tensor) -> tuple[Any, ...]:
        made, *rest = self.vae(frames, noise)
        judged = None if self.perceptual is None else self.perceptual(frames, made)
        return judged, made if self.critic is None else self.critic(made), *rest
