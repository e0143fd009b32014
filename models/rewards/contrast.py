"""How much light and dark differ: standard deviation of luma within each frame."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from models.rewards.reward import Judge, luma

TINY = 1e-8


@dataclass(frozen=True)
class Contrast:
    """Standard deviation of luma of each frame, 0..0.5."""

    best: float = 0.5
    scale: float = 1.0
    needs: tuple[str, ...] = ()
    min_frames: int = 1

    def load(self, device: torch.device, weights: str | None) -> Judge:
        """Return the judge, which needs nothing."""

        def judge(frames: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
            # The root of 0 has no gradient.
            return (luma(frames).var((2, 3), correction=0) + TINY).sqrt()

        return judge
