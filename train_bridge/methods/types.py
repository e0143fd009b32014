"""What a training method is, and the batches that it is given."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

Networks = Mapping[str, nn.Module]


@dataclass(frozen=True)
class Batch:
    """One micro-batch on its device: either latents and texts (with a condition), or frames.

    Attributes:
        seeds: one for each row, from which all its noise is drawn, so that it is the same at any world size.
        weights: (B,) float; 0 for fillers.
        mean: VAE posterior (B, C, f, h, w), unscaled.
        logvar: likewise.
        text: (B, L, D).
        frames: uint8 (B, T, H, W, 3).
        condition: (B, 1+C, f, h, w), scaled (`models.conditions`); None for models without condition channels.
    """

    seeds: tuple[int, ...]
    weights: torch.Tensor
    mean: torch.Tensor | None = None
    logvar: torch.Tensor | None = None
    text: torch.Tensor | None = None
    frames: torch.Tensor | None = None
    condition: torch.Tensor | None = None


class Method(Protocol):
    """One way to train: its networks and their losses. The trainer does everything else."""

    @property
    def main(self) -> str:
        """The network that the run is about, which has a running mean and is exported."""
        ...

    def networks(self) -> dict[str, nn.Module]:
        """Give the networks with parameters to train, by name."""
        ...

    def losses(self, networks: Networks, batch: Batch, step: int) -> Iterator[tuple[str, torch.Tensor]]:
        """Give, one after the other, a network's name and its loss (B,) by row.

        The trainer runs each backward before it asks for the next.

        Args:
            networks: those of `networks()`, wrapped for parallel training.
            batch: the rows.
            step: the optimizer step, from 0.
        """
        ...

    def validation_losses(self, networks: Networks, batch: Batch) -> dict[str, torch.Tensor]:
        """Give losses (B,) by name on held-out rows; noise comes from the rows' seeds."""
        ...


def draw_normal(shape: Sequence[int], generators: Sequence[torch.Generator], device: torch.device) -> torch.Tensor:
    """Draw one Gaussian tensor for each generator, on the CPU, so that every device gets the same."""
    return torch.stack([torch.randn(*shape, generator=g) for g in generators]).to(device)


def generators_of(batch: Batch) -> list[torch.Generator]:
    """Give each row's random generator."""
    return [torch.Generator().manual_seed(seed) for seed in batch.seeds]
