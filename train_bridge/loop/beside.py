"""What lies on a worker's device beside what it trains: the VAE, encoders of texts and images, and what they take."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from models.geometry import Bucket
from models.memory.cost import Memory
from models.memory.modes import free_bytes
from models.memory.vae_need import VaeNeed
from models.text.image_encoder import ImageNeed
from models.text.table import IMAGE_ENCODERS, TEXT_ENCODERS
from train_bridge.cache.build import ROWS_PER_PASS, TEXTS_PER_PASS
from train_bridge.config import TrainConfig
from train_bridge.parts import TINY_TEXT, Parts, empty_vae

SHARE_FOR_PASSES = 0.5
"""of a device's free memory that one pass of the cache may take: readers and the next pass want theirs"""
MOST_ON_CPU = 4 << 30
"""bytes of a pass in main memory, where larger passes are no faster"""


@dataclass(frozen=True, eq=False)
class Beside:
    """Frozen networks of a transformer's training.

    Attributes:
        vae: of latents.
        text_bytes: weights of the text encoder; 0 where a cache takes its place.
        text_working_bytes: activations of encoding one caption.
        encodes: latents (or conditions) are made for each batch while the transformer computes.
        at_once: rows are encoded together, not one after the other.
        shows: what is decoded between steps: the first batch or samples.
        image: of an encoder of start images, which encodes one row after the other, for each batch anew.
    """

    vae: VaeNeed
    text_bytes: int
    text_working_bytes: int
    encodes: bool
    at_once: bool
    shows: bool = True
    image: ImageNeed = ImageNeed(0, 0)

    def added_to(self, memory: Memory, bucket: Bucket, rows: int) -> Memory:
        """Add to what training itself takes at its peak; between steps there are no activations of training."""
        shape = bucket.num_frames, bucket.height_px, bucket.width_px
        working = 0
        if self.encodes:
            working = self.vae.encoding(*shape, rows=rows if self.at_once else 1) + rows * self.text_working_bytes
            working = max(working, self.image.working)
        between = self.vae.decoding(*shape) - memory.activations if self.shows else 0
        beside = self.vae.weights + self.text_bytes + self.image.weights + max(working, between, 0)
        return Memory(
            memory.weights, memory.gradients, memory.optimizer, memory.ema, memory.activations, memory.beside + beside
        )


def beside_transformer(config: TrainConfig, parts: Parts) -> Beside:
    """Find what lies beside a transformer that is trained."""
    size = 2 if config.train.precision == "bf16" else 4
    cached = config.train.cache != "none"
    text, working = (0, 0) if cached else text_need(config, parts)
    inpaint = config.kind.condition == "masks"
    image = image_need(parts, size)
    return Beside(VaeNeed(empty_vae(parts), size), text, working, not cached or inpaint, not cached, image=image)


def image_need(parts: Parts, size: int) -> ImageNeed:
    """Return what the encoder of start images takes; nothing where there is none, or a tiny one that the run builds."""
    if parts.image_encoder in (None, TINY_TEXT) or parts.image_kind is None:
        return ImageNeed(0, 0)
    return IMAGE_ENCODERS[parts.image_kind].need(Path(str(parts.image_encoder)), size)


def text_need(config: TrainConfig, parts: Parts) -> tuple[int, int]:
    """Return the bytes of the text encoder's weights, and of its activations for one caption."""
    size, kind = 2 if config.train.precision == "bf16" else 4, TEXT_ENCODERS[parts.text_kind]
    if parts.text_encoder in (None, TINY_TEXT):
        # Tens of thousands of weights, built in the run.
        return 0, config.model.text_tokens * max(kind.tiny_widths.values()) * 16 * size
    network = kind.empty(Path(str(parts.text_encoder)))
    return size * count(network), kind.working_bytes(network, config.model.text_tokens, size)


def count(network: nn.Module) -> int:
    """Count a network's parameters."""
    return sum(p.numel() for p in network.parameters())


def pass_bytes(vae: VaeNeed, free_bytes: int, *, on_gpu: bool) -> int:
    """Return how much one pass of the cache may take, beside the VAE's weights."""
    share = int((free_bytes - vae.weights) * SHARE_FOR_PASSES)
    return max(0, share if on_gpu else min(share, MOST_ON_CPU))


def rows_per_pass(vae: VaeNeed, most_bytes: int) -> Callable[[Bucket], int]:
    """Return how many rows of a bucket the VAE may encode at once: one, where even that is too much."""

    def rows(bucket: Bucket) -> int:
        one = vae.encoding(bucket.num_frames, bucket.height_px, bucket.width_px)
        return max(1, min(ROWS_PER_PASS, most_bytes // one))

    return rows


def cache_rows(config: TrainConfig, parts: Parts, device: torch.device) -> Callable[[Bucket], int]:
    """Return how many rows of a bucket the cache's passes may take at once on a device (or `train.memory_gb`)."""
    free = free_bytes(device) if config.train.memory_gb is None else int(config.train.memory_gb * 1e9)
    # Without a GPU there may be one encoder for every second CPU (`cache_ray`).
    encoders = 1 if device.type != "cpu" else max(1, (os.cpu_count() or 1) // 2)
    vae = VaeNeed(empty_vae(parts), 2 if config.train.precision == "bf16" and device.type != "cpu" else 4)
    return rows_per_pass(vae, pass_bytes(vae, free // encoders, on_gpu=device.type != "cpu"))


@dataclass(frozen=True)
class CacheNeed:
    """What the passes of the cache take, one kind after the other, before training begins.

    Attributes:
        text_bytes: text encoder with its activations.
        vae_bytes: the VAE with the largest pass.
    """

    text_bytes: int
    vae_bytes: int


def cache_need(config: TrainConfig, parts: Parts, buckets: Sequence[Bucket], device: torch.device) -> CacheNeed:
    """Predict the cache's passes for these buckets."""
    size = 2 if config.train.precision == "bf16" else 4
    vae, rows = VaeNeed(empty_vae(parts), size), cache_rows(config, parts, device)
    largest = max((vae.encoding(b.num_frames, b.height_px, b.width_px, rows(b)) for b in buckets), default=0)
    text, working = text_need(config, parts)
    return CacheNeed(text + TEXTS_PER_PASS * working, vae.weights + largest)
