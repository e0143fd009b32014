"""A small convolutional network of fixed random weights: an arbitrary reward, to try training with."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from models.rewards.reward import Judge

SEED = 20_250_301


@dataclass(frozen=True)
class RandomCnn:
    """Mean answer of a frozen random network to each frame, squashed to −1..1."""

    best: float = 1.0
    scale: float = 1.0
    needs: tuple[str, ...] = ()
    min_frames: int = 1

    def load(self, device: torch.device, weights: str | None) -> Judge:
        """Return the judge; its weights follow from a fixed seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            network = nn.Sequential(
                nn.Conv2d(3, 8, 5, stride=2, padding=2), nn.SiLU(),
                nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.SiLU(),
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 1),
            )  # fmt: skip
        network = network.to(device).requires_grad_(False).eval()

        def judge(frames: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
            pictures = frames.transpose(1, 2).flatten(0, 1).float()
            return torch.tanh(4 * network(2 * pictures - 1)).view(frames.shape[0], frames.shape[2])

        return judge
