"""The optimizer that a training config asks for."""

from typing import Any

import torch
from torch import nn

from core.errors import UserError
from train_bridge.config import TrainConfig


def make_optimizer(parameters: list[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    """Make the optimizer that the config asks for; norms and biases are not decayed.

    Raises:
        UserError: 8-bit Adam without its library.
    """
    train = config.train
    settings: dict[str, Any] = {"lr": train.learning_rate, "betas": train.betas}
    # Norms and biases have one dimension. To shrink them does not make a network simpler, it moves what it passes on.
    groups = [
        {"params": some, "weight_decay": decay}
        for some, decay in (
            ([p for p in parameters if p.ndim > 1], train.weight_decay),
            ([p for p in parameters if p.ndim <= 1], 0.0),
        )
        if some
    ]
    if train.optimizer == "adamw_8bit":
        try:
            import bitsandbytes
        except ImportError:
            raise UserError(
                "needs `pip install bitsandbytes`", field="train.optimizer", value="adamw_8bit", fix="or set adamw"
            ) from None
        optimizer: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(groups, **settings)
        return optimizer
    return torch.optim.AdamW(groups, **settings)
