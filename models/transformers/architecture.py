"""What the trainer and the sampler need to know of a video diffusion transformer."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from models.transformers.conditioning import Conditioning
from models.transformers.defaults import FamilyDefaults


@dataclass(frozen=True)
class Shape:
    """The numbers that cost depends on.

    Attributes:
        width: channels of a token (d).
        layers: transformer blocks (L).
        mlp_ratio: hidden width of the MLP over d.
        patch: latent pixels per token side.
        in_channels: latent channels in, with condition channels.
        out_channels: latent channels out, without those of a learned variance.
        text_dim: channels of a text embedding.
        parameters: how many in all.
        image_dim: channels of a condition image's tokens; 0: it sees none.
    """

    width: int
    layers: int
    mlp_ratio: float
    patch: int
    in_channels: int
    out_channels: int
    text_dim: int
    parameters: int
    image_dim: int = 0


class Architecture(Protocol):
    """One family of transformers: another one is a file with such an object and an entry in ARCHITECTURES."""

    @property
    def class_name(self) -> str:
        """`_class_name` in the family's published `config.json`; families may share one."""
        ...

    def takes(self, config: Mapping[str, Any]) -> bool:
        """Return whether a config of this class name is of this family, and not of another that shares the name."""
        ...

    def defaults(self, config: Mapping[str, Any]) -> FamilyDefaults:
        """Return what a model of this config is trained and sampled with."""
        ...

    @property
    def presets(self) -> Mapping[str, Mapping[str, Any]]:
        """Configurations by name."""
        ...

    @property
    def fields(self) -> Collection[str]:
        """Names of the arguments of `build`, all of which have defaults; a published config may have others."""
        ...

    @property
    def lora_targets(self) -> Sequence[str]:
        """Last parts of the names of the linear layers that LoRA adapts; `*` stands for anything."""
        ...

    @property
    def image_lora_excludes(self) -> Sequence[str]:
        """Parts of the names of layers that a LoRA of images alone leaves as they are: those that look along time."""
        ...

    @property
    def rate_fps(self) -> float:
        """Frames a second of the videos that the family's published weights were trained with."""
        ...

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """Build with random weights (from torch's global generator)."""
        ...

    def load(self, folder: Path, dtype: torch.dtype | None = None) -> nn.Module:
        """Load weights in diffusers layout: `config.json` and safetensors, plain or of a variant such as fp16."""
        ...

    def published(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return a model's weights under the names that the family is published with; `load` takes those as well."""
        ...

    def shape(self, model: nn.Module) -> Shape:
        """Return the numbers that cost depends on."""
        ...

    def predict(
        self,
        model: nn.Module,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        conditioning: Conditioning,
    ) -> torch.Tensor:
        """Run the network.

        Args:
            model: what `build` or `load` gave, possibly wrapped for data parallelism.
            latents: noisy latents (B, C, F, H, W).
            timesteps: (B,), 0..1000.
            conditioning: B rows of the parts that the family uses; others are passed over. Its latents are there where
                the model has channels for them.

        Returns:
            Prediction (B, C, F, H, W), or (B, 2·C, F, H, W) with a learned variance behind the mean.
        """
        ...

    def widen(self, model: nn.Module, condition_channels: int | None = None) -> None:
        """Add condition channels to a text-to-video model, in place.

        Their weights are zero: until they are trained it sees nothing of the condition and predicts what it did.

        Args:
            model: with C channels in.
            condition_channels: how many; None: those of an inpaint model, 1 + C.
        """
        ...

    def set_reference_noise(self, model: nn.Module, *, noisy: bool) -> None:
        """Note in a model's configuration whether known pixels bear noise (`conditions.SAMPLING_NOISE`)."""
        ...

    def unused_parameters(self, model: nn.Module) -> list[str]:
        """Name parameters that no output depends on, which data parallelism must know as frozen."""
        ...
