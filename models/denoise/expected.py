"""What a network expects the clean latents to be, in the middle of sampling: for previews."""

from typing import Any

import torch

from models.denoise.objectives import objective_of

LEAST = 1e-4
"""under which a share of data is taken for it: at pure noise an epsilon says nothing about the data"""


def expected_clean(
    scheduler: Any, seen: torch.Tensor, prediction: torch.Tensor, timestep: torch.Tensor
) -> torch.Tensor:
    """Return the clean latents that a prediction implies.

    Flow: x0 = x − σ·v (arXiv 2210.02747); epsilon: x0 = (x − √(1−ᾱ)·ε)/√ᾱ (arXiv 2006.11239); v: x0 = √ᾱ·x − √(1−ᾱ)·v
    (arXiv 2202.00512).

    Args:
        scheduler: whose timesteps are set.
        seen: noisy latents as the network was given them (B, C, F, H, W).
        prediction: of the network, of the same shape, guided or not.
        timestep: the noise level, 0..number of training timesteps.
    """
    kind = objective_of({**scheduler.config, "_class_name": type(scheduler).__name__})
    most = int(scheduler.config.num_train_timesteps)
    x, said = seen.float(), prediction.float()
    if kind == "flow":
        return x - float(timestep) / most * said
    kept = float(scheduler.alphas_cumprod[min(most - 1, max(0, round(float(timestep))))])
    data, noise = max(LEAST, kept) ** 0.5, (1 - kept) ** 0.5
    return (x - noise * said) / data if kind == "epsilon" else data * x - noise * said
