"""What a reward is: a score of frames that training can follow."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

Judge = Callable[[torch.Tensor, Sequence[str]], torch.Tensor]
"""frames (B, 3, T, H, W) in 0..1, and a prompt of each → rewards (B, N), N of each video: one a frame, or one in all"""


class Reward(Protocol):
    """One kind of reward: another one is a file with such an object and an entry in REWARDS.

    Its judge computes in torch alone, so that the gradient of what it gives reaches the frames.
    """

    @property
    def best(self) -> float:
        """The value that training pulls towards: the loss is mean |reward − best| · scale."""
        ...

    @property
    def scale(self) -> float:
        """Factor on the loss, which brings rewards of other units to like sizes."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of `models.weights` that it loads; none for those that are computed."""
        ...

    @property
    def min_frames(self) -> int:
        """Frames that it needs at least: 2 where it looks at change."""
        ...

    def load(self, device: torch.device, weights: str | None) -> Judge:
        """Return what judges frames, its networks frozen.

        Args:
            device: where frames are.
            weights: the weights folder; None: that of `SELECTS_WEIGHTS`, or the hub's cache.

        Raises:
            ModelError: weights that are not there, with file, size and the command that fetches them.
        """
        ...


def luma(frames: torch.Tensor) -> torch.Tensor:
    """Return BT.601 luma (B, T, H, W) in 0..1 of frames (B, 3, T, H, W)."""
    red, green, blue = frames.unbind(1)
    return 0.299 * red + 0.587 * green + 0.114 * blue
