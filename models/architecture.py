"""What the trainer and the sampler need to know of a video diffusion transformer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn


@dataclass(frozen=True)
class Shape:
    """The numbers that cost depends on.

    Attributes:
        width: channels of a token (d).
        layers: transformer blocks (L).
        mlp_ratio: hidden width of the MLP over d.
        patch: latent pixels per token side.
        in_channels: latent channels in, with condition channels.
        out_channels: latent channels out.
        text_dim: channels of a text embedding.
        parameters: how many in all.
    """

    width: int
    layers: int
    mlp_ratio: float
    patch: int
    in_channels: int
    out_channels: int
    text_dim: int
    parameters: int


class Architecture(Protocol):
    """One family of transformers: another one is a file with such an object and an entry in ARCHITECTURES."""

    @property
    def class_name(self) -> str:
        """`_class_name` in the family's published `config.json`."""
        ...

    @property
    def presets(self) -> Mapping[str, Mapping[str, Any]]:
        """Configurations by name."""
        ...

    @property
    def lora_targets(self) -> Sequence[str]:
        """Names of the linear layers that LoRA adapts, as peft's `target_modules`."""
        ...

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """Build with random weights (from torch's global generator)."""
        ...

    def load(self, folder: Path, dtype: torch.dtype | None = None) -> nn.Module:
        """Load weights in diffusers layout: `config.json` and safetensors."""
        ...

    def shape(self, model: nn.Module) -> Shape:
        """Give the numbers that cost depends on."""
        ...

    def predict(
        self,
        model: nn.Module,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        text: torch.Tensor,
        condition: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Run the network.

        Args:
            model: what `build` or `load` gave, possibly wrapped for data parallelism.
            latents: noisy latents (B, C, F, H, W).
            timesteps: (B,), 0..1000.
            text: text embeddings (B, L, D).
            condition: mask and masked video (B, 1+C, F, H, W) from `conditions.condition_latents`, for models that
                have channels for it; it follows the latents on the channel axis.

        Returns:
            Prediction (B, C_out, F, H, W).
        """
        ...

    def widen(self, model: nn.Module) -> None:
        """Give a text-to-video model condition channels (C + 1 + C in all), in place.

        Their weights are zero: until they are trained it sees nothing of the condition and predicts what it did.
        """
        ...

    def set_reference_noise(self, model: nn.Module, noisy: bool) -> None:
        """Note in a model's configuration whether known pixels bear noise (`conditions.SAMPLING_NOISE`)."""
        ...

    def unused_parameters(self, model: nn.Module) -> list[str]:
        """Name parameters that no output depends on, which data parallelism must know as frozen."""
        ...
