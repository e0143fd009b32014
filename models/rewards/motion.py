"""How much changes from frame to frame: a differentiable stand-in for optical flow, and a guard against stillness.

The operator `motion` of curation measures flow, whose search has no gradient. Change of luma grows with motion where
there is texture; noise and flicker raise it, too, which is why runs log it beside the other scorers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from models.rewards.reward import Judge, luma

GREY = 100.0
"""percent of the range from black to white"""


def change(frames: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute change of luma between neighbouring frames, in percent of its range: (B, T−1)."""
    gray = luma(frames)
    return GREY * (gray[:, 1:] - gray[:, :-1]).abs().mean((2, 3))


@dataclass(frozen=True)
class Motion:
    """Change between neighbouring frames, in percent of the range of luma."""

    best: float = 10.0
    scale: float = 0.1
    needs: tuple[str, ...] = ()
    min_frames: int = 2

    def load(self, device: torch.device, weights: str | None) -> Judge:
        """Return the judge, which needs nothing."""

        def judge(frames: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
            return change(frames)

        return judge


@dataclass(frozen=True)
class Stillness:
    """A penalty for videos that freeze: min(change / floor, 1) − 1, which is 0 from `floor` on and −1 for a still.

    Beside other rewards it keeps them from being won by standing still, which is how they are usually won.
    """

    floor: float = 1.0
    best: float = 0.0
    scale: float = 1.0
    needs: tuple[str, ...] = ()
    min_frames: int = 2

    def load(self, device: torch.device, weights: str | None) -> Judge:
        """Return the judge, which needs nothing."""

        def judge(frames: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
            return (change(frames).mean(1, keepdim=True) / self.floor).clamp(max=1.0) - 1.0

        return judge
