"""What a training method is, and the batches that it is given."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from models.transformers.conditioning import Conditioning

Networks = Mapping[str, nn.Module]


@dataclass(frozen=True)
class Batch:
    """One micro-batch on its device: either latents and their conditioning, or frames.

    Attributes:
        seeds: one for each row, from which all its noise is drawn, so that it is the same at any world size.
        weights: (B,) float; 0 for fillers.
        mean: VAE posterior (B, C, f, h, w), unscaled.
        logvar: likewise.
        frames: uint8 (B, T, H, W, 3).
        conditioning: the text, and what else the transformer sees (`models.transformers.conditioning`); its latents
            are scaled.
        levels: each row's tilt, lowest and highest timestep (B, 3) float64, on the CPU; None: noise levels are drawn
            as the objective says.
        prompts: the texts, for methods that judge by them.
    """

    seeds: tuple[int, ...]
    weights: torch.Tensor
    mean: torch.Tensor | None = None
    logvar: torch.Tensor | None = None
    frames: torch.Tensor | None = None
    conditioning: Conditioning | None = None
    levels: torch.Tensor | None = None
    prompts: tuple[str, ...] = ()


class Method(Protocol):
    """One way to train: its networks and their losses. The trainer does everything else."""

    @property
    def main(self) -> str:
        """The network that the run is about, which has a running mean and is exported."""
        ...

    def networks(self) -> dict[str, nn.Module]:
        """Return the networks with parameters to train, by name."""
        ...

    def losses(self, networks: Networks, batch: Batch, step: int) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield, one after the other, a network's name and its loss (B,) by row.

        The trainer runs each backward before it asks for the next.

        Args:
            networks: those of `networks()`, wrapped for parallel training.
            batch: the rows.
            step: the optimizer step, from 0.
        """
        ...

    def validation_losses(self, networks: Networks, batch: Batch) -> dict[str, torch.Tensor]:
        """Return losses (B,) by name on held-out rows; noise comes from the rows' seeds."""
        ...


def draw_normal(shape: Sequence[int], generators: Sequence[torch.Generator], device: torch.device) -> torch.Tensor:
    """Draw one Gaussian tensor for each generator, on the CPU, so that every device gets the same."""
    return torch.stack([torch.randn(*shape, generator=g) for g in generators]).to(device)


def generators_of(batch: Batch) -> list[torch.Generator]:
    """Yield each row's random generator."""
    return [torch.Generator().manual_seed(seed) for seed in batch.seeds]
