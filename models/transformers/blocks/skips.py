"""Long skip connections (U-ViT, arXiv 2209.12152): a block's output joins the input of its mirror image."""

import torch
from torch import nn

from models.transformers.blocks.zero import zero


def skip_count(layers: int) -> int:
    """Return how many pairs of blocks are connected: 13 of 28 layers.

    The output of block j, from 0 to the count, is added before block layers − 1 − j.
    """
    return max(0, (layers + 1) // 2 - 1)


def skip_layers(layers: int, width: int) -> nn.ModuleList:
    """Build the linear layers of the connections, all zero: the first one stands before block layers − count."""
    return nn.ModuleList(zero(nn.Linear(width, width)) for _ in range(skip_count(layers)))


class Skips:
    """The outputs that wait for their mirror images during one pass through the blocks."""

    def __init__(self, connections: nn.ModuleList, layers: int):
        """Begin a pass; without connections nothing is kept."""
        self._connections, self._first_late = connections, layers - len(connections)
        self._waiting: list[torch.Tensor] = []

    def before(self, number: int, hidden: torch.Tensor) -> torch.Tensor:
        """Return the input of a block: with the output of its mirror image, where the two are connected."""
        if number < self._first_late:
            return hidden
        joined: torch.Tensor = hidden + self._connections[number - self._first_late](self._waiting.pop())
        return joined

    def after(self, number: int, hidden: torch.Tensor) -> None:
        """Keep the output of a block, where its mirror image wants it."""
        if number < len(self._connections):
            self._waiting.append(hidden)
