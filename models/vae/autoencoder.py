"""What the trainer, the cache and the sampler need to know of a video autoencoder."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from models.geometry import LatentGrid


@dataclass(frozen=True)
class Scaling:
    """How unscaled latents become those of the transformer: (latents − shift) · factor.

    Attributes:
        factor: such as 0.18215.
        shift: 0 for every EasyAnimate.
    """

    factor: float
    shift: float = 0.0

    def scaled(self, latents: torch.Tensor) -> torch.Tensor:
        """Return what the transformer sees."""
        return (latents - self.shift if self.shift else latents) * self.factor

    def unscaled(self, latents: torch.Tensor) -> torch.Tensor:
        """Return what the VAE decodes; the inverse of `scaled`."""
        return latents / self.factor + self.shift if self.shift else latents / self.factor


def signed(frames: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Bring pixels of uint8 to −1..1; others are there already."""
    return frames.to(dtype) / 127.5 - 1.0 if frames.dtype == torch.uint8 else frames


class VideoAutoencoder(Protocol):
    """One kind of autoencoder: another one is a file with such an object and an entry in AUTOENCODERS.

    Its networks are modules with diffusers' `ModelMixin` and `ConfigMixin`: they have `config`, `device`, `dtype` and
    `save_pretrained`. Those that can work in tiles have `use_tiling` and `enable_tiling()`. They run on the meta device
    (`models.memory.vae_need` walks them there), and keep no state between calls, so that training may recompute.
    """

    @property
    def name(self) -> str:
        """What families call it, and people."""
        ...

    @property
    def class_name(self) -> str:
        """`_class_name` in the published `config.json`; kinds may share one."""
        ...

    @property
    def presets(self) -> Mapping[str, Mapping[str, Any]]:
        """Configurations by name; no two kinds use one name."""
        ...

    @property
    def fields(self) -> Collection[str]:
        """Names of the fields of a `config.json` that are known; one that is not is named in a line and passed over."""
        ...

    def reads(self, config: Mapping[str, Any]) -> bool:
        """Return whether a config of this class name is of this kind, and not of another that shares the name."""
        ...

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """Build with random first weights (from torch's global generator).

        Args:
            config: content of a `config.json`, or a preset.

        Raises:
            ModelError: unknown keys, values that do not fit together, or compression other than the grid's.
        """
        ...

    def load(self, home: Path, config: Mapping[str, Any], dtype: torch.dtype) -> nn.Module:
        """Load from a folder that holds `config.json` (already read) and weights.

        Raises:
            ModelError: weights that are not there, or do not fit the config.
        """
        ...

    def grid(self, config: Mapping[str, Any]) -> LatentGrid:
        """Return the compression, and with it the valid numbers of frames; of an empty config, as published."""
        ...

    def channels(self, config: Mapping[str, Any]) -> int:
        """Return the channels of a latent."""
        ...

    def scaling(self, config: Mapping[str, Any]) -> Scaling:
        """Return how latents are scaled for the transformer."""
        ...

    def encode(
        self, network: Any, frames: torch.Tensor, frames_at_once: int | None, *, checkpointing: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode frames of a valid shape to the posterior's mean and log variance, unscaled.

        Args:
            network: what `build` or `load` gave; it is not changed.
            frames: (B, 3, T, H, W) in −1..1; or uint8, brought there piece by piece (`signed`).
            checkpointing: recompute activations in the backward pass.
            frames_at_once: bound on memory; the result does not depend on it. None: the whole sequence where
                gradients are wanted, else as few as can be.

        Returns:
            Mean and log variance (B, C, t, h, w); the caller clamps the latter.

        Raises:
            ModelError: `frames_at_once` that cannot be.
        """
        ...

    def decode(
        self, network: Any, latents: torch.Tensor, latents_at_once: int | None, *, checkpointing: bool
    ) -> Iterator[torch.Tensor]:
        """Yield the frames of unscaled latents in order, piece by piece, each about −1..1 but not clamped.

        Whoever takes the pieces one by one has a peak that does not grow with the video's length. In tiles it is one
        piece.

        Args:
            network: as for `encode`.
            latents: (B, C, t, h, w).
            checkpointing: as for `encode`; then there is one piece.
            latents_at_once: bound on memory; the result does not depend on it. None: as for `encode`.

        Yields:
            (B, 3, n, H, W).
        """
        ...

    def tile_px(self, network: Any) -> tuple[int, int] | None:
        """Return height and width of a tile in pixels; None for networks without tiles."""
        ...

    def last_layer(self, network: Any) -> nn.Parameter:
        """Return the weights of the decoder's last layer, which balances an adversarial loss."""
        ...
