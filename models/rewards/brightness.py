"""How bright the frames are: mean luma, 0..1."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from models.rewards.reward import Judge, luma


@dataclass(frozen=True)
class Brightness:
    """Mean luma of each frame."""

    best: float = 1.0
    scale: float = 1.0
    needs: tuple[str, ...] = ()
    min_frames: int = 1

    def load(self, device: torch.device, weights: str | None) -> Judge:
        """Return the judge, which needs nothing."""

        def judge(frames: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
            return luma(frames).mean((2, 3))

        return judge
