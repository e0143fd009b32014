"""What one micro-batch costs, by method, predicted without weights or data."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

import torch
from diffusers import AutoencoderKLMagvit
from torch.utils.flop_counter import FlopCounterMode

from models.architecture import Shape
from models.cost import Memory, saved_bytes, training_flops, training_memory
from models.live_memory import peak_bytes
from models.video_vae import TEMPORAL_STRIDE, TrainableVAE, encode_moments
from train_bridge.config import TrainConfig
from train_bridge.types import Bucket


class Predictor(Protocol):
    """Predicts for one bucket."""

    def flops(self, bucket: Bucket) -> float:
        """Give forward and backward FLOPs of one row."""
        ...

    def memory(self, bucket: Bucket, rows: int) -> Memory:
        """Give one device's peak for a micro-batch."""
        ...


@dataclass(frozen=True)
class TransformerPredictor:
    """By formula, from the transformer's shape.

    Attributes:
        config: the resolved config.
        shape: the transformer's.
        trained_parameters: those with gradients.
    """

    config: TrainConfig
    shape: Shape
    trained_parameters: int

    def flops(self, bucket: Bucket) -> float:
        """Give forward and backward FLOPs of one row."""
        checkpointing = self.config.train.gradient_checkpointing
        return training_flops(self.shape, bucket.tokens, self.config.model.text_tokens, checkpointing)

    def memory(self, bucket: Bucket, rows: int) -> Memory:
        """Give one device's peak for a micro-batch."""
        train, launch = self.config.train, self.config.launch
        return training_memory(
            self.shape,
            bucket.tokens,
            self.config.model.text_tokens,
            rows,
            self.trained_parameters,
            checkpointing=train.gradient_checkpointing,
            half=train.precision == "bf16",
            eight_bit=train.optimizer == "adamw_8bit",
            ema=train.ema is not None,
            shards=max(1, launch.workers) if launch.sharding == "fsdp" else 1,
        )


@dataclass(frozen=True, eq=False)
class InpaintPredictor:
    """The transformer by formula, and what encoding each row's masked video adds, by its shapes on the meta device.

    Attributes:
        transformer: trained.
        vae: frozen, on the meta device; it encodes one row after the other while the transformer computes.
    """

    transformer: TransformerPredictor
    vae: AutoencoderKLMagvit

    def flops(self, bucket: Bucket) -> float:
        """Give forward and backward FLOPs of one row, and those of encoding it."""
        return self.transformer.flops(bucket) + self._encoding(bucket)[0]

    def memory(self, bucket: Bucket, rows: int) -> Memory:
        """Give one device's peak for a micro-batch."""
        found, size = self.transformer.memory(bucket, rows), self._size()
        weights = size * sum(p.numel() for p in self.vae.parameters())
        return replace(
            found, weights=found.weights + weights, activations=found.activations + self._encoding(bucket)[1]
        )

    def _size(self) -> int:
        return 2 if self.transformer.config.train.precision == "bf16" else 4

    def _encoding(self, bucket: Bucket) -> tuple[float, int]:
        # Frames are encoded four at a time, each four at the same cost.
        counted = min(bucket.num_frames, 1 + 2 * TEMPORAL_STRIDE)
        flops, peak = self._counted(counted, bucket.height_px, bucket.width_px)
        if counted < bucket.num_frames:
            one = flops - self._counted(counted - TEMPORAL_STRIDE, bucket.height_px, bucket.width_px)[0]
            flops += one * ((bucket.num_frames - counted) // TEMPORAL_STRIDE)
        return flops, peak * self._size() // 4

    @lru_cache(maxsize=256)  # noqa: B019 - one predictor lives as long as the plan
    def _counted(self, num_frames: int, height_px: int, width_px: int) -> tuple[float, int]:
        frames = torch.zeros(1, 3, num_frames, height_px, width_px, device="meta")
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            peak = peak_bytes(lambda: encode_moments(self.vae, frames))
        return float(counter.get_total_flops()), peak


@dataclass(frozen=True, eq=False)
class VaePredictor:
    """By running the network's shapes on the meta device, where nothing is computed.

    Attributes:
        config: the resolved config.
        vae: on the meta device.
    """

    config: TrainConfig
    vae: TrainableVAE

    def flops(self, bucket: Bucket) -> float:
        """Give forward and backward FLOPs of one row."""
        return self._counted(bucket)[0]

    def memory(self, bucket: Bucket, rows: int) -> Memory:
        """Give one device's peak for a micro-batch."""
        parameters = sum(p.numel() for p in self.vae.parameters())
        activations = self._counted(bucket)[1] * rows
        ema = 4 * parameters if self.config.train.ema is not None else 0
        return Memory(4 * parameters, 4 * parameters, 8 * parameters, ema, activations)

    @lru_cache(maxsize=256)  # noqa: B019 - one predictor lives as long as the plan
    def _counted(self, bucket: Bucket) -> tuple[float, int]:
        frames = torch.zeros(1, 3, bucket.num_frames, bucket.height_px, bucket.width_px, device="meta")
        noise = torch.zeros(1, self.vae.vae.config.latent_channels, *bucket.latent_shape, device="meta")
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self.vae(frames, noise)
        passes = 4 if self.config.train.gradient_checkpointing else 3
        return passes * counter.get_total_flops(), saved_bytes(self.vae, frames, noise)
